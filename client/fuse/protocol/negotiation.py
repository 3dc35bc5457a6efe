"""INIT: the first request on a connection, in which both sides say what they can."""

from typing import NamedTuple

from ....fs.limits import KIB, MIB
from . import structures as s
from .opcodes import InitFlag

MAJOR = 7
MINOR = 45
"""What this package was written after. A newer kernel speaks it too."""
MINOR_MIN = 33

WRITE_MAX_BYTES = 1 * MIB
PAGES_MAX = 256  # of 4 KiB: what one READ or WRITE may carry
MESSAGE_MAX_BYTES = WRITE_MAX_BYTES + 4 * KIB
"""The kernel reads nothing into a buffer that could not hold its largest request."""

BACKGROUND_MAX = 64
"""Read-ahead, direct I/O and the like under way at a time: each may wait for the network."""
CONGESTED_FROM = 48

NEEDED = (
    InitFlag.BIG_WRITES
    | InitFlag.DONT_MASK
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.POSIX_ACL
    | InitFlag.MAX_PAGES
    | InitFlag.HANDLE_KILLPRIV_V2
    | InitFlag.SETXATTR_EXT
)
"""Without these the answers of the vfs would mean something else. Linux 5.13 has them all."""

WANTED = (
    NEEDED
    | InitFlag.ASYNC_READ
    | InitFlag.POSIX_LOCKS
    | InitFlag.FLOCK_LOCKS
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.EXPORT_SUPPORT
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.ASYNC_DIO
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.INIT_EXT
    | InitFlag.DIRECT_IO_ALLOW_MMAP
)
"""Not WRITEBACK_CACHE: then the kernel would say how long a file is, and others change it too.
Not READDIRPLUS_AUTO: who lists here mostly wants the attributes, and they come for nothing."""


class DisagreementError(Exception):
    """This kernel cannot do what the driver needs; the text says what, and what helps."""


class Agreement(NamedTuple):
    """What holds on this connection. ``minor``: the kernel's own number, for people."""

    minor: int
    flags: InitFlag
    max_readahead_bytes: int


def agree(major: int, minor: int, max_readahead_bytes: int, flags: int, flags2: int) -> Agreement:
    """What to answer to the fields of fuse_init_in. DisagreementError."""
    if major != MAJOR or minor < MINOR_MIN:
        raise DisagreementError(
            _told(f"it speaks FUSE {major}.{minor}, and 7.{MINOR_MIN} is needed")
        )
    offered = flags | flags2 << 32 if flags & InitFlag.INIT_EXT else flags
    missing = NEEDED & ~offered
    if missing:
        names = ", ".join(flag.name or "" for flag in InitFlag if flag & missing)
        raise DisagreementError(_told(f"its FUSE lacks {names}"))
    return Agreement(minor, WANTED & InitFlag(offered & _KNOWN), max_readahead_bytes)


_KNOWN = int(InitFlag(~0)) & ((1 << 63) - 1)


def _told(reason: str) -> str:
    return (
        f"this kernel is too old for the driver of our own ({reason}): use Linux 5.13 or later,"
        " or mount with -o driver=pyfuse3"
    )


def init_reply(unique: int, agreement: Agreement) -> bytes:
    """struct fuse_init_out."""
    flags = int(agreement.flags)
    return s.INIT_REPLY.pack(
        s.INIT_REPLY.size,
        0,
        unique,
        MAJOR,
        min(MINOR, agreement.minor),
        agreement.max_readahead_bytes,
        flags & 0xFFFF_FFFF,
        BACKGROUND_MAX,
        CONGESTED_FROM,
        WRITE_MAX_BYTES,
        1,  # time_gran: nanoseconds
        PAGES_MAX,
        0,
        flags >> 32,
    )
