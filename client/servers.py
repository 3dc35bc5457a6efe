"""The servers as the vfs sees them: asked directly, with connection trouble already dealt with.

Two small Protocols. ``metaclient`` and ``chunkclient`` implement them over the RPC shell; tests
and the simulator have their own. What comes out is an answer or a *final* TideError: a hard mount
waits for servers as long as it takes, a soft one ends in TIMED_OUT.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

from ..fs.codec import Buffer
from ..fs.messages.base import Message, Request
from ..fs.messages.locks import LocksGranted
from ..fs.messages.places import ChunkPlace
from .counters import Counters

R = TypeVar("R", bound=Message)


class SessionEvents(Protocol):
    """What happens to the session, told at once: none of these waits."""

    def linked(self) -> None:
        """There is a new connection: notices may have been missed."""
        ...

    def expired(self, session: int) -> None:
        """That session is over, and with it all its locks; there will be another one."""
        ...

    def granted(self, notice: LocksGranted) -> None:
        """Locks that were waited for."""
        ...

    def claims(self) -> list[int]:
        """Asked before ``linked``: the inodes whose exclusive promises must last through a new
        connection."""
        ...

    def recalled(self, inodes: list[int]) -> Awaitable[None] | None:
        """Nothing is promised of these any more. What is returned is awaited before the recall is
        answered."""
        ...


class MetaServers(Protocol):
    """The metaservers: one logical server that answers, with retries and failover inside.

    A ``Change`` gets its session, slot and sequence here, so it happens exactly once. When the
    session expired while a change was in flight, its outcome is unknown: the call ends with
    SESSION_EXPIRED, ``session`` is a new one, and the caller decides whether to ask again.

    The bookkeeping (which inodes are open, which chunks are reserved) is what ResumeSession tells
    a server that restarted; none of these methods waits.
    """

    counters: Counters
    """Where all requests of this mount are counted."""

    @property
    def session(self) -> int:
        """The session's id. It changes when a session was lost: reservations of the old one are
        void, and files that it had open may be gone."""
        ...

    @property
    def lease_until_ns(self) -> int:
        """Until then, by the monotonic clock, the session cannot have expired."""
        ...

    def listen(self, events: SessionEvents) -> None:
        """Tell ``events`` from now on, and nobody else."""
        ...

    async def settled(self) -> None:
        """Return when no change is under way any more whose caller was cancelled before: what is
        sent now comes after it."""
        ...

    async def renew(self, session: int) -> None:
        """Return when that session is known to live, with a new lease; SESSION_EXPIRED."""
        ...

    async def call(
        self, request: Request[R], payload: Sequence[Buffer] = (), *, session: int | None = None
    ) -> R:
        """The reply to ``request``, or a final TideError. Buffers of ``payload`` must not change
        before this returns.

        ``session``: in that session or not at all. What was decided under its locks must not be
        done by a later one; SESSION_EXPIRED also when nothing was sent. On a soft mount, requests
        for locks end in no time-out."""
        ...

    async def exchange(
        self, request: Request[R], payload: Sequence[Buffer] = (), *, session: int | None = None
    ) -> tuple[R, memoryview]:
        """As ``call``, with the reply's payload."""
        ...

    def start(self, request: Request[R]) -> Awaitable[R]:
        """As ``call``, sent before this returns where that is possible: then it is an ``Answer``,
        which needs no task."""
        ...

    def start_exchange(self, request: Request[R]) -> Awaitable[tuple[R, memoryview]]:
        """As ``start``, with the reply's payload."""
        ...

    def opened(self, inode: int) -> None:
        """An Open or Create that opened ``inode`` was answered; counted."""
        ...

    def released(self, inode: int, *, known: bool = True) -> None:
        """One opening ended; with the last one a Release goes out, batched, in the background, if
        the servers may know that it was open."""
        ...

    def reserved(self, inode: int, index: int, handle: int) -> None:
        """A fresh chunk was handed out by GetLayout and will be committed by and by."""
        ...

    def committed(self, inode: int, index: int, handle: int) -> None:
        """That chunk was committed or given up: no longer to be listed as reserved."""
        ...


class ChunkServers(Protocol):
    """The chunkservers: bytes of one chunk at a time. Offsets are within the chunk.

    Retryable errors of placement (STALE_VERSION, NO_CHUNK, REPLICA_FAILED, BAD_CHECKSUM,
    OUT_OF_ORDER, UNAVAILABLE) mean: fetch the layout anew and try again. Others are final.
    """

    async def read(self, place: ChunkPlace, offset: int, length: int) -> Sequence[Buffer]:
        """Exactly ``length`` bytes, zeros behind the chunk's end; every replica is tried."""
        ...

    async def write(
        self, place: ChunkPlace, offset: int, buffers: Sequence[Buffer], fence: int = 0
    ) -> None:
        """All replicas have the bytes. A ``fresh`` place makes the chunk where there is none.
        ``fence``: see WriteChunk; FENCED.

        REPLICA_FAILED after the failure was reported to the metaserver. The buffers must not
        change before this returns, nor ever when it fails.
        """
        ...

    async def sync(self, place: ChunkPlace, since: int) -> None:
        """What was written to the chunk is on stable storage on every replica of ``place``.

        ``since``: the version at which the oldest of it was written, 0: nothing of ours was.
        OUT_OF_ORDER when every replica crashed since then and may have lost some of it.
        REPLICA_FAILED, for other failures, after they were reported to the metaserver.
        """
        ...

    async def clone(self, place: ChunkPlace, source: ChunkPlace, length: int) -> None:
        """The fresh chunk ``place`` has the first ``length`` bytes of another one, on stable
        storage on each of its replicas, and each has the same. When it fails, some may be about to
        have it."""
        ...
