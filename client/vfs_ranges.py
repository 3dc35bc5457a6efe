"""Ranges of files: fallocate, lseek for data and holes, copy_file_range."""

import os

from ..fs.errors import Code, TideError
from ..fs.limits import CHUNK_BYTES, CLONE_MIN_BYTES, FILE_MAX_BYTES
from ..fs.messages.meta import GetSpace
from .cloning import Cloner
from .holes import Holes
from .inodes import File
from .soon import Soon
from .vfs_caches import Surroundings
from .vfs_promises import PromiseOperations

# linux/falloc.h
KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10


class RangeOperations(PromiseOperations):
    """The part of the vfs that deals with holes, and with bytes that move between files."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._holes = Holes(self.shell, self.writer)
        self._cloner = Cloner(self.shell, self.writer)

    # --- fallocate

    def fallocate(self, handle: int, mode: int, offset: int, length: int) -> Soon[None]:
        """fallocate(2). What is not named there is NOT_SUPPORTED: COLLAPSE_RANGE, INSERT_RANGE,
        UNSHARE_RANGE."""
        file = self.usable(handle).file
        end = offset + length
        if offset < 0 or length < 1:
            raise TideError(Code.INVALID, f"a range of {length} bytes at {offset}")
        if end > FILE_MAX_BYTES:
            raise TideError(Code.FILE_TOO_LARGE, f"a range that ends at {end}")
        size = 0 if mode & KEEP_SIZE else end
        kind = mode & ~KEEP_SIZE
        if kind == 0:
            return self._allocate(file, length, size)
        if kind == ZERO_RANGE or (kind == PUNCH_HOLE and not size):
            return self._zero(file, offset, end, size)
        raise TideError(Code.NOT_SUPPORTED, f"fallocate with mode {mode:#x}")

    async def _allocate(self, file: File, length: int, size: int) -> None:
        """Nothing is set aside; it fails when there is clearly not that much room."""
        known = self.attributes.get(file.inode)
        stored_bytes = 0 if known is None else known.attributes.stored_bytes
        space = await self.meta.call(GetSpace())
        if length - stored_bytes > space.free_bytes:
            raise TideError(
                Code.NO_SPACE, f"{length} bytes for inode {file.inode}: {space.free_bytes} are free"
            )
        if size > file.size:
            await self._zero(file, size, size, size)

    async def _zero(self, file: File, start: int, end: int, size: int) -> None:
        await self.claim(file)
        try:
            await self._holes.zero(file, start, end, size)
        except TideError as error:
            self.failed(file.inode, error)
            raise
        if self.mode.write_through:
            await self.write_out(file)

    # --- lseek

    def lseek(self, handle: int, offset: int, whence: int) -> Soon[int]:
        """SEEK_DATA and SEEK_HOLE of lseek(2). NO_SUCH_POSITION."""
        file = self.usable(handle).file
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise TideError(Code.INVALID, f"lseek with whence {whence}")
        if offset < 0:
            raise TideError(Code.NO_SUCH_POSITION, f"inode {file.inode}, at {offset}")
        if offset < file.size and self._has_no_hole(file):
            return offset if whence == os.SEEK_DATA else file.size
        return self._seek(file, offset, whence)

    async def _seek(self, file: File, offset: int, whence: int) -> int:
        if file.mappable and self.kernel is not None:
            # What was changed through a mapping is data too, and only the kernel has it: a program
            # that copies what it finds would lose it.
            await self.kernel.forget_inode(file.inode)
        return await self._holes.seek(file, offset, whence)

    def _has_no_hole(self, file: File) -> bool:
        known = self.attributes.trusted(file.inode)
        if known is None or file.modified:
            return False
        return known.attributes.stored_bytes >= file.size

    # --- copy_file_range

    def copy_file_range(
        self, source: int, source_offset: int, target: int, target_offset: int, length: int
    ) -> Soon[int]:
        """copy_file_range(2) by cloning chunks. NOT_SUPPORTED lets the kernel copy the bytes."""
        files = self.usable(source).file, self.usable(target).file
        if min(source_offset, target_offset, length) < 0:
            raise TideError(Code.INVALID, f"copying {length} bytes at {source_offset}")
        if target_offset + length > FILE_MAX_BYTES:
            raise TideError(Code.FILE_TOO_LARGE, f"copying to {target_offset + length}")
        if files[0] is files[1] and abs(source_offset - target_offset) < length:
            raise TideError(Code.INVALID, "copying a range onto itself")
        if (
            source_offset % CHUNK_BYTES
            or target_offset % CHUNK_BYTES
            or min(length, files[0].size - source_offset) < CLONE_MIN_BYTES
        ):
            raise TideError(Code.NOT_SUPPORTED, "cloning a part of a chunk")
        return self._clone(files[0], source_offset, files[1], target_offset, length)

    async def _clone(
        self, source: File, source_offset: int, target: File, target_offset: int, length: int
    ) -> int:
        await self.claim(target)
        return await self._cloner.clone(source, source_offset, target, target_offset, length)
