"""Litmus tests about the bytes of one file: who sees what was written, and from when on. Pure."""

from ...fs.limits import KIB
from .classify import by, first_new, whole_or_mixed
from .model import Litmus, Outcome
from .promises import promised
from .steps import (
    A,
    B,
    C,
    Close,
    File,
    Map,
    MapSync,
    Open,
    Peek,
    Publish,
    Race,
    Read,
    Size,
    Step,
    Store,
    Unmap,
    Until,
    Write,
)

_OLD_OR_NEW = {"old": "old", "new": "new"}
_LARGE = File("x", blocks=7, block_bytes=128 * KIB)

OWN_WRITE = Litmus(
    name="own-write",
    question="A writes to a file and reads it again. Does it read what it has written?",
    source="POSIX write(2): the least that every file system promises",
    mounts=1,
    files=(File("x"),),
    program=(
        Step(A, Open("x", to_write=True)),
        Step(A, Write("x", "new")),
        Step(A, Read("x"), "r"),
        Step(A, Close("x")),
    ),
    outcomes=(
        Outcome("new", "A reads its own bytes", {"r": "new"}),
        Outcome("old", "A reads what was there before", {"r": "old"}),
    ),
    classify=by("r", _OLD_OR_NEW),
    promises=promised(
        uncached=("new", "read"), nfs=("new", "own"), strict=("new", "order"), afs=("new", "own")
    ),
)

READ_AFTER_WRITE = Litmus(
    name="read-after-write",
    question="A has written and not yet closed the file. Does B, who opens it now, see it?",
    source="POSIX read(2) and write(2); Sandberg et al. 1985",
    mounts=2,
    files=(File("x"),),
    program=(
        Step(A, Open("x", to_write=True)),
        Step(A, Write("x", "new")),
        Step(B, Peek("x"), "r"),
        Until(B, Peek("x"), "new"),
    ),
    outcomes=(
        Outcome("new", "B sees what A has written", {"r": "new"}),
        Outcome("old", "B still sees the old bytes", {"r": "old"}),
    ),
    classify=by("r", _OLD_OR_NEW),
    promises=promised(
        uncached=("new", "write"),
        nfs=("new | old", "write"),
        strict=("new", "write"),
        afs=("old", "close"),
    ),
)

READ_AFTER_CLOSE = Litmus(
    name="read-after-close",
    question="A has written and closed the file. Does B, who opens it now, see it?",
    source="RFC 7530 section 10.3.1 (close-to-open); Howard et al. 1988",
    mounts=2,
    files=(File("x"),),
    program=(
        Step(B, Peek("x"), "before"),
        Step(A, Open("x", to_write=True)),
        Step(A, Write("x", "new")),
        Step(A, Close("x")),
        Step(B, Open("x")),
        Step(B, Read("x"), "r"),
        Step(B, Close("x")),
    ),
    outcomes=(
        Outcome("new", "B sees what A has written", {"r": "new"}),
        Outcome("old", "B still sees the old bytes", {"r": "old"}),
    ),
    classify=by("r", _OLD_OR_NEW),
    promises=promised(
        uncached=("new", "write"),
        nfs=("new", "close"),
        strict=("new", "write"),
        afs=("new", "close"),
    ),
)

ALREADY_OPEN = Litmus(
    name="already-open",
    question="B has had the file open all the while that A writes and closes it. Does B see it?",
    source="Howard et al. 1988; RFC 7530 section 10.3.1",
    mounts=2,
    files=(File("x"),),
    program=(
        Step(B, Open("x")),
        Step(B, Read("x"), "before"),
        Step(A, Open("x", to_write=True)),
        Step(A, Write("x", "new")),
        Step(A, Close("x")),
        Step(B, Read("x"), "r"),
        Until(B, Read("x"), "new"),
    ),
    outcomes=(
        Outcome("new", "B sees the change in the file it has open", {"r": "new"}),
        Outcome("old", "B keeps seeing the file as it was", {"r": "old"}),
    ),
    classify=by("r", _OLD_OR_NEW),
    promises=promised(
        uncached=("new", "read"),
        nfs=("new | old", "read"),
        strict=("new", "read"),
        afs=("old", "read"),
    ),
)

SIZE_WHILE_WRITING = Litmus(
    name="size-while-writing",
    question="A makes a file longer and has not closed it. Which size does B see?",
    source="POSIX stat(2); RFC 1813 section 4.11 (caching)",
    mounts=2,
    files=(File("x", blocks=1),),
    program=(
        Step(B, Size("x"), "before"),
        Step(A, Open("x", to_write=True)),
        Step(A, Write("x", "new", blocks=4)),
        Step(B, Size("x"), "r"),
        Until(B, Size("x"), "4 blocks"),
    ),
    outcomes=(
        Outcome("all of it", "B sees the new size", {"r": "4 blocks"}),
        Outcome("some of it", "B sees a size in between", {"r": "2 blocks"}),
        Outcome("none of it", "B sees the old size", {"r": "1 block"}),
    ),
    classify=by(
        "r",
        {
            "4 blocks": "all of it",
            "3 blocks": "some of it",
            "2 blocks": "some of it",
            "1 block": "none of it",
        },
    ),
    promises=promised(
        uncached=("all of it", "names"),
        nfs=("all of it | some of it | none of it", "names"),
        strict=("all of it", "names"),
        afs=("none of it", "close"),
    ),
)

