"""The log as consensus sees it: the terms of all records, the bodies of those not on disk. Pure."""

from collections.abc import Sequence

from .contract import Record
from .terms import Terms


class LogView:
    """Records up to ``stable_index`` are on this disk; those behind it still have to get there."""

    def __init__(self, terms: Terms) -> None:
        """Of a log with these terms, all of it on the disk."""
        self.terms = terms.copy()
        self.last_index = terms.last_index
        """As ``terms`` has it: it is asked for more often than anything else."""
        self.stable_index = terms.last_index
        self.unstable: list[Record] = []
        """Records ``stable_index + 1`` to ``last_index``, without a hole."""

    @property
    def last_term(self) -> int:
        return self.terms.last_term

    def append(self, records: Sequence[Record]) -> None:
        """More records, which follow the last one and whose terms do not fall."""
        if not records:
            return
        first, last = records[0], records[-1]
        assert first.index == self.last_index + 1, (first.index, self.last_index)
        if first.term == last.term:  # terms never fall, so all of them are of this one
            self.terms.append(first.term, len(records))
        else:
            for record in records:
                self.terms.append(record.term)
        self.last_index = last.index
        self.unstable.extend(records)

    def truncate_from(self, index: int) -> None:
        """The record at ``index`` and all behind it are not in the log any more."""
        self.terms.drop_from(index)
        self.last_index = index - 1
        del self.unstable[max(0, index - self.stable_index - 1) :]
        self.stable_index = min(self.stable_index, index - 1)

    def stored(self, records: Sequence[Record]) -> None:
        """These were put on the disk. Some of them may have been truncated since."""
        for record in reversed(records):
            # The same term at the same index is the same record (Raft section 5.3, Log Matching),
            # and all before it are the same too.
            if self.terms.at(record.index) == record.term:
                count = record.index - self.stable_index
                if count > 0:
                    del self.unstable[:count]
                    self.stable_index = record.index
                return

    def forget_unstable(self) -> None:
        """What is not on the disk never was in the log."""
        self.truncate_from(self.stable_index + 1)

    def begin_anew(self, index: int, term: int) -> None:
        """A snapshot that ends with this record took the place of all there was."""
        self.terms = Terms(index + 1, term)
        self.unstable.clear()
        self.last_index = self.stable_index = index

    def up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up-to-date as this one (Raft 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def agreement(self, index: int, term: int) -> int:
        """The highest index, at most ``index``, at which this log may agree with one that has a
        record of ``term`` at ``index`` (Raft section 5.3: skip a term at a time).

        Terms never fall, so where the other log has ``term`` or less this one cannot agree with a
        record of a higher term.
        """
        return min(index, self.terms.last_up_to(term))
