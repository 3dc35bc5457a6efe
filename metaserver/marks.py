"""Things with which sessions are busy, counted by session. Pure."""

from collections.abc import Iterable
from typing import Generic, TypeVar

K = TypeVar("K", int, tuple[int, bytes])
"""An inode, or a name in a directory."""

NOBODY = 0
"""In place of a session: everybody else is another one than this."""


class Marks(Generic[K]):
    """A session may mark a thing several times, and takes each mark back once."""

    def __init__(self) -> None:
        self._of: dict[K, dict[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def __contains__(self, thing: K) -> bool:
        return thing in self._of

    def add(self, session: int, things: Iterable[K]) -> None:
        for thing in things:
            marks = self._of.get(thing)
            if marks is None:
                self._of[thing] = {session: 1}
            else:
                marks[session] = marks.get(session, 0) + 1

    def remove(self, session: int, things: Iterable[K]) -> None:
        """Take back what was added (asserted)."""
        for thing in things:
            marks = self._of[thing]
            if marks[session] > 1:
                marks[session] -= 1
            elif len(marks) > 1:
                del marks[session]
            else:
                del self._of[thing]

    def by_others(self, session: int, thing: K) -> bool:
        """Whether a session other than this one has marked it."""
        marks = self._of.get(thing)
        return marks is not None and (len(marks) > 1 or session not in marks)
