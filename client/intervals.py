"""Sets of byte ranges: which bytes of a file are cached, changed, on their way. Pure.

A set is one sorted list of edges ``[start, end, start, end, ...]``, half open, merged when they
touch; so every question is one or two binary searches. An odd position in the list is inside.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""``(start, end)`` in bytes, ``end`` not included."""

FOREVER = 1 << 62
"""An end behind every file's end."""


class IntervalSet:
    """A set of byte offsets, kept as ranges. ``bytes`` is how many it holds."""

    __slots__ = ("_edges", "bytes")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._edges: list[int] = []
        self.bytes = 0
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        edges = self._edges
        return iter([(edges[at], edges[at + 1]) for at in range(0, len(edges), 2)])

    def __bool__(self) -> bool:
        return bool(self._edges)

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._edges) // 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntervalSet) and self._edges == other._edges

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"IntervalSet({list(self)})"

    @property
    def end(self) -> int:
        """Behind the last byte; 0 when there is none."""
        return self._edges[-1] if self._edges else 0

    def add(self, start: int, end: int) -> int:
        """Put a range in; how many bytes are new."""
        if start >= end:
            return 0
        edges = self._edges
        new = end - start - self.count(start, end)
        low, high = bisect_left(edges, start), bisect_right(edges, end)
        edges[low:high] = [start] * (low % 2 == 0) + [end] * (high % 2 == 0)
        self.bytes += new
        return new

    def remove(self, start: int, end: int) -> int:
        """Take a range out; how many bytes went."""
        if start >= end or not self._edges:
            return 0
        edges = self._edges
        gone = self.count(start, end)
        low, high = bisect_left(edges, start), bisect_right(edges, end)
        edges[low:high] = [start] * (low % 2) + [end] * (high % 2)
        self.bytes -= gone
        return gone

    def clear(self) -> None:
        self._edges.clear()
        self.bytes = 0

    def covers(self, start: int, end: int) -> bool:
        """Whether all of the range is in."""
        if start >= end:
            return True
        at = bisect_right(self._edges, start)
        return at % 2 == 1 and self._edges[at] >= end

    def intersects(self, start: int, end: int) -> bool:
        """Whether any byte of the range is in."""
        if start >= end:
            return False
        at = bisect_right(self._edges, start)
        return at % 2 == 1 or (at < len(self._edges) and self._edges[at] < end)

    def count(self, start: int, end: int) -> int:
        """How many bytes of the range are in."""
        return sum(stop - begin for begin, stop in self.within(start, end))

    def within(self, start: int, end: int) -> list[Range]:
        """The parts of the range that are in."""
        edges = self._edges
        at = bisect_right(edges, start)
        at -= at % 2
        found = []
        while at < len(edges) and edges[at] < end:
            begin, stop = max(edges[at], start), min(edges[at + 1], end)
            if begin < stop:
                found.append((begin, stop))
            at += 2
        return found

    def gaps(self, start: int, end: int) -> list[Range]:
        """The parts of the range that are not in."""
        found = []
        for begin, stop in self.within(start, end):
            if start < begin:
                found.append((start, begin))
            start = stop
        if start < end:
            found.append((start, end))
        return found

    def around(self, offset: int) -> Range | None:
        """The whole range that holds ``offset``."""
        at = bisect_right(self._edges, offset)
        return (self._edges[at - 1], self._edges[at]) if at % 2 else None
