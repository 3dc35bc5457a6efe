"""Mounts of a file system in memory, through the real kernel, by each driver."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from tidefs.client.fuse.choice import MountedDriver, Place, open_driver
from tidefs.client.fuse.driver import KernelCaches
from tidefs.client.options import DriverName, MountOptions
from tidefs.tests.mount.memory_file_system import Late, MemoryFileSystem

T = TypeVar("T")

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0,
    reason="needs /dev/fuse and root",
)

PYFUSE3_CANNOT = {
    "locks": "flock and fcntl hold on this machine only: pyfuse3 does not hand locks on",
    "fallocate": "EOPNOTSUPP: pyfuse3 does not hand it on",
    "lseek": "SEEK_DATA and SEEK_HOLE see one piece of data: pyfuse3 does not hand them on",
    "copy_file_range": "the kernel reads and writes: pyfuse3 does not hand it on",
    "tmpfile": "O_TMPFILE is EOPNOTSUPP: pyfuse3 does not hand it on",
    "access lists": "default lists come short of what the umask takes away, which the kernel did",
    "append": "it does not say which write appends: the flag as it was at open(2) holds",
    "now": "times that are set to now are this machine's, not the servers'",
    "privileges": "the kernel itself takes set-user-id away, by a chmod before the write",
    "xattr flags": "a setxattr that may only create, or only replace, is checked before it is done",
    "ioctl": "ENOSYS in place of ENOTTY",
    "mappings of direct files": "ENODEV for a shared mapping of what is not cached",
    "listings": "the kernel keeps none of directories: pyfuse3 does not hand on that it may",
    "interrupts": "a signal does not end a request that waits for the servers",
    "cut off": "pyfuse3's loop ends with an exception when the connection is cut",
}
"""All that the portable driver does not serve, as it stands in docs/semantics.md; tests of these,
marked ``@needs(...)``, are not run on it. There is no other reason to leave one out."""


def needs(*features: str) -> pytest.MarkDecorator:
    """For a test of what pyfuse3 cannot serve."""
    assert set(features) <= set(PYFUSE3_CANNOT)
    return pytest.mark.needs(*features)


WAIT_S = 2.0


class Mount:
    """A mounted ``file_system`` at ``path``."""

    def __init__(
        self,
        file_system: MemoryFileSystem,
        path: Path,
        driver: MountedDriver,
        caches: KernelCaches,
    ) -> None:
        self.file_system = file_system
        self.path = path
        self.driver = driver
        self.caches = caches

    async def run(self, work: Callable[[Path], T]) -> T:
        """What touches the mount runs in a thread: this one answers the kernel."""
        return await trio.to_thread.run_sync(work, self.path)


@contextlib.asynccontextmanager
async def mounted(
    folder: Path, file_system: MemoryFileSystem, name: DriverName, *, late: bool = False
) -> AsyncIterator[Mount]:
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - nothing is mounted there yet
    served: Any = Late(file_system) if late else file_system
    place = Place(str(folder), "test", MountOptions(devices=True, suid=True))
    driver, caches = open_driver(name, served, place)
    mount = Mount(file_system, folder, driver, caches)
    ended = trio.Event()

    async def serve() -> None:
        await driver.serve_forever()
        ended.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            try:
                yield mount
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(unmount, folder)
                    with trio.move_on_after(WAIT_S):
                        await ended.wait()
                    if not ended.is_set():  # a test left something open
                        driver.unmount(detached=True)
    finally:
        unmount(folder)


def unmount(folder: Path) -> None:
    """Take a mount away, used or not. (The driver may be doing the same.)"""
    for words in ([], ["-l"]):
        if f" {folder} " not in Path("/proc/self/mounts").read_text():
            return
        subprocess.run(["umount", *words, folder], capture_output=True, check=False)


def errno_of(call: Callable[..., object], *arguments: Any, **more: Any) -> int | None:
    """With which errno it fails; None when it does not."""
    try:
        call(*arguments, **more)
    except OSError as error:
        return error.errno
    return None


def libc_errno(function: str, *arguments: Any) -> int:
    """Call the C library; the errno, 0 when it did not fail."""
    library = ctypes.CDLL(None, use_errno=True)
    result = getattr(library, function)(*arguments)
    return ctypes.get_errno() if result < 0 else 0


def renameat2(old: Path, new: Path, flags: int) -> int:
    """renameat2(2); the errno or 0."""
    return libc_errno("renameat2", -100, os.fsencode(old), -100, os.fsencode(new), flags)
