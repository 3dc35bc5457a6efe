"""What only the leader knows, and what follows from it: leases, open files, reaping, handles.

All of it is in memory. After a failover it is told again (sessions resume, chunkservers register),
and until it was, nothing is decided that could be wrong: nothing is reaped, expired or collected.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import trio

from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.limits import HANDLES_PER_RESERVATION
from ..fs.messages.base import Message, Request
from ..fs.messages.chunk import DeleteChunks
from ..fs.messages.hello import CHUNKSERVER
from ..fs.messages.meta import NewChunk
from ..fs.ports import Ports
from .attention import Attention
from .awaited import Awaited
from .chunkservers import Chunkservers
from .config import MetaserverConfig
from .driver import Driver
from .effects import (
    ChunksDropped,
    Effect,
    LocksGranted,
    Orphaned,
    SessionEnded,
    SessionStarted,
)
from .entries import EndSession, FormatCluster, HandlesReserved, Reap, ReserveHandles
from .grants import Grants
from .handles import HandleSupply, VersionCounter
from .leases import Leases
from .links import Links
from .opens import OpenFiles
from .promises import Promises
from .reservations import Reservation, Reservations
from .state import State

VERSION_MAX = (1 << 63) - 1
DELETE_TIMEOUT_MS = 10_000
RETRY_MS = 1_000
RETRY_SOON_MS = 20
LOOKS_PER_GAP = 3
"""Who has not looked at the time for so many heartbeats was paused."""
REAPED_AT_ONCE = 1_000

log = logging.getLogger(__name__)


class Leader:
    """The volatile tables of one leader, and the tasks that act on them."""

    def __init__(
        self, config: MetaserverConfig, ports: Ports, driver: Driver, state: State, term: int
    ) -> None:
        self.config = config
        self.ports = ports
        self.driver = driver
        self.state = state
        self.term = term
        now_ns = ports.clock.monotonic_ns()
        self._attention = Attention(now_ns, LOOKS_PER_GAP * config.heartbeat * 10**6)
        self.started_ns = now_ns
        sessions = state.sessions()
        self.awaited = Awaited(sessions)
        self.opens = OpenFiles(self.awaited)
        self.promises = Promises()
        self.leases = Leases(config.session_lease)
        for record in sessions:
            self.leases.renew(record.session, now_ns)
        self.servers = Chunkservers(config.chunkserver_dead * 10**6)
        self.links = Links()
        self.reservations = Reservations()
        self.handles = HandleSupply(self._reserve_handles, HANDLES_PER_RESERVATION // 4)
        self.grants = Grants(
            state,
            driver,
            self.servers,
            self.links,
            self.reservations,
            VersionCounter(term),
            ports.randomness,
            config.replicas_min,
        )
        self.on_session_end: Callable[[int], None] = _ignore_session
        self.on_locks_granted: Callable[[LocksGranted], None] = _ignore_grants
        self.chunks_changed = trio.Event()
        """Set when there may be something to repair; replaced by who waits for it."""
        self._settled = trio.Event()
        self._leases_changed = trio.Event()
        self._to_reap: set[int] = set()
        self._may_reap = trio.Event()
        self._orphans_swept = False
        driver.on_effects = self._on_effects

    async def begin(self) -> None:
        """Before anybody is served: a new cluster is made, and there are handles to give out.

        On a full disk there are none for now; reads go on. NOT_LEADER: the term is over.
        """
        if not self.state.totals.cluster:
            await self._perform_soon(_format_cluster(self.config))
        try:
            reserved = await self._perform_soon(ReserveHandles(HANDLES_PER_RESERVATION))
        except TideError as error:
            if error.code is not Code.NO_SPACE:
                raise
            log.warning("the term begins without chunk handles: %s", error)
        else:
            assert isinstance(reserved, HandlesReserved)
            self.handles.add(reserved.first, reserved.count)
        self.sweep_orphans()

    async def _perform_soon(self, request: Request[Any]) -> Message:
        """Again while the leadership is being handed over, which may come to nothing."""
        while True:
            try:
                return await self.driver.perform(request)
            except TideError as error:
                if error.code not in (Code.UNAVAILABLE, Code.BUSY):
                    raise
            await trio.sleep(RETRY_SOON_MS / 1000)

    async def run(self) -> None:
        """Keep time. For ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_expiring)
            nursery.start_soon(self._keep_reaping)
            nursery.start_soon(self._keep_listening)
            nursery.start_soon(self._settle_in_time)

    def is_sure(self) -> bool:
        """Whether nobody else can lead at the moment, and this term is the one that is led."""
        return self.driver.term == self.term and self.driver.lease_holds()

    def now_ns(self) -> int:
        """By the clock of ``attention.py``: for the deadlines of others."""
        return self._attention.look(self.ports.clock.monotonic_ns())

    # --- effects -----------------------------------------------------------------------------

    def _on_effects(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Orphaned):
                self.reap([effect.inode])
            elif isinstance(effect, ChunksDropped):
                self._delete_at_once(effect.handles)
            elif isinstance(effect, SessionStarted):
                self.leases.renew(effect.session, self.now_ns())
                self._leases_changed.set()
            elif isinstance(effect, SessionEnded):
                self._session_ended(effect)
            elif isinstance(effect, LocksGranted):
                self.on_locks_granted(effect)

    def _session_ended(self, effect: SessionEnded) -> None:
        if effect.expired:
            log.info("session %d has expired", effect.session)
            self.grants.forget_session(effect.session)
        self.leases.end(effect.session)
        self.reservations.end(effect.session)
        self.awaited.heard(effect.session)
        self.on_session_end(effect.session)
        self.reap(self.opens.end(effect.session))
        self.sweep_orphans()

    def _delete_at_once(self, handles: Iterable[int]) -> None:
        """Chunks that no file has any more. Who does not hear of it is told by the caretaker."""
        of_server: dict[int, list[int]] = {}
        for handle in handles:
            self.grants.dropped(handle)
            for holder in self.servers.holders(handle):
                if holder.connected:
                    of_server.setdefault(holder.server, []).append(handle)
        for server, dropped in of_server.items():
            self.delete_on(server, [(handle, VERSION_MAX) for handle in dropped])

    def delete_on(self, server: int, chunks: list[tuple[int, int]]) -> None:
        """Have a chunkserver delete (handle, version_max), without waiting for it.

        Only while it is sure that nobody else leads; the caretaker finds what stays behind.
        """
        peer = self.links.get(server)
        if peer is None or not self.is_sure():
            return

        def done(outcome: Message | TideError, payload: memoryview) -> None:
            if isinstance(outcome, TideError):
                name = server_name(ServerId(server))
                log.warning(
                    "chunkserver %s did not delete %d chunks: %s", name, len(chunks), outcome
                )
                return
            for handle, version_max in chunks:
                found = self.servers.get(server)
                replica = found.replicas.get(handle) if found else None
                if replica is not None and replica.version <= version_max:
                    self.servers.drops(server, handle)

        peer.post(DeleteChunks(chunks), timeout_ms=DELETE_TIMEOUT_MS, done=done)

    # --- sessions ----------------------------------------------------------------------------

    async def _keep_expiring(self) -> None:
        while True:
            for session in self.leases.expire(self.now_ns()):
                log.info("session %d was silent for longer than its lease", session)
            for session in self.leases.unended():
                try:
                    await self.driver.perform(EndSession(session, expired=True))
                except TideError as error:
                    _check_leads(error)
                    log.warning("session %d cannot be ended yet: %s", session, error)
            await self._sleep_until(self.leases.next_deadline_ns())

    async def _sleep_until(self, deadline_ns: int | None) -> None:
        """Until then; no longer than a moment when something is to be tried again."""
        left_s = math.inf
        if self.leases.unended():
            left_s = RETRY_MS / 1000
        elif deadline_ns is not None:
            left_s = max(0, deadline_ns - self.now_ns()) / 10**9 + 0.001
        self._leases_changed = trio.Event()
        with trio.move_on_after(left_s):
            await self._leases_changed.wait()

    def began(self, session: int) -> None:
        """It was opened, perhaps once more, and has nothing from before."""
        self.heard_of(session)
        self.awaited.heard(session)
        self.sweep_orphans()

    def heard_of(self, session: int) -> None:
        """Its lease begins anew."""
        self.leases.renew(session, self.now_ns())

    def resume(
        self, session: int, open_inodes: Iterable[int], reserved: Iterable[tuple[int, int, int]]
    ) -> None:
        """What a session says that it holds: (inode, index, handle) of chunks not committed."""
        self.heard_of(session)
        claimed: list[int] = []
        for inode, index, handle in reserved:
            if self._may_claim(session, inode, index, handle):
                claimed.append(handle)
        self.reservations.keep_only(session, claimed)
        self.awaited.heard(session)
        self.reap(self.opens.resume(session, open_inodes))
        self.sweep_orphans()

    def _may_claim(self, session: int, inode: int, index: int, handle: int) -> bool:
        """Reserve it again, unless there is a chunk meanwhile, or was one that is gone since."""
        before = self.reservations.at(session, inode, index)
        if before is not None or handle in self.reservations:
            return before is not None and before.handle == handle
        try:
            dropped = self.state.dropped_handle(inode, index)
            is_there = bool(self.state.chunks(inode, index, 1))
        except TideError:  # the file is gone, or never was
            return False
        is_used = self.state.chunk(handle) is not None
        if is_there or is_used or not dropped < handle < self.state.totals.next_handle:
            return False
        self.reservations.reserve(session, inode, index, handle).claimed = True
        return True

    def granted_version(self, reservation: Reservation) -> int:
        """At which version a chunk that is to be committed is written now, as far as is known."""
        if reservation.version:
            return reservation.version
        held = (
            holder.replicas[reservation.handle].version
            for holder in self.servers.holders(reservation.handle)
            if holder.connected
        )
        return max(held, default=0)

    def committed(self, chunk: NewChunk) -> None:
        """It was written, and is part of its file."""
        reservation = self.reservations.of(chunk.handle)
        if reservation is not None:
            told = reservation.servers or [server.server for server in self.servers.up()]
            self.grants.replicas.verify(chunk.handle, chunk.version, told)
            for handle in self.reservations.drop_at(reservation.inode, reservation.index):
                if handle != chunk.handle:
                    self.grants.dropped(handle)
        self.grants.made(chunk.handle)

    def give_back(self, handle: int, session: int) -> bool:
        """The session has no use for a chunk that it reserved; whether that is one."""
        reservation = self.reservations.of(handle)
        if reservation is None or reservation.session != session:
            return False
        self.reservations.drop(handle)
        self.grants.dropped(handle)
        return True

    # --- reaping -----------------------------------------------------------------------------

    def reap(self, inodes: Iterable[int]) -> None:
        """Drop those of them that lost their last name, if nobody has them open."""
        if not self.opens.settled:
            return
        found = {
            inode
            for inode in inodes
            if not self.opens.is_open(inode) and self.state.is_orphan(inode)
        }
        if found:
            self._to_reap |= found
            self._may_reap.set()

    def sweep_orphans(self) -> None:
        """Once after a start, as soon as it is known what is open."""
        if self.opens.settled and not self._orphans_swept:
            self._orphans_swept = True
            self.reap(self.state.orphans())

    async def _keep_reaping(self) -> None:
        while True:
            await self._may_reap.wait()
            self._may_reap = trio.Event()
            while self._to_reap:
                batch = sorted(self._to_reap)[:REAPED_AT_ONCE]
                still = [inode for inode in batch if not self.opens.is_open(inode)]
                try:
                    if still:
                        await self.driver.perform(Reap(still))
                        self.promises.forget(still)
                    self._to_reap.difference_update(batch)
                except TideError as error:
                    _check_leads(error)
                    log.warning("%d inodes cannot be reaped yet: %s", len(still), error)
                    await trio.sleep(RETRY_MS / 1000)

    # --- chunkservers ------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether the chunkservers that were here before have had their time to come back."""
        return self._settled.is_set()

    async def wait_settled(self) -> None:
        await self._settled.wait()

    def check_settled(self) -> None:
        """Call it when a chunkserver has told all it holds."""
        admitted = [s.server for s in self.state.servers() if s.role == CHUNKSERVER]
        if admitted and self.servers.have_reported(admitted):
            self._settled.set()

    async def _settle_in_time(self) -> None:
        await trio.sleep(self.config.chunkserver_dead / 1000)
        self._settled.set()

    async def _keep_listening(self) -> None:
        """Let go of chunkservers that are connected and say nothing. (And look at the time.)"""
        while True:
            await trio.sleep(self.config.heartbeat / 1000)
            for server in self.servers.silent(self.now_ns()):
                peer = self.links.get(server)
                if peer is not None:
                    peer.close(f"not heard of for {self.config.chunkserver_dead} ms")

    # --- handles -----------------------------------------------------------------------------

    def _reserve_handles(self) -> None:
        def done(outcome: Message | TideError, index: int) -> None:
            if isinstance(outcome, HandlesReserved):
                self.handles.add(outcome.first, outcome.count)
            else:
                self.handles.failed()

        try:
            self.driver.propose(ReserveHandles(HANDLES_PER_RESERVATION), done)
        except TideError:
            self.handles.failed()


def _check_leads(error: TideError) -> None:
    """A change of the leader's own has failed: when it leads no more, that ends its term."""
    if error.code is Code.NOT_LEADER:
        raise error


def _format_cluster(config: MetaserverConfig) -> FormatCluster:
    """The first change of a new cluster."""
    return FormatCluster(
        cluster=config.cluster,
        replicas=config.replicas,
        root_mode=config.root_mode,
        root_uid=config.root_uid,
        root_gid=config.root_gid,
    )


def _ignore_session(session: int) -> None:
    pass


def _ignore_grants(effect: LocksGranted) -> None:
    pass
