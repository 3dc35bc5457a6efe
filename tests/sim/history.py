"""Records what callers ask and are told, in the order of the simulator's one loop."""

from typing import Any

from .linearizability import NEVER, Operation


class History:
    """Operations of all callers of one run."""

    def __init__(self) -> None:
        self._moment = 0
        self._operations: dict[float, Operation] = {}

    def call(self, client: str, what: Any) -> int:
        """An operation begins; the number names it. It never returns unless that is said."""
        moment = self._next_moment()
        self._operations[moment] = Operation(client, what, moment)
        return moment

    def returned(self, number: int, answer: Any) -> None:
        """It was answered."""
        operation = self._operations[number]
        assert operation.answer is NEVER, operation
        self._operations[number] = operation._replace(returned=self._next_moment(), answer=answer)

    def happened_since(self, moment: float, client: str, what: Any, answer: Any) -> None:
        """Nobody asked for it, but it was done between that moment and now."""
        called = moment + 0.5
        while called in self._operations:
            called += 0.001
        self._operations[called] = Operation(client, what, called, self._next_moment(), answer)

    @property
    def now(self) -> float:
        """The last moment at which anything happened."""
        return self._moment

    def came_to_nothing(self, number: int) -> None:
        """It was refused for a reason that tells nothing of the object, and had no effect."""
        del self._operations[number]

    def operations(self) -> list[Operation]:
        """In the order in which they were called."""
        return [self._operations[called] for called in sorted(self._operations)]

    def _next_moment(self) -> int:
        self._moment += 1
        return self._moment
