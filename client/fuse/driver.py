"""The driver interface: what a driver asks of the vfs, and what the vfs may ask of a driver.

Each method of ``FileSystem`` answers at once when the caches can, or returns an awaitable when
it must go out; a driver spawns or suspends a task only for the second kind. Failures are
TideError, raised at once or by the awaitable. Inode numbers are TideFS's own; the root is 1.

Who may do what is decided by the kernel, before it asks (the mount options default_permissions and
POSIX access lists): only the kernel sees a path that it walks in its own caches, and it knows the
caller's supplementary groups and capabilities. So the vfs checks no permissions.

A driver cancels the awaitable of a request that a signal interrupted. That is right at once for a
lock that is waited for; for anything else only when the caller dies of the signal, and it has taken
INTERRUPT_PATIENCE_MS, because applications do not expect EINTR from a file system.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from ...fs.attributes import Attributes, Kind
from ...fs.codec import Buffer
from ...fs.messages.meta import DirectoryEntry, Space
from ..counters import Counters
from ..soon import Soon


class Caller(NamedTuple):
    """Who asks. Modes come with all bits that the application asked for: taking away those in
    ``umask`` is up to the server (a default access list overrides it)."""

    uid: int
    gid: int
    pid: int
    umask: int


class Known(NamedTuple):
    """Attributes, and for how long the kernel may believe them and the name that led to them."""

    attributes: Attributes
    attributes_trust_ms: int
    entry_trust_ms: int


class Opened(NamedTuple):
    """An open file. ``keep_cache``: what the kernel's page cache holds of it is still right."""

    handle: int
    keep_cache: bool
    direct_io: bool


class OpenedDirectory(NamedTuple):
    """An open directory. ``cache_listing``: the kernel may show its listing, and adds to it what
    is read now. ``keep_listing``: it does not drop what it has of it."""

    handle: int
    keep_listing: bool
    cache_listing: bool


