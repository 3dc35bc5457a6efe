"""What the kernel is told without being asked: notifications (enum fuse_notify_code).

They look like replies to the request number 0, with the kind of notification for an error.
"""

from . import structures as s
from .opcodes import Notification

_NO_REQUEST = 0


def forget_attributes(inode: int) -> bytes:
    """The attributes and access lists of an inode, not its pages (struct
    fuse_notify_inval_inode_out with a negative offset)."""
    return _inval_inode(inode, -1)


def forget_pages(inode: int) -> bytes:
    """The attributes and all pages of an inode."""
    return _inval_inode(inode, 0)


def _inval_inode(inode: int, offset: int) -> bytes:
    size = s.INVAL_INODE.size
    return s.INVAL_INODE.pack(size, Notification.INVAL_INODE, _NO_REQUEST, inode, offset, 0)


def forget_name(parent: int, name: bytes) -> bytes:
    """What a name leads to (struct fuse_notify_inval_entry_out)."""
    size = s.INVAL_ENTRY.size + len(name) + 1
    head = s.INVAL_ENTRY.pack(size, Notification.INVAL_ENTRY, _NO_REQUEST, parent, len(name), 0)
    return head + name + b"\0"
