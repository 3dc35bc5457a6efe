"""Chunks that were handed out and not yet committed: which handle stands for which place.

In the leader's memory only; sessions claim theirs again after a failover. Each session has chunks
of its own: a writer that makes a small file large carries its inline bytes over, and in a chunk
that another one has committed meanwhile they would replace newer ones. Whoever commits first has
made the chunk; the others are told so (LAYOUT_CHANGED) and write theirs into that one.
"""

from collections.abc import Iterable


class Reservation:
    """A handle for the chunk at ``index`` of ``inode``, for one session to write."""

    def __init__(self, session: int, inode: int, index: int, handle: int) -> None:
        self.session = session
        self.inode = inode
        self.index = index
        self.handle = handle
        self.version = 0
        """That was last granted; 0: claimed again, not known."""
        self.servers: tuple[int, ...] = ()
        """That were told to make it."""
        self.claimed = False
        """It is from an earlier leader: it may have been written."""


class Reservations:
    """All of them, by place, by handle and by session."""

    def __init__(self) -> None:
        self._by_place: dict[tuple[int, int], dict[int, Reservation]] = {}
        self._by_handle: dict[int, Reservation] = {}
        self._by_session: dict[int, set[int]] = {}

    def at(self, session: int, inode: int, index: int) -> Reservation | None:
        """What a session has there."""
        return self._by_place.get((inode, index), {}).get(session)

    def of(self, handle: int) -> Reservation | None:
        return self._by_handle.get(handle)

    def __contains__(self, handle: int) -> bool:
        return handle in self._by_handle

    def __len__(self) -> int:
        return len(self._by_handle)

    def reserve(self, session: int, inode: int, index: int, handle: int) -> Reservation:
        """Make one; the session has none there yet, and nobody has that handle."""
        assert handle not in self._by_handle, f"chunk {handle} is reserved already"
        sessions = self._by_place.setdefault((inode, index), {})
        assert session not in sessions, f"session {session} has chunk {index} of inode {inode}"
        found = Reservation(session, inode, index, handle)
        sessions[session] = self._by_handle[handle] = found
        self._by_session.setdefault(session, set()).add(handle)
        return found

    def drop(self, handle: int) -> None:
        """It is void."""
        found = self._by_handle.pop(handle, None)
        if found is None:
            return
        sessions = self._by_place[found.inode, found.index]
        del sessions[found.session]
        if not sessions:
            del self._by_place[found.inode, found.index]
        self._by_session[found.session].discard(handle)

    def drop_at(self, inode: int, index: int) -> list[int]:
        """There is a chunk now, and nobody's reservation is good any more; their handles."""
        sessions = self._by_place.get((inode, index), {})
        return self._drop_all(found.handle for found in sessions.values())

    def end(self, session: int) -> list[int]:
        """The session is over; the handles that it had."""
        dropped = self._drop_all(self._by_session.get(session, ()))
        self._by_session.pop(session, None)
        return dropped

    def keep_only(self, session: int, handles: Iterable[int]) -> list[int]:
        """The session holds none but these; the handles that it had beside them."""
        return self._drop_all(self._by_session.get(session, set()).difference(handles))

    def _drop_all(self, handles: Iterable[int]) -> list[int]:
        dropped = sorted(handles)
        for handle in dropped:
            self.drop(handle)
        return dropped
