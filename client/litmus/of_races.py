"""Litmus tests of memory models on files: several mounts at the same time, many times. Pure.

x and y are files instead of variables in memory; a mount is what a processor is there.
"""

from .classify import by, disagreement, table
from .model import Litmus, Outcome
from .promises import promised
from .steps import (
    A,
    AddOne,
    Append,
    B,
    C,
    Close,
    CountRecords,
    D,
    File,
    Lock,
    Number,
    Open,
    Peek,
    Race,
    Read,
    Step,
    Unlock,
    Write,
)

RECORDS = 20
_XY = (File("x"), File("y"))
_BOTH_OPEN = "Each mount has x and y open, and has read both."
_X_OPEN = "Each mount has the file open."


def _opened(*mounts: int) -> tuple[Step, ...]:
    """Each has x and y open, and has read both."""
    return tuple(
        step
        for who in mounts
        for name in ("x", "y")
        for step in (Step(who, Open(name, to_write=True)), Step(who, Read(name)))
    )


STORE_BUFFERING = Litmus(
    name="store-buffering",
    question="A writes x, then reads y; B writes y, then reads x. Can both miss the other's write?",
    source="Lamport 1979; Adve & Gharachorloo 1996 (store buffering, Dekker's algorithm)",
    mounts=2,
    files=_XY,
    before=_opened(A, B),
    before_words=_BOTH_OPEN,
    program=(
        Race(
            (
                Step(A, Write("x", "new")),
                Step(A, Read("y"), "r1"),
                Step(B, Write("y", "new")),
                Step(B, Read("x"), "r2"),
            )
        ),
    ),
    outcomes=(
        Outcome("both see", "each sees the other's write", {"r1": "new", "r2": "new"}),
        Outcome("one sees", "one of them sees the other's write", {"r1": "new", "r2": "old"}),
        Outcome("none sees", "both miss the other's write", {"r1": "old", "r2": "old"}),
    ),
    classify=table(
        ("r1", "r2"),
        {
            ("new", "new"): "both see",
            ("new", "old"): "one sees",
            ("old", "new"): "one sees",
            ("old", "old"): "none sees",
        },
    ),
    promises=promised(
        uncached=("both see | one sees", "write"),
        nfs=("both see | one sees | none sees", "read"),
        strict=("both see | one sees", "order"),
        afs=("none sees", "read"),
    ),
    repeats=12,
)

_PASSED = (
    Outcome("both", "B sees the flag and the data", {"flag": "new", "data": "new"}),
    Outcome("too early", "B does not see the flag yet", {"flag": "old", "data": "old"}),
    Outcome("flag only", "B sees the flag, but not the data", {"flag": "new", "data": "old"}),
)
_PASSING = table(
    ("flag", "data"),
    {
        ("new", "new"): "both",
        ("old", "old"): "too early",
        ("old", "new"): "too early",
        ("new", "old"): "flag only",
    },
)

MESSAGE_PASSING = Litmus(
    name="message-passing",
    question="A writes data (x), then a flag (y), in open files. Who sees the flag: also the data?",
    source="Lamport 1979; Adve & Gharachorloo 1996 (message passing)",
    mounts=2,
    files=_XY,
    before=_opened(A, B),
    before_words=_BOTH_OPEN,
    program=(
        Race(
            (
                Step(A, Write("x", "new")),
                Step(A, Write("y", "new")),
                Step(B, Read("y"), "flag"),
                Step(B, Read("x"), "data"),
            )
        ),
    ),
    outcomes=_PASSED,
    classify=_PASSING,
    promises=promised(
        uncached=("both | too early", "write"),
        nfs=("both | too early | flag only", "read"),
        strict=("both | too early", "order"),
        afs=("too early", "read"),
    ),
    repeats=12,
)

MESSAGE_PASSING_CLOSED = Litmus(
    name="message-passing-closed",
    question="The same, but A closes each file, and B opens each before reading. Is it safe now?",
    source="RFC 7530 section 10.3.1 (close-to-open); Adve & Gharachorloo 1996",
    mounts=2,
    files=_XY,
    before=(
        *(Step(B, Peek(name)) for name in ("x", "y")),
        *(Step(A, Open(name, to_write=True)) for name in ("x", "y")),
    ),
    before_words="B has read both files once; A has both open.",
    program=(
        Race(
            (
                Step(A, Write("x", "new")),
                Step(A, Close("x")),
                Step(A, Write("y", "new")),
                Step(A, Close("y")),
                Step(B, Peek("y"), "flag"),
                Step(B, Peek("x"), "data"),
            )
        ),
    ),
    outcomes=_PASSED,
    classify=_PASSING,
    promises=promised(
        uncached=("both | too early", "write"),
        nfs=("both | too early", "close"),
        strict=("both | too early", "order"),
        afs=("both | too early", "close"),
    ),
    repeats=12,
)

