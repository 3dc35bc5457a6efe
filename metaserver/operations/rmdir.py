"""RemoveDirectory: take an empty directory away."""

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.messages.meta import RemoveDirectory
from ..namespace import show
from ..tables import Tables
from .checks import check_name
from .table import Perform, operation
from .unlink import remove


@operation(RemoveDirectory)
def remove_directory(tables: Tables, request: RemoveDirectory, payload: Buffer) -> Perform:
    """NOT_A_DIRECTORY or NOT_EMPTY when it cannot be."""
    check_name(request.name)
    directory = tables.inodes.living_directory(request.parent)
    dentry = tables.names.require(directory, request.name)
    inode = tables.inodes.require(dentry.inode)
    where = f"{show(request.name)} in directory {directory.number}"
    if inode.kind is not Kind.DIRECTORY:
        raise TideError(Code.NOT_A_DIRECTORY, where)
    if inode.size:
        raise TideError(Code.NOT_EMPTY, f"{where} has {inode.size} entries")
    return lambda moment: remove(tables, directory, request.name, dentry, inode, moment)
