"""Write grants: at which version, and on which servers in which order, a chunk may be written.

GFS section 3.1. A new version is taken by every reachable replica, *then* logged, *then* given to
a client. A grant is remembered until a replica fails or disconnects; the next one leaves out who
was reported as failed. Who wants to copy a chunk takes it ``exclusively``: nobody is granted it
meanwhile.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from ..fs.errors import Code, TideError
from ..fs.messages.chunk import SetVersion
from ..fs.messages.hello import CHUNKSERVER
from ..fs.ports.randomness import Randomness
from .chunks import NO_CUT
from .chunkservers import Chunkserver, Chunkservers, Replica
from .driver import Driver
from .entries import CutTail, GrantChunk
from .handles import VersionCounter
from .links import Links
from .placement import Candidate, place
from .replicas import Replicas, Taken, name_of
from .reservations import Reservation, Reservations
from .state import State

GRANTS_REMEMBERED = 100_000
ATTEMPTS = 3
"""So often a grant that a truncation overtook is made again before the client is sent away."""

log = logging.getLogger(__name__)


class Grant(NamedTuple):
    """The first server is the primary, the order of the rest is the chain."""

    version: int
    servers: tuple[int, ...]
    fresh: bool = False
    """Nobody has written it: the first writer makes it."""


class Grants:
    """All grants of this leader, and how a new one is made."""

    def __init__(
        self,
        state: State,
        driver: Driver,
        servers: Chunkservers,
        links: Links,
        reservations: Reservations,
        versions: VersionCounter,
        randomness: Randomness,
        replicas_min: int,
    ) -> None:
        self._state = state
        self._driver = driver
        self._servers = servers
        self.replicas = Replicas(servers, links)
        self._reservations = reservations
        self._versions = versions
        self._randomness = randomness
        self._replicas_min = replicas_min
        self._grants: dict[int, Grant] = {}
        self._users: dict[int, set[int]] = {}
        self._of_server: dict[int, set[int]] = {}
        self._failed: dict[int, set[int]] = {}
        self._busy: dict[int, trio.Event] = {}

    @property
    def wanted(self) -> int:
        """Copies that a chunk should have."""
        return self._state.totals.replicas

    @property
    def minimum(self) -> int:
        """Copies that a write needs."""
        return min(self.wanted, self._replicas_min)

    # --- what is granted ---------------------------------------------------------------------

    def known(self, handle: int) -> Grant | None:
        """The grant that is good as it is, or None when a new one must be made."""
        return None if handle in self._busy else self._valid(handle)

    def is_busy(self, handle: int) -> bool:
        """Whether a grant or a copy of it is being made."""
        return handle in self._busy

    def _valid(self, handle: int) -> Grant | None:
        grant = self._grants.get(handle)
        if grant is None:
            return None
        chunk = self._state.chunk(handle)
        if chunk is not None and (
            chunk.cut != NO_CUT or grant.version < max(chunk.version, chunk.cut_version + 1)
        ):
            return None
        return grant

    def failed(self, handle: int, version: int, servers: Iterable[int]) -> None:
        """A write or sync at ``version`` failed there: the grant is over, unless a newer one is."""
        if version >= self._version_of(handle):
            self._failed.setdefault(handle, set()).update(servers)
            self.forget(handle)

    def _version_of(self, handle: int) -> int:
        """At which a chunk is written now, as far as is known."""
        if (grant := self._grants.get(handle)) is not None:
            return grant.version
        if (reservation := self._reservations.of(handle)) is not None:
            return reservation.version
        chunk = self._state.chunk(handle)
        return 0 if chunk is None else chunk.version

    def forget(self, handle: int) -> None:
        """Make a new grant before the next write."""
        grant = self._grants.pop(handle, None)
        self._users.pop(handle, None)
        for server in grant.servers if grant else ():
            self._of_server[server].discard(handle)

    def forget_server(self, server: int) -> None:
        """It is down, or came back: what it was granted is over."""
        for handle in list(self._of_server.get(server, ())):
            self.forget(handle)

    def used(self, handle: int, session: int) -> None:
        """The session may write at the grant of this chunk."""
        if handle in self._grants:
            self._users.setdefault(handle, set()).add(session)

    def forget_session(self, session: int) -> None:
        """It has expired: what it wrote and did not commit goes with the next grant."""
        for handle in [handle for handle, users in self._users.items() if session in users]:
            self.forget(handle)

    def dropped(self, handle: int) -> None:
        """The chunk is gone for good."""
        self.forget(handle)
        self._failed.pop(handle, None)

    def _remember(self, handle: int, grant: Grant) -> None:
        self.forget(handle)
        if not all(self._servers.is_up(server) for server in grant.servers):
            return
        if len(self._grants) >= GRANTS_REMEMBERED:
            self.forget(next(iter(self._grants)))
        self._grants[handle] = grant
        for server in grant.servers:
            self._of_server.setdefault(server, set()).add(handle)

    # --- one at a time -----------------------------------------------------------------------

    @asynccontextmanager
    async def exclusively(self, handle: int) -> AsyncIterator[None]:
        """Nobody else makes a grant of this chunk, and nobody is given one, meanwhile."""
        while (other := self._busy.get(handle)) is not None:
            await other.wait()
        mine = self._busy[handle] = trio.Event()
        try:
            yield
        finally:
            del self._busy[handle]
            mine.set()

    async def obtain(self, handle: int) -> Grant:
        """The grant of a chunk that is part of a file or reserved; those who ask together share it.

        UNAVAILABLE while too few replicas are reachable, LAYOUT_CHANGED when the chunk is gone,
        NO_SPACE when it must be placed anew and no server has room.
        """
        async with self.exclusively(handle):
            grant = self._valid(handle)
            if grant is not None:
                return grant
            for _ in range(ATTEMPTS):
                grant = await self._make(handle)
                if grant is not None:
                    self._remember(handle, grant)
                    return grant
        raise TideError(Code.UNAVAILABLE, f"{name_of(handle)} is being truncated all the time")

    # --- chunks that do not exist yet --------------------------------------------------------

    def place_fresh(self, reservation: Reservation) -> Grant:
        """Choose the servers of a chunk that nobody wrote yet."""
        grant = self._place(reservation.handle)
        reservation.version, reservation.servers = grant.version, grant.servers
        self._remember(reservation.handle, grant)
        return grant

    def _place(self, handle: int) -> Grant:
        servers = self._choose(self._failed.pop(handle, set()))
        grant = Grant(self._versions.next(), tuple(servers), fresh=True)
        for server in servers:
            # Nobody reports a chunk because it was made: who says that it is not there corrects it.
            self._servers.holds(server, handle, Replica(grant.version, clean=True))
        return grant

    def is_lost(self, handle: int) -> bool:
        """Whether every server that there ever was is up and says that it has no copy.

        So it is with a chunk that was never synced when its machines have lost power.
        """
        if self._servers.holders(handle):
            return False
        known = {record.server for record in self._state.servers() if record.role == CHUNKSERVER}
        known.update(server.server for server in self._servers.all())
        return bool(known) and self._servers.have_reported(known)

    def _choose(self, avoided: set[int]) -> list[int]:
        up = self._servers.up()
        others = [server for server in up if server.server not in avoided]
        for candidates in (others, up):
            chosen = place(
                [candidate_of(server) for server in candidates], self.wanted, self._randomness.below
            )
            if len(chosen) >= self.minimum:
                return chosen
        if len(up) < self.minimum:
            raise TideError(
                Code.UNAVAILABLE,
                f"{len(up)} chunkservers are up, a write needs {self.minimum}",
            )
        raise TideError(
            Code.NO_SPACE,
            f"{len(chosen)} of {len(up)} chunkservers have room for a chunk, a write needs"
            f" {self.minimum}: delete something, or add disks or servers",
        )

    # --- making one --------------------------------------------------------------------------

    async def _make(self, handle: int) -> Grant | None:
        """One attempt; None when a truncation overtook it."""
        await self._cut_tail(handle)
        chunk = self._state.chunk(handle)
        reservation = self._reservations.of(handle)
        if chunk is None and reservation is None:
            raise TideError(Code.LAYOUT_CHANGED, f"{name_of(handle)} is gone")
        cut = NO_CUT if chunk is None else chunk.cut
        version = self._versions.next()
        if chunk is not None and self.is_lost(handle) and not await self.search(handle):
            return await self._make_lost(handle, chunk.cut)
        if chunk is not None:
            candidates = [server.server for server in self._servers.good(handle, chunk.version)]
            version_min = chunk.version
        else:
            assert reservation is not None
            candidates, version_min = self._candidates_of(reservation)
        request = SetVersion(handle, version_min, version, cut)
        accepted, absent, outdated = await self._take(request, candidates)
        if reservation is not None and chunk is None and not accepted:
            if not (absent or outdated or not (candidates or reservation.servers)):
                raise self._too_few(handle, 0)  # whoever was told to make it may have made it
            await self.replicas.delete(handle, version_min - 1, outdated)
            return self.place_fresh(reservation)
        if len(accepted) < self.minimum:
            raise self._too_few(handle, len(accepted))
        turn = handle % len(accepted)
        grant = Grant(version, tuple(accepted[turn:] + accepted[:turn]))
        if reservation is not None:
            # Before the entry: a Commit that is proposed behind it is given this version.
            reservation.version, reservation.servers = grant.version, grant.servers
        return grant if await self._log(request) else None

    async def _cut_tail(self, handle: int) -> None:
        """What lies behind the end of the file goes with the grant: who wrote it has not committed
        it, and may be dead. It is in the log first, so that a Commit of it fails from then on."""
        chunk = self._state.chunk(handle)
        if chunk is not None and chunk.cut == NO_CUT and self._state.ends_in(handle):
            await self._driver.perform(CutTail(handle))

    async def search(self, handle: int) -> bool:
        """Ask all servers for a chunk that none has told of; whether one has it after all.

        A chunk that was made after its server's report, and before anybody was asked, is such one.
        """
        chunk = self._state.chunk(handle)
        if chunk is None:
            return False
        request = SetVersion(handle, chunk.version, self._versions.next(), NO_CUT)
        up = [server.server for server in self._servers.up()]
        taken = await self.replicas.ask(request, up, quietly=True)
        return bool(taken.accepted)

    async def _make_lost(self, handle: int, cut: int) -> Grant | None:
        """A chunk that nobody has any more begins anew, with zeros where nobody writes."""
        grant = self._place(handle)
        log.warning("%s is lost by all servers that had it, and is begun anew", name_of(handle))
        request = SetVersion(handle, 0, grant.version, cut)
        return grant if await self._log(request) else None

    def made(self, handle: int) -> None:
        """It was written."""
        grant = self._grants.get(handle)
        if grant is not None and grant.fresh:
            self._grants[handle] = grant._replace(fresh=False)

    async def _log(self, request: SetVersion) -> bool:
        """Put the grant into the log; whether no truncation overtook it."""
        handle = request.handle
        try:
            await self._driver.perform(GrantChunk(handle, request.version, request.cut))
        except TideError as error:
            if error.code is Code.NO_CHUNK and handle in self._reservations:
                return True  # nobody committed it yet
            if error.code is Code.NO_CHUNK:
                raise TideError(Code.LAYOUT_CHANGED, f"{name_of(handle)} is gone") from None
            raise
        chunk = self._state.chunk(handle)
        return chunk is None or (chunk.cut == NO_CUT and chunk.cut_version < request.version)

    def _candidates_of(self, reservation: Reservation) -> tuple[list[int], int]:
        """Who may hold a chunk that was not committed, and from which version on it is good."""
        holders = [s for s in self._servers.holders(reservation.handle) if s.connected]
        handle = reservation.handle
        version_min = reservation.version or max(
            (server.replicas[handle].version for server in holders), default=0
        )
        found = {s.server for s in holders if s.replicas[handle].version >= version_min}
        told = {server for server in reservation.servers if self._servers.is_up(server)}
        return sorted(found | told), version_min

    async def _take(self, request: SetVersion, candidates: Sequence[int]) -> Taken:
        """Have replicas take the version.

        First those nobody complained about; then new copies on other servers; then, when there
        is nobody else, those that failed before: all they may have missed was never acknowledged.
        """
        failed = self._failed.get(request.handle, set())
        taken = await self.replicas.ask(request, [s for s in candidates if s not in failed])
        if 0 < len(taken.accepted) < self.minimum:
            taken.accepted.extend(await self._copy_elsewhere(request, taken, candidates))
        if len(taken.accepted) < self.minimum:
            late = await self.replicas.ask(request, [s for s in candidates if s in failed])
            taken.accepted.extend(late.accepted)
            taken.absent.extend(late.absent)
            taken.outdated.extend(late.outdated)
            if taken.accepted and len(taken.accepted) < self.minimum:
                taken.accepted.extend(await self._copy_elsewhere(request, taken, candidates))
        if len(taken.accepted) >= self.minimum:
            self._failed.pop(request.handle, None)
        taken.accepted.sort()
        return taken

    async def fence(self, handle: int, version_min: int) -> tuple[int, list[int]]:
        """Have all good replicas of a chunk that is held exclusively take a new version.

        Old layouts cannot write it any more: a chain of which one member moved on acknowledges
        nothing. So there is no need to log the version, and replicas that are down stay good.
        """
        self.forget(handle)
        version = self._versions.next()
        sources = [server.server for server in self._servers.good(handle, version_min)]
        taken = await self.replicas.ask(SetVersion(handle, version_min, version, NO_CUT), sources)
        return version, taken.accepted

    async def _copy_elsewhere(
        self, request: SetVersion, taken: Taken, candidates: Sequence[int]
    ) -> list[int]:
        """As many new copies as a write needs, of a chunk that has too few. Who has one and is no
        candidate, or said that it is outdated, has one that is good for nothing but being
        replaced."""
        sources = taken.accepted
        count = self.minimum - len(sources)
        kept = set(candidates) - set(taken.outdated) - set(taken.absent)
        spare = [server for server in self._servers.up() if server.server not in kept]
        targets = place([candidate_of(s) for s in spare], count, self._randomness.below)
        return await self.replicas.copy(request.handle, request.version, sources, targets)

    def _too_few(self, handle: int, count: int) -> TideError:
        return TideError(
            Code.UNAVAILABLE,
            f"{count} copies of {name_of(handle)} can be written at the moment, a write needs"
            f" {self.minimum}",
        )


def candidate_of(server: Chunkserver) -> Candidate:
    """A chunkserver as placement sees it."""
    return Candidate(server.server, server.place.host, server.total_bytes, server.free_bytes)
