"""SetXattr and RemoveXattr."""

from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.limits import XATTR_VALUE_MAX_BYTES, XATTRS_PER_INODE_MAX_BYTES
from ...fs.messages.base import Message
from ...fs.messages.meta import Node, RemoveXattr, SetXattr, XattrFlags
from ..moment import Moment
from ..namespace import show
from ..tables import Tables
from .checks import check_xattr_name
from .table import Perform, operation


@operation(SetXattr)
def set_xattr(tables: Tables, request: SetXattr, payload: Buffer) -> Perform:
    """CREATE: EXISTS when it is there. REPLACE: NO_ATTRIBUTE when it is not."""
    name, value = request.name, request.value
    check_xattr_name(name)
    if request.flags not in (XattrFlags.NONE, XattrFlags.CREATE, XattrFlags.REPLACE):
        raise TideError(Code.INVALID, f"setxattr flags {request.flags:#x}")
    if len(value) > XATTR_VALUE_MAX_BYTES:
        raise TideError(
            Code.ATTRIBUTE_TOO_LARGE,
            f"{show(name)} may have {XATTR_VALUE_MAX_BYTES} bytes, not {len(value)}",
        )
    inode = tables.inodes.require(request.inode)
    there = tables.xattrs.get(inode.number, name) is not None
    if there and request.flags == XattrFlags.CREATE:
        raise TideError(Code.EXISTS, f"attribute {show(name)} of inode {inode.number}")
    if not there and request.flags == XattrFlags.REPLACE:
        raise _missing(inode.number, name)
    _check_room(tables, inode.number, name, value)

    def perform(moment: Moment) -> Message:
        tables.xattrs.put(inode.number, name, value)
        inode.changed(moment.time_ns)
        tables.inodes.put(inode)
        return Node(inode.attributes())

    return perform


@operation(RemoveXattr)
def remove_xattr(tables: Tables, request: RemoveXattr, payload: Buffer) -> Perform:
    """NO_ATTRIBUTE when there is none of that name."""
    check_xattr_name(request.name)
    inode = tables.inodes.require(request.inode)
    if tables.xattrs.get(inode.number, request.name) is None:
        raise _missing(inode.number, request.name)

    def perform(moment: Moment) -> Message:
        tables.xattrs.delete(inode.number, request.name)
        inode.changed(moment.time_ns)
        tables.inodes.put(inode)
        return Node(inode.attributes())

    return perform


def _missing(inode: int, name: bytes) -> TideError:
    return TideError(Code.NO_ATTRIBUTE, f"attribute {show(name)} of inode {inode}")


def _check_room(tables: Tables, inode: int, name: bytes, value: bytes) -> None:
    """NO_SPACE when an inode's values, or its names as listxattr(2) counts them, grow too many."""
    values, names = len(value), len(name) + 1
    for other, other_value in tables.xattrs.of(inode):
        if other != name:
            values += len(other_value)
            names += len(other) + 1
    if max(values, names) > XATTRS_PER_INODE_MAX_BYTES:
        raise TideError(
            Code.NO_SPACE,
            f"the attributes of inode {inode} may have {XATTRS_PER_INODE_MAX_BYTES} bytes"
            " together; remove some first",
        )
