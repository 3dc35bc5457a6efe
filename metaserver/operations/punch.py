"""Punch: a hole in a file, and a size that may rise with it (fallocate(2))."""

from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.limits import CHUNK_BYTES
from ...fs.messages.base import Message
from ...fs.messages.meta import Node, Punch
from ..effects import ChunksDropped
from ..inodes import Inode
from ..moment import Moment
from ..tables import Tables
from .checks import check_size
from .resize import resize
from .table import Perform, operation


@operation(Punch)
def punch(tables: Tables, request: Punch, payload: Buffer) -> Perform:
    """See the request."""
    check_size(request.size)
    check_size(request.end)
    if not 0 <= request.offset <= request.end:
        raise TideError(Code.INVALID, f"a hole from {request.offset} to {request.end}")
    inode = tables.inodes.file(request.inode)

    def perform(moment: Moment) -> Message:
        if request.offset < min(request.end, inode.size):
            _make_hole(tables, inode, request, moment)
        if request.size > inode.size:
            resize(tables, inode, request.size, moment)
        inode.data_changed(moment.time_ns)
        tables.inodes.put(inode)
        return Node(inode.attributes())

    return perform


def _make_hole(tables: Tables, inode: Inode, request: Punch, moment: Moment) -> None:
    offset, end, size = request.offset, request.end, inode.size
    if end >= size:
        # So that bytes behind the end that nobody has committed never show either.
        resize(tables, inode, offset, moment)
        resize(tables, inode, size, moment)
    elif inode.chunks:
        dropped = tables.chunks.drop(inode, -(-offset // CHUNK_BYTES), end // CHUNK_BYTES)
        if dropped:
            moment.effects.append(ChunksDropped(dropped))
        tables.chunks.account(inode)
    else:
        content = tables.inline.get(inode.number)
        hole = bytes(max(0, min(end, len(content)) - offset)) if end < len(content) else b""
        tables.inline.set(inode, content[:offset] + hole + content[end:])
