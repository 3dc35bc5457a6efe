"""What both drivers translate in the same way: kinds of inodes, block counts, statfs figures."""

import stat
from typing import NamedTuple

from ...fs.attributes import Attributes, Kind
from ...fs.messages.meta import Space

FORMAT_BITS: dict[Kind, int] = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
}
KINDS = {bits: kind for kind, bits in FORMAT_BITS.items()}
DEVICES = (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)

SELF_COOKIE = 1
"""``.`` and ``..`` come first in a listing; the vfs's own cookies are moved up behind them."""
PARENT_COOKIE = 2

STATFS_UNIT_BYTES = 4096
SECTOR_BYTES = 512


def blocks_of(attributes: Attributes) -> int:
    """st_blocks: ``stored_bytes`` is an upper bound that counts whole chunks."""
    occupied_bytes = min(attributes.stored_bytes, attributes.size)
    return -(-occupied_bytes // SECTOR_BYTES)


class StatfsFigures(NamedTuple):
    """statvfs(3): blocks of STATFS_UNIT_BYTES, and inodes."""

    blocks: int
    free_blocks: int
    inodes: int
    free_inodes: int


def statfs_figures(space: Space) -> StatfsFigures:
    """There is no table of inodes that could fill up: as many more as there are blocks."""
    free = space.free_bytes // STATFS_UNIT_BYTES
    return StatfsFigures(space.total_bytes // STATFS_UNIT_BYTES, free, space.inodes + free, free)
