"""Makes chunks, log segments, Appends and pieces small, so that short runs cross their borders.

Modules take limits by name when they are imported, so ``shrink`` must come before any other import
of TideFS: only a process of its own (``run.py``) can do that.
"""

import sys

from tidefs.fs import limits
from tidefs.fs.limits import CHECKSUM_BLOCK_BYTES, KIB

CHUNK_BYTES = 4 * CHECKSUM_BLOCK_BYTES


def shrink() -> None:
    """Set the small limits."""
    early = [name for name in sys.modules if name.startswith("tidefs.") and name not in _KNOWN]
    assert not early, f"imported before the limits were set: {early}"
    limits.CHUNK_BYTES = CHUNK_BYTES
    limits.BLOCKS_PER_CHUNK = CHUNK_BYTES // CHECKSUM_BLOCK_BYTES
    limits.CACHE_BYTES = 4 * limits.MIB
    limits.DIRTY_MAX_BYTES = 512 * KIB
    limits.WRITE_BEHIND_BYTES = 128 * KIB
    limits.FRAME_PAYLOAD_MAX_BYTES = 256 * KIB
    limits.READ_AHEAD_BYTES = 4 * limits.CACHE_BLOCK_BYTES
    limits.CLONE_MIN_BYTES = 16 * KIB
    limits.EXTENT_CHUNKS_MAX = 2
    limits.READDIR_ENTRIES_MAX = 4
    limits.APPEND_MAX_BYTES = 128
    limits.SNAPSHOT_PIECE_BYTES = 4 * KIB
    limits.LINK_CHECK_MS = 900  # to spare the simulator most of what only says that it lives


_KNOWN = {
    "tidefs.fs",
    "tidefs.fs.limits",
    "tidefs.tests",
    "tidefs.tests.sim",
    "tidefs.tests.sim.small_limits",
}
