"""Where a new copy of a chunk goes: by free space, on distinct hosts, with a little luck.

Luck, so that many clients that ask at the same moment do not all fill the one emptiest server
(GFS section 4.2: equal use, few recent creations on each server).
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from ..fs.limits import CHUNK_BYTES

ROOM_PARTS = 20
"""A disk takes new chunks while one part in so many of it, or one chunk, is free."""


class Candidate(NamedTuple):
    """A server that is up."""

    server: int
    host: str
    total_bytes: int
    free_bytes: int

    @property
    def has_room(self) -> bool:
        return self.free_bytes >= max(1, min(CHUNK_BYTES, self.total_bytes // ROOM_PARTS))


def place(
    candidates: Sequence[Candidate],
    wanted: int,
    below: Callable[[int], int],
    *,
    hosts_used: Collection[str] = (),
) -> list[int]:
    """Up to ``wanted`` servers with room, drawn by free space, new hosts before used ones.

    ``below(n)`` gives a number from 0 to n - 1. Fewer come back when there are not enough.
    """
    left = sorted(candidate for candidate in candidates if candidate.has_room)
    used = set(hosts_used)
    chosen: list[int] = []
    while left and len(chosen) < wanted:
        fresh = [candidate for candidate in left if candidate.host not in used]
        drawn = _draw(fresh or left, below)
        left.remove(drawn)
        used.add(drawn.host)
        chosen.append(drawn.server)
    return chosen


def _draw(candidates: Sequence[Candidate], below: Callable[[int], int]) -> Candidate:
    """One of them, twice as likely with twice the room."""
    ticket = below(sum(candidate.free_bytes for candidate in candidates))
    for candidate in candidates:
        ticket -= candidate.free_bytes
        if ticket < 0:
            return candidate
    raise AssertionError("the tickets are as many as the bytes")
