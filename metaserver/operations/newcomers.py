"""What all operations that make a new inode share: where it goes, and what it inherits."""

from ...fs import acl
from ...fs.attributes import Kind
from ...fs.messages.meta import Entry
from .. import access
from ..inodes import Inode
from ..moment import Moment
from ..namespace import FIRST_COOKIE
from ..tables import Tables
from .checks import check_mode, check_name, check_owner, taken


def check_newcomer(
    tables: Tables, parent: int, name: bytes, mode: int, uid: int, gid: int
) -> Inode:
    """The directory in which ``name`` can be made."""
    check_name(name)
    check_mode(mode)
    check_owner(uid, gid)
    directory = tables.inodes.living_directory(parent)
    if tables.names.find(directory, name) is not None:
        raise taken(directory, name)
    return directory


def make(
    tables: Tables,
    directory: Inode,
    kind: Kind,
    mode: int,
    uid: int,
    gid: int,
    time_ns: int,
    umask: int = 0,
) -> Inode:
    """A new inode for a directory. It has no name and is not put yet.

    In a set-group-id directory it takes the group over, and a directory the bit too (mount(8),
    "grpid"). Whether the caller may have that bit on a file is for the kernel to say: the server
    does not know its groups. What the directory has as its default access list it inherits; a
    symbolic link has no permissions of its own.
    """
    if directory.mode & acl.SET_GROUP_ID:
        gid = directory.gid
        if kind is Kind.DIRECTORY:
            mode |= acl.SET_GROUP_ID
    if kind is Kind.SYMLINK:
        born = acl.Born(mode, None, None)
    else:
        default = access.inherited(tables.xattrs, directory)
        born = acl.born(mode, umask, default, is_directory=kind is Kind.DIRECTORY)
    inode = tables.inodes.new(kind, born.mode, uid, gid, time_ns)
    access.begin(tables.xattrs, inode, born)
    if kind is Kind.DIRECTORY:
        inode.links = 2
        inode.next_cookie = FIRST_COOKIE
    else:
        inode.links = 1
    return inode


def enter(tables: Tables, directory: Inode, name: bytes, inode: Inode, moment: Moment) -> Entry:
    """Give a new inode its name, put both, and answer with them."""
    tables.names.add(directory, name, inode, moment.time_ns)
    tables.inodes.put(inode)
    tables.inodes.put(directory)
    return Entry(inode.attributes(), directory.attributes())