IRIW = Litmus(
    name="iriw",
    question="A writes x, B writes y. Can C and D disagree about which came first?",
    source="Boehm & Adve 2008 (IRIW); Adve & Gharachorloo 1996 (write atomicity)",
    mounts=4,
    files=_XY,
    before=_opened(A, B, C, D),
    before_words=_BOTH_OPEN,
    program=(
        Race(
            (
                Step(A, Write("x", "new")),
                Step(B, Write("y", "new")),
                Step(C, Read("x"), "r1"),
                Step(C, Read("y"), "r2"),
                Step(D, Read("y"), "r3"),
                Step(D, Read("x"), "r4"),
            )
        ),
    ),
    outcomes=(
        Outcome(
            "agree",
            "C and D can be right about one order",
            {"r1": "new", "r2": "old", "r3": "new", "r4": "new"},
        ),
        Outcome(
            "nothing seen",
            "C and D see neither write",
            dict.fromkeys(("r1", "r2", "r3", "r4"), "old"),
        ),
        Outcome(
            "disagree",
            "C sees x first, D sees y first",
            {"r1": "new", "r2": "old", "r3": "new", "r4": "old"},
        ),
    ),
    classify=disagreement,
    promises=promised(
        uncached=("agree | nothing seen | disagree", "read"),
        nfs=("agree | nothing seen | disagree", "read"),
        strict=("agree | nothing seen", "order"),
        afs=("nothing seen", "read"),
    ),
    repeats=12,
)

APPENDING = Litmus(
    name="append",
    question=f"A and B append {RECORDS} records each to one file at the same time. Are all there?",
    source="POSIX write(2) with O_APPEND; open(2), under O_APPEND (NFS does not)",
    mounts=2,
    files=(File("x", blocks=0),),
    before=tuple(Step(who, Open("x", to_append=True)) for who in (A, B)),
    before_words=_X_OPEN,
    program=(
        Race(
            (
                Step(A, Append("x", RECORDS)),
                Step(A, Close("x")),
                Step(B, Append("x", RECORDS)),
                Step(B, Close("x")),
            )
        ),
        Step(A, CountRecords("x"), "r"),
    ),
    outcomes=(
        Outcome("all there", "every record is there, whole", {"r": f"{2 * RECORDS} records"}),
        Outcome("one's lost", "only the records of one are there", {"r": f"{RECORDS} records"}),
        Outcome("torn", "records have overwritten each other", {"r": "torn"}),
    ),
    classify=by(
        "r",
        {f"{2 * RECORDS} records": "all there", f"{RECORDS} records": "one's lost", "torn": "torn"},
    ),
    promises=promised(
        uncached=("all there", "append"),
        nfs=("all there", "append"),
        strict=("all there", "append"),
        afs=("all there | one's lost", "append"),
    ),
    repeats=2,
)

_COUNTED = (
    Outcome("both count", "the number is 2", {"r": "2"}),
    Outcome("one is lost", "the number is 1: an update is lost", {"r": "1"}),
)
_COUNTING = by("r", {"2": "both count", "1": "one is lost"})

LOST_UPDATE = Litmus(
    name="lost-update",
    question="A and B each read a number and write it back plus one, without a lock. Is it 2?",
    source="Lamport 1979; POSIX has no atomic read-modify-write of a file",
    mounts=2,
    files=(File("x", blocks=0),),
    before=tuple(Step(who, Open("x", to_write=True)) for who in (A, B)),
    before_words=_X_OPEN,
    program=(
        Race(
            tuple(
                step
                for who in (A, B)
                for step in (Step(who, AddOne("x"), f"by {'AB'[who]}"), Step(who, Close("x")))
            )
        ),
        Step(A, Number("x"), "r"),
    ),
    outcomes=_COUNTED,
    classify=_COUNTING,
    promises=promised(
        **dict.fromkeys(
            ("uncached", "nfs", "strict", "afs"), ("both count | one is lost", "no lock")
        )
    ),
    repeats=6,
)

LOCKED_UPDATE = Litmus(
    name="locked-update",
    question="The same, but each locks the file first. Is it 2 now?",
    source="POSIX locks; Gray & Cheriton 1989",
    mounts=2,
    files=(File("x", blocks=0),),
    before=tuple(Step(who, Open("x", to_write=True)) for who in (A, B)),
    before_words=_X_OPEN,
    program=(
        Race(
            tuple(
                step
                for who in (A, B)
                for step in (
                    Step(who, Lock("x")),
                    Step(who, AddOne("x"), f"by {'AB'[who]}"),
                    Step(who, Unlock("x")),
                    Step(who, Close("x")),
                )
            )
        ),
        Step(A, Number("x"), "r"),
    ),
    outcomes=_COUNTED,
    classify=_COUNTING,
    promises=promised(
        **dict.fromkeys(("uncached", "nfs", "strict", "afs"), ("both count", "lock"))
    ),
    repeats=6,
)

TESTS = (
    STORE_BUFFERING,
    MESSAGE_PASSING,
    MESSAGE_PASSING_CLOSED,
    IRIW,
    APPENDING,
    LOST_UPDATE,
    LOCKED_UPDATE,
)
