"""Chunk handles and versions that no other leader ever gives out."""

from collections.abc import Callable

from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion, version_of


class HandleSupply:
    """Handles from ranges that the log reserved for this leader."""

    def __init__(self, ask: Callable[[], None], low: int) -> None:
        """``ask`` is called once whenever ``low`` handles or fewer are left."""
        self._ask = ask
        self._low = low
        self._next = self._end = 0
        self._later: list[tuple[int, int]] = []
        self._asked = False

    def add(self, first: int, count: int) -> None:
        """One more range is ours."""
        self._asked = False
        self._later.append((first, first + count))

    def failed(self) -> None:
        """What was asked for did not come: ask again at the next handle."""
        self._asked = False

    def take(self) -> ChunkHandle:
        """One that was never taken. UNAVAILABLE while the log is slow to reserve more."""
        if self._next == self._end and self._later:
            self._next, self._end = self._later.pop(0)
        left = self._end - self._next + sum(end - first for first, end in self._later)
        if left <= self._low and not self._asked:
            self._asked = True
            self._ask()
        if self._next == self._end:
            raise TideError(Code.UNAVAILABLE, "no chunk handles are reserved at the moment")
        self._next += 1
        return ChunkHandle(self._next - 1)


class VersionCounter:
    """Chunk versions of one term."""

    def __init__(self, term: int) -> None:
        self._term = term
        self._counter = 0

    def next(self) -> ChunkVersion:
        """Higher than all before, in this term and in earlier ones."""
        self._counter += 1
        return version_of(self._term, self._counter)
