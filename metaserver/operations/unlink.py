"""Unlink: take a name away from anything but a directory."""

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.messages.base import Message
from ...fs.messages.meta import Removed, Unlink
from ..inodes import Inode
from ..moment import Moment
from ..namespace import Dentry, show
from ..tables import Tables
from .checks import check_name
from .table import Perform, operation


@operation(Unlink)
def unlink(tables: Tables, request: Unlink, payload: Buffer) -> Perform:
    """IS_A_DIRECTORY for a directory, as Linux says it."""
    check_name(request.name)
    directory = tables.inodes.living_directory(request.parent)
    dentry = tables.names.require(directory, request.name)
    inode = tables.inodes.require(dentry.inode)
    if inode.kind is Kind.DIRECTORY:
        raise TideError(
            Code.IS_A_DIRECTORY, f"{show(request.name)} in directory {directory.number}"
        )
    return lambda moment: remove(tables, directory, request.name, dentry, inode, moment)


def remove(
    tables: Tables, directory: Inode, name: bytes, dentry: Dentry, inode: Inode, moment: Moment
) -> Message:
    """Take the name away, and answer with what is left of the inode."""
    tables.names.remove(directory, name, dentry, moment.time_ns)
    tables.inodes.lose_name(inode, moment)
    tables.inodes.put(inode)
    tables.inodes.put(directory)
    return Removed(inode.attributes(), directory.attributes())
