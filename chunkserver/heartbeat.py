"""The connection to the metaserver: register, say what is here, and that it is still here.

The metaserver that leads calls back on the same connection. When the connection ends, or that one
does not lead any more, the others are tried in turn.
"""

import logging
from collections.abc import Sequence

import trio

from ..fs.backoff import Backoff
from ..fs.errors import TideError
from ..fs.handshake import Identity
from ..fs.limits import REPORT_CHUNKS_PER_MESSAGE
from ..fs.messages.chunk import ChunkReport, Heartbeat, Register, ReportBad, ReportChunks
from ..fs.messages.hello import METASERVER
from ..fs.messages.places import ServerPlace
from ..fs.ports import Ports
from ..fs.rpc import Handler, Peer, connect
from .chunk_file import DamagedError
from .store import Store

log = logging.getLogger(__name__)

ROUNDS_QUIET = 5
"""So often all are tried in vain before somebody should know: they may just be starting."""


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

    async def run(self, place: ServerPlace, store: Store, handler: Handler) -> None:
        """Until cancelled. ``handler`` answers what the metaserver asks."""
        backoff = Backoff(self._ports.randomness)
        failures: dict[str, TideError] = {}
        rounds = 0
        while True:
            for address in self._metaservers:
                registered = trio.Event()
                try:
                    await self._stay(address, place, store, handler, registered)
                except TideError as error:
                    failures[address] = error
                if registered.is_set():
                    backoff.reset()
                    log.warning("the connection ended: %s", failures.pop(address))
                    rounds = 0
            rounds += 1
            if rounds == ROUNDS_QUIET:
                for silent, reason in failures.items():
                    log.warning("metaserver %s: %s", silent, reason)
            await trio.sleep(backoff.next_ms() / 1000)

    async def _stay(
        self,
        address: str,
        place: ServerPlace,
        store: Store,
        handler: Handler,
        registered: trio.Event,
    ) -> None:
        """Register there and stay as long as it lasts; TideError says why it does not."""
        failure: TideError | None = None
        async with trio.open_nursery() as tasks:
            try:
                peer = await connect(
                    self._ports,
                    address,
                    self._identity.hello(),
                    handler,
                    tasks,
                    expected_role=METASERVER,
                )
                tasks.start_soon(self._wake_when_closed, peer)
                await self._register(peer, place, store, registered)
            except TideError as error:
                failure = error
            tasks.cancel_scope.cancel()
        assert failure is not None, "nobody leaves without a reason"
        raise failure

    async def _wake_when_closed(self, peer: Peer) -> None:
        await peer.wait_closed()
        self._wake.set()

    async def _register(
        self, peer: Peer, place: ServerPlace, store: Store, registered: trio.Event
    ) -> None:
        total_bytes, free_bytes = store.space()
        answer = await peer.call(Register(place, self._pid, total_bytes, free_bytes))
        registered.set()
        log.info("registered with %s", peer.name)
        self._news.clear()
        await self._report_all(peer, store.reports())
        while True:
            await self._say_what_is_new(peer, store)
            with trio.move_on_after(answer.heartbeat_ms / 1000):
                await self._wake.wait()
            self._wake = trio.Event()
            total_bytes, free_bytes = store.space()
            await peer.call(Heartbeat(total_bytes, free_bytes))

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
