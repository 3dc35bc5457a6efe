"""Strong reads: rounds of heartbeats, the lease that rests on them, and ReadIndex. Pure.

Ongaro's thesis, section 6.4: a leader knows that it still leads when a majority has answered a
round of heartbeats that began after the question came; section 6.4.1: and for some time after.
"""

from collections import deque
from typing import NamedTuple

from ...fs.messages.raft import AskReadIndex
from .contract import ReadReady, Timing


class Rounds:
    """A leader's rounds of heartbeats: which ones a majority has answered."""

    def __init__(self) -> None:
        self.last = 0
        """The number of the last one that has begun."""
        self.confirmed_ns: int | None = None
        """When the last one began that a majority has answered. Only rises."""
        self._open: deque[tuple[int, int]] = deque()
        """(number, when it began) of those that no majority has answered yet; both rise."""

    def begin(self, now_ns: int) -> int:
        """The number of a new one."""
        self.last += 1
        self._open.append((self.last, now_ns))
        return self.last

    def confirm(self, number: int) -> None:
        """A majority has answered that one, and so those before it."""
        while self._open and self._open[0][0] <= number:
            self.confirmed_ns = self._open.popleft()[1]


def lease_ns(timing: Timing) -> int:
    """How long a lease lasts from the beginning of its round: as long as no voter that answered
    gives its vote to another, by the slowest of clocks (thesis section 6.4.1)."""
    patience = timing.election_min_ns
    return max(0, patience - patience // timing.drift_parts - timing.drift_ns)


class Asker(NamedTuple):
    """Who wants to know what a strong read must have applied: a member, its own token."""

    server: int
    token: int


class Answer(NamedTuple):
    """A read that may be answered once ``read_index`` is applied."""

    asker: Asker
    read_index: int


class LeaderReads:
    """Reads that wait until it is proved that this member still leads."""

    def __init__(self) -> None:
        self._new: list[Asker] = []
        self._waiting: deque[tuple[int, int, Asker]] = deque()
        """(round that must be answered, commit index when it began, who): the first two rise."""

    @property
    def has_new(self) -> bool:
        return bool(self._new)

    @property
    def want_round(self) -> bool:
        """Whether a round should begin now: only one at a time, so that many reads share it."""
        return bool(self._new) and not self._waiting

    def add(self, asker: Asker) -> None:
        self._new.append(asker)

    def bind(self, number: int, commit_index: int) -> None:
        """A round begins: it will tell for all that came before it."""
        self._waiting.extend((number, commit_index, asker) for asker in self._new)
        self._new.clear()

    def confirmed(self, number: int) -> list[Answer]:
        """A majority answered that round."""
        answers = []
        while self._waiting and self._waiting[0][0] <= number:
            _, index, asker = self._waiting.popleft()
            answers.append(Answer(asker, index))
        return answers

    def take_all(self) -> list[Asker]:
        """All that wait; they will not be answered here."""
        askers = [asker for _, _, asker in self._waiting] + self._new
        self._waiting.clear()
        self._new.clear()
        return askers


class _Batch(NamedTuple):
    """Reads for which one question was asked, when to ask again, when to give up."""

    tokens: list[int]
    again_ns: int
    until_ns: int


class FollowerReads:
    """Reads of a member that does not lead: in batches, it asks who does."""

    def __init__(self, timing: Timing, now_ns: int) -> None:
        self._again_after_ns = 2 * timing.heartbeat_ns
        self._patience_ns = timing.election_min_ns
        self._number = now_ns
        """Of the last batch. It begins with the time, so that an answer to a question from before
        a restart is never taken for one to a new question."""
        self._new: list[int] = []
        self._asked: dict[int, _Batch] = {}

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` has something to do."""
        return min((min(b.again_ns, b.until_ns) for b in self._asked.values()), default=None)

    def add(self, token: int) -> None:
        self._new.append(token)

    def questions(self, term: int, now_ns: int) -> list[AskReadIndex]:
        """What to ask the leader now; it counts as asked."""
        if self._new:
            self._number += 1
            self._asked[self._number] = _Batch(self._new, now_ns, now_ns + self._patience_ns)
            self._new = []
        questions = []
        for number, batch in self._asked.items():
            if batch.again_ns <= now_ns:
                self._asked[number] = batch._replace(again_ns=now_ns + self._again_after_ns)
                questions.append(AskReadIndex(term, number))
        return questions

    def answered(self, number: int, index: int) -> list[ReadReady]:
        """The leader's answer; -1: it is not one."""
        batch = self._asked.pop(number, None)
        if batch is None:
            return []  # answered already, or given up
        return [ReadReady(token, index if index >= 0 else None) for token in batch.tokens]

    def tick(self, now_ns: int) -> list[ReadReady]:
        """Give up what was asked too long ago."""
        late = [number for number, batch in self._asked.items() if batch.until_ns <= now_ns]
        return [ready for number in late for ready in self.answered(number, -1)]

    def fail(self) -> list[ReadReady]:
        """Who was asked does not lead any more."""
        tokens = [token for batch in self._asked.values() for token in batch.tokens] + self._new
        self._asked.clear()
        self._new = []
        return [ReadReady(token, None) for token in tokens]
