"""The chunkservers, seen from here: reads that fail over, writes through the chain, syncs of all.

A failed write or sync is reported to the metaserver, so that its next grant leaves the failed
servers out, and ends with REPLICA_FAILED: the caller fetches the layout anew and tries again.

A write whose connection broke is sent once more, with the same id, on a new connection. The
primary recognises the id if it got it the first time. If it was restarted meanwhile, it knows
neither the id nor which writes came before, and refuses. So nothing is written twice, and a broken
connection to a server that lives is no reason to do without that replica.
"""

import logging
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from ..fs.backoff import Backoff
from ..fs.codec import Buffer
from ..fs.errors import TABLE, Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.limits import (
    BACKOFF_MAX_MS,
    CALL_TIMEOUT_MS,
    FRAME_PAYLOAD_MAX_BYTES,
    READ_HEDGE_MS,
    SYNC_TIMEOUT_MS,
    WRITE_TIMEOUT_MS,
)
from ..fs.messages.base import Message, Request
from ..fs.messages.chunk import CloneChunk, ReadChunk, SyncChunk, WriteChunk
from ..fs.messages.meta import ReportFailure
from ..fs.messages.places import ChunkPlace, ServerPlace
from ..fs.ports import Ports
from ..fs.rpc import Mutation
from .connections import Connections
from .servers import MetaServers

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Message)
T = TypeVar("T")

BUSY_TRIES = 20
SUSPECT_NS = 5_000_000_000
"""So long after a server was slow or not there, others are asked first."""

UNREACHABLE = frozenset({Code.DISCONNECTED, Code.TIMED_OUT, Code.BUSY})


