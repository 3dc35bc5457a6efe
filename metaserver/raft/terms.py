"""Which term each record of a log is of, in little memory. Pure."""

from bisect import bisect_right
from typing import NamedTuple


class TermRun(NamedTuple):
    """From ``first_index`` on, until the next run, records are of ``term``."""

    first_index: int
    term: int


class Terms:
    """The terms of records ``first_index`` to ``last_index``, and of the one before them."""

    def __init__(self, first_index: int = 1, term_before: int = 0) -> None:
        """Of an empty log whose next record is ``first_index``; the one before it (in a snapshot,
        if anywhere) is of ``term_before``."""
        assert first_index >= 1, first_index
        assert first_index > 1 or term_before == 0, term_before
        self._first_index = first_index
        self._term_before = term_before
        self._last_index = first_index - 1
        self._runs: list[TermRun] = []
        """Indexes and terms rise strictly: terms never go back in a log (Raft section 5.4.1)."""

    @property
    def first_index(self) -> int:
        """Of the oldest record (when empty: of the next)."""
        return self._first_index

    @property
    def last_index(self) -> int:
        """Of the newest record, ``first_index - 1`` when there is none."""
        return self._last_index

    @property
    def last_term(self) -> int:
        """Of the newest record; of the one before the log when it is empty."""
        return self._runs[-1].term if self._runs else self._term_before

    def at(self, index: int) -> int | None:
        """The term of a record, or of the one just before the log; None when it is not known."""
        if index == self._first_index - 1:
            return self._term_before
        if not self._first_index <= index <= self._last_index:
            return None
        return self._runs[self._run_of(index)].term

    def last_up_to(self, term: int) -> int:
        """The last index whose term is at most ``term``; ``first_index - 1`` when none is."""
        at = bisect_right(self._runs, term, key=lambda run: run.term)
        return self._runs[at].first_index - 1 if at < len(self._runs) else self._last_index

    def append(self, term: int, count: int = 1) -> None:
        """``count`` more records of ``term``."""
        assert term >= self.last_term, (term, self.last_term)
        if not self._runs or term > self._runs[-1].term:
            self._runs.append(TermRun(self._last_index + 1, term))
        self._last_index += count

    def drop_from(self, index: int) -> None:
        """The record at ``index`` and all behind it are gone."""
        assert self._first_index <= index <= self._last_index + 1, index
        while self._runs and self._runs[-1].first_index >= index:
            self._runs.pop()
        self._last_index = index - 1

    def drop_before(self, index: int) -> None:
        """Records before ``index`` are gone; it becomes the first."""
        assert self._first_index <= index <= self._last_index + 1, index
        term_before = self.at(index - 1)
        assert term_before is not None
        at = bisect_right(self._runs, index, key=lambda run: run.first_index)
        kept = self._runs[at:]
        if at and index <= self._last_index:
            kept.insert(0, TermRun(index, self._runs[at - 1].term))
        self._runs = kept
        self._first_index, self._term_before = index, term_before

    def copy(self) -> "Terms":
        """One that may be changed on its own."""
        twin = Terms(self._first_index, self._term_before)
        twin._last_index, twin._runs = self._last_index, list(self._runs)
        return twin

    def _run_of(self, index: int) -> int:
        if index >= self._runs[-1].first_index:  # nearly always
            return len(self._runs) - 1
        return bisect_right(self._runs, index, key=lambda run: run.first_index) - 1
