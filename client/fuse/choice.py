"""Which driver serves a mount: the first that works, and why not another.

The kernel driver needs nothing but /dev/fuse. pyfuse3 needs libfuse, and is imported only when it
is chosen, so that a machine without libfuse can mount all the same.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from ...fs.errors import Code, TideError
from ..options import DriverName, MountOptions
from .attach import attach, check_rights, words_of
from .driver import Driver, FileSystem, KernelCaches
from .kernel_driver import KernelDriver


class MountedDriver(Driver, Protocol):
    """A driver of a mount point that can be told to end."""

    def sync(self) -> None:
        """Have the kernel send what was written through mappings. Blocks while that is served, so
        call it from a thread. OSError."""
        ...

    def unmount(self, *, detached: bool = False) -> None:
        """Stop serving; who still uses the mount gets ENOTCONN.

        ``detached``: the mount point was taken away already, and something else may be there.
        """
        ...


class Opened(NamedTuple):
    """A mounted driver that does not serve yet, and what the vfs may ask of it."""

    driver: MountedDriver
    caches: KernelCaches


class Place(NamedTuple):
    """Where to mount, and as what. ``name`` is what a list of mounts shows."""

    point: str
    name: str
    options: MountOptions


def candidates(options: MountOptions) -> Sequence[DriverName]:
    """The drivers to try, in order."""
    return tuple(DriverName) if options.driver is None else (options.driver,)


def open_driver(name: DriverName, file_system: FileSystem, place: Place) -> Opened:
    """Mount. NOT_SUPPORTED when this driver cannot be used here, and another one might; any other
    TideError says why nothing can be mounted there."""
    if name is DriverName.KERNEL:
        return _open_kernel(file_system, place)
    return _open_pyfuse3(file_system, place)


def _open_kernel(file_system: FileSystem, place: Place) -> Opened:
    device = attach(place.point, place.name, place.options)
    driver = KernelDriver(file_system, device, place.point)
    return Opened(driver, driver.caches)


def _open_pyfuse3(file_system: FileSystem, place: Place) -> Opened:
    try:
        from .pyfuse3_driver import (  # noqa: PLC0415 - libfuse may be missing
            Invalidation,
            Pyfuse3Driver,
        )
    except ImportError as error:
        raise TideError(
            Code.NOT_SUPPORTED,
            f"pyfuse3 cannot be used ({error}): install libfuse3-dev, then pip install pyfuse3",
        ) from None
    check_rights(place.options)
    invalidation = Invalidation()
    words = set(words_of(place.name, place.options))
    with _said_by_libfuse() as said:
        try:
            return Opened(
                Pyfuse3Driver(file_system, place.point, words, invalidation), invalidation
            )
        except (RuntimeError, OSError) as error:
            raise TideError(
                Code.NOT_PERMITTED, f"{place.point} cannot be mounted: {said() or error}"
            ) from None


@contextlib.contextmanager
def _said_by_libfuse() -> Iterator[Callable[[], str]]:
    """What is written to standard error meanwhile: libfuse tells its reasons nowhere else."""
    with tempfile.TemporaryFile() as said:
        saved = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:

            def text() -> str:
                said.seek(0)
                return " | ".join(said.read().decode(errors="replace").split("\n")).strip(" |")

            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
