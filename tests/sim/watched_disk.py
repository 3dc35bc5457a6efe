"""The crash disk of one process, with every sync in the trace, and a seam for lies.

A server gets a new ``WatchedDisk`` for each of its lives. When its process dies, whatever its
tasks still do while they unwind must not reach the disk: a killed process runs no ``finally``.
"""

from collections.abc import Callable, Sequence
from math import inf

import trio
from tidefs.fs.codec import Buffer
from tidefs.fs.errors import Code, TideError
from tidefs.fs.ports.disk import DiskSpace, File

from .crash_disk import CrashDisk, CrashFile
from .postman import Postman
from .trace import Trace

Lie = Callable[[str], float]
"""How many seconds after a sync of this path has returned it is really done (0: before): for tests
of the simulator."""

NEVER = inf


def honest(_path: str) -> float:
    """No lies."""
    return 0.0


class WatchedFile:
    """An open file of a ``WatchedDisk``."""

    def __init__(self, disk: "WatchedDisk", path: str, file: CrashFile) -> None:
        self._disk = disk
        self._path = path
        self._file = file

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        self._disk.check()
        return self._file.read_nowait(offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        self._disk.check()
        data = await self._file.read(offset, length)
        self._disk.check()
        return data

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self._disk.check()
        self._file.write(offset, buffers)

    async def sync(self) -> None:
        self._disk.check()
        if (delay_s := self._disk.lie(self._path)) > 0:
            if delay_s < NEVER:
                self._disk.postman.after(delay_s, self._sync_late)
            await trio.lowlevel.checkpoint()
            return
        await self._file.sync()
        self._disk.check()
        self._disk.note(f"sync {self._path}")

    def _sync_late(self) -> None:
        if not self._disk.dead:
            inode = self._file._inode
            pages = {page: (write, inode.page(page)) for page, write in inode.dirty.items()}
            inode.commit(len(inode.cache), pages)

    def size(self) -> int:
        self._disk.check()
        return self._file.size()

    def truncate(self, length: int) -> None:
        self._disk.check()
        self._file.truncate(length)

    def allocate(self, offset: int, length: int) -> None:
        self._disk.check()
        self._file.allocate(offset, length)

    def close(self) -> None:
        if not self._disk.dead:
            self._file.close()


class WatchedDisk:
    """The disk port of one life of one server."""

    def __init__(
        self, disk: CrashDisk, host: str, trace: Trace, postman: Postman, lie: Lie = honest
    ) -> None:
        self.postman = postman
        self._disk = disk
        self._host = host
        self._trace = trace
        self.lie = lie
        self.dead = False

    def check(self) -> None:
        """A dead process gets nothing done; its tasks are being cancelled."""
        if self.dead:
            raise TideError(Code.DEVICE_ERROR, f"the process on {self._host} was killed")

    def note(self, text: str) -> None:
        self._trace.note("disk", f"{self._host} {text}")

    def open(self, path: str, *, create: bool = False) -> File:
        self.check()
        file = self._disk.open(path, create=create)
        assert isinstance(file, CrashFile)
        return WatchedFile(self, path, file)

    def exists(self, path: str) -> bool:
        self.check()
        return self._disk.exists(path)

    def names(self, path: str) -> list[str]:
        self.check()
        return self._disk.names(path)

    def make_folder(self, path: str) -> None:
        self.check()
        self._disk.make_folder(path)

    def rename(self, path: str, new_path: str) -> None:
        self.check()
        self._disk.rename(path, new_path)

    def remove(self, path: str) -> None:
        self.check()
        self._disk.remove(path)

    async def sync_folder(self, path: str) -> None:
        self.check()
        if self.lie(path):
            await trio.lowlevel.checkpoint()
            return
        await self._disk.sync_folder(path)
        self.check()
        self.note(f"sync folder {path}")

    def space(self) -> DiskSpace:
        self.check()
        return self._disk.space()

    def boot_id(self) -> str:
        self.check()
        return self._disk.boot_id()
