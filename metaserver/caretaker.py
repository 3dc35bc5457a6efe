"""The leader's housekeeping of chunks: copies that are missing are made, garbage is deleted.

What is to be done is decided by ``repair.py`` and ``reclaim.py``; here it is done, a few at a time.
"""

import logging

import trio

from ..fs.errors import TideError
from ..fs.ids import ServerId, server_name
from ..fs.messages.chunk import DeleteChunks
from .chunkservers import Chunkserver
from .grants import GRANT_TIMEOUT_MS, candidate_of
from .leader import Leader
from .reclaim import Reclaimer
from .repair import CopyOrder, Need, need_of, next_copies
from .status import Missing

LOOK_EVERY_MS = 10_000
"""When nothing has changed."""
LOOK_AGAIN_MS = 1_000
"""When something has."""
COPIES_AT_ONCE = 4
COPIES_AT_ONCE_PER_SERVER = 2
DELETED_AT_ONCE = 1_000

log = logging.getLogger(__name__)


class Caretaker:
    """Looks at all chunks now and then, and sooner when something has changed."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._running: dict[int, int] = {}
        self._copying: set[int] = set()
        self._reclaimer = Reclaimer(leader.config.garbage_grace * 10**6)
        self._pause_ms = min(LOOK_EVERY_MS, leader.config.garbage_grace)
        self.missing = Missing(0, 0)

    async def run(self) -> None:
        """For ever."""
        await self._leader.wait_settled()
        async with trio.open_nursery() as nursery:
            while True:
                needs = self._look()
                self._begin_copies(needs, nursery)
                self._collect()
                changed = self._leader.chunks_changed = trio.Event()
                await trio.sleep(LOOK_AGAIN_MS / 1000)
                if not needs and not self._copying:
                    with trio.move_on_after(self._pause_ms / 1000):
                        await changed.wait()

    # --- copies ------------------------------------------------------------------------------

    def _look(self) -> list[Need]:
        """All chunks that lack copies."""
        leader = self._leader
        needs: list[Need] = []
        for handle, chunk in leader.state.all_chunks():
            need = need_of(
                handle,
                chunk.version,
                leader.servers.holders(handle),
                leader.grants.wanted,
                lambda server: False,
            )
            if need is not None:
                needs.append(need)
        self.missing = Missing(len(needs), sum(not need.copies for need in needs))
        return needs

    def _begin_copies(self, needs: list[Need], nursery: trio.Nursery) -> None:
        leader = self._leader
        if leader.now_ns() - leader.started_ns < leader.config.repair_after * 10**6:
            return  # servers that are only late would be copied for nothing
        candidates = [candidate_of(server) for server in leader.servers.up()]
        orders = next_copies(
            [need for need in needs if self._is_due(need)],
            candidates,
            self._running,
            COPIES_AT_ONCE,
            COPIES_AT_ONCE_PER_SERVER,
            leader.ports.randomness.below,
        )
        for order in orders:
            self._copying.add(order.handle)
            self._running[order.target] = self._running.get(order.target, 0) + 1
            nursery.start_soon(self._copy, order)

    def _is_due(self, need: Need) -> bool:
        """Whether it lacks a copy even when who is only away for a moment comes back."""
        leader = self._leader
        chunk = leader.state.chunk(need.handle)
        if chunk is None or need.handle in self._copying:
            return False
        holders = leader.servers.holders(need.handle)
        wanted = leader.grants.wanted
        return need_of(need.handle, chunk.version, holders, wanted, self._is_awaited) is not None

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

    async def _copy_exclusively(self, order: CopyOrder) -> None:
        leader, handle = self._leader, order.handle
        chunk = leader.state.chunk(handle)
        if chunk is None:
            return
        version, sources = await leader.grants.fence(handle, chunk.version)
        sources = [server for server in sources if server != order.target]
        if not sources or not await self._make_way(order):
            return
        if await leader.grants.copy(handle, version, sources, [order.target]):
            log.info("chunk %016x was copied to chunkserver %016x", handle, order.target)

    async def _make_way(self, order: CopyOrder) -> bool:
        """Delete the copy that is of no use; whether the server may get another one."""
        leader = self._leader
        server = leader.servers.get(order.target)
        replica = server.replicas.get(order.handle) if server else None
        if replica is None or not order.replace:
            return replica is None
        request = DeleteChunks([(order.handle, replica.version)])
        try:
            await leader.links.call(order.target, request, GRANT_TIMEOUT_MS)
        except TideError as error:
            name = server_name(ServerId(order.target))
            log.warning("chunkserver %s did not delete chunk %016x: %s", name, order.handle, error)
            return False
        leader.servers.drops(order.target, order.handle)
        return True

    # --- garbage -----------------------------------------------------------------------------

    def _collect(self) -> None:
        """Have what belongs to nothing deleted, once everybody has told what is reserved."""
        leader = self._leader
        now_ns = leader.now_ns()
        if not leader.opens.settled:
            return
        for server in leader.servers.up():
            garbage = self._reclaimer.garbage_on(
                server,
                leader.servers,
                leader.state.chunk,
                leader.reservations.__contains__,
                leader.grants.wanted,
                now_ns,
            )
            chunks = [(found.handle, found.version_max) for found in garbage[:DELETED_AT_ONCE]]
            for handle, _ in chunks:
                self._reclaimer.deleted(server.server, handle)
            if chunks:
                log.info("%d replicas on %016x are garbage", len(chunks), server.server)
                leader.delete_on(server.server, chunks)
