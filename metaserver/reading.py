"""Strong reads that the lease does not cover: those of one turn ask consensus one question."""

from collections.abc import Sequence

import trio

from .raft.contract import Core, ReadReady


class Question:
    """What some readers wait for. ``good``, once it is ``answered``: the state is fresh enough."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.good = False


class Reads:
    """The questions of one member."""

    def __init__(self) -> None:
        self._next: Question | None = None
        """Not asked yet: who comes now may still join. Later it would be too late, as a change
        that was answered in between may not be in the index that comes back."""
        self._token = 0
        self._asked: dict[int, Question] = {}
        self._known: list[tuple[int, Question]] = []
        """Answered; the index has to be applied first."""

    def join(self) -> Question:
        """The question that is asked at the next turn."""
        if self._next is None:
            self._next = Question()
        return self._next

    def ask(self, core: Core, now_ns: int) -> None:
        """Once a turn."""
        if self._next is not None:
            self._token += 1
            self._asked[self._token] = self._next
            self._next = None
            core.read(self._token, now_ns)

    def learn(self, reads: Sequence[ReadReady]) -> None:
        """What consensus says."""
        for token, index in reads:
            question = self._asked.pop(token, None)
            if question is None:
                continue
            if index is None:
                question.answered.set()
            else:
                self._known.append((index, question))

    def applied(self, applied_index: int) -> None:
        """The state has got so far."""
        if not self._known:
            return
        for index, question in self._known:
            if index <= applied_index:
                question.good = True
                question.answered.set()
        self._known = [pair for pair in self._known if pair[0] > applied_index]
