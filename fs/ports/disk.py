"""The disk port: files below one folder, and when their bytes are safe.

Nothing written is on stable storage before ``sync`` returned; no name made, renamed or removed is
before ``sync_folder`` of its folder returned. All failures arrive as TideError: NO_SPACE,
DEVICE_ERROR, NO_ENTRY, EXISTS, ACCESS_DENIED, NOT_A_DIRECTORY.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..codec import Buffer


class DiskSpace(NamedTuple):
    """Of the file system that holds the folder."""

    total_bytes: int
    free_bytes: int


class File(Protocol):
    """One open file. Offsets and lengths in bytes."""

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """The bytes, fewer at the end of the file; None when the disk must be waited for."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes, fewer at the end of the file."""
        ...

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write the buffers one after the other, all of them, into the page cache."""
        ...

    async def sync(self) -> None:
        """fdatasync(2): what was written before is on stable storage."""
        ...

    def size(self) -> int: ...

    def truncate(self, length: int) -> None: ...

    def allocate(self, offset: int, length: int) -> None:
        """Make room (reads as zeros) without changing bytes that are there; grows the file."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """A folder. Paths are relative to it, with ``/`` between names."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing; with ``create``, made when it is not there."""
        ...

    def exists(self, path: str) -> bool: ...

    def names(self, path: str) -> list[str]:
        """The names in a folder, sorted."""
        ...

    def make_folder(self, path: str) -> None:
        """Make a folder and what is missing above it; nothing when it is there."""
        ...

    def rename(self, path: str, new_path: str) -> None: ...

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all it holds."""
        ...

    async def sync_folder(self, path: str) -> None: ...

    def space(self) -> DiskSpace: ...

    def boot_id(self) -> str:
        """Changes when the machine was restarted: then un-synced writes may be gone."""
        ...
