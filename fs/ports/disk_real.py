"""The disk port on a real folder.

Calls that the page cache answers are made in place. What must wait for the device goes to a
thread, except syncs on a device that has been fast of late: handing a sync of 80 us to a thread
and back costs as much again.
"""

import contextlib
import errno
import os
import shutil
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn, TypeVar

import trio

from ..codec import Buffer
from ..errors import Code, TideError
from ..limits import KIB, MIB
from .disk import DiskSpace

T = TypeVar("T")

BUFFERS_MAX = 1024
"""IOV_MAX: how many buffers one pwritev(2) takes."""

INLINE_SYNC_MAX_US = 1_000
"""A thread costs some 150 us of CPU, and two wake-ups on cores that are busy with other servers:
with syncs of 0.3 ms, doing without made 15 to 25 % more fsyncs and creates a second."""
INLINE_SYNC_MAX_BYTES = 256 * KIB
SYNCS_REMEMBERED = 15
SCRATCH_BYTES = 1 * MIB

BOOT_ID = "/proc/sys/kernel/random/boot_id"

_CODES = {
    errno.ENOENT: Code.NO_ENTRY,
    errno.EEXIST: Code.EXISTS,
    errno.ENOTEMPTY: Code.NOT_EMPTY,
    errno.ENOTDIR: Code.NOT_A_DIRECTORY,
    errno.EISDIR: Code.IS_A_DIRECTORY,
    errno.ENOSPC: Code.NO_SPACE,
    errno.EDQUOT: Code.NO_SPACE,
    errno.EFBIG: Code.FILE_TOO_LARGE,
    errno.EACCES: Code.ACCESS_DENIED,
    errno.EPERM: Code.ACCESS_DENIED,
    errno.EROFS: Code.READ_ONLY,
    errno.ENAMETOOLONG: Code.NAME_TOO_LONG,
    errno.EXDEV: Code.CROSS_DEVICE,
    errno.ELOOP: Code.SYMLINK_LOOP,
    errno.EINVAL: Code.INVALID,
}


def translate(error: OSError, doing: str, path: str) -> TideError:
    """The TideError for a failed system call: what was done, to what, and why it failed."""
    code = _CODES.get(error.errno or 0, Code.DEVICE_ERROR)
    return TideError(code, f"{doing} {path} ({error.strerror or error})")


class Pace:
    """How fast the device has been of late, and memory to read into; shared by a disk's files."""

    def __init__(self) -> None:
        self._recent_us: deque[float] = deque(maxlen=SYNCS_REMEMBERED)
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))

    def inline(self, unsynced_bytes: int) -> bool:
        """Whether to sync in place: few bytes, on a device of which something good is known."""
        return (
            unsynced_bytes <= INLINE_SYNC_MAX_BYTES
            and len(self._recent_us) > 0
            and statistics.median(self._recent_us) < INLINE_SYNC_MAX_US
        )

    def took(self, duration_us: float) -> None:
        """Remember how long a sync of few bytes took."""
        self._recent_us.append(duration_us)


