"""Which locks this mount's session holds, as far as its applications were told. Pure.

The servers keep the same table for all sessions. This one says what must be given back when a file
is closed, what costs no question, and under which fencing token a file is written.
"""

from typing import NamedTuple

from ..fs.messages.locks import LockKind
from .intervals import IntervalSet


class Holder(NamedTuple):
    """Who locks what. ``owner`` is the kernel's 64 bit number: of a process for fcntl(2), of an
    open file for flock(2)."""

    inode: int
    kind: LockKind
    owner: int


class Piece(NamedTuple):
    """A range of bytes in one mode; None: not locked."""

    start: int
    end: int
    exclusive: bool | None


class _Held:
    """What one holder has. ``handles``: through which open files it was asked for."""

    __slots__ = ("exclusive", "handles", "shared", "token")

    def __init__(self) -> None:
        self.exclusive = IntervalSet()
        self.shared = IntervalSet()
        self.token = 0
        self.handles: set[int] = set()


class HeldLocks:
    """All locks of one session."""

    def __init__(self) -> None:
        self._files: dict[int, dict[Holder, _Held]] = {}

    def __bool__(self) -> bool:
        return bool(self._files)

    def inodes(self, *kinds: LockKind) -> set[int]:
        """Files on which there are locks of these kinds."""
        return {
            inode
            for inode, held in self._files.items()
            if any(holder.kind in kinds for holder in held)
        }

    def holds(self, holder: Holder) -> bool:
        """Whether it holds anything."""
        return holder in self._files.get(holder.inode, ())

    def holds_exclusively(self, holder: Holder) -> bool:
        """Whether it holds anything in exclusive mode."""
        held = self._find(holder)
        return held is not None and bool(held.exclusive)

    def token(self, inode: int, *kinds: LockKind) -> int:
        """The highest token of the locks of these kinds on a file; 0: there are none."""
        return max(
            (
                held.token
                for holder, held in self._files.get(inode, {}).items()
                if holder.kind in kinds
            ),
            default=0,
        )

    def through(self, inode: int, handle: int) -> list[Holder]:
        """Who took locks through this open file, and has some of them still."""
        held = self._files.get(inode, {})
        return [holder for holder in held if handle in held[holder].handles]

    def pieces(self, holder: Holder, start: int, end: int) -> list[Piece]:
        """How the holder has each part of a range."""
        held = self._find(holder)
        if held is None:
            return [Piece(start, end, None)]
        pieces = [Piece(*part, True) for part in held.exclusive.within(start, end)]
        pieces += [Piece(*part, False) for part in held.shared.within(start, end)]
        covered = IntervalSet((piece.start, piece.end) for piece in pieces)
        pieces += [Piece(*part, None) for part in covered.gaps(start, end)]
        return sorted(pieces)

    def granted(self, holder: Holder, piece: Piece, token: int, handle: int) -> None:
        """It has this now, in place of what it had there. ``handle`` 0: it was no open file."""
        held = self._files.setdefault(holder.inode, {}).setdefault(holder, _Held())
        into, other = held.shared, held.exclusive
        if piece.exclusive:
            into, other = other, into
        other.remove(piece.start, piece.end)
        into.add(piece.start, piece.end)
        held.token = max(held.token, token)
        if handle:
            held.handles.add(handle)

    def unlocked(self, holder: Holder, start: int, end: int) -> None:
        """It has nothing there any more."""
        held = self._find(holder)
        if held is None:
            return
        held.exclusive.remove(start, end)
        held.shared.remove(start, end)
        if not held.exclusive and not held.shared:
            del self._files[holder.inode][holder]
            if not self._files[holder.inode]:
                del self._files[holder.inode]

    def clear(self) -> None:
        """The session is over."""
        self._files.clear()

    def _find(self, holder: Holder) -> _Held | None:
        return self._files.get(holder.inode, {}).get(holder)
