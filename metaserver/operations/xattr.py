"""SetXattr and RemoveXattr. Access lists are attributes too, and change the mode (acl(5))."""

from ...fs import acl
from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.limits import XATTR_VALUE_MAX_BYTES, XATTRS_PER_INODE_MAX_BYTES
from ...fs.messages.base import Message
from ...fs.messages.meta import Node, RemoveXattr, SetXattr, XattrFlags
from ..access import set_access
from ..inodes import Inode
from ..moment import Moment
from ..namespace import show
from ..tables import Tables
from .checks import check_xattr_name
from .table import Perform, operation

_SPACES = (b"user", b"trusted", b"security")


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
    _check_name_of(inode, name)
    access = acl.decode(value) if name in acl.NAMES else None
    there = tables.xattrs.of_name(inode, name) is not None
    if there and request.flags & XattrFlags.CREATE:
        raise TideError(Code.EXISTS, f"attribute {show(name)} of inode {inode.number}")
    if not there and request.flags & XattrFlags.REPLACE:
        raise _missing(inode.number, name)
    _check_room(tables, inode.number, name, value)

    def perform(moment: Moment) -> Message:
        if access == ():
            tables.xattrs.delete(inode, name)
        elif access is not None and name == acl.ACCESS:
            set_access(tables.xattrs, inode, access)
        else:
            tables.xattrs.put(inode, name, value)
        if request.kill_set_group_id and access:
            inode.mode &= ~acl.SET_GROUP_ID
        inode.changed(moment.time_ns)
        tables.inodes.put(inode)
        return Node(inode.attributes())

    return perform


@operation(RemoveXattr)
def remove_xattr(tables: Tables, request: RemoveXattr, payload: Buffer) -> Perform:
    """NO_ATTRIBUTE when there is none of that name; of an access list nothing is left either way.

    The mode stays as it is when one goes: its group bits are those of the mask."""
    name = request.name
    check_xattr_name(name)
    inode = tables.inodes.require(request.inode)
    _check_name_of(inode, name)
    if tables.xattrs.of_name(inode, name) is None:
        if name in acl.NAMES:
            return lambda moment: Node(inode.attributes())
        raise _missing(inode.number, name)

    def perform(moment: Moment) -> Message:
        tables.xattrs.delete(inode, name)
        inode.changed(moment.time_ns)
        tables.inodes.put(inode)
        return Node(inode.attributes())

    return perform


def _check_name_of(inode: Inode, name: bytes) -> None:
    """What may be called so, and on what (xattr(7)): the kernel lets only root near some of it."""
    space, dot, rest = name.partition(b".")
    what = f"attribute {show(name)} of inode {inode.number}, a {inode.kind.name}"
    if name in acl.NAMES:
        if inode.kind is Kind.SYMLINK:
            raise TideError(Code.NOT_SUPPORTED, what)
        if name == acl.DEFAULT and inode.kind is not Kind.DIRECTORY:
            raise TideError(Code.ACCESS_DENIED, f"{what}: only a directory has a default list")
    elif space not in _SPACES or not dot:
        raise TideError(Code.NOT_SUPPORTED, f"{what}: it is user., trusted. or security.")
    elif not rest:
        raise TideError(Code.INVALID, f"{what}: nothing follows the dot")
    elif space == b"user" and inode.kind not in (Kind.FILE, Kind.DIRECTORY):
        raise TideError(Code.NOT_PERMITTED, f"{what}: only files and directories have them")


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
