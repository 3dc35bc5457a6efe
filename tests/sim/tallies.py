"""Counter files that several applications count up under a lock, each reading what is there and
writing one more: every one that was acknowledged counts exactly once.

A file has one number for each of them, and their sum. So a lost update shows at once, and whose it
was. What was not acknowledged (the client died, its session was lost) may count or not.
"""

import struct
from functools import partial

from tidefs.client.fuse.driver import LockRange
from tidefs.fs.limits import INLINE_MAX_BYTES, LOCK_END

from .cluster import Cluster
from .conditions import ViolationError
from .model import Path
from .sharers import Sharer
from .user import OpenFile, User

HOLD_MAX_S = 0.3
FIRST_PROCESS = 1_000
"""Processes on one machine have different numbers: lockers have those below."""


class Tally:
    """One file. ``on_chunks``: it is too large for the metaservers, else it is theirs. ``sync``:
    what was not synced may be lost with the power."""

    def __init__(
        self, path: Path, counters: int, *, on_chunks: bool, flock: bool, sync: bool
    ) -> None:
        self.path = path
        self.flock = flock
        self.sync = sync
        self.offset = INLINE_MAX_BYTES + 100 if on_chunks else 0
        self._format = struct.Struct(f">{counters + 1}Q")
        self._acknowledged = [0] * counters
        self._attempted = [0] * counters

    @property
    def length(self) -> int:
        return self._format.size

    @property
    def empty(self) -> bytes:
        """All bytes of the file in the beginning."""
        return bytes(self.offset + self.length)

    def one_more(self, data: bytes, number: int) -> bytes:
        """What is to be written after ``data`` was read."""
        *values, _ = self._format.unpack(data)
        values[number] += 1
        self._attempted[number] = max(self._attempted[number], values[number])
        return self._format.pack(*values, sum(values))

    def see(self, data: bytes) -> list[int]:
        """The numbers that were read under the lock."""
        if len(data) != self.length:
            raise ViolationError(f"{self.path}: {len(data)} bytes instead of {self.length}")
        *values, total = self._format.unpack(data)
        bounds = zip(self._acknowledged, values, self._attempted, strict=True)
        if total != sum(values) or not all(low <= value <= high for low, value, high in bounds):
            raise ViolationError(
                f"{self.path} has {values}, sum {total}; acknowledged are {self._acknowledged},"
                f" attempted {self._attempted}"
            )
        return values

    def acknowledge(self, number: int, data: bytes) -> None:
        """What was written is there."""
        value = self._format.unpack(data)[number]
        self._acknowledged[number] = value
        self._attempted[number] = value


class Counter(Sharer):
    """One of those who count."""

    def __init__(self, cluster: Cluster, name: str, number: int, tallies: list[Tally]) -> None:
        super().__init__(cluster, name)
        self._number = number
        self._process = FIRST_PROCESS + number
        self._tallies = tallies

    async def prepare(self, user: User) -> None:
        if self._number == 0:
            for tally in self._tallies:
                file = await user.create(tally.path, 0o644)
                await file.write(0, tally.empty)
                await file.fsync()
                await file.close()

    async def check_all(self, user: User) -> None:
        for tally in self._tallies:
            _, data = await user.read_all(tally.path)
            tally.see(data[tally.offset :])

    async def _step(self) -> None:
        tally = self._random.choice(self._tallies)
        file = await self._open(tally.path)
        everything = LockRange(True, 0, LOCK_END, self._process)
        lock = partial(file.lock, self._process, everything, wait=True, flock=tally.flock)
        before = self._client().lease.session
        await self._ask(f"lock #{file.inode}", lock)
        session = self._client().lease.session
        await self._count(file, tally, session if session == before else 0)
        if self._random.random() < 0.2:
            await self._close_all()

    async def _count(self, file: OpenFile, tally: Tally, session: int) -> None:
        read = partial(file.read, tally.offset, tally.length)
        data = await self._ask(f"read #{file.inode}", read)
        if self._client().counts(session):  # else it was paused, and does not know yet what it lost
            self._cluster.trace.note("count", f"{self.name} {tally.see(data)}")
        await self._wait(HOLD_MAX_S)
        more = tally.one_more(data, self._number)
        await self._ask(f"write #{file.inode}", partial(file.write, tally.offset, more))
        await self._wait(HOLD_MAX_S)
        if tally.sync:
            await self._ask(f"fsync #{file.inode}", file.fsync)
            tally.acknowledge(self._number, more)
        unlock = partial(file.unlock, self._process, 0, LOCK_END, flock=tally.flock)
        await self._ask(f"unlock #{file.inode}", unlock)
        tally.acknowledge(self._number, more)
