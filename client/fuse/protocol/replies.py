"""Values to bytes for the kernel: the replies to single requests.

Each function gives one whole message, its header included, as the kernel wants it in one write;
only a reply that carries a payload is two buffers, so that the payload is not copied.
"""

from ....fs.attributes import Attributes
from ....fs.codec import Buffer
from ....fs.limits import CACHE_BLOCK_BYTES, NAME_MAX_BYTES
from ....fs.messages.meta import Space
from ..driver import Known, LockRange, Opened, OpenedDirectory
from ..translation import (
    FORMAT_BITS,
    SECTOR_BYTES,
    STATFS_UNIT_BYTES,
    statfs_figures,
)
from . import structures as s
from .opcodes import F_RDLCK, F_UNLCK, F_WRLCK, OFFSET_MAX, OpenReplyFlag

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
MS_PER_S = 1_000
UINT32 = 0xFFFF_FFFF

OUT_BYTES = s.OUT_HEADER.size
ENTRY_BYTES = s.ENTRY_REPLY.size
ATTR_BYTES = s.ATTR_REPLY.size
OPEN_BYTES = s.OPEN_REPLY.size
CREATE_BYTES = s.CREATE_REPLY.size

_KEEP_CACHE = int(OpenReplyFlag.KEEP_CACHE)
_CACHE_DIR = int(OpenReplyFlag.CACHE_DIR)
_DIRECT_IO = int(OpenReplyFlag.DIRECT_IO | OpenReplyFlag.PARALLEL_DIRECT_WRITES)

_out_header = s.OUT_HEADER.pack
_entry = s.ENTRY_REPLY.pack
_attr = s.ATTR_REPLY.pack


def done(unique: int) -> bytes:
    """It was done, and that is all."""
    return _out_header(OUT_BYTES, 0, unique)


def failed(unique: int, number: int) -> bytes:
    """It failed with this errno."""
    return _out_header(OUT_BYTES, -number, unique)


def with_payload(unique: int, payload: Buffer) -> list[Buffer]:
    """READ, READLINK, GETXATTR, LISTXATTR, READDIR: bytes as they are."""
    return [_out_header(OUT_BYTES + len(payload), 0, unique), payload]


