"""Keep the metaserver that leads informed: register, say what is here, and that it is still here.

It calls back on the same connection. When that ends, the leader is searched for anew.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import trio

from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.leader_search import LeaderSearch
from ..fs.leader_watch import Leader
from ..fs.limits import REPORT_CHUNKS_PER_MESSAGE
from ..fs.members import Members
from ..fs.messages.chunk import ChunkReport, Heartbeat, Register, ReportBad, ReportChunks
from ..fs.messages.places import ServerPlace
from ..fs.ports import Ports
from ..fs.rpc import Handler, Peer
from .chunk_file import DamagedError
from .fence import Fence
from .store import Store

log = logging.getLogger(__name__)


class _Registration(NamedTuple):
    peer: Peer
    heartbeat_ms: int


class Reporter:
    """Keeps the metaserver informed, whichever leads."""

    def __init__(
        self, ports: Ports, identity: Identity, metaservers: Sequence[str], pid: int
    ) -> None:
        self._ports = ports
        self._identity = identity
        self._metaservers = metaservers
        self._pid = pid
        self._news: dict[int, None] = {}
        self._damage: dict[tuple[int, int, int], None] = {}
        self._wake = trio.Event()

    # --- what there is to say ------------------------------------------------------------------

    def damaged(self, error: DamagedError) -> None:
        """A block does not match its checksum: say so at once."""
        known = (error.handle, error.version, error.offset)
        if known not in self._damage:
            log.warning("%s", error)
            self._damage[known] = None
            self._wake.set()

    def news(self, handle: int) -> None:
        """A chunk is new here, or has changed: say so at once."""
        self._news[handle] = None
        self._wake.set()

    # --- whom to say it to ---------------------------------------------------------------------

    async def run(self, place: ServerPlace, store: Store, fence: Fence, handler: Handler) -> None:
        """Until cancelled. ``handler`` answers what the metaserver asks."""
        members = Members(self._metaservers, place.host)
        members.led_term = fence.term
        async with trio.open_nursery() as tasks:
            search = LeaderSearch(self._ports, self._identity, members, handler, tasks)

            async def register(leader: Leader) -> _Registration:
                return await self._register(leader.peer, place, store, fence)

            while True:
                registration = await search.find(register)
                tasks.start_soon(self._wake_when_closed, registration.peer)
                try:
                    await self._stay(registration, store)
                except TideError as error:
                    registration.peer.close(str(error))
                    log.warning("the connection ended: %s", error)

    async def _wake_when_closed(self, peer: Peer) -> None:
        await peer.wait_closed()
        self._wake.set()

    async def _register(
        self, peer: Peer, place: ServerPlace, store: Store, fence: Fence
    ) -> _Registration:
        total_bytes, free_bytes = store.space()
        with fence.joining(peer):
            answer = await peer.call(Register(place, self._pid, total_bytes, free_bytes))
            await fence.admit(peer, answer.term)
        log.info("registered with %s, which leads in term %d", peer.name, answer.term)
        return _Registration(peer, answer.heartbeat_ms)

    async def _stay(self, registration: _Registration, store: Store) -> None:
        """Keep the leader informed as long as it lasts; TideError says why it does not."""
        peer = registration.peer
        self._news.clear()
        await self._report_all(peer, store.reports())
        while True:
            await self._say_what_is_new(peer, store)
            with trio.move_on_after(registration.heartbeat_ms / 1000):
                await self._wake.wait()
            self._wake = trio.Event()
            await self._beat(peer, store)

    async def _beat(self, peer: Peer, store: Store) -> None:
        total_bytes, free_bytes = store.space()
        try:
            await peer.call(Heartbeat(total_bytes, free_bytes))
        except TideError as error:
            if error.code not in (Code.BUSY, Code.UNAVAILABLE):
                raise
            log.debug("%s: %s", peer.name, error)  # it lives, and may be making sure that it leads

    async def _report_all(self, peer: Peer, reports: list[ChunkReport]) -> None:
        size = REPORT_CHUNKS_PER_MESSAGE
        for start in range(0, max(len(reports), 1), size):
            last = start + size >= len(reports)
            await peer.call(ReportChunks(reports[start : start + size], last))

    async def _say_what_is_new(self, peer: Peer, store: Store) -> None:
        for known in list(self._damage):
            await peer.call(ReportBad(*known))
            del self._damage[known]
        reports = []
        for handle in list(self._news):
            entry = store.shelf.entry(handle)
            if entry is not None:
                reports.append(ChunkReport(handle, entry.version, not entry.suspect))
        if reports:
            await peer.call(ReportChunks(reports, last=False))
            for report in reports:
                self._news.pop(report.handle, None)
