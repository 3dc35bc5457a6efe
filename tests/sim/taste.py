"""What kind of work an application likes to do: drawn once a run (swarm testing)."""

import random
from dataclasses import dataclass

from tidefs.fs.limits import INLINE_MAX_BYTES

OPERATIONS = (
    *("create", "mkdir", "mknod", "symlink", "readlink", "link", "unlink", "rmdir", "rename"),
    *("list", "stat", "chmod", "utime", "set_xattr", "get_xattr", "list_xattrs", "remove_xattr"),
    *("forget", "open", "write", "read", "truncate", "fsync", "close"),
    *("punch", "zero", "seek", "copy"),
)
ONLY_BYTES = OPERATIONS[OPERATIONS.index("open") :]


@dataclass
class Taste:
    """How often what is done, and how large things are; drawn once a run (swarm testing)."""

    weights: dict[str, float]
    write_max_bytes: int = 40_000
    far_offsets: bool = False

    @classmethod
    def draw(cls, chance: random.Random) -> "Taste":
        """Every kind of operation is rare, usual or frequent in this run."""
        weights = {name: chance.choice((0.2, 1.0, 1.0, 3.0)) for name in OPERATIONS}
        for name in ("create", "write", "fsync", "close"):
            weights[name] *= 4
        return cls(
            weights,
            write_max_bytes=chance.choice((200, INLINE_MAX_BYTES, 40_000, 300_000)),
            far_offsets=chance.random() < 0.2,
        )

    def only_bytes(self) -> None:
        """No names are made or taken away: for a mode whose clients believe names for a while."""
        self.weights = {name: self.weights[name] for name in ONLY_BYTES}
