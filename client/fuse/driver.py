"""The driver interface: what a driver asks of the vfs, and what the vfs may ask of a driver.

Each method of ``FileSystem`` answers at once when the caches can, or returns an awaitable when
it must go out; a driver spawns or suspends a task only for the second kind. Failures are
TideError, raised at once or by the awaitable. Inode numbers are TideFS's own; the root is 1.
"""

from collections.abc import Awaitable, Iterable
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from ...fs.attributes import Attributes, Kind
from ...fs.codec import Buffer
from ...fs.messages.meta import DirectoryEntry, Space

T = TypeVar("T")

Soon: TypeAlias = T | Awaitable[T]
"""An answer, or something to await that gives it."""


class Caller(NamedTuple):
    """Who asks."""

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


class FileSystem(Protocol):
    """The vfs, as a driver sees it. ``flags`` are open(2)'s, offsets and lengths bytes."""

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
    def open(self, inode: int, flags: int) -> Soon[Opened]: ...
    def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> Soon[tuple[Known, Opened]]: ...
    def read(self, handle: int, offset: int, length: int) -> Soon[Buffer]: ...
    def write(self, handle: int, offset: int, data: Buffer) -> Soon[int]: ...
    def flush(self, handle: int) -> Soon[None]: ...
    def release(self, handle: int) -> Soon[None]: ...
    def fsync(self, handle: int, data_only: bool) -> Soon[None]: ...
    def opendir(self, inode: int) -> Soon[int]: ...
    def readdir(self, handle: int, cookie: int) -> Soon[list[tuple[DirectoryEntry, Known]]]: ...
    def releasedir(self, handle: int) -> None: ...
    def fsyncdir(self, handle: int) -> Soon[None]: ...
    def statfs(self) -> Soon[Space]: ...
    def setxattr(self, inode: int, name: bytes, value: bytes, flags: int) -> Soon[None]: ...
    def getxattr(self, inode: int, name: bytes) -> Soon[bytes]: ...
    def listxattr(self, inode: int) -> Soon[list[bytes]]: ...
    def removexattr(self, inode: int, name: bytes) -> Soon[None]: ...


class KernelCaches(Protocol):
    """What the vfs may ask of a driver. Never waits, and may be called from inside a request.

    A driver sends from elsewhere what could block while a request is unanswered: names and pages.
    """

    def invalidate_inode(self, inode: int, *, attributes_only: bool) -> None:
        """With ``attributes_only`` it has taken effect when this returns: the open that found
        another size must not be answered while the kernel would still read up to the old one."""
        ...

    def invalidate_entry(self, parent: int, name: bytes) -> None: ...


class Driver(Protocol):
    """A mounted kernel interface."""

    async def serve_forever(self) -> None:
        """Answer the kernel until it unmounts."""
        ...

    def unmount(self) -> None: ...
