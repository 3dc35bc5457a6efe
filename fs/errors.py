"""Every error that crosses a room or the wire: one table of code, errno and whether to retry.

A new code exists only where a caller could react differently. ``TideError`` is an error value of
the world (a full disk, a name that is taken); a broken invariant is our bug and is an assertion.
"""

import errno
from enum import IntEnum
from typing import NamedTuple


class Code(IntEnum):
    """Stable numbers on the wire and in the log. Never re-use one."""

    # What POSIX names: the application sees exactly this errno.
    NO_ENTRY = 1
    EXISTS = 2
    NOT_A_DIRECTORY = 3
    IS_A_DIRECTORY = 4
    NOT_EMPTY = 5
    INVALID = 6
    NAME_TOO_LONG = 7
    TOO_MANY_LINKS = 8
    NOT_PERMITTED = 9
    ACCESS_DENIED = 10
    NO_ATTRIBUTE = 11
    ATTRIBUTE_TOO_LARGE = 12
    NO_SPACE = 13
    FILE_TOO_LARGE = 14
    STALE_HANDLE = 15
    NOT_SUPPORTED = 16
    READ_ONLY = 17
    CROSS_DEVICE = 18
    DEVICE_ERROR = 19
    TOO_LARGE = 20
    SYMLINK_LOOP = 21
    NO_BUFFER_ROOM = 22
    WOULD_BLOCK = 23
    DEADLOCK = 24
    INTERRUPTED = 25
    NO_SUCH_POSITION = 26
    FENCED = 27
    NO_LOCKS = 28

    # What the network and the servers say to each other.
    BUSY = 40
    TIMED_OUT = 41
    DISCONNECTED = 42
    NOT_LEADER = 43
    UNAVAILABLE = 44
    SESSION_EXPIRED = 45
    STALE_SEQUENCE = 46
    WRONG_CLUSTER = 47
    WRONG_PROTOCOL = 48
    MALFORMED = 49
    UNKNOWN_METHOD = 50
    WRONG_ROLE = 51

    # Data placement: the client asks for a fresh layout, then tries again.
    STALE_VERSION = 60
    NO_CHUNK = 61
    BAD_CHECKSUM = 62
    OUT_OF_ORDER = 63
    REPLICA_FAILED = 64
    LAYOUT_CHANGED = 65

    # On this machine.
    CORRUPT = 80
    BAD_CONFIG = 81
    FOREIGN_FOLDER = 82
    INTERNAL = 99


class Row(NamedTuple):
    """errno the application gets, whether the same request may simply be sent again, meaning."""

    errno: int
    retryable: bool
    meaning: str


