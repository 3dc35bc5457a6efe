"""Ranges of files: fallocate, lseek for data and holes, copy_file_range."""

from ..fs.errors import Code, TideError
from .fuse.driver import Soon
from .vfs_caches import VfsCaches


class RangeOperations(VfsCaches):
    """The part of the vfs that deals with holes, and with bytes that move between files."""

    def fallocate(self, handle: int, mode: int, offset: int, length: int) -> Soon[None]:
        raise TideError(Code.NOT_SUPPORTED, "fallocate")

    def lseek(self, handle: int, offset: int, whence: int) -> Soon[int]:
        raise TideError(Code.NOT_SUPPORTED, "lseek")

    def copy_file_range(
        self, source: int, source_offset: int, target: int, target_offset: int, length: int
    ) -> Soon[int]:
        raise TideError(Code.NOT_SUPPORTED, "copy_file_range")
