"""Locks in memory, as briefly as can be: for the tests of drivers, not of locks."""

from typing import NamedTuple

import trio
from tidefs.client.fuse.driver import LockRange
from tidefs.fs.errors import Code, TideError


class Held(NamedTuple):
    """One lock of one owner."""

    inode: int
    flock: bool
    owner: int
    lock: LockRange


class MemoryLocks:
    """Conflicts, waiting, and giving back whole or in part."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self.waiting = 0
        self.changed = trio.Event()

    def conflict(self, wanted: Held) -> LockRange | None:
        for other in self.held:
            if (other.inode, other.flock) == wanted[:2] and other.owner != wanted.owner:
                a, b = other.lock, wanted.lock
                if (a.exclusive or b.exclusive) and a.start < b.end and b.start < a.end:
                    return a
        return None

    def take(self, wanted: Held) -> bool:
        """Whether it could be had at once."""
        if self.conflict(wanted):
            return False
        self.give_back(wanted)
        self.held.append(wanted)
        return True

    async def wait(self, wanted: Held) -> None:
        self.waiting += 1
        try:
            while not self.take(wanted):
                await self.changed.wait()
        finally:
            self.waiting -= 1

    def give_back(self, gone: Held) -> None:
        kept: list[Held] = []
        for one in self.held:
            if one[:3] != gone[:3]:
                kept.append(one)
                continue
            start, end = gone.lock.start, gone.lock.end
            for left in (
                one.lock._replace(end=min(one.lock.end, start)),
                one.lock._replace(start=max(one.lock.start, end)),
            ):
                if left.start < left.end:
                    kept.append(one._replace(lock=left))
        self.held = kept
        self.changed.set()
        self.changed = trio.Event()

    def refuse(self) -> TideError:
        return TideError(Code.WOULD_BLOCK, "held by another")
