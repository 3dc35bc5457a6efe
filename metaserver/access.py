"""Access lists and modes of inodes, which always say the same. See `fs/acl.py`. Pure.

The caller puts the inode.
"""

from ..fs import acl
from ..fs.acl import Acl
from ..fs.attributes import Kind
from .inodes import Inode
from .xattrs import Xattrs

CAPABILITY = b"security.capability"
"""capabilities(7): what an executable file may do, whoever runs it."""


def inherited(xattrs: Xattrs, directory: Inode) -> Acl | None:
    """The default list of a directory, if it has one."""
    return _stored(xattrs, directory, acl.DEFAULT)


def begin(xattrs: Xattrs, inode: Inode, born: acl.Born) -> None:
    """A new inode has the mode, and gets the lists, that it is born with."""
    if born.access is not None:
        xattrs.put(inode, acl.ACCESS, acl.encode(born.access))
    if born.default is not None:
        xattrs.put(inode, acl.DEFAULT, acl.encode(born.default))


def set_mode(xattrs: Xattrs, inode: Inode, mode: int) -> None:
    """chmod(2)."""
    inode.mode = mode
    access = _stored(xattrs, inode, acl.ACCESS)
    if access is not None:
        xattrs.put(inode, acl.ACCESS, acl.encode(acl.with_mode(access, mode)))


def set_access(xattrs: Xattrs, inode: Inode, access: Acl) -> None:
    """An access list that has entries takes the place of the one there is, and of the mode."""
    inode.mode = (inode.mode & ~acl.PERMISSIONS) | acl.mode_bits(access)
    if acl.is_minimal(access):
        xattrs.delete(inode, acl.ACCESS)
    else:
        xattrs.put(inode, acl.ACCESS, acl.encode(access))


def kill_privileges(xattrs: Xattrs, inode: Inode) -> None:
    """What no longer holds for a file that was written to or given away: set-user-id, set-group-id
    of what the group may execute, and capabilities. A directory keeps all of it (chown(2))."""
    if inode.kind is not Kind.DIRECTORY:
        inode.mode = acl.without_privileges(inode.mode)
        xattrs.delete(inode, CAPABILITY)


def _stored(xattrs: Xattrs, inode: Inode, name: bytes) -> Acl | None:
    value = xattrs.of_name(inode, name)
    return None if value is None else acl.decode(value)