def attr_fields(attributes: Attributes) -> tuple[int, ...]:
    """struct fuse_attr."""
    size = attributes.size
    stored = attributes.stored_bytes
    atime, mtime, ctime = attributes.atime_ns, attributes.mtime_ns, attributes.ctime_ns
    return (
        attributes.inode,
        size,
        -(-(stored if stored < size else size) // SECTOR_BYTES),  # blocks_of, without the call
        atime // NS_PER_S,
        mtime // NS_PER_S,
        ctime // NS_PER_S,
        atime % NS_PER_S,
        mtime % NS_PER_S,
        ctime % NS_PER_S,
        FORMAT_BITS[attributes.kind] | attributes.mode,
        attributes.links,
        attributes.uid,
        attributes.gid,
        attributes.device & UINT32,
        CACHE_BLOCK_BYTES,
        0,
    )


def entry_fields(known: Known) -> tuple[int, ...]:
    """struct fuse_entry_out. Inode numbers are never used twice: the generation is 0."""
    attributes, attributes_ms, entry_ms = known
    inode, size, stored = attributes.inode, attributes.size, attributes.stored_bytes
    atime, mtime, ctime = attributes.atime_ns, attributes.mtime_ns, attributes.ctime_ns
    return (
        inode,
        0,
        entry_ms // MS_PER_S,
        attributes_ms // MS_PER_S,
        entry_ms % MS_PER_S * NS_PER_MS,
        attributes_ms % MS_PER_S * NS_PER_MS,
        # From here on attr_fields again: a listing of thousands is a tenth faster without the call.
        inode,
        size,
        -(-(stored if stored < size else size) // SECTOR_BYTES),
        atime // NS_PER_S,
        mtime // NS_PER_S,
        ctime // NS_PER_S,
        atime % NS_PER_S,
        mtime % NS_PER_S,
        ctime % NS_PER_S,
        FORMAT_BITS[attributes.kind] | attributes.mode,
        attributes.links,
        attributes.uid,
        attributes.gid,
        attributes.device & UINT32,
        CACHE_BLOCK_BYTES,
        0,
    )


def entry(unique: int, known: Known) -> bytes:
    """LOOKUP, MKNOD, MKDIR, SYMLINK, LINK: struct fuse_entry_out."""
    return _entry(ENTRY_BYTES, 0, unique, *entry_fields(known))


def attr(unique: int, known: Known) -> bytes:
    """GETATTR, SETATTR: struct fuse_attr_out."""
    attributes, trust_ms, _ = known
    return _attr(
        ATTR_BYTES,
        0,
        unique,
        trust_ms // MS_PER_S,
        trust_ms % MS_PER_S * NS_PER_MS,
        *attr_fields(attributes),
    )


def opened(unique: int, answer: Opened) -> bytes:
    """OPEN: struct fuse_open_out."""
    return s.OPEN_REPLY.pack(OPEN_BYTES, 0, unique, answer.handle, _open_flags(answer))


def directory_opened(unique: int, answer: OpenedDirectory) -> bytes:
    """OPENDIR: struct fuse_open_out."""
    keep = _KEEP_CACHE if answer.keep_listing else 0
    cache = _CACHE_DIR if answer.cache_listing else 0
    return s.OPEN_REPLY.pack(OPEN_BYTES, 0, unique, answer.handle, keep | cache)


def created(unique: int, answer: tuple[Known, Opened]) -> bytes:
    """CREATE, TMPFILE: struct fuse_entry_out and struct fuse_open_out."""
    known, file = answer
    return s.CREATE_REPLY.pack(
        CREATE_BYTES, 0, unique, *entry_fields(known), file.handle, _open_flags(file)
    )


def _open_flags(answer: Opened) -> int:
    return (_KEEP_CACHE if answer.keep_cache else 0) | (_DIRECT_IO if answer.direct_io else 0)


def written(unique: int, length: int) -> bytes:
    """WRITE, COPY_FILE_RANGE: struct fuse_write_out."""
    return s.WRITE_REPLY.pack(s.WRITE_REPLY.size, 0, unique, length)


def size_of(unique: int, length: int) -> bytes:
    """GETXATTR and LISTXATTR that ask how much room they need: struct fuse_getxattr_out."""
    return s.SIZE_REPLY.pack(s.SIZE_REPLY.size, 0, unique, length)


def offset(unique: int, value: int) -> bytes:
    """LSEEK, COPY_FILE_RANGE_64: struct fuse_lseek_out, struct fuse_copy_file_range_out."""
    return s.OFFSET_REPLY.pack(s.OFFSET_REPLY.size, 0, unique, value)


def lock(unique: int, found: LockRange | None) -> bytes:
    """GETLK: struct fuse_lk_out. The kernel's ``end`` is the last byte, ours the one behind it."""
    if found is None:
        fields = (0, 0, F_UNLCK, 0)
    else:
        kind = F_WRLCK if found.exclusive else F_RDLCK
        fields = (found.start, min(found.end - 1, OFFSET_MAX), kind, found.pid & UINT32)
    return s.LK_REPLY.pack(s.LK_REPLY.size, 0, unique, *fields)


def statfs(unique: int, space: Space) -> bytes:
    """STATFS: struct fuse_kstatfs."""
    figures = statfs_figures(space)
    return s.STATFS_REPLY.pack(
        s.STATFS_REPLY.size,
        0,
        unique,
        figures.blocks,
        figures.free_blocks,
        figures.free_blocks,
        figures.inodes,
        figures.free_inodes,
        STATFS_UNIT_BYTES,
        NAME_MAX_BYTES,
        STATFS_UNIT_BYTES,
    )
