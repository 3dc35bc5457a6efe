"""When to read ahead, and how far: one detector for each open file. Pure.

A reader that goes on where it stopped is sequential; each time its window is doubled, up to
READ_AHEAD_BYTES. A jump ends it. Small steps forward count as going on: the kernel's own
read-ahead asks out of order.
"""

from ..fs.limits import CACHE_BLOCK_BYTES, READ_AHEAD_BYTES
from .intervals import Range

FIRST_WINDOW_BYTES = 2 * CACHE_BLOCK_BYTES
RANDOM_UNIT_BYTES = 4096


class ReadAhead:
    """Follows one reader."""

    __slots__ = ("_ahead", "_next", "_window")

    def __init__(self) -> None:
        self._next = 0
        self._window = 0
        self._ahead = 0

    def follow(self, offset: int, length: int) -> Range | None:
        """A read takes place; the range to be fetched beyond it by now, None for a random reader.

        A new range is given only when half of the last one was used, so that fetches stay large.
        """
        end = offset + length
        if abs(offset - self._next) > max(self._window, FIRST_WINDOW_BYTES):
            self._next, self._window, self._ahead = end, 0, end
            return None
        self._next = max(self._next, end)
        if self._ahead - end > self._window // 2:
            return None
        self._window = min(max(2 * self._window, FIRST_WINDOW_BYTES), READ_AHEAD_BYTES)
        start = max(self._ahead, end)
        self._ahead = end + self._window
        return (start, self._ahead) if start < self._ahead else None

    @property
    def unit_bytes(self) -> int:
        """What a missing range is rounded to: whole blocks for a sequential reader."""
        return CACHE_BLOCK_BYTES if self._window else RANDOM_UNIT_BYTES
