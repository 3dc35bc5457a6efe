"""Locks that are being given back by a close that nobody waits for.

The kernel does not wait for the last close(2) of an open file, with which flock(2) and
open-file-description locks end. A process that has closed a file and locks it anew must not meet
its own old lock: so who asks for locks here waits for those that are on their way back.
"""

import trio


class Closings:
    """How many are under way for each inode."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._ended = trio.lowlevel.ParkingLot()

    def begins(self, inode: int) -> None:
        self._counts[inode] = self._counts.get(inode, 0) + 1

    def ends(self, inode: int) -> None:
        self._counts[inode] -= 1
        if not self._counts[inode]:
            del self._counts[inode]
            self._ended.unpark_all()

    async def wait_none(self, inode: int) -> None:
        """Return when none is under way."""
        while inode in self._counts:
            await self._ended.park()
