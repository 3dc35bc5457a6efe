"""GetLayout: where chunks are, and for writers a grant of each; ReportFailure."""

from collections.abc import Awaitable
from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.limits import LAYOUT_CHUNKS_MAX
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
    """A layout as far as it can be given now, and the chunks that need a grant first."""

    places: list[ChunkPlace]
    ungranted: list[int]


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
        if draft is None or draft.ungranted:
            return self._get_slowly(request, session)
        return self._answer(request, draft)

    async def _get_slowly(self, request: GetLayout, session: int) -> Answer:
        """After chunkservers have come back, and grants have been made."""
        if not self._leader.settled:
            await self._leader.wait_settled()
        for _ in range(ATTEMPTS):
            if request.write:
                draft = self._draft_to_write(request, session)
                assert draft is not None, "settled"
            else:
                draft = self._draft_to_read(request)
                assert draft is not None, "settled"
            if not draft.ungranted:
                return self._answer(request, draft)
            for handle in draft.ungranted:
                await self._obtain(handle, to_write=request.write)
            if not request.write:
                # Chunks whose cut cannot be made now have no replica to read from.
                draft = self._draft_to_read(request)
                assert draft is not None
                return self._answer(request, draft)
        raise TideError(Code.UNAVAILABLE, f"inode {request.inode} is changing all the time")

    async def _obtain(self, handle: int, *, to_write: bool) -> None:
        try:
            await self._leader.grants.obtain(handle)
        except TideError as error:
            if to_write and error.code is not Code.LAYOUT_CHANGED:
                raise

    def _answer(self, request: GetLayout, draft: _Draft) -> Answer:
        return Answer(Layout(self._state.attributes(request.inode), draft.places))

    # --- to read -----------------------------------------------------------------------------

    def _draft_to_read(self, request: GetLayout) -> _Draft | None:
        """None: somebody may come back in a moment who has what is missing."""
        places: list[ChunkPlace] = []
        uncut: list[int] = []
        for chunk in self._state.chunks(request.inode, request.first, request.count):
            if chunk.cut != NO_CUT:
                # Bytes that were truncated away must not be read: the cut comes first.
                uncut.append(chunk.handle)
                places.append(_place(chunk, chunk.version, []))
                continue
            good = self._leader.servers.good(chunk.handle, chunk.version)
            if not good and not self._leader.settled:
                return None
            turn = chunk.handle % max(1, len(good))
            servers = [server.place for server in good[turn:] + good[:turn]]
            places.append(_place(chunk, chunk.version, servers))
        return _Draft(places, uncut)

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
                handle, fresh = chunk.handle, False
                grant = self._leader.grants.known(handle)
            else:
                reservation = self._reservation(request.inode, index, session)
                handle, fresh = reservation.handle, True
                grant = self._granted(reservation)
            if grant is not None:
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
        found = reservations.at(inode, index)
        if found is not None and found.handle <= self._state.dropped_handle(inode, index):
            reservations.drop(found.handle)
            found = None
        handle = found.handle if found is not None else self._leader.handles.take()
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

    def report_failure(self, request: ReportFailure) -> Answer:
        """The next grant leaves these servers out."""
        self._leader.grants.failed(request.handle, request.version, request.servers)
        return Answer(Done())


def _place(chunk: FileChunk, version: int, servers: list[ServerPlace]) -> ChunkPlace:
    return ChunkPlace(chunk.index, chunk.handle, version, servers, fresh=False)
