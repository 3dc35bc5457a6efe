"""Inodes with which sessions are busy, counted by session. Pure."""

from collections.abc import Iterable

NOBODY = 0
"""In place of a session: everybody else is another one than this."""


class Marks:
    """A session may mark an inode several times, and takes each mark back once."""

    def __init__(self) -> None:
        self._of: dict[int, dict[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, session: int, inodes: Iterable[int]) -> None:
        for inode in inodes:
            marks = self._of.get(inode)
            if marks is None:
                self._of[inode] = {session: 1}
            else:
                marks[session] = marks.get(session, 0) + 1

    def remove(self, session: int, inodes: Iterable[int]) -> None:
        """Take back what was added (asserted)."""
        for inode in inodes:
            marks = self._of[inode]
            if marks[session] > 1:
                marks[session] -= 1
            elif len(marks) > 1:
                del marks[session]
            else:
                del self._of[inode]

    def by_others(self, session: int, inode: int) -> bool:
        """Whether a session other than this one has marked it."""
        marks = self._of.get(inode)
        return marks is not None and (len(marks) > 1 or session not in marks)
