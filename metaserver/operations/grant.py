"""ReserveHandles, CutTail and GrantChunk: the entries that a layout may cost."""

from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.limits import CHUNK_BYTES
from ...fs.messages.base import Done, Message
from ..chunks import NO_CUT
from ..entries import CutTail, GrantChunk, HandlesReserved, ReserveHandles
from ..keys import NUMBER_MAX
from ..moment import Moment
from ..records import ChunkRecord
from ..tables import Tables
from .table import Perform, operation

RESERVATION_MAX = 1 << 32
VERSION_MAX = (1 << 63) - 1


@operation(ReserveHandles)
def reserve_handles(tables: Tables, request: ReserveHandles, payload: Buffer) -> Perform:
    """The next ``count`` handles, for the leader to give out."""
    if not 0 < request.count <= RESERVATION_MAX:
        raise TideError(Code.INVALID, f"{request.count} handles cannot be reserved")
    if tables.totals.next_handle + request.count > NUMBER_MAX:
        raise TideError(Code.NO_SPACE, "all chunk handles were given out")

    def perform(moment: Moment) -> Message:
        first = tables.totals.next_handle
        tables.totals.next_handle += request.count
        return HandlesReserved(first, request.count)

    return perform


@operation(CutTail)
def cut_tail(tables: Tables, request: CutTail, payload: Buffer) -> Perform:
    """See the request."""
    chunk = tables.chunks.record(request.handle)

    def perform(moment: Moment) -> Message:
        if chunk is not None:
            inode = tables.inodes.require(chunk.inode)
            if inode.size // CHUNK_BYTES == chunk.index:
                tables.chunks.note_cut(inode.number, inode.size)
        return Done()

    return perform


@operation(GrantChunk)
def grant_chunk(tables: Tables, request: GrantChunk, payload: Buffer) -> Perform:
    """The replicas took a new version, and dropped the bytes from ``cut`` on."""
    handle, version = request.handle, request.version
    chunk = tables.chunks.record(handle)
    if chunk is None:
        raise TideError(Code.NO_CHUNK, f"chunk {handle}")
    if not chunk.version < version <= VERSION_MAX:
        raise TideError(Code.STALE_VERSION, f"chunk {handle} is at {chunk.version}, not below")

    def perform(moment: Moment) -> Message:
        if chunk.cut == NO_CUT or 0 <= request.cut <= chunk.cut:
            cut, cut_version = NO_CUT, chunk.cut_version
        else:
            # Truncated while the grant was under way: what is written at it may be cut off too.
            cut, cut_version = chunk.cut, version
        granted = ChunkRecord(chunk.inode, chunk.index, version, cut, cut_version)
        tables.chunks.put(handle, granted)
        return Done()

    return perform
