"""The layouts of <linux/fuse.h>, compiled once. Their fields stand in the order of the header.

Padding is written out (``x``) where nobody reads it. Times are signed: seconds before 1970 are
negative in the kernel too, though the header says uint64_t.
"""

from struct import Struct

_ATTR = "QQQqqqIIIIIIIIII"
"""struct fuse_attr: ino, size, blocks; atime, mtime, ctime and their nanoseconds; mode, nlink, uid,
gid, rdev, blksize, flags."""

_ENTRY = "QQQQII" + _ATTR
"""struct fuse_entry_out: nodeid, generation, entry_valid, attr_valid and their nanoseconds; attr.
"""

IN_HEADER = Struct("=IIQQIIIHH")
"""struct fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding."""

_OUT = "IiQ"
OUT_HEADER = Struct("=" + _OUT)
"""struct fuse_out_header: len, error, unique."""

# --- requests

FORGET_IN = Struct("=Q")  # nlookup
FORGET_ONE = Struct("=QQ")  # nodeid, nlookup
BATCH_FORGET_IN = Struct("=I4x")  # count
GETATTR_IN = Struct("=I4xQ")  # getattr_flags, fh
SETATTR_IN = Struct("=I4xQQQqqqIIII4xII4x")
"""valid, fh, size, lock_owner; atime, mtime, ctime and their nanoseconds; mode, uid, gid."""
MKNOD_IN = Struct("=III4x")  # mode, rdev, umask
MKDIR_IN = Struct("=II")  # mode, umask
RENAME_IN = Struct("=Q")  # newdir
RENAME2_IN = Struct("=QI4x")  # newdir, flags
LINK_IN = Struct("=Q")  # oldnodeid
OPEN_IN = Struct("=II")  # flags, open_flags
CREATE_IN = Struct("=IIII")  # flags, mode, umask, open_flags
READ_IN = Struct("=QQIIQI4x")  # fh, offset, size, read_flags, lock_owner, flags
WRITE_IN = Struct("=QQIIQI4x")  # fh, offset, size, write_flags, lock_owner, flags
RELEASE_IN = Struct("=QIIQ")  # fh, flags, release_flags, lock_owner
FLUSH_IN = Struct("=Q8xQ")  # fh, lock_owner
FSYNC_IN = Struct("=QI4x")  # fh, fsync_flags
SETXATTR_IN = Struct("=III4x")  # size, flags, setxattr_flags
GETXATTR_IN = Struct("=I4x")  # size
INIT_IN = Struct("=IIIII")  # major, minor, max_readahead, flags, flags2 (11 words are unused)
INIT_IN_OLD = Struct("=IIII")  # before 7.36: without flags2
LK_IN = Struct("=QQQQIII4x")  # fh, owner, start, end, type, pid, lk_flags
INTERRUPT_IN = Struct("=Q")  # unique
FALLOCATE_IN = Struct("=QQQI4x")  # fh, offset, length, mode
LSEEK_IN = Struct("=QQI4x")  # fh, offset, whence
COPY_FILE_RANGE_IN = Struct("=QQQQQQQ")
"""fh_in, off_in, nodeid_out, fh_out, off_out, len, flags."""

# --- replies, each with its fuse_out_header in front: one call packs it all

ENTRY_REPLY = Struct("=" + _OUT + _ENTRY)
ATTR_REPLY = Struct("=" + _OUT + "QI4x" + _ATTR)  # attr_valid, attr_valid_nsec, attr
OPEN_REPLY = Struct("=" + _OUT + "QI4x")  # fh, open_flags
CREATE_REPLY = Struct("=" + _OUT + _ENTRY + "QI4x")
WRITE_REPLY = Struct("=" + _OUT + "I4x")  # size
SIZE_REPLY = Struct("=" + _OUT + "I4x")  # struct fuse_getxattr_out: size
OFFSET_REPLY = Struct("=" + _OUT + "Q")
"""struct fuse_lseek_out: offset; struct fuse_copy_file_range_out: bytes_copied."""
LK_REPLY = Struct("=" + _OUT + "QQII")  # start, end, type, pid
STATFS_REPLY = Struct("=" + _OUT + "QQQQQIII4x24x")
"""struct fuse_kstatfs: blocks, bfree, bavail, files, ffree, bsize, namelen, frsize."""
INIT_REPLY = Struct("=" + _OUT + "IIIIHHIIHHI28x")
"""struct fuse_init_out: major, minor, max_readahead, flags, max_background, congestion_threshold,
max_write, time_gran, max_pages, map_alignment, flags2."""

# --- listings

DIRENT = Struct("=QQII")  # struct fuse_dirent: ino, off, namelen, type; then the name
DIRENTPLUS = Struct("=" + _ENTRY + "QQII")  # struct fuse_direntplus

# --- notifications, each with its fuse_out_header in front

INVAL_INODE = Struct("=" + _OUT + "Qqq")  # ino, off, len
INVAL_ENTRY = Struct("=" + _OUT + "QII")  # parent, namelen, flags; then the name and a NUL
