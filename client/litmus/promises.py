"""What each mode promises, by topic: the sentences that the expectations rest on. Pure.

They stand word for word in docs/semantics.md (a test looks), but for those of ``afs``, which is
session semantics (Howard et al. 1988). ``strict`` is linearizability (Herlihy & Wing 1990), and so
more than sequential consistency (Lamport 1979).
"""

from collections.abc import Mapping

from .model import Promise

UNCACHED, NFS, STRICT, AFS = "uncached", "nfs", "strict", "afs"
MODES = (UNCACHED, NFS, STRICT, AFS)

_EVERY_MODE = {
    "rename": "replaces atomically",
    "append": "appends of all mounts to one file are atomic, none is lost or torn",
    "lock": "whatever others changed before is seen: by read, stat and mappings, in every mode",
    "no lock": "who does not ask for one reads and writes as if there were none",
    "mmap": "written back at msync, munmap or close; between mounts as with read and write",
    "failover": "changes nothing: who holds, who waits and in which order is in the log",
}

_SESSION = "An open file stays as it was when it was opened, but for what was written here."
_PUBLISH = "Closing a file publishes all that was written to it, at once; the last close wins."

SENTENCES: dict[str, dict[str, str]] = {
    UNCACHED: {
        **_EVERY_MODE,
        "names": "asked for each time",
        "read": "what the servers have now",
        "write": "committed: seen by each later read of an `uncached` mount",
        "writers": "in the order in which the writes reached the primary",
        "close": "nothing left to do",
    },
    NFS: {
        **_EVERY_MODE,
        "names": "believed for 3 to 60 s, longer the longer a file has not changed",
        "own": "what this mount did itself is seen at once",
        "read": "what the mount has, as of the last open or later",
        "write": "in this mount's memory",
        "writers": "the last flush of each byte range wins",
        "close": "whoever opens the file afterwards sees all of it",
    },
    STRICT: {
        **_EVERY_MODE,
        "order": "have one order, which is also that of their clocks",
        "names": "nothing changes, by whatever mount, before the promise is recalled",
        "read": "the bytes of one moment between call and return",
        "write": "seen by each later read of every `strict` and `uncached` mount",
        "writers": "in the order of their writes, each whole",
    },
    AFS: {
        **_EVERY_MODE,
        "names": "Changes of names are seen everywhere as soon as they are made.",
        "own": _SESSION,
        "read": _SESSION,
        "write": _SESSION,
        "writers": _PUBLISH,
        "close": _PUBLISH,
        "append": _PUBLISH,
    },
}

MEANING: dict[str, str] = {
    UNCACHED: "Nothing is kept in the memory of a mount: each call asks the servers.",
    NFS: "What was read is kept for a while. Who opens a file after its close sees all of it.",
    STRICT: "Mounts keep what they read, and the servers tell them before it changes.",
    AFS: "Who opens a file works on it as it was then. Closing it publishes the changes.",
}
"""One line for each mode."""


def promised(**rows: tuple[str, str]) -> Mapping[str, Promise]:
    """The row of each mode: the outcomes that it allows, separated by ``|``, and the topic."""
    assert set(rows) == set(MODES), rows
    return {
        mode: Promise(
            frozenset(name.strip() for name in outcomes.split("|")), SENTENCES[mode][topic]
        )
        for mode, (outcomes, topic) in rows.items()
    }
