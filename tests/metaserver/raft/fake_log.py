"""One member's disk in memory: hard state, log, newest checkpoint. What is in it survives a crash.

Nothing is buffered here: what was not written yet is still in the member's hands (see harness).
"""

from collections.abc import Sequence
from typing import NamedTuple

from tidefs.fs.codec import decode
from tidefs.fs.messages.raft import Configuration
from tidefs.metaserver.raft.contract import HardState, Kind, Record
from tidefs.metaserver.raft.terms import Terms


class Checkpoint(NamedTuple):
    """The state after the record ``index``; the state is all that was ever applied."""

    index: int
    term: int
    configuration: Configuration
    applied: tuple[Record, ...]


class FakeLog:
    """What one member has on stable storage."""

    def __init__(self, founding: Configuration) -> None:
        self.hard_state = HardState(0, 0)
        self.records: list[Record] = []
        self.first_index = 1
        self.term_before = 0
        self.checkpoint = Checkpoint(0, 0, founding, ())
        self.full = False

    @property
    def last_index(self) -> int:
        """Of the newest record, on disk or in the checkpoint."""
        return self.first_index + len(self.records) - 1

    def at(self, index: int) -> Record | None:
        """The record, None when it is not in the log."""
        if not self.first_index <= index <= self.last_index:
            return None
        return self.records[index - self.first_index]

    def term_at(self, index: int) -> int | None:
        """Of a record, or of the one just before the log."""
        if index == self.first_index - 1:
            return self.term_before
        record = self.at(index)
        return record.term if record else None

    def terms(self) -> Terms:
        """As recovery would find them."""
        terms = Terms(self.first_index, self.term_before)
        for record in self.records:
            terms.append(record.term)
        return terms

    def configurations(self) -> list[tuple[int, Configuration]]:
        """Those in the log, with their indexes."""
        return [
            (record.index, decode(Configuration, record.body))
            for record in self.records
            if record.kind is Kind.MEMBERS
        ]

    def write(self, records: Sequence[Record]) -> None:
        """Let the log end where ``records`` begin, then append them."""
        first = records[0].index
        assert self.first_index <= first <= self.last_index + 1, (first, self.first_index)
        del self.records[first - self.first_index :]
        self.records.extend(records)

    def drop_before(self, index: int) -> None:
        """The log begins with the record ``index`` from now on."""
        term_before = self.term_at(index - 1)
        assert term_before is not None, index
        del self.records[: index - self.first_index]
        self.first_index, self.term_before = index, term_before

    def take(self, checkpoint: Checkpoint) -> None:
        """A snapshot took the place of everything."""
        self.checkpoint = checkpoint
        self.records.clear()
        self.first_index, self.term_before = checkpoint.index + 1, checkpoint.term
