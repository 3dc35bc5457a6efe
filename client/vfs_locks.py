"""Locks: flock(2) and fcntl(2), held by the metaservers for this mount's session."""

from ..fs.errors import Code, TideError
from .fuse.driver import LockRange, Soon
from .vfs_caches import VfsCaches


class LockOperations(VfsCaches):
    """The part of the vfs that deals with locks."""

    def getlk(self, handle: int, owner: int, lock: LockRange) -> Soon[LockRange | None]:
        raise TideError(Code.NOT_SUPPORTED, "locks")

    def setlk(
        self, handle: int, owner: int, lock: LockRange, *, wait: bool, flock: bool
    ) -> Soon[None]:
        raise TideError(Code.NOT_SUPPORTED, "locks")

    def unlock(self, handle: int, owner: int, start: int, end: int, *, flock: bool) -> Soon[None]:
        raise TideError(Code.NOT_SUPPORTED, "locks")
