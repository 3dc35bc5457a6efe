"""The leader's housekeeping of chunks: copies that are missing are made, garbage is deleted.

What is to be done is decided by ``repair.py`` and ``reclaim.py``; here it is done, a few at a time.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from itertools import islice

import trio

from ..fs.errors import TideError
from .chunkservers import Chunkserver
from .grants import candidate_of
from .leader import Leader
from .reclaim import Garbage, Known, Reclaimer
from .records import ChunkRecord
from .repair import CopyOrder, Need, need_of, next_copies
from .status import Missing

LOOK_EVERY_MS = 10_000
"""When nothing has changed."""
LOOK_AGAIN_MS = 1_000
"""When something has."""
COPIES_AT_ONCE = 4
COPIES_AT_ONCE_PER_SERVER = 2
SEARCHED_AT_ONCE = 20
LOOKED_AT_ONCE = 500
"""Then others get their turn."""

log = logging.getLogger(__name__)


class Caretaker:
    """Looks at all chunks now and then, and sooner when something has changed."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._running: dict[int, int] = {}
        self._copying: set[int] = set()
        self._queue: deque[Need] = deque()
        self._tasks: trio.Nursery
        self._reclaimer = Reclaimer(leader.config.garbage_grace * 10**6)
        self._pause_ms = min(LOOK_EVERY_MS, leader.config.garbage_grace)
        self.missing = Missing(0, 0, 0, [])

    async def run(self) -> None:
        """For ever."""
        await self._leader.wait_settled()
        async with trio.open_nursery() as self._tasks:
            while True:
                changed = self._leader.chunks_changed = trio.Event()
                await self._look()
                self._begin_copies()
                await self._collect()
                await trio.sleep(LOOK_AGAIN_MS / 1000)
                if not self.missing.chunks and not self._copying:
                    with trio.move_on_after(self._pause_ms / 1000):
                        await changed.wait()

    # --- copies ------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Find all chunks that lack copies, a few at a time: others are to be served meanwhile."""
        state = self._leader.state
        missing = without_any = 0
        due: list[Need] = []
        lost: list[int] = []
        async for handle, chunk in _in_slices(state.all_chunks):
            need = self._need_of(handle, chunk, _nobody)
            if need is not None:
                missing += 1
                without_any += not need.copies
                if not need.copies and self._leader.grants.is_lost(handle):
                    lost.append(handle)
                need = self._need_of(handle, chunk, self._is_awaited)
            if need is not None:
                due.append(need)
        self._queue = deque(sorted(due))
        for handle in lost[:SEARCHED_AT_ONCE]:
            await self._leader.grants.search(handle)
        lost = [handle for handle in lost if self._leader.grants.is_lost(handle)]
        chunks = map(state.chunk, lost)
        files = {chunk.inode for chunk in chunks if chunk is not None}
        self.missing = Missing(missing, without_any - len(lost), len(lost), sorted(files))

    def _need_of(
        self, handle: int, chunk: ChunkRecord, is_awaited: Callable[[Chunkserver], bool]
    ) -> Need | None:
        leader = self._leader
        holders = leader.servers.holders(handle)
        return need_of(handle, chunk.version, holders, leader.grants.wanted, is_awaited)

    def _begin_copies(self) -> None:
        """As many as may be under way; called again whenever one is finished."""
        leader = self._leader
        if leader.now_ns() - leader.started_ns < leader.config.repair_after * 10**6:
            return  # servers that are only late would be copied for nothing
        candidates = [candidate_of(server) for server in leader.servers.up()]
        while self._queue:
            need = self._due(self._queue[0].handle)
            orders = next_copies(
                [need] if need is not None else [],
                candidates,
                self._running,
                COPIES_AT_ONCE,
                COPIES_AT_ONCE_PER_SERVER,
                leader.ports.randomness.below,
            )
            if need is not None and not orders and self._running:
                return  # there may be a place for it when another one is finished
            self._queue.popleft()
            for order in orders:
                self._begin_copy(order)

    def _begin_copy(self, order: CopyOrder) -> None:
        self._copying.add(order.handle)
        self._running[order.target] = self._running.get(order.target, 0) + 1
        self._tasks.start_soon(self._copy, order)

    def _due(self, handle: int) -> Need | None:
        """What a chunk lacks even when who is only away for a moment comes back."""
        chunk = self._leader.state.chunk(handle)
        if chunk is None or handle in self._copying:
            return None
        return self._need_of(handle, chunk, self._is_awaited)

    def _is_awaited(self, server: Chunkserver) -> bool:
        leader = self._leader
        return leader.now_ns() - server.down_since_ns < leader.config.repair_after * 10**6

    async def _copy(self, order: CopyOrder) -> None:
        try:
            async with self._leader.grants.exclusively(order.handle):
                await self._copy_exclusively(order)
        finally:
            self._copying.discard(order.handle)
            self._running[order.target] -= 1
            if not self._running[order.target]:
                del self._running[order.target]
        self._begin_copies()

    async def _copy_exclusively(self, order: CopyOrder) -> None:
        leader, handle = self._leader, order.handle
        chunk = leader.state.chunk(handle)
        if chunk is None:
            return
        version, sources = await leader.grants.fence(handle, chunk.version)
        sources = [server for server in sources if server != order.target]
        if not sources or not self._expected_there(order):
            return
        if await leader.grants.replicas.copy(handle, version, sources, [order.target]):
            log.info("chunk %016x was copied to chunkserver %016x", handle, order.target)

    def _expected_there(self, order: CopyOrder) -> bool:
        """Whether the target is as it was when the order was given.

        A copy that is of no use stays until the new one is complete: the source may turn out
        damaged, and then it was the last one that can be read.
        """
        server = self._leader.servers.get(order.target)
        return server is not None and order.replace == (order.handle in server.replicas)

    # --- garbage -----------------------------------------------------------------------------

    async def _collect(self) -> None:
        """Have what belongs to nothing deleted, once everybody has told what is reserved."""
        leader = self._leader
        if not leader.opens.settled:
            return
        try:
            await leader.driver.confirm()
        except TideError as error:
            log.info("no garbage is looked for at the moment: %s", error)
            return
        known = Known(
            leader.servers,
            leader.state.chunk,
            leader.reservations.__contains__,
            self._in_use,
            leader.grants.wanted,
        )
        for server in leader.servers.up():
            handles = list(server.replicas)
            for start in range(0, len(handles), LOOKED_AT_ONCE):
                some = handles[start : start + LOOKED_AT_ONCE]
                garbage = self._reclaimer.garbage_on(server, some, known, leader.now_ns())
                if garbage:
                    self._delete(server, garbage)
                await trio.lowlevel.checkpoint()

    def _in_use(self, handle: int) -> Collection[int]:
        """Servers whose copy must stay: a grant names it, or a grant or copy is being made."""
        grant = self._leader.grants.known(handle)
        if grant is not None:
            return grant.servers
        if self._leader.grants.is_busy(handle):
            return [holder.server for holder in self._leader.servers.holders(handle)]
        return ()

    def _delete(self, server: Chunkserver, garbage: list[Garbage]) -> None:
        log.info("%d replicas on %016x are garbage", len(garbage), server.server)
        for handle, _ in garbage:
            self._reclaimer.deleted(server.server, handle)
        chunks = [(found.handle, found.version_max) for found in garbage]
        self._leader.delete_on(server.server, chunks)


async def _in_slices(
    after: Callable[[int], Iterator[tuple[int, ChunkRecord]]],
) -> AsyncIterator[tuple[int, ChunkRecord]]:
    """Everything, with turns for others in between."""
    last = 0
    while found := list(islice(after(last), LOOKED_AT_ONCE)):
        for handle, chunk in found:
            yield handle, chunk
        last = found[-1][0]
        await trio.lowlevel.checkpoint()


def _nobody(server: Chunkserver) -> bool:
    return False
