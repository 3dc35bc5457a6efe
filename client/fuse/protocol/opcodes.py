"""Numbers and flags of the FUSE protocol, as <linux/fuse.h> names them."""

from enum import IntEnum, IntFlag


class Opcode(IntEnum):
    """enum fuse_opcode: what the kernel asks."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class Notification(IntEnum):
    """enum fuse_notify_code: what the kernel is told."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3


class InitFlag(IntFlag):
    """INIT request and reply: fuse_init_in.flags, with flags2 from bit 32 on."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    DIRECT_IO_ALLOW_MMAP = 1 << 36


class SetAttrValid(IntFlag):
    """fuse_setattr_in.valid: FATTR_*."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    LOCKOWNER = 1 << 9
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


class OpenReplyFlag(IntFlag):
    """fuse_open_out.open_flags: FOPEN_*.

    NOFLUSH is never answered: without a FLUSH nobody would learn of the close(2) that ends a
    process's fcntl locks, and any close of the file does, one of a read-only handle too.
    """

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    PARALLEL_DIRECT_WRITES = 1 << 6


# Single flags of requests, by the field they stand in.
GETATTR_FH = 1 << 0  # fuse_getattr_in.getattr_flags
LK_FLOCK = 1 << 0  # fuse_lk_in.lk_flags
WRITE_CACHE = 1 << 0  # fuse_write_in.write_flags: pages of a mapping, through any open file
WRITE_KILL_SUIDGID = 1 << 2  # fuse_write_in.write_flags
OPEN_KILL_SUIDGID = 1 << 0  # fuse_open_in.open_flags, fuse_create_in.open_flags
RELEASE_FLOCK_UNLOCK = 1 << 1  # fuse_release_in.release_flags
FSYNC_FDATASYNC = 1 << 0  # fuse_fsync_in.fsync_flags
SETXATTR_ACL_KILL_SGID = 1 << 0  # fuse_setxattr_in.setxattr_flags

# fuse_file_lock.type: fcntl(2)'s own numbers.
F_RDLCK = 0
F_WRLCK = 1
F_UNLCK = 2
OFFSET_MAX = (1 << 63) - 1  # fuse_file_lock.end of a lock that has none