class ChunkClient:
    """Implements ``ChunkServers``."""

    def __init__(
        self, ports: Ports, metaservers: MetaServers, connections: Connections, host: str
    ) -> None:
        self._ports = ports
        self._metaservers = metaservers
        self._connections = connections
        self._host = host
        self._sequence = 0
        self._suspect_until_ns: dict[int, int] = {}

    # --- reading -------------------------------------------------------------------------

    async def read(self, place: ChunkPlace, offset: int, length: int) -> Sequence[Buffer]:
        """Exactly ``length`` bytes, zeros behind the chunk's end."""
        assert 0 < length <= FRAME_PAYLOAD_MAX_BYTES, length
        request = ReadChunk(place.handle, place.version, offset, length)

        replicas = self._in_order(place)
        failed: set[int] = set()

        def from_(replica: ServerPlace) -> Callable[[], Awaitable[memoryview]]:
            async def attempt() -> memoryview:
                try:
                    _, data = await self._exchange(replica, request, timeout_ms=CALL_TIMEOUT_MS)
                    return data
                except TideError as error:
                    failed.add(replica.server)
                    self._note(replica, error)
                    raise

            return attempt

        try:
            winner, data = await _first_success([from_(replica) for replica in replicas])
        except _AllFailedError as all_failed:
            raise _read_failure(place, all_failed.errors) from None
        for slow in replicas[:winner]:
            if slow.server not in failed:
                self._suspect(slow)
        if len(data) > length:
            raise TideError(Code.MALFORMED, f"{len(data)} bytes in reply to a read of {length}")
        missing = length - len(data)
        return [data, bytes(missing)] if missing else [data]

    def _in_order(self, place: ChunkPlace) -> list[ServerPlace]:
        """Replicas on this machine first, then another one first for each chunk; the suspects
        last."""
        now_ns = self._ports.clock.monotonic_ns()
        turn = place.handle % len(place.replicas) if place.replicas else 0
        turned = [*place.replicas[turn:], *place.replicas[:turn]]
        return sorted(
            turned,
            key=lambda replica: (
                self._suspect_until_ns.get(replica.server, now_ns) > now_ns,
                replica.host != self._host,
            ),
        )

    def _note(self, replica: ServerPlace, error: TideError) -> None:
        if error.code in UNREACHABLE:
            self._suspect(replica)  # and the connections have said so
        else:
            log.info("chunkserver %s: %s", server_name(ServerId(replica.server)), error)

    def _suspect(self, replica: ServerPlace) -> None:
        now_ns = self._ports.clock.monotonic_ns()
        self._suspect_until_ns[replica.server] = now_ns + SUSPECT_NS

    # --- writing -------------------------------------------------------------------------

    async def write(
        self, place: ChunkPlace, offset: int, buffers: Sequence[Buffer], fence: int = 0
    ) -> None:
        """All replicas have the bytes, in their page caches."""
        if not place.replicas:
            raise TideError(Code.UNAVAILABLE, f"chunk {place.handle:x} has no replica at present")
        primary, *chain = place.replicas
        request = WriteChunk(place.handle, place.version, offset, place.fresh, 0, chain, fence)
        self._sequence += 1
        mutation = Mutation(self._metaservers.session, 0, self._sequence)
        try:
            await self._exchange(primary, request, buffers, mutation, timeout_ms=WRITE_TIMEOUT_MS)
        except TideError as error:
            failed = failed_servers(place, error)
            self._refuse_if_final(place, error)
            await self._report(place, "write", {server: error for server in failed})

    def _refuse_if_final(self, place: ChunkPlace, error: TideError) -> None:
        """Raise what another layout would not mend."""
        if error.code is Code.NO_SPACE:
            # Elsewhere there may be room, if there is an elsewhere.
            if len(place.replicas) == 1 and not place.fresh:
                raise error
        elif (
            error.code not in (Code.DEVICE_ERROR, Code.CORRUPT) and not TABLE[error.code].retryable
        ):
            raise error

    async def sync(self, place: ChunkPlace, since: int) -> None:
        """What was written is on stable storage on every replica."""
        request = SyncChunk(place.handle, place.version, since)
        failures: dict[int, TideError] = {}

        async def sync_one(replica: ServerPlace) -> None:
            try:
                await self._exchange(replica, request, timeout_ms=SYNC_TIMEOUT_MS)
            except TideError as error:
                failures[replica.server] = error

        if len(place.replicas) == 1:
            await sync_one(place.replicas[0])
        else:
            async with trio.open_nursery() as nursery:
                for replica in place.replicas:
                    nursery.start_soon(sync_one, replica)
        if failures:
            for error in failures.values():
                self._refuse_if_final(place, error)
            lost = [error for error in failures.values() if error.code is Code.OUT_OF_ORDER]
            if len(lost) == len(place.replicas):
                raise lost[0]
            await self._report(place, "sync", failures)

    async def clone(self, place: ChunkPlace, source: ChunkPlace, length: int) -> None:
        """All replicas of ``place`` have it, on stable storage, and the same; LAYOUT_CHANGED when
        the source was written meanwhile. Nothing is sent twice: a repetition that is late would
        replace what was written since."""
        if not place.replicas:
            raise TideError(Code.UNAVAILABLE, f"chunk {place.handle:x} has no replica at present")
        request = CloneChunk(
            place.handle, place.version, source.handle, source.version, length, source.replicas
        )
        failures: list[TideError] = []
        digests: set[int] = set()

        async def clone_on(replica: ServerPlace) -> None:
            try:
                done, _ = await self._exchange(
                    replica, request, timeout_ms=SYNC_TIMEOUT_MS, broken_max=0
                )
                digests.add(done.digest)
            except TideError as error:
                self._note(replica, error)
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for replica in place.replicas:
                nursery.start_soon(clone_on, replica)
        if failures:
            raise failures[0]
        if len(digests) > 1:
            raise TideError(Code.LAYOUT_CHANGED, f"chunk {source.handle:x} was being written")

    async def _report(self, place: ChunkPlace, what: str, failures: dict[int, TideError]) -> None:
        """Tell the metaserver, then fail."""
        for server, error in failures.items():
            replica = next(r for r in place.replicas if r.server == server)
            self._note(replica, error)
        await self._metaservers.call(ReportFailure(place.handle, place.version, sorted(failures)))
        told = "; ".join(dict.fromkeys(str(error) for error in failures.values()))
        raise TideError(Code.REPLICA_FAILED, f"{what} of chunk {place.handle:x} ({told})")

    # --- one request to one server -------------------------------------------------------

    async def _exchange(
        self,
        replica: ServerPlace,
        request: Request[R],
        buffers: Sequence[Buffer] = (),
        mutation: Mutation | None = None,
        *,
        timeout_ms: int,
        broken_max: int = 1,
    ) -> tuple[R, memoryview]:
        """The reply and its payload. Once more when the connection broke; patient with BUSY."""
        backoff = Backoff(self._ports.randomness, max_ms=BACKOFF_MAX_MS)
        broken = busy = 0
        while True:
            peer = await self._connections.to(replica)
            try:
                self._metaservers.counters.asks(request)
                return await peer.exchange(
                    request, payload=buffers, mutation=mutation, timeout_ms=timeout_ms
                )
            except TideError as error:
                broken += error.code is Code.DISCONNECTED
                busy += error.code is Code.BUSY
                if error.code not in (Code.DISCONNECTED, Code.BUSY):
                    raise
                if broken > broken_max or busy > BUSY_TRIES:
                    raise
                await trio.sleep(backoff.next_ms(error.delay_ms) / 1000)


