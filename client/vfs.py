"""The vfs: POSIX semantics over the caches, for one mount in one mode.

It implements `client/fuse/driver.py`'s ``FileSystem``. What the caches can answer is answered at
once; everything else is an awaitable. The operations are in five files by concern, over one set
of caches:

    vfs_names       lookup, make, remove, rename, list
    vfs_files       open, read, write, flush, fsync, release
    vfs_ranges      fallocate, lseek, copy_file_range
    vfs_locks       flock, fcntl
    vfs_attributes  getattr, setattr, extended attributes, statfs

Concurrency. All state belongs to the tasks of one trio loop. A method without ``async`` runs to
its end alone. One with ``async`` must expect, at each await, that a file was written, cut,
committed or found changed by others; what it relies on it reads again afterwards, or it holds the
file's ``lock`` (see `client/writing.py`). Replies are let into the caches in one place
(`client/vfs_caches.py`), which refuses those that were overtaken.
"""

import trio

from ..fs.limits import READINGS_BATCH_MS
from .vfs_caches import Surroundings
from .vfs_files import FileOperations
from .vfs_locks import LockOperations
from .vfs_ranges import RangeOperations


class Vfs(FileOperations, RangeOperations, LockOperations):
    """One mount's file system."""

    async def run(self) -> None:
        """Flush what has been dirty for long, and tell of readings, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.writer.flush_forever)
            while True:
                await trio.sleep(READINGS_BATCH_MS / 1000)
                await self.tell_readings()


__all__ = ["Surroundings", "Vfs"]
