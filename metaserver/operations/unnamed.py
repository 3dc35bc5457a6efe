"""CreateUnnamed: a file that has no name, or not yet (O_TMPFILE)."""

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.messages.base import Message
from ...fs.messages.meta import CreateUnnamed, Node
from ..moment import Moment
from ..tables import Tables
from .checks import check_mode, check_owner
from .newcomers import make
from .table import Perform, operation


@operation(CreateUnnamed)
def create_unnamed(tables: Tables, request: CreateUnnamed, payload: Buffer) -> Perform:
    """An orphan from the start. The directory stays as it is."""
    check_mode(request.mode)
    check_mode(request.umask)
    uid, gid, mode, umask = request.uid, request.gid, request.mode, request.umask
    check_owner(uid, gid)
    directory = tables.inodes.living_directory(request.parent)

    def perform(moment: Moment) -> Message:
        inode = make(tables, directory, Kind.FILE, mode, uid, gid, moment.time_ns, umask)
        inode.links = 0
        tables.inodes.begin_unnamed(inode, linkable=request.linkable)
        tables.inodes.put(inode)
        return Node(inode.attributes())

    return perform
