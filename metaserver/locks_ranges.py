"""What locks do to each other: conflict, carve, cover, join. Arithmetic of records; no tables.

Of one owner and kind no two locks overlap, as fcntl(2) has it: "a process can hold only one type
of lock on a file region". ``own`` is always such a list, by start.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ..fs.limits import LOCK_END
from ..fs.messages.locks import LockKind


class Owner(NamedTuple):
    """Who locks. Owners of one session are as foreign to each other as those of two."""

    kind: LockKind
    session: int
    owner: int


class LockRecord(NamedTuple):
    """One lock: held when it has a ``token``, else waiting under its ``ticket``.

    One that is held keeps the ticket under which it once waited (0: it did not), so that who
    withdraws too late learns that it was granted. ``after_loss``: see LockAnswer.
    """

    inode: int
    kind: LockKind
    exclusive: bool
    start: int
    end: int
    session: int
    owner: int
    pid: int
    token: int = 0
    ticket: int = 0
    after_loss: bool = False

    @property
    def who(self) -> Owner:
        return Owner(self.kind, self.session, self.owner)


def by_start(lock: LockRecord) -> tuple[int, int, int]:
    """The order of the locks of one inode and kind."""
    return lock.start, lock.session, lock.owner


def overlap(one: LockRecord, other: LockRecord) -> bool:
    """Whether there is a byte in both."""
    return one.start < other.end and other.start < one.end


def conflict(one: LockRecord, other: LockRecord) -> bool:
    """Whether two owners cannot hold these at once."""
    return (
        (one.exclusive or other.exclusive)
        and one.start < other.end
        and other.start < one.end
        and one.who != other.who
    )


def carve(own: Iterable[LockRecord], start: int, end: int) -> list[LockRecord]:
    """What is left of one owner's locks when ``start`` to ``end - 1`` is taken away."""
    left: list[LockRecord] = []
    for lock in own:
        if lock.end <= start or end <= lock.start:
            left.append(lock)
            continue
        if lock.start < start:
            left.append(lock._replace(end=start))
        if end < lock.end:
            left.append(lock._replace(start=end))
    return left


def replace(own: Iterable[LockRecord], lock: LockRecord) -> list[LockRecord]:
    """One owner's locks when ``lock`` takes the place of what it held there."""
    return join(sorted([*carve(own, lock.start, lock.end), lock], key=by_start))


def join(own: Iterable[LockRecord]) -> list[LockRecord]:
    """Neighbours of one mode become one lock, with the newest token.

    Only of one ticket: a Withdraw that comes late is answered by what was granted under it.
    """
    joined: list[LockRecord] = []
    for lock in own:
        last = joined[-1] if joined else None
        if last is not None and _are_one(last, lock) and last.ticket == lock.ticket:
            joined[-1] = _united(last, lock)
        else:
            joined.append(lock)
    return joined


def cover(own: Iterable[LockRecord], lock: LockRecord) -> LockRecord | None:
    """``lock`` as its owner holds it already, in this mode and as a whole; or None."""
    found: LockRecord | None = None
    for part in own:
        if not overlap(part, lock):
            continue
        if part.exclusive != lock.exclusive:
            return None
        if found is not None and part.start != found.end:
            return None
        found = part if found is None else _united(found, part)
    return found if found and found.start <= lock.start and lock.end <= found.end else None


def extent(own: Iterable[LockRecord], lock: LockRecord) -> LockRecord:
    """``lock`` with its neighbours of the same mode, as fcntl(2) shows it."""
    found = lock
    for part in own:
        if part.start > found.start and _are_one(found, part):
            found = _united(found, part)
    return found


def whole(lock: LockRecord) -> bool:
    """Whether it is of all bytes of the file, and of those to come."""
    return lock.start == 0 and lock.end == LOCK_END


def _are_one(left: LockRecord, right: LockRecord) -> bool:
    return left.end == right.start and left.exclusive == right.exclusive


def _united(left: LockRecord, right: LockRecord) -> LockRecord:
    newest = max(left, right, key=lambda lock: lock.token)
    return newest._replace(
        start=left.start, end=right.end, after_loss=left.after_loss or right.after_loss
    )
