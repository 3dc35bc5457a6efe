"""What is known about a file beside its name and its bytes."""

from enum import IntEnum

from .messages.base import Message


class Kind(IntEnum):
    """What an inode is. The numbers stand in the log and on the wire."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7


class Attributes(Message):
    """One inode's attributes, as the metaserver holds them.

    ``change`` counts every change of the inode (NFSv4's change attribute, RFC 8881 section
    5.8.1.4), ``data_version`` only those of the bytes of a file or the entries of a directory.
    """

    inode: int
    kind: Kind
    mode: int  # permission bits only, 0o0000 to 0o7777
    links: int
    uid: int
    gid: int
    device: int  # st_rdev of a device, else 0
    size: int  # bytes; of a directory: its number of entries
    stored_bytes: int  # upper bound of what its chunks or inline bytes occupy, one copy
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    change: int
    data_version: int
    has_xattrs: bool = True  # False: it certainly has no extended attribute, nor access list
