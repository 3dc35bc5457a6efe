"""One file in memory behind our own driver, as null_fs.c has it: what the driver alone costs.

    python tests/bench/data_file_system.py MOUNTPOINT SIZE_BYTES DRIVER

Mounts (as root), writes "ready" and serves until it is unmounted.
"""

import os
import sys
from collections.abc import Iterable
from typing import Any

import trio
from tidefs.client.counters import Counters
from tidefs.client.fuse.choice import Place, open_driver
from tidefs.client.fuse.driver import Known, NewAttributes, Opened
from tidefs.client.options import DriverName, MountOptions
from tidefs.client.soon import Soon
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.codec import Buffer
from tidefs.fs.errors import Code, TideError
from tidefs.fs.process import use_memory_freely

ROOT, FILE = 1, 2
TRUST_MS = 3_600_000
HANDLE = 1


class DataFileSystem:
    """What is read and written; the rest of ``FileSystem`` is missing, as nobody asks for it."""

    def __init__(self, size_bytes: int) -> None:
        self.counters = Counters()
        self._size_bytes = size_bytes
        self._bytes = memoryview(bytearray(b"x" * size_bytes))

    def _known(self, inode: int) -> Known:
        kind = Kind.DIRECTORY if inode == ROOT else Kind.FILE
        size = 0 if inode == ROOT else self._size_bytes
        attributes = Attributes(
            inode, kind, 0o755, 1, 0, 0, 0, size, size,
            atime_ns=0, mtime_ns=0, ctime_ns=0, change=1, data_version=1,
        )  # fmt: skip
        return Known(attributes, TRUST_MS, TRUST_MS)

    def lookup(self, parent: int, name: bytes) -> Known:
        if name != b"data":
            raise TideError(Code.NO_ENTRY, os.fsdecode(name))
        return self._known(FILE)

    def forget(self, inodes: Iterable[tuple[int, int]]) -> None:
        return

    def getattr(self, inode: int, handle: int | None) -> Known:
        return self._known(inode)

    def setattr(self, inode: int, new: NewAttributes, handle: int | None) -> Known:
        return self._known(inode)

    def open(self, inode: int, flags: int, *, kill_privileges: bool = False) -> Opened:
        return Opened(HANDLE, keep_cache=True, direct_io=False)

    def read(self, handle: int, offset: int, length: int) -> Soon[Buffer]:
        return self._bytes[offset : offset + length]

    def write(self, handle: int, offset: int, data: Buffer, **how: Any) -> int:
        self._bytes[offset : offset + len(data)] = data
        return len(data)

    def flush(self, handle: int, owner: int | None = None) -> None:
        return

    def release(self, handle: int, owner: int | None = None) -> None:
        return

    def __getattr__(self, name: str) -> Any:
        def missing(*arguments: Any, **more: Any) -> Any:
            raise TideError(Code.NOT_SUPPORTED, name)

        return missing


async def serve(point: str, size_bytes: int, name: DriverName) -> None:
    """Mount, say so, and serve until it is unmounted."""
    use_memory_freely()
    file_system: Any = DataFileSystem(size_bytes)
    driver, _ = open_driver(name, file_system, Place(point, "data", MountOptions()))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await driver.serve_forever()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], int(sys.argv[2]), DriverName(sys.argv[3]))
