"""Litmus tests about names, and about a cluster whose leader dies. Pure."""

from .classify import by, table
from .model import Litmus, Outcome
from .promises import promised
from .steps import (
    A,
    B,
    Close,
    Create,
    Delete,
    File,
    KillLeader,
    Lock,
    Look,
    Open,
    Peek,
    Rename,
    Step,
    Sync,
    TryLock,
    Until,
    Write,
)

_NAMES_SOURCE = "RFC 1813 section 4.11 (caching); Howard et al. 1988"

CREATE_SEEN = Litmus(
    name="create-seen",
    question="B has looked for a name in vain. Then A makes it. Does B find it now?",
    source=_NAMES_SOURCE,
    mounts=2,
    files=(),
    program=(
        Step(B, Look("x"), "before"),
        Step(A, Create("x")),
        Step(B, Look("x"), "r"),
        Until(B, Look("x"), "there"),
    ),
    outcomes=(
        Outcome("there", "B finds it", {"r": "there"}),
        Outcome("not yet", "B still believes that it does not exist", {"r": "absent"}),
    ),
    classify=by("r", {"there": "there", "absent": "not yet"}),
    promises=promised(
        uncached=("there", "names"),
        nfs=("there | not yet", "names"),
        strict=("there", "names"),
        afs=("there", "names"),
    ),
)

DELETE_SEEN = Litmus(
    name="delete-seen",
    question="B has looked at a file. Then A deletes it. Does B still find it?",
    source=_NAMES_SOURCE,
    mounts=2,
    files=(File("x"),),
    program=(
        Step(B, Look("x"), "before"),
        Step(A, Delete("x")),
        Step(B, Look("x"), "r"),
        Until(B, Look("x"), "absent"),
    ),
    outcomes=(
        Outcome("gone", "B sees that it is gone", {"r": "absent"}),
        Outcome("not yet", "B still believes that it exists", {"r": "there"}),
    ),
    classify=by("r", {"absent": "gone", "there": "not yet"}),
    promises=promised(
        uncached=("gone", "names"),
        nfs=("gone | not yet", "names"),
        strict=("gone", "names"),
        afs=("gone", "names"),
    ),
)

RENAME_SEEN = Litmus(
    name="rename-seen",
    question="B has looked at both names. Then A renames x to y. Which of them does B find?",
    source="POSIX rename(2); RFC 1813 section 4.11 (caching)",
    mounts=2,
    files=(File("x"),),
    program=(
        Step(B, Look("x"), "before x"),
        Step(B, Look("y"), "before y"),
        Step(A, Rename("x", "y")),
        Step(B, Look("x"), "x"),
        Step(B, Look("y"), "y"),
        Until(B, Look("y"), "there"),
    ),
    outcomes=(
        Outcome("moved", "B finds it by its new name only", {"x": "absent", "y": "there"}),
        Outcome("not yet", "B finds it by its old name only", {"x": "there", "y": "absent"}),
        Outcome("both", "B finds it by both names", {"x": "there", "y": "there"}),
        Outcome("neither", "B finds it by neither name", {"x": "absent", "y": "absent"}),
    ),
    classify=table(
        ("x", "y"),
        {
            ("absent", "there"): "moved",
            ("there", "absent"): "not yet",
            ("there", "there"): "both",
            ("absent", "absent"): "neither",
        },
    ),
    promises=promised(
        uncached=("moved", "names"),
        nfs=("moved | not yet | both | neither", "names"),
        strict=("moved", "names"),
        afs=("moved", "names"),
    ),
)

LEADER_DIES = Litmus(
    name="leader-dies",
    question="A has written a file and locked it. The leading metaserver is killed. What is left?",
    source="Gray & Cheriton 1989; Burrows 2006 (a lock survives who grants it)",
    mounts=2,
    files=(File("x"),),
    program=(
        Step(A, Open("x", to_write=True)),
        Step(A, Write("x", "new")),
        Step(A, Sync("x")),
        Step(A, Close("x")),
        Step(A, Open("x", to_write=True)),
        Step(A, Lock("x")),
        KillLeader(),
        Step(B, Peek("x"), "r"),
        Step(B, Open("x", to_write=True)),
        Step(B, TryLock("x"), "lock"),
        Step(B, Close("x")),
        Step(A, Close("x")),
    ),
    outcomes=(
        Outcome("all", "A's bytes, and A's lock", {"r": "new", "lock": "refused"}),
        Outcome("lock lost", "B gets the lock that A holds", {"r": "new", "lock": "got it"}),
        Outcome("bytes lost", "A's bytes are lost", {"r": "old", "lock": "refused"}),
        Outcome("all lost", "A's bytes and lock are lost", {"r": "old", "lock": "got it"}),
    ),
    classify=table(
        ("r", "lock"),
        {
            ("new", "refused"): "all",
            ("new", "got it"): "lock lost",
            ("old", "refused"): "bytes lost",
            ("old", "got it"): "all lost",
        },
    ),
    promises=promised(**dict.fromkeys(("uncached", "nfs", "strict", "afs"), ("all", "failover"))),
    kills=True,
)

TESTS = (CREATE_SEEN, DELETE_SEEN, RENAME_SEEN, LEADER_DIES)