class NewAttributes(NamedTuple):
    """What setattr changes; None leaves a field as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    atime_now: bool = False
    mtime_now: bool = False
    kill_privileges: bool = False
    """Take set-user-id and its like away: who truncates has no right to keep it."""


class LockRange(NamedTuple):
    """A lock as fcntl(2) and flock(2) have it: bytes ``start`` to ``end - 1``, LOCK_END for all
    there may ever be. ``pid`` is for people."""

    exclusive: bool
    start: int
    end: int
    pid: int


class FileSystem(Protocol):
    """The vfs, as a driver sees it. ``flags`` are open(2)'s, offsets and lengths bytes."""

    counters: Counters
    """Where a driver counts what the kernel asks, by opcodes' names in lower case."""

    def lookup(self, parent: int, name: bytes) -> Soon[Known]: ...
    def forget(self, inodes: Iterable[tuple[int, int]]) -> None: ...
    def getattr(self, inode: int, handle: int | None) -> Soon[Known]: ...
    def setattr(self, inode: int, new: NewAttributes, handle: int | None) -> Soon[Known]: ...
    def readlink(self, inode: int) -> Soon[bytes]: ...
    def mknod(
        self, parent: int, name: bytes, kind: Kind, mode: int, device: int, caller: Caller
    ) -> Soon[Known]: ...
    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Soon[Known]: ...
    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Soon[Known]: ...
    def link(self, inode: int, parent: int, name: bytes) -> Soon[Known]: ...
    def unlink(self, parent: int, name: bytes) -> Soon[None]: ...
    def rmdir(self, parent: int, name: bytes) -> Soon[None]: ...
    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> Soon[None]: ...
    def open(self, inode: int, flags: int, *, kill_privileges: bool = False) -> Soon[Opened]: ...
    def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> Soon[tuple[Known, Opened]]: ...
    def tmpfile(
        self, parent: int, mode: int, flags: int, caller: Caller
    ) -> Soon[tuple[Known, Opened]]: ...
    def read(self, handle: int, offset: int, length: int) -> Soon[Buffer]: ...
    def write(
        self,
        handle: int,
        offset: int,
        data: Buffer,
        *,
        kill_privileges: bool = False,
        append: bool | None = None,
    ) -> Soon[int]:
        """``append``: where the file ends, wherever that is (O_APPEND, which fcntl(2) may set and
        take away); None: as the handle was opened. False for pages of a mapping, whose place is
        fixed."""
        ...

    def flush(self, handle: int, owner: int | None = None) -> Soon[None]:
        """One close(2). ``owner``: who closes; its fcntl locks on the file end (fcntl(2))."""
        ...

    def untold(self, handle: int) -> None:
        """Nobody heard of the error that the last flush ended with."""
        ...

    def release(self, handle: int, owner: int | None = None) -> Soon[None]:
        """The last close(2) of this open file. ``owner``: of a flock(2) that ends with it.

        A range lock that was set through this handle and is still there is an open file
        description's (F_OFD_SETLK): the kernel does not unlock it, and it ends here.
        """
        ...

    def fsync(self, handle: int, data_only: bool) -> Soon[None]: ...
    def fallocate(self, handle: int, mode: int, offset: int, length: int) -> Soon[None]: ...
    def lseek(self, handle: int, offset: int, whence: int) -> Soon[int]:
        """SEEK_DATA and SEEK_HOLE only."""
        ...

    def copy_file_range(
        self, source: int, source_offset: int, target: int, target_offset: int, length: int
    ) -> Soon[int]:
        """Between two handles; NOT_SUPPORTED lets the kernel copy by reading and writing."""
        ...

    def getlk(self, handle: int, owner: int, lock: LockRange) -> Soon[LockRange | None]:
        """F_GETLK: what is in the way, or None."""
        ...

    def setlk(
        self, handle: int, owner: int, lock: LockRange, *, wait: bool, flock: bool
    ) -> Soon[None]:
        """``owner`` is the kernel's number for who locks. WOULD_BLOCK, DEADLOCK."""
        ...

    def unlock(self, handle: int, owner: int, start: int, end: int, *, flock: bool) -> Soon[None]:
        """F_UNLCK and LOCK_UN."""
        ...

    def opendir(self, inode: int) -> Soon[OpenedDirectory]: ...
    def readdir(self, handle: int, cookie: int) -> Soon[Iterable[tuple[DirectoryEntry, Known]]]:
        """What comes behind ``cookie``, as far as it is wanted: make each only when it is taken."""
        ...

    def releasedir(self, handle: int) -> None: ...
    def fsyncdir(self, handle: int) -> Soon[None]: ...
    def statfs(self) -> Soon[Space]: ...
    def setxattr(
        self, inode: int, name: bytes, value: bytes, flags: int, *, kill_set_group_id: bool = False
    ) -> Soon[None]:
        """``kill_set_group_id``: who sets this access list is not in the file's group (acl(5))."""
        ...

    def getxattr(self, inode: int, name: bytes) -> Soon[bytes]: ...
    def listxattr(self, inode: int) -> Soon[list[bytes]]: ...
    def removexattr(self, inode: int, name: bytes) -> Soon[None]: ...


class KernelCaches(Protocol):
    """What the vfs may ask of a driver, also from inside a request. Only what is async waits.

    A driver sends from elsewhere what could block while a request is unanswered: names and pages.
    """

    def invalidate_inode(self, inode: int, *, attributes_only: bool) -> None:
        """With ``attributes_only`` it has taken effect when this returns: the open that found
        another size must not be answered while the kernel would still read up to the old one."""
        ...

    def invalidate_entry(self, parent: int, name: bytes) -> None: ...

    async def forget_inode(self, inode: int) -> None:
        """As ``invalidate_inode``, pages and all, and done when this returns: who was given a lock
        must not read what the kernel believed before. Cancelled, it may be done or not."""
        ...


class Driver(Protocol):
    """A mounted kernel interface."""

    async def serve_forever(self) -> None:
        """Answer the kernel until it unmounts."""
        ...

    def unmount(self) -> None: ...
