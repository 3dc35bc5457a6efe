"""Client to metaserver: advisory locks, held in the replicated state by (session, owner).

A lock is a promise to a session and dies with it, not before. Who must wait gets a *ticket* at once
and keeps no slot: the leader tells it when the lock is granted (``LocksGranted``, which may be
lost), and after each new connection, or when it becomes impatient, it asks (``GetSessionLocks``).

Each grant has a *fencing token*, the log index of the entry that granted it (Chubby section 2.4,
sequencers): writes carry it, and a chunkserver refuses one that is older than one it has seen.
"""

from enum import IntEnum

from ..attributes import Attributes
from .base import Done, Message, Notice, Request, method
from .meta import Change


class LockKind(IntEnum):
    """Locks of different kinds do not see each other. The numbers stand in the log."""

    RANGE = 1
    """fcntl(2): F_SETLK and its open-file-description twin, which the kernel does not tell apart.
    A deadlock is found, and the request that would close the circle gets DEADLOCK."""
    WHOLE = 2
    """flock(2): always all of the file. A conversion first gives up what was held, as flock(2)
    says. Deadlocks are the applications' affair, as on any Unix."""
    APPEND = 3
    """Ours: whose turn it is to append, so that O_APPEND is atomic between machines."""


class LockAnswer(Message):
    """``token``: that of the grant; 0: it waits under ``ticket``, fairly, first come first served.

    ``attributes`` are those of the file at that moment. ``after_loss``: a session that held an
    exclusive lock on this file expired, and might still write: before the new holder is told, its
    client asks for all chunks of the file with GetLayout(write), which raises their versions, so
    that what comes late is refused everywhere.
    """

    token: int
    ticket: int
    attributes: Attributes
    after_loss: bool


@method(0x0160)
class SetLock(Change[LockAnswer]):
    """Lock bytes ``start`` to ``end - 1`` (LOCK_END: to wherever the file may grow).

    What the same owner holds there is replaced once the lock is granted (fcntl(2)). Without
    ``wait`` a conflict is WOULD_BLOCK. DEADLOCK: see LockKind. ``owner`` is any number that the
    client chose for who locks; ``pid`` is for people.
    """

    inode: int
    kind: LockKind
    owner: int
    exclusive: bool
    start: int
    end: int
    wait: bool
    pid: int


@method(0x0161)
class Unlock(Change[Done]):
    """Give these bytes back, as far as they are held. Never fails for what is not held, nor for a
    file that is gone."""

    inode: int
    kind: LockKind
    owner: int
    start: int
    end: int


@method(0x0162)
class Withdraw(Change[LockAnswer]):
    """Wait no longer. When it was granted meanwhile, it is held, and ``token`` says so; else
    ``token`` is 0 and it is as if it had never been asked for."""

    inode: int
    ticket: int


class SessionLocks(Message):
    """What the session waits for (a ticket that is not there was granted), and the highest token
    that it holds on each inode."""

    waiting: list[int]
    tokens: list[tuple[int, int]]  # inode, token


@method(0x0163)
class GetSessionLocks(Request[SessionLocks]):
    """How this session's locks stand. SESSION_EXPIRED when it is over."""

    session: int


@method(0x0164)
class LocksGranted(Notice):
    """To the session's connection: these tickets were granted."""

    session: int
    grants: list[tuple[int, int]]  # ticket, token


class Lock(Message):
    """One lock that is held (``token``), or waited for (``token`` 0, then ``ticket``)."""

    inode: int
    kind: LockKind
    exclusive: bool
    start: int
    end: int
    session: int
    owner: int
    pid: int
    host: str  # that of the session
    token: int
    ticket: int


class LockList(Message):
    """Locks, those of one inode together: held by start, then waiting in order."""

    locks: list[Lock]
    end: bool


@method(0x0165)
class TestLock(Request[LockList]):
    """F_GETLK: the first lock that keeps (session, owner) from getting this one; or none."""

    session: int
    inode: int
    kind: LockKind
    owner: int
    exclusive: bool
    start: int
    end: int


@method(0x0166)
class ListLocks(Request[LockList]):
    """All locks of one inode, or (0) of inodes with a number above ``after``; whole inodes, about
    ``count_max`` locks."""

    inode: int
    after: int
    count_max: int
