"""Which bytes of one file were changed here, and how far each has come on its way out. Pure.

    dirty -> pushing -> pushed -> committing -> (gone from here)

``dirty``: only in this cache. ``pushing``: being sent to chunkservers. ``pushed``: every replica
has them, but the metaserver does not know yet. ``committing``: in the Commit that is under way.
A byte that is written again while it is on its way is ``dirty`` as well, so no later step of the
older bytes can lose the newer ones. All four are *pinned*: the cache must keep the bytes, for they
may have to be written again.
"""

from .intervals import FOREVER, IntervalSet


class Account:
    """How many changed bytes there are in the whole mount."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Changes:
    """The four sets of one file. ``redone`` counts how often pushed bytes became dirty again."""

    __slots__ = ("_account", "committing", "dirty", "pushed", "pushing", "redone")

    def __init__(self, account: Account) -> None:
        self._account = account
        self.dirty = IntervalSet()
        self.pushing = IntervalSet()
        self.pushed = IntervalSet()
        self.committing = IntervalSet()
        self.redone = 0

    def __bool__(self) -> bool:
        # Asked at each stat: so not by way of the sets' own truth.
        return self.dirty.bytes + self.pushing.bytes + self.pushed.bytes + self.committing.bytes > 0

    @property
    def bytes(self) -> int:
        """Bytes on their way; one that was written again counts twice."""
        return sum(ranges.bytes for ranges in self._sets())

    @property
    def end(self) -> int:
        """Behind the last changed byte: the file is at least this long."""
        return max(ranges.end for ranges in self._sets())

    def pinned(self, start: int, end: int) -> bool:
        """Whether any byte of the range must be kept."""
        return any(ranges.intersects(start, end) for ranges in self._sets())

    def pinned_ranges(self) -> IntervalSet:
        return IntervalSet(piece for ranges in self._sets() for piece in ranges)

    def write(self, start: int, end: int) -> None:
        """New bytes."""
        self._account.bytes += self.dirty.add(start, end)

    def take(self, start: int, end: int) -> None:
        """These dirty bytes go out now. None of them may be on its way already: of two writes of
        one byte in flight, nobody knows which arrives last."""
        assert self.dirty.covers(start, end)
        assert not self.pushing.intersects(start, end)
        self.dirty.remove(start, end)
        self.pushing.add(start, end)

    def arrived(self, start: int, end: int) -> None:
        """They are on all replicas."""
        self._account.bytes -= self.pushing.remove(start, end)
        self._account.bytes += self.pushed.add(start, end)

    def failed(self, start: int, end: int) -> None:
        """They are not."""
        self._account.bytes -= self.pushing.remove(start, end)
        self._account.bytes += self.dirty.add(start, end)

    def redo(self, start: int, end: int) -> None:
        """What was pushed and not committed goes out again: its chunk is not to be trusted."""
        for ranges in (self.pushed, self.committing):
            for begin, stop in ranges.within(start, end):
                self._account.bytes -= ranges.remove(begin, stop)
                self._account.bytes += self.dirty.add(begin, stop)
                self.redone += 1

    def begin_commit(self) -> None:
        assert not self.committing
        self.committing, self.pushed = self.pushed, self.committing

    def commit_done(self) -> None:
        self._account.bytes -= self.committing.bytes
        self.committing.clear()

    def commit_failed(self) -> None:
        """The same bytes go with the next Commit."""
        for start, end in self.committing:
            self._account.bytes += self.pushed.add(start, end)
        self.commit_done()

    def drop(self, start: int, end: int = FOREVER) -> None:
        """These bytes are no longer wanted (cut off, or replaced by what a server has)."""
        for ranges in self._sets():
            self._account.bytes -= ranges.remove(start, end)

    def _sets(self) -> tuple[IntervalSet, IntervalSet, IntervalSet, IntervalSet]:
        return self.dirty, self.pushing, self.pushed, self.committing