class RealFile:
    """An open file of a ``RealDisk``."""

    def __init__(self, descriptor: int, path: str, pace: Pace) -> None:
        self._descriptor = descriptor
        self._path = path
        self._pace = pace
        self._unsynced_bytes = 0
        self._failed_sync: TideError | None = None
        self._in_threads = 0
        self._closing = False

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        # Into memory that is warm, then one copy: fresh memory would be zeroed and faulted in.
        own = length > SCRATCH_BYTES
        buffer = memoryview(bytearray(length)) if own else self._pace.scratch[:length]
        try:
            count = os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # not every file system can tell
                return None
            self._fail(error, "reading")
        if count == length or offset + count >= self.size():
            return bytes(buffer[:count])
        return None  # the page cache holds only the first part

    async def read(self, offset: int, length: int) -> bytes:
        found = self.read_nowait(offset, length)
        if found is not None:
            await trio.lowlevel.checkpoint()
            return found
        return await self._in_thread(partial(self._read, offset, length))

    def _read(self, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        try:
            while length > 0:
                piece = os.pread(self._descriptor, length, offset)
                if not piece:
                    break
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
        except OSError as error:
            self._fail(error, "reading")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        left = [memoryview(buffer) for buffer in buffers if len(buffer)]
        try:
            while left:
                count = os.pwritev(self._descriptor, left[:BUFFERS_MAX], offset)
                self._unsynced_bytes += count
                offset += count
                while left and count >= len(left[0]):
                    count -= len(left.pop(0))
                if count:
                    left[0] = left[0][count:]
        except OSError as error:
            self._fail(error, "writing")

    async def sync(self) -> None:
        if self._pace.inline(self._unsynced_bytes):
            await trio.lowlevel.checkpoint()
            self._sync()
        else:
            await self._in_thread(self._sync)

    def _sync(self) -> None:
        if self._failed_sync is not None:
            raise self._failed_sync
        unsynced_bytes, self._unsynced_bytes = self._unsynced_bytes, 0
        began_ns = time.perf_counter_ns()
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # The kernel forgets what it could not write: a second try would succeed, and lie.
            self._failed_sync = translate(error, "syncing", self._path)
            raise self._failed_sync from None
        if unsynced_bytes <= INLINE_SYNC_MAX_BYTES:
            self._pace.took((time.perf_counter_ns() - began_ns) / 1000)

    def size(self) -> int:
        try:
            return os.fstat(self._descriptor).st_size
        except OSError as error:
            self._fail(error, "asking for the size of")

    def truncate(self, length: int) -> None:
        try:
            os.ftruncate(self._descriptor, length)
        except OSError as error:
            self._fail(error, "truncating")

    def allocate(self, offset: int, length: int) -> None:
        try:
            os.posix_fallocate(self._descriptor, offset, length)
        except OSError as error:
            self._fail(error, "allocating room in")

    def close(self) -> None:
        self._closing = True
        if self._descriptor >= 0 and self._in_threads == 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread; the descriptor stays open, and ours, until it is done."""
        self._in_threads += 1
        try:
            return await trio.to_thread.run_sync(work)
        finally:
            self._in_threads -= 1
            if self._closing:
                self.close()

    def _fail(self, error: OSError, doing: str) -> NoReturn:
        raise translate(error, doing, self._path) from None


class RealDisk:
    """A folder of this machine. All its files share what is known of the device's pace."""

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)
        self._pace = Pace()

    def open(self, path: str, *, create: bool = False) -> RealFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        full = self._full(path)
        try:
            return RealFile(os.open(full, flags, 0o600), full, self._pace)
        except OSError as error:
            raise translate(error, "opening", full) from None

    def exists(self, path: str) -> bool:
        return os.path.lexists(self._full(path))

    def names(self, path: str) -> list[str]:
        full = self._full(path)
        try:
            return sorted(os.listdir(full))
        except OSError as error:
            raise translate(error, "listing", full) from None

    def make_folder(self, path: str) -> None:
        full = self._full(path)
        try:
            os.makedirs(full, mode=0o700, exist_ok=True)
        except FileExistsError:
            raise TideError(Code.NOT_A_DIRECTORY, f"making the folder {full}") from None
        except OSError as error:
            raise translate(error, "making the folder", full) from None

    def rename(self, path: str, new_path: str) -> None:
        full, new_full = self._full(path), self._full(new_path)
        try:
            os.rename(full, new_full)
        except OSError as error:
            raise translate(error, f"renaming {full} to", new_full) from None

    def remove(self, path: str) -> None:
        full = self._full(path)
        try:
            try:
                os.unlink(full)
            except IsADirectoryError:
                shutil.rmtree(full)
        except OSError as error:
            raise translate(error, "removing", full) from None

    async def sync_folder(self, path: str) -> None:
        await trio.to_thread.run_sync(self._sync_folder, self._full(path))

    def _sync_folder(self, full: str) -> None:
        try:
            descriptor = os.open(full, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise translate(error, "syncing the folder", full) from None

    def space(self) -> DiskSpace:
        try:
            found = os.statvfs(self._root)
        except OSError as error:
            raise translate(error, "asking for the free space of", self._root) from None
        return DiskSpace(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def boot_id(self) -> str:
        with contextlib.suppress(OSError), open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
        return ""

    def _full(self, path: str) -> str:
        assert not path.startswith("/"), path
        assert ".." not in path.split("/"), path
        return os.path.join(self._root, path) if path not in ("", ".") else self._root
