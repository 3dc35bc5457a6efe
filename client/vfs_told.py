"""What a mount tells of itself, as extended attributes that are never stored and not listed, so
that no copy of a file takes them along.

    user.tidefs.fence   the newest token of the locks that this mount holds on the file
    user.tidefs.mode    the name of the mode in force
    user.tidefs.stats   what the mount has done so far (JSON, see `counters.py`)
    user.tidefs.why     what the mount believes of the file, and on what ground (JSON)
"""

import json
from collections.abc import Callable
from typing import Any

from ..fs.errors import Code, TideError
from .attributes_cache import NS_PER_MS, Cached
from .modes import Ground
from .vfs_caches import Surroundings
from .vfs_locks import APPLICATIONS, FENCE_XATTR, LockOperations

MODE_XATTR = b"user.tidefs.mode"
STATS_XATTR = b"user.tidefs.stats"
WHY_XATTR = b"user.tidefs.why"


class ToldOperations(LockOperations):
    """The part of the vfs that tells of itself."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.told_xattrs: dict[bytes, Callable[[int], bytes]] = {
            FENCE_XATTR: self.fence_text,
            MODE_XATTR: lambda inode: self.mode.name.encode(),
            STATS_XATTR: lambda inode: _json(self._stats()),
            WHY_XATTR: lambda inode: _json(self._why(inode)),
        }

    def _stats(self) -> dict[str, Any]:
        return {
            "mode": self.mode.name,
            **self.counters.as_dict(),
            "dirty_bytes": self.files.account.bytes,
            "open_files": len(self.open_files.all()),
        }

    def _why(self, inode: int) -> dict[str, Any]:
        """NO_ATTRIBUTE when nothing is known of the inode."""
        cached = self.attributes.peek(inode)
        if cached is None:
            raise TideError(Code.NO_ATTRIBUTE, f"nothing is known of inode {inode} here")
        return {
            "inode": inode,
            "mode": self.mode.name,
            "attributes": self._belief(inode, cached),
            "bytes": self._bytes_here(inode),
            "locked": self.locks.held.token(inode, *APPLICATIONS) != 0,
        }

    def _belief(self, inode: int, cached: Cached) -> dict[str, Any]:
        now_ns = self.clock.monotonic_ns()
        is_trusted = self.attributes.trusted(inode) is not None
        by_promise = self.mode.attributes.ground is Ground.PROMISED
        lease_ms = max(0, self.meta.lease_until_ns - now_ns) // NS_PER_MS
        return {
            "ground": self.mode.attributes.ground.value,
            "trusted": is_trusted,
            "for_ms": (lease_ms if by_promise else cached.trust_ms(now_ns)) if is_trusted else 0,
            "exclusive": self.attributes.claimed(inode),
            "seen_ms_ago": (now_ns - cached.seen_ns) // NS_PER_MS,
            "change": cached.attributes.change,
            "data_version": cached.attributes.data_version,
        }

    def _bytes_here(self, inode: int) -> dict[str, Any]:
        file = self.files.peek(inode)
        if file is None:
            return {"cached": 0, "dirty": 0, "version": 0, "openings": 0}
        return {
            "cached": file.valid.bytes,
            "dirty": file.changes.bytes,
            "version": file.version,
            "openings": file.openings,
        }


def _json(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()
