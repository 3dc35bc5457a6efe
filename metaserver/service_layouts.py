"""GetLayout: where chunks are, and for writers a grant of each; ReportFailure."""

import contextlib
from collections.abc import Awaitable
from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.limits import CHUNK_BYTES, LAYOUT_CHUNKS_MAX
from ..fs.messages.base import Done
from ..fs.messages.meta import GetLayout, Layout, ReportFailure
from ..fs.messages.places import ChunkPlace, ServerPlace
from .chunks import NO_CUT
from .grants import ATTEMPTS, Grant
from .leader import Leader
from .records import FileChunk
from .reservations import Reservation
from .service_reads import Answer
from .state import State


class _Draft(NamedTuple):
    """A layout as far as it can be given now, and the chunks with which something is to be done
    first."""

    places: list[ChunkPlace]
    unready: list[int]


class Layouts:
    """Answers about places, from the state and what the leader knows."""

    def __init__(self, state: State, leader: Leader) -> None:
        self._state = state
        self._leader = leader

    def get(self, request: GetLayout, session: int) -> Answer | Awaitable[Answer]:
        """See the request."""
        if not 0 < request.count <= LAYOUT_CHUNKS_MAX:
            raise TideError(
                Code.INVALID, f"a layout of {request.count} chunks; 1 to {LAYOUT_CHUNKS_MAX} can be"
            )
        if request.write:
            draft = self._draft_to_write(request, session)
        else:
            draft = self._draft_to_read(request)
        if draft is None or draft.unready:
            return self._get_slowly(request, session)
        return self._answer(request, draft)

    async def _get_slowly(self, request: GetLayout, session: int) -> Answer:
        """After chunkservers have come back, and grants have been made."""
        await self._leader.wait_settled()
        if not request.write:
            return await self._read_slowly(request)
        for _ in range(ATTEMPTS):
            draft = self._draft_to_write(request, session)
            assert draft is not None, "settled"
            if not draft.unready:
                return self._answer(request, draft)
            for handle in draft.unready:
                await self._leader.grants.obtain(handle)
        raise TideError(Code.UNAVAILABLE, f"inode {request.inode} is changing all the time")

    async def _read_slowly(self, request: GetLayout) -> Answer:
        draft = self._draft_to_read(request)
        assert draft is not None, "settled"
        for handle in draft.unready:
            if self._leader.grants.is_lost(handle):
                await self._leader.grants.search(handle)
            else:
                await self._cut(handle)
        draft = self._draft_to_read(request)
        assert draft is not None, "settled"
        if draft.places and all(self._is_lost(place) for place in draft.places):
            raise TideError(
                Code.DEVICE_ERROR,
                f"inode {request.inode}: chunk {draft.places[0].handle:016x} is on no chunkserver,"
                " and all of them are up: its bytes are lost",
            )
        return self._answer(request, draft)

    def _is_lost(self, place: ChunkPlace) -> bool:
        return not place.replicas and self._leader.grants.is_lost(place.handle)

    async def _cut(self, handle: int) -> None:
        """Drop what was truncated away. A chunk where that cannot be done now is not read."""
        with contextlib.suppress(TideError):
            await self._leader.grants.obtain(handle)

    def _answer(self, request: GetLayout, draft: _Draft) -> Answer:
        return Answer(Layout(self._state.attributes(request.inode), draft.places))

    # --- to read -----------------------------------------------------------------------------

    def _draft_to_read(self, request: GetLayout) -> _Draft | None:
        """None: somebody may come back in a moment who has what is missing."""
        places: list[ChunkPlace] = []
        unready: list[int] = []
        size = self._state.attributes(request.inode).size
        for chunk in self._state.chunks(request.inode, request.first, request.count):
            if chunk.cut != NO_CUT and size > chunk.index * CHUNK_BYTES + chunk.cut:
                # Bytes that are to go must not be read: the cut comes first.
                unready.append(chunk.handle)
                places.append(_place(chunk, chunk.version, []))
                continue
            good = self._leader.servers.good(chunk.handle, chunk.version)
            if not good and not self._leader.settled:
                return None
            if not good and self._leader.grants.is_lost(chunk.handle):
                unready.append(chunk.handle)
            turn = chunk.handle % max(1, len(good))
            servers = [server.place for server in good[turn:] + good[:turn]]
            places.append(_place(chunk, chunk.version, servers))
        return _Draft(places, unready)

    # --- to write ----------------------------------------------------------------------------

    def _draft_to_write(self, request: GetLayout, session: int) -> _Draft | None:
        """None: as above."""
        chunks = {
            chunk.index: chunk
            for chunk in self._state.chunks(request.inode, request.first, request.count)
        }
        places: list[ChunkPlace] = []
        ungranted: list[int] = []
        for index in range(request.first, request.first + request.count):
            chunk = chunks.get(index)
            if chunk is not None:
                handle = chunk.handle
                grant = self._leader.grants.known(handle)
            else:
                reservation = self._reservation(request.inode, index, session)
                handle = reservation.handle
                grant = self._granted(reservation)
            if grant is not None:
                fresh = chunk is None or grant.fresh
                self._leader.grants.used(handle, session)
                servers = self._places_of(grant)
                places.append(ChunkPlace(index, handle, grant.version, servers, fresh))
            elif self._leader.settled:
                ungranted.append(handle)
            else:
                return None
        return _Draft(places, ungranted)

    def _reservation(self, inode: int, index: int, session: int) -> Reservation:
        """A missing chunk's, which is made when there is none that could be committed."""
        reservations = self._leader.reservations
        found = reservations.at(session, inode, index)
        if found is not None and found.handle > self._state.dropped_handle(inode, index):
            return found
        handle = self._leader.handles.take()
        if found is not None:
            reservations.drop(found.handle)
        return reservations.reserve(session, inode, index, handle)

    def _granted(self, reservation: Reservation) -> Grant | None:
        """The reservation's grant; a new one is placed at once."""
        grants = self._leader.grants
        if reservation.servers or reservation.claimed:
            return grants.known(reservation.handle)
        if not self._leader.settled and len(self._leader.servers.up()) < grants.wanted:
            return None
        return grants.place_fresh(reservation)

    def _places_of(self, grant: Grant) -> list[ServerPlace]:
        found = [self._leader.servers.get(server) for server in grant.servers]
        return [server.place for server in found if server is not None]

    # --- failures ----------------------------------------------------------------------------

    def report_failure(self, request: ReportFailure, session: int) -> Answer:
        """See the request."""
        handle, servers = request.handle, request.servers
        if servers or not self._leader.give_back(handle, session):
            self._leader.grants.failed(handle, request.version, servers)
        return Answer(Done())


def _place(chunk: FileChunk, version: int, servers: list[ServerPlace]) -> ChunkPlace:
    return ChunkPlace(chunk.index, chunk.handle, version, servers, fresh=False)
