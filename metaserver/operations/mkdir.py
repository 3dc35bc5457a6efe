"""MakeDirectory."""

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.messages.base import Message
from ...fs.messages.meta import MakeDirectory
from ..moment import Moment
from ..tables import Tables
from .checks import check_mode, check_room_for_link
from .newcomers import check_newcomer, enter, make
from .table import Perform, operation


@operation(MakeDirectory)
def make_directory(tables: Tables, request: MakeDirectory, payload: Buffer) -> Perform:
    """A directory; its ``..`` is one more link to its parent."""
    uid, gid, mode, umask = request.uid, request.gid, request.mode, request.umask
    check_mode(umask)
    directory = check_newcomer(tables, request.parent, request.name, mode, uid, gid)
    check_room_for_link(directory)

    def perform(moment: Moment) -> Message:
        inode = make(tables, directory, Kind.DIRECTORY, mode, uid, gid, moment.time_ns, umask)
        return enter(tables, directory, request.name, inode, moment)

    return perform