TABLE: dict[Code, Row] = {
    Code.NO_ENTRY: Row(errno.ENOENT, False, "no such file or directory"),
    Code.EXISTS: Row(errno.EEXIST, False, "the name is taken"),
    Code.NOT_A_DIRECTORY: Row(errno.ENOTDIR, False, "not a directory"),
    Code.IS_A_DIRECTORY: Row(errno.EISDIR, False, "is a directory"),
    Code.NOT_EMPTY: Row(errno.ENOTEMPTY, False, "the directory is not empty"),
    Code.INVALID: Row(errno.EINVAL, False, "invalid argument"),
    Code.NAME_TOO_LONG: Row(errno.ENAMETOOLONG, False, "the name is too long"),
    Code.TOO_MANY_LINKS: Row(errno.EMLINK, False, "too many links"),
    Code.NOT_PERMITTED: Row(errno.EPERM, False, "operation not permitted"),
    Code.ACCESS_DENIED: Row(errno.EACCES, False, "permission denied"),
    Code.NO_ATTRIBUTE: Row(errno.ENODATA, False, "no such extended attribute"),
    Code.ATTRIBUTE_TOO_LARGE: Row(errno.E2BIG, False, "the extended attribute is too large"),
    Code.NO_SPACE: Row(errno.ENOSPC, False, "no space left"),
    Code.FILE_TOO_LARGE: Row(errno.EFBIG, False, "the file is too large"),
    Code.STALE_HANDLE: Row(errno.ESTALE, False, "the file is gone"),
    Code.NOT_SUPPORTED: Row(errno.EOPNOTSUPP, False, "not supported"),
    Code.READ_ONLY: Row(errno.EROFS, False, "the file system is read-only"),
    Code.CROSS_DEVICE: Row(errno.EXDEV, False, "not on the same volume"),
    Code.DEVICE_ERROR: Row(errno.EIO, False, "the device failed"),
    Code.TOO_LARGE: Row(errno.EMSGSIZE, False, "the message is too large"),
    Code.SYMLINK_LOOP: Row(errno.ELOOP, False, "too many levels of symbolic links"),
    Code.NO_BUFFER_ROOM: Row(errno.ERANGE, False, "the result does not fit"),
    Code.WOULD_BLOCK: Row(errno.EAGAIN, False, "somebody else holds a lock there"),
    Code.DEADLOCK: Row(errno.EDEADLK, False, "waiting would be a deadlock"),
    Code.INTERRUPTED: Row(errno.EINTR, False, "interrupted by a signal"),
    Code.NO_SUCH_POSITION: Row(errno.ENXIO, False, "there is no data, or no file, from there on"),
    Code.FENCED: Row(errno.EIO, False, "another session got the lock meanwhile"),
    Code.NO_LOCKS: Row(errno.ENOLCK, False, "there are too many locks"),
    Code.BUSY: Row(errno.EBUSY, True, "busy"),
    Code.TIMED_OUT: Row(errno.ETIMEDOUT, True, "no answer in time"),
    Code.DISCONNECTED: Row(errno.ENOTCONN, True, "the connection broke"),
    Code.NOT_LEADER: Row(errno.EAGAIN, True, "this metaserver is not the leader"),
    Code.UNAVAILABLE: Row(errno.EAGAIN, True, "not enough servers are reachable at the moment"),
    Code.SESSION_EXPIRED: Row(errno.EIO, False, "the session has expired"),
    Code.STALE_SEQUENCE: Row(errno.EIO, False, "a duplicate of a request that was answered"),
    Code.WRONG_CLUSTER: Row(errno.EIO, False, "that server belongs to another cluster"),
    Code.WRONG_PROTOCOL: Row(errno.EPROTO, False, "no common protocol version"),
    Code.MALFORMED: Row(errno.EBADMSG, False, "malformed data"),
    Code.UNKNOWN_METHOD: Row(errno.ENOSYS, False, "the server does not know this request"),
    Code.WRONG_ROLE: Row(errno.EIO, False, "that server has another role"),
    Code.STALE_VERSION: Row(errno.EIO, True, "the chunk has another version"),
    Code.NO_CHUNK: Row(errno.EIO, True, "the server does not hold this chunk"),
    Code.BAD_CHECKSUM: Row(errno.EIO, True, "the stored bytes do not match their checksum"),
    Code.OUT_OF_ORDER: Row(errno.EIO, True, "the replica missed an earlier write"),
    Code.REPLICA_FAILED: Row(errno.EIO, True, "a replica did not take part"),
    Code.LAYOUT_CHANGED: Row(errno.EIO, True, "the layout of the file changed meanwhile"),
    Code.CORRUPT: Row(errno.EIO, False, "stored data is damaged"),
    Code.BAD_CONFIG: Row(errno.EINVAL, False, "the configuration is not valid"),
    Code.FOREIGN_FOLDER: Row(errno.EINVAL, False, "the folder is not ours"),
    Code.INTERNAL: Row(errno.EIO, False, "an internal error; this is a bug in TideFS"),
}
assert set(TABLE) == set(Code), "every code has its row"


class TideError(Exception):
    """One failed operation.

    ``code`` says how a caller may react, ``detail`` names the thing, the reason and, where there
    is one, the remedy. ``delay_ms`` (with BUSY) asks the caller to wait that long.
    """

    def __init__(self, code: Code, detail: str = "", *, delay_ms: int = 0) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.delay_ms = delay_ms

    @property
    def errno(self) -> int:
        """The errno that an application sees."""
        return TABLE[self.code].errno

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed when it is sent again."""
        return TABLE[self.code].retryable

    def __str__(self) -> str:
        meaning = TABLE[self.code].meaning
        return f"{self.detail}: {meaning}" if self.detail else meaning


def first_error(error: BaseException) -> BaseException:
    """The first error in a group of concurrent ones: the others follow from it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
