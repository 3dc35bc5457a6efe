"""Link: one more name for a file, or the first one of a file that was made without."""

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.messages.base import Message
from ...fs.messages.meta import Link
from ..moment import Moment
from ..tables import Tables
from .checks import check_name, check_room_for_link, taken
from .newcomers import enter
from .table import Perform, operation


@operation(Link)
def link(tables: Tables, request: Link, payload: Buffer) -> Perform:
    """NOT_PERMITTED for a directory, NO_ENTRY for an inode that lost its last name."""
    check_name(request.name)
    inode = tables.inodes.require(request.inode)
    if inode.kind is Kind.DIRECTORY:
        raise TideError(Code.NOT_PERMITTED, f"inode {inode.number} is a directory")
    if not tables.inodes.is_linkable(inode):
        raise TideError(Code.NO_ENTRY, f"inode {inode.number} lost its last name")
    check_room_for_link(inode)
    directory = tables.inodes.living_directory(request.parent)
    if tables.names.find(directory, request.name) is not None:
        raise taken(directory, request.name)

    def perform(moment: Moment) -> Message:
        tables.inodes.gain_name(inode, moment.time_ns)
        return enter(tables, directory, request.name, inode, moment)

    return perform
