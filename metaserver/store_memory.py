"""The working copy in memory, for the simulator: every crash takes it, only its copies stay."""

import struct
from collections.abc import Iterator

from ..fs.codec import pack, unpack
from ..fs.errors import Code, TideError
from ..fs.ports.disk import Disk
from .keys import TOTALS
from .kv import digest_of
from .kv_memory import MemoryKeyValue
from .store import StateDigest
from .tables import applied_index_in

_LENGTH = struct.Struct("<I")
_PAIRS_PER_BLOCK = 1_000


class MemoryStore:
    """A Store that a crash takes with it."""

    def __init__(self, disk: Disk, kv: MemoryKeyValue) -> None:
        self._disk = disk
        self._kv = kv

    @property
    def kv(self) -> MemoryKeyValue:
        return self._kv

    def commit(self) -> None:
        """There is nowhere to commit to."""

    async def copy_to(self, path: str) -> None:
        # All pairs first, without waiting: the copy is of one moment.
        blocks = [pack(pairs) for pairs in _blocks(self._kv)]
        file = self._disk.open(path, create=True)
        try:
            file.truncate(0)
            offset = 0
            for block in blocks:
                file.write(offset, [_LENGTH.pack(len(block)), block])
                offset += _LENGTH.size + len(block)
        finally:
            file.close()

    async def digest(self) -> StateDigest:
        # Without waiting: of one moment.
        return StateDigest(applied_index_in(self._kv.get(TOTALS)), digest_of(self._kv.scan(b"")))

    def close(self) -> None:
        """Nothing to give back."""


class MemoryStores:
    """Stores for one server whose disk is ``disk``."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def open_trusted(self) -> MemoryStore | None:
        return None

    async def open_copy(self, path: str) -> MemoryStore:
        file = self._disk.open(path)
        try:
            data = memoryview(await file.read(0, file.size()))
        finally:
            file.close()
        kv = MemoryKeyValue()
        offset = 0
        while offset < len(data):
            if offset + _LENGTH.size > len(data):
                raise TideError(Code.CORRUPT, f"{path} ends in the middle of a block")
            (length,) = _LENGTH.unpack_from(data, offset)
            offset += _LENGTH.size
            for key, value in unpack(data[offset : offset + length]):
                kv.put(key, value)
            offset += length
        return MemoryStore(self._disk, kv)

    async def open_empty(self) -> MemoryStore:
        return MemoryStore(self._disk, MemoryKeyValue())


def _blocks(kv: MemoryKeyValue) -> Iterator[list[tuple[bytes, bytes]]]:
    block: list[tuple[bytes, bytes]] = []
    for pair in kv.scan(b""):
        block.append(pair)
        if len(block) == _PAIRS_PER_BLOCK:
            yield block
            block = []
    if block:
        yield block
