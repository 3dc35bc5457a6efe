"""Which session has which inode open: in the leader's memory only, told again after a restart.

While a session is awaited that was alive before the restart, nobody can know what it has open, and
nothing may be reaped.
"""

from collections.abc import Iterable

from .awaited import Awaited


class OpenFiles:
    """Sessions and the inodes they hold."""

    def __init__(self, awaited: Awaited | None = None) -> None:
        self._awaited = awaited or Awaited()
        self._inodes: dict[int, set[int]] = {}
        self._holders: dict[int, set[int]] = {}

    @property
    def settled(self) -> bool:
        """Whether all sessions have told what they have open."""
        return not self._awaited.is_any

    def is_open(self, inode: int) -> bool:
        return inode in self._holders

    def is_open_in(self, session: int, inode: int) -> bool:
        return session in self._holders.get(inode, ())

    def open(self, session: int, inode: int) -> None:
        """``session`` has it open; not counted."""
        self._inodes.setdefault(session, set()).add(inode)
        self._holders.setdefault(inode, set()).add(session)

    def release(self, session: int, inodes: Iterable[int]) -> list[int]:
        """``session`` has them open no longer; those that now nobody has."""
        held = self._inodes.get(session, set())
        closed: list[int] = []
        for inode in held.intersection(inodes):
            held.discard(inode)
            holders = self._holders[inode]
            holders.discard(session)
            if not holders:
                del self._holders[inode]
                closed.append(inode)
        return sorted(closed)

    def resume(self, session: int, inodes: Iterable[int]) -> list[int]:
        """``session`` has exactly these open; those that it had and that now nobody has."""
        wanted = set(inodes)
        closed = self.release(session, self._inodes.get(session, set()) - wanted)
        for inode in wanted:
            self.open(session, inode)
        return closed

    def end(self, session: int) -> list[int]:
        """The session is over; what now nobody has open."""
        closed = self.release(session, list(self._inodes.get(session, ())))
        self._inodes.pop(session, None)
        return closed
