"""Applications on several machines that append records to one file with O_APPEND: each that was
acknowledged is there exactly once, whole, and in the order in which it was written.

What was not acknowledged may be there once or not at all; and in part, when its client died, or
power was lost, before it was synced.
"""

import os
import struct
import zlib
from collections import Counter
from functools import partial
from typing import NamedTuple

from .cluster import Cluster
from .conditions import ViolationError
from .model import Path
from .sharers import Sharer
from .user import OpenFile, User

MAGIC = b"\xabrecord\xba"
HEADER = struct.Struct(">8sIIII")  # magic, who, which, length, checksum
IN_A_ROW_MAX = 4


class Record(NamedTuple):
    """What somebody appended. ``which`` counts up."""

    who: int
    which: int

    def pack(self, length: int) -> bytes:
        """So many bytes, none of which others have."""
        body = (b"%d.%d " % self * length)[: length - HEADER.size]
        return HEADER.pack(MAGIC, *self, length, zlib.crc32(body)) + body


class Journal:
    """One file."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.path = path
        self.sync = sync
        self._lengths: dict[Record, int] = {}
        self._acknowledged: set[Record] = set()

    def attempt(self, record: Record, length: int) -> None:
        """It is about to be appended."""
        self._lengths[record] = length

    def acknowledge(self, records: list[Record]) -> None:
        """They are there."""
        self._acknowledged.update(records)

    def check(self, data: bytes) -> None:
        """ViolationError when these bytes of the file cannot be."""
        found, rest = parse(data)
        times = Counter(found)
        twice = sorted(record for record in times if times[record] > 1)
        missing = sorted(self._acknowledged - times.keys())
        strange = sorted(times.keys() - self._lengths.keys())
        if twice or missing or strange:
            raise ViolationError(
                f"{self.path}: records twice {twice[:5]}, missing {missing[:5]}, never written"
                f" {strange[:5]}, of {len(self._acknowledged)} acknowledged in {len(data)} bytes"
            )
        for who in sorted({record.who for record in found}):
            order = [record.which for record in found if record.who == who]
            if order != sorted(order):
                raise ViolationError(f"{self.path}: those of {who} are in another order: {order}")
        lost = sum(length for one, length in self._lengths.items() if one not in times)
        if rest > lost:
            raise ViolationError(f"{self.path}: {rest} bytes belong to no record; {lost} may")


def parse(data: bytes) -> tuple[list[Record], int]:
    """The whole records in order, and how many bytes are in none of them."""
    found, at, rest = [], 0, 0
    while at < len(data):
        record, length = _record_at(data, at)
        if record is not None:
            found.append(record)
            at += length
        else:
            following = data.find(MAGIC, at + 1)
            following = following if following >= 0 else len(data)
            rest += following - at
            at = following
    return found, rest


def _record_at(data: bytes, at: int) -> tuple[Record | None, int]:
    if len(data) - at < HEADER.size:
        return None, 0
    magic, who, which, length, crc = HEADER.unpack_from(data, at)
    body = data[at + HEADER.size : at + length]
    if magic != MAGIC or len(body) != length - HEADER.size or zlib.crc32(body) != crc:
        return None, 0
    return Record(who, which), length


class Appender(Sharer):
    """One of those who append."""

    flags = os.O_RDWR | os.O_APPEND

    def __init__(
        self, cluster: Cluster, name: str, number: int, journal: Journal, length_max: int
    ) -> None:
        super().__init__(cluster, name)
        self._number = number
        self._journal = journal
        self._length_max = length_max
        self._next = 0
        self._written: list[Record] = []
        """And not acknowledged yet, in this life."""

    async def prepare(self, user: User) -> None:
        if self._number == 0:
            await (await user.create(self._journal.path, 0o644)).close()

    async def check_all(self, user: User) -> None:
        _, data = await user.read_all(self._journal.path)
        self._journal.check(data)

    async def _step(self) -> None:
        file = await self._open(self._journal.path)
        for _ in range(self._random.randint(1, IN_A_ROW_MAX)):
            self._written.append(await self._append(file))
        if self._journal.sync or self._random.random() < 0.5:
            await self._ask(f"fsync #{file.inode}", file.fsync)
            self._acknowledge()
        elif self._random.random() < 0.5:
            del self._files[self._journal.path]
            await self._ask(f"close #{file.inode}", file.close)
            self._acknowledge()

    def _acknowledge(self) -> None:
        self._journal.acknowledge(self._written)
        self._written.clear()

    async def _close_all(self) -> None:
        self._written.clear()
        await super()._close_all()

    def client_died(self) -> None:
        self._written.clear()
        super().client_died()

    async def _append(self, file: OpenFile) -> Record:
        record = Record(self._number, self._next)
        self._next += 1
        length = self._random.randint(HEADER.size, self._length_max)
        self._journal.attempt(record, length)
        # The kernel's idea of the end is as good as any.
        write = partial(file.write, self._random.randrange(1_000), record.pack(length))
        await self._ask(f"append #{file.inode} {record} {length}", write)
        return record
