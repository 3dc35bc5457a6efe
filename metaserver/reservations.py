"""Chunks that were handed out and not yet committed: which handle stands for which place.

In the leader's memory only; sessions claim theirs again after a restart. Several sessions may
write the same missing chunk: they share its reservation.
"""

from collections.abc import Iterable


class Reservation:
    """A handle for the chunk at ``index`` of ``inode``."""

    def __init__(self, inode: int, index: int, handle: int) -> None:
        self.inode = inode
        self.index = index
        self.handle = handle
        self.version = 0
        """That was last granted; 0: claimed again, not known."""
        self.servers: tuple[int, ...] = ()
        """That were told to make it."""
        self.sessions: set[int] = set()
        self.claimed = False
        """By a session that got it from an earlier leader: it may have been written."""


class Reservations:
    """All of them, by place, by handle and by session."""

    def __init__(self) -> None:
        self._by_place: dict[tuple[int, int], Reservation] = {}
        self._by_handle: dict[int, Reservation] = {}
        self._by_session: dict[int, set[int]] = {}

    def at(self, inode: int, index: int) -> Reservation | None:
        return self._by_place.get((inode, index))

    def of(self, handle: int) -> Reservation | None:
        return self._by_handle.get(handle)

    def __contains__(self, handle: int) -> bool:
        return handle in self._by_handle

    def __len__(self) -> int:
        return len(self._by_handle)

    def reserve(self, session: int, inode: int, index: int, handle: int) -> Reservation:
        """The reservation of that place, which is a new one unless there is one already."""
        found = self._by_place.get((inode, index))
        if found is None:
            found = Reservation(inode, index, handle)
            self._by_place[inode, index] = self._by_handle[handle] = found
        found.sessions.add(session)
        self._by_session.setdefault(session, set()).add(found.handle)
        return found

    def drop(self, handle: int) -> None:
        """It was committed, or is void."""
        found = self._by_handle.pop(handle, None)
        if found is None:
            return
        del self._by_place[found.inode, found.index]
        for session in found.sessions:
            self._by_session[session].discard(handle)

    def end(self, session: int) -> list[int]:
        """The session is over; the handles that nobody holds any more."""
        dropped: list[int] = []
        for handle in self._by_session.pop(session, ()):
            found = self._by_handle[handle]
            found.sessions.discard(session)
            if not found.sessions:
                dropped.append(handle)
                self.drop(handle)
        return sorted(dropped)

    def keep_only(self, session: int, handles: Iterable[int]) -> list[int]:
        """The session holds none but these; the handles that nobody holds any more."""
        kept = set(handles)
        dropped: list[int] = []
        for handle in list(self._by_session.get(session, ())):
            if handle in kept:
                continue
            found = self._by_handle[handle]
            found.sessions.discard(session)
            self._by_session[session].discard(handle)
            if not found.sessions:
                dropped.append(handle)
                self.drop(handle)
        return sorted(dropped)