_HEXADECIMAL = re.compile(r"\b[0-9a-f]{1,16}\b")


def failed_servers(place: ChunkPlace, error: TideError) -> list[int]:
    """Which replicas a failed write accuses: those that the primary names, else the primary."""
    if error.code is Code.REPLICA_FAILED:
        named = {int(found, 16) for found in _HEXADECIMAL.findall(error.detail.rpartition(":")[2])}
        replicas = [r.server for r in place.replicas if r.server in named]
        if replicas:
            return replicas
    return [place.replicas[0].server]


class _AllFailedError(Exception):
    def __init__(self, errors: list[TideError]) -> None:
        super().__init__(errors)
        self.errors = errors


async def _first_success(attempts: Sequence[Callable[[], Awaitable[T]]]) -> tuple[int, T]:
    """The first result, and whose it is. The next attempt begins when one has failed, or when
    there is no result for a while."""
    if len(attempts) == 1:
        try:
            return 0, await attempts[0]()
        except TideError as error:
            raise _AllFailedError([error]) from None
    results: list[tuple[int, T]] = []
    errors: list[TideError] = []
    news = trio.Event()

    async def run(number: int) -> None:
        try:
            results.append((number, await attempts[number]()))
        except TideError as error:
            errors.append(error)
        news.set()

    async with trio.open_nursery() as nursery:
        for begun in range(1, len(attempts) + 1):
            nursery.start_soon(run, begun - 1)
            patience_s = READ_HEDGE_MS / 1000 if begun < len(attempts) else math.inf
            with trio.move_on_after(patience_s):
                while not results and len(errors) < begun:
                    await news.wait()
                    news = trio.Event()
            if results:
                break
        nursery.cancel_scope.cancel()
    if results:
        return results[0]
    raise _AllFailedError(errors)


def _read_failure(place: ChunkPlace, errors: list[TideError]) -> TideError:
    """One error for all: retryable when any of the replicas may answer later."""
    detail = f"no replica of chunk {place.handle:x} can be read: " + (
        "; ".join(map(str, errors)) or "none is known"
    )
    codes = [error.code for error in errors]
    if not codes or any(code in UNREACHABLE for code in codes):
        return TideError(Code.UNAVAILABLE, detail)
    for code in codes:
        if TABLE[code].retryable:
            return TideError(code, detail)
    return TideError(codes[0], detail)