LAST_CLOSE = Litmus(
    name="last-close",
    question="A writes, then B writes the same bytes; B closes first, then A. Whose bytes stay?",
    source="Howard et al. 1988 (last close); POSIX write(2) (last write)",
    mounts=3,
    files=(File("x"),),
    program=(
        Step(A, Open("x", to_write=True)),
        Step(B, Open("x", to_write=True)),
        Step(A, Write("x", "A")),
        Step(B, Write("x", "B")),
        Step(B, Close("x")),
        Step(A, Close("x")),
        Step(C, Peek("x"), "r"),
    ),
    outcomes=(
        Outcome("B's", "those of B, who wrote last", {"r": "B"}),
        Outcome("A's", "those of A, who closed last", {"r": "A"}),
        Outcome("lost", "neither: both writes are lost", {"r": "old"}),
    ),
    classify=by("r", {"B": "B's", "A": "A's", "old": "lost"}),
    promises=promised(
        uncached=("B's", "writers"),
        nfs=("B's | A's", "writers"),
        strict=("B's", "writers"),
        afs=("A's", "writers"),
    ),
)

TWO_HALVES = Litmus(
    name="two-halves",
    question="A writes one half of a file, B the other one; B closes first. Do both halves stay?",
    source="Howard et al. 1988; Sandberg et al. 1985 (files are shared by blocks)",
    mounts=3,
    files=(File("x", blocks=2),),
    program=(
        Step(A, Open("x", to_write=True)),
        Step(B, Open("x", to_write=True)),
        Step(A, Write("x", "A")),
        Step(B, Write("x", "B", first=1)),
        Step(B, Close("x")),
        Step(A, Close("x")),
        Step(C, Peek("x"), "r"),
    ),
    outcomes=(
        Outcome("both", "both halves are there", {"r": "A B"}),
        Outcome("only A's", "B's half is lost: A closed last", {"r": "A old"}),
        Outcome("only B's", "A's half is lost, though A closed last", {"r": "old B"}),
    ),
    classify=by("r", {"A B": "both", "A old": "only A's", "old B": "only B's"}),
    promises=promised(
        uncached=("both", "writers"),
        nfs=("both", "writers"),
        strict=("both", "writers"),
        afs=("only A's", "writers"),
    ),
)

_PUBLISHED = (
    Outcome("new", "B sees all of the new file", {"r": "new"}),
    Outcome("old", "B sees all of the old file", {"r": "old"}),
    Outcome("mixed", "B sees new and old bytes in one reading", {"r": "new x3 old x4"}),
    Outcome("split", "B sees a part of one write(2)", {"r": "new x3 new/old old x3"}),
)

REWRITE_IN_PLACE = Litmus(
    name="rewrite-in-place",
    question="A overwrites a large file while B reads it. Does B see a mixture of old and new?",
    source="Howard et al. 1988 (a close publishes all of it at once)",
    mounts=2,
    files=(_LARGE,),
    program=(
        Race(
            (
                Step(A, Open("x", to_write=True)),
                Step(A, Write("x", "new", blocks=_LARGE.blocks)),
                Step(A, Close("x")),
                Step(B, Peek("x"), "r"),
            )
        ),
    ),
    outcomes=_PUBLISHED,
    classify=whole_or_mixed("r"),
    promises=promised(
        uncached=("new | old | mixed | split", "read"),
        nfs=("new | old | mixed | split", "write"),
        strict=("new | old | mixed", "read"),
        afs=("new | old", "close"),
    ),
    repeats=8,
)

PUBLISH_BY_RENAME = Litmus(
    name="publish-by-rename",
    question="A writes a new file and renames it over the old one while B reads. Is it ever mixed?",
    source="POSIX rename(2): how editors and package managers publish a file",
    mounts=2,
    files=(_LARGE,),
    program=(Race((Step(A, Publish("x", "new", _LARGE.blocks)), Step(B, Peek("x"), "r"))),),
    outcomes=_PUBLISHED,
    classify=whole_or_mixed("r"),
    promises=promised(
        **dict.fromkeys(("uncached", "nfs", "strict", "afs"), ("new | old", "rename"))
    ),
    repeats=8,
)

MAPPED = Litmus(
    name="mapped",
    question="A changes a file through a memory mapping. When does B, who opens it, see that?",
    source="POSIX mmap(2) and msync(2)",
    mounts=2,
    files=(File("x"),),
    program=(
        Step(A, Open("x", to_write=True)),
        Step(A, Map("x")),
        Step(A, Store("x", "new")),
        Step(B, Peek("x"), "r1"),
        Step(A, MapSync("x")),
        Step(B, Peek("x"), "r2"),
        Step(A, Unmap("x")),
        Step(A, Close("x")),
        Step(B, Peek("x"), "r3"),
    ),
    outcomes=(
        Outcome("at once", "B sees it at once", {"r1": "new", "r2": "new", "r3": "new"}),
        Outcome("after msync", "B sees it after msync", {"r1": "old", "r2": "new", "r3": "new"}),
        Outcome(
            "after close", "B sees it after the close", {"r1": "old", "r2": "old", "r3": "new"}
        ),
        Outcome("never", "B does not see it at all", {"r1": "old", "r2": "old", "r3": "old"}),
    ),
    classify=first_new(("r1", "r2", "r3"), ("at once", "after msync", "after close"), "never"),
    promises=promised(
        uncached=("at once | after msync", "mmap"),
        nfs=("at once | after msync", "mmap"),
        strict=("at once | after msync", "mmap"),
        afs=("after msync | after close", "close"),
    ),
)

TESTS = (
    OWN_WRITE,
    READ_AFTER_WRITE,
    READ_AFTER_CLOSE,
    ALREADY_OPEN,
    SIZE_WHILE_WRITING,
    LAST_CLOSE,
    TWO_HALVES,
    REWRITE_IN_PLACE,
    PUBLISH_BY_RENAME,
    MAPPED,
)
