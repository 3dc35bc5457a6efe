"""What a request's values may be: names, numbers, times. Types were checked by the codec."""

from ...fs.errors import Code, TideError
from ...fs.limits import (
    FILE_MAX_BYTES,
    LINKS_MAX,
    LOCK_END,
    NAME_MAX_BYTES,
    XATTR_NAME_MAX_BYTES,
)
from ...fs.messages.locks import LockKind, SetLock, TestLock, Unlock
from ..inodes import Inode
from ..namespace import show

MODE_END = 0o10000
OWNER_END = 1 << 32
DEVICE_END = 1 << 64
TIME_END = 1 << 63
NUMBER_END = 1 << 64
PID_END = 1 << 32


def check_name(name: bytes) -> None:
    """A name that may stand in a directory."""
    if len(name) > NAME_MAX_BYTES:
        raise TideError(
            Code.NAME_TOO_LONG, f"a name has at most {NAME_MAX_BYTES} bytes, not {len(name)}"
        )
    if name in {b"", b".", b".."} or b"/" in name or b"\0" in name:
        raise TideError(Code.INVALID, f"{show(name)} cannot be a name")


def check_mode(mode: int) -> None:
    """Permission bits."""
    if not 0 <= mode < MODE_END:
        raise TideError(Code.INVALID, f"mode {mode:#o} is more than permission bits")


def check_owner(uid: int, gid: int) -> None:
    """User and group id."""
    if not (0 <= uid < OWNER_END and 0 <= gid < OWNER_END):
        raise TideError(Code.INVALID, f"uid {uid} or gid {gid} is not a 32-bit number")


def check_device(device: int) -> None:
    """A device number."""
    if not 0 <= device < DEVICE_END:
        raise TideError(Code.INVALID, f"device {device} is not a 64-bit number")


def check_time(time_ns: int | None) -> None:
    """Nanoseconds since 1970, or none."""
    if time_ns is not None and not -TIME_END <= time_ns < TIME_END:
        raise TideError(Code.INVALID, f"time {time_ns} ns is not a signed 64-bit number")


def check_size(size: int | None) -> None:
    """The size of a file, or none."""
    if size is None:
        return
    if size < 0:
        raise TideError(Code.INVALID, f"size {size}")
    if size > FILE_MAX_BYTES:
        raise TideError(
            Code.FILE_TOO_LARGE, f"a file has at most {FILE_MAX_BYTES} bytes, not {size}"
        )


def check_xattr_name(name: bytes) -> None:
    """The name of an extended attribute."""
    if len(name) > XATTR_NAME_MAX_BYTES:
        raise TideError(
            Code.NO_BUFFER_ROOM,
            f"an attribute's name has at most {XATTR_NAME_MAX_BYTES} bytes, not {len(name)}",
        )
    if not name or b"\0" in name:
        raise TideError(Code.INVALID, f"{show(name)} cannot be an attribute's name")


def check_room_for_link(inode: Inode) -> None:
    """One more link to ``inode``."""
    if inode.links >= LINKS_MAX:
        raise TideError(
            Code.TOO_MANY_LINKS, f"inode {inode.number} has {inode.links}, which is the most"
        )


def taken(directory: Inode, name: bytes) -> TideError:
    """The error that a name is there already."""
    return TideError(Code.EXISTS, f"{show(name)} in directory {directory.number}")


def check_lock(request: SetLock | Unlock | TestLock, session: int, *, pid: int = 0) -> None:
    """Range, owner, process, and whether its kind has such locks."""
    start, end, kind = request.start, request.end, request.kind
    if not 0 <= start < end <= LOCK_END:
        raise TideError(
            Code.INVALID, f"a lock from {start} to {end}; it has a byte, and ends at {LOCK_END}"
        )
    if kind is not LockKind.RANGE and (start, end) != (0, LOCK_END):
        raise TideError(
            Code.INVALID, f"a {kind.name} lock is of all of the file: from 0 to {LOCK_END}"
        )
    if kind is LockKind.APPEND and not getattr(request, "exclusive", True):
        raise TideError(Code.INVALID, "the turn to append cannot be shared")
    if not 0 <= request.owner < NUMBER_END:
        raise TideError(Code.INVALID, f"owner {request.owner} is not a 64-bit number")
    if not 0 <= pid < PID_END:
        raise TideError(Code.INVALID, f"process {pid} is not a 32-bit number")
    if not 0 < session < NUMBER_END:
        raise TideError(Code.INVALID, f"a lock belongs to a session, and {session} is none")
