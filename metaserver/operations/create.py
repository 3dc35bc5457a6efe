"""Create: a file, fifo, socket or device; or what is there, when that will do."""

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.messages.base import Message
from ...fs.messages.meta import Create, Entry
from ..inodes import Inode
from ..moment import Moment
from ..namespace import show
from ..tables import Tables
from .checks import check_device, check_mode, check_name, check_owner, taken
from .newcomers import enter, make
from .table import Perform, operation

_DEVICES = (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)


@operation(Create)
def create(tables: Tables, request: Create, payload: Buffer) -> Perform:
    """EXISTS when the name is taken; not exclusive, a file that is there is answered instead."""
    check_name(request.name)
    check_mode(request.mode)
    check_owner(request.uid, request.gid)
    check_device(request.device)
    check_mode(request.umask)
    if request.kind in (Kind.DIRECTORY, Kind.SYMLINK):
        raise TideError(Code.INVALID, f"{request.kind.name} has a request of its own")
    directory = tables.inodes.living_directory(request.parent)
    dentry = tables.names.find(directory, request.name)
    if dentry is not None:
        found = _what_is_there(tables, request, directory, dentry.inode)
        return lambda moment: Entry(found.attributes(), directory.attributes())

    def perform(moment: Moment) -> Message:
        inode = make(
            tables,
            directory,
            request.kind,
            request.mode,
            request.uid,
            request.gid,
            moment.time_ns,
            request.umask,
        )
        if request.kind in _DEVICES:
            inode.device = request.device
        return enter(tables, directory, request.name, inode, moment)

    return perform


def _what_is_there(tables: Tables, request: Create, directory: Inode, number: int) -> Inode:
    if request.exclusive or request.kind is not Kind.FILE:
        raise taken(directory, request.name)
    found = tables.inodes.require(number)
    if found.kind is Kind.DIRECTORY:
        raise TideError(
            Code.IS_A_DIRECTORY, f"{show(request.name)} in directory {directory.number}"
        )
    if found.kind is not Kind.FILE:
        raise taken(directory, request.name)
    return found
