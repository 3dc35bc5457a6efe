"""Bytes of files in memory, in blocks of CACHE_BLOCK_BYTES, least recently used out first.

The cache knows blocks, not which of their bytes are right: that is in the ``valid`` set of each
file (`client/inodes.py`), which is told of each block that leaves. A *pinned* block holds changes
and stays. A *lent* buffer is in the hands of somebody who sends it: it is never changed again;
who writes to such a block gets a copy, for the frame's checksum was computed over the old bytes.

Nothing here waits.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable

from ..fs.codec import Buffer
from ..fs.limits import CACHE_BLOCK_BYTES, CACHE_BYTES

SMALLEST_BUFFER_BYTES = 1024
SPARE_BUFFERS_MAX = 64
_UNSHARED_REFERENCES = 3
"""What CPython counts for an object held by one attribute, one local name and the count itself."""

Key = tuple[int, int]
"""Inode, index of the block in its file."""


class Block:
    """One block: a buffer that is as long as its highest byte needs."""

    __slots__ = ("buffer", "lent", "pinned")

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self.lent = 0
        self.pinned = False


class Loan:
    """A stretch of a file's bytes that will not change until ``give_back``.

    After a failed send the loan is just dropped: a frame that is still queued somewhere may hold
    the bytes, so nobody may ever write to those buffers again.
    """

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self._blocks: list[tuple[Block, bytearray]] = []

    def take(self, block: Block, start: int, end: int) -> None:
        block.lent += 1
        self._blocks.append((block, block.buffer))
        self.buffers.append(memoryview(block.buffer)[start:end])

    def give_back(self) -> None:
        self.buffers = []
        for block, buffer in self._blocks:
            if block.buffer is buffer:
                block.lent -= 1
        self._blocks = []


class BlockCache:
    """All blocks of a mount. Offsets are within the file, in bytes."""

    def __init__(
        self, evicted: Callable[[int, int, int], None], capacity_bytes: int = CACHE_BYTES
    ) -> None:
        """``evicted(inode, start, end)`` is told of each block that leaves to make room."""
        self._evicted = evicted
        self.capacity_bytes = capacity_bytes
        self._clean: OrderedDict[Key, Block] = OrderedDict()
        self._pinned: dict[Key, Block] = {}
        self._spare: list[bytearray] = []
        self.used_bytes = 0
        self.pinned_bytes = 0

    def put(self, inode: int, offset: int, data: Buffer, *, pinned: bool) -> None:
        """Store bytes. Call it before the range is added to ``valid``: making room may evict."""
        data = memoryview(data)
        self._make_room(len(data))
        at = 0
        while at < len(data):
            index, start = divmod(offset + at, CACHE_BLOCK_BYTES)
            end = min(CACHE_BLOCK_BYTES, start + len(data) - at)
            block = self._block((inode, index), pinned)
            self._writable(block, end)[start:end] = data[at : at + end - start]
            at += end - start

    def get(self, inode: int, start: int, end: int) -> Buffer:
        """Bytes that are all valid. A view of the cache is good until the next await."""
        first, last = start // CACHE_BLOCK_BYTES, (end - 1) // CACHE_BLOCK_BYTES
        if first >= last:
            block = self._touch((inode, first))
            base = first * CACHE_BLOCK_BYTES
            return memoryview(block.buffer)[start - base : end - base]
        return b"".join(self._views(inode, start, end))

    def lend(self, inode: int, start: int, end: int) -> Loan:
        """The bytes of a valid range, unchanging."""
        loan = Loan()
        while start < end:
            index, begin = divmod(start, CACHE_BLOCK_BYTES)
            stop = min(CACHE_BLOCK_BYTES, begin + end - start)
            loan.take(self._touch((inode, index)), begin, stop)
            start += stop - begin
        return loan

    def unpin(self, inode: int, index: int) -> None:
        """The block holds no change any more, and may leave."""
        block = self._pinned.pop((inode, index), None)
        if block is not None:
            block.pinned = False
            self.pinned_bytes -= len(block.buffer)
            self._clean[inode, index] = block

    def pin(self, inode: int, index: int) -> None:
        """What the block holds, valid already, has become a change."""
        self._block((inode, index), True)

    def drop(self, inode: int, index: int) -> None:
        """Forget a block."""
        block = self._clean.pop((inode, index), None)
        if block is None:
            block = self._pinned.pop((inode, index), None)
            if block is None:
                return
            self.pinned_bytes -= len(block.buffer)
        self._discard(block)

    def _views(self, inode: int, start: int, end: int) -> list[memoryview]:
        views = []
        while start < end:
            index, begin = divmod(start, CACHE_BLOCK_BYTES)
            stop = min(CACHE_BLOCK_BYTES, begin + end - start)
            views.append(memoryview(self._touch((inode, index)).buffer)[begin:stop])
            start += stop - begin
        return views

    def _touch(self, key: Key) -> Block:
        block = self._clean.get(key)
        if block is None:
            return self._pinned[key]
        self._clean.move_to_end(key)
        return block

    def _block(self, key: Key, pinned: bool) -> Block:
        """The block, new and empty if need be, pinned if asked."""
        block = self._pinned.get(key)
        if block is not None:
            return block
        block = self._clean.get(key)
        if block is None:
            block = Block(bytearray())
            self._clean[key] = block
        else:
            self._clean.move_to_end(key)
        if pinned:
            del self._clean[key]
            self._pinned[key] = block
            block.pinned = True
            self.pinned_bytes += len(block.buffer)
        return block

    def _writable(self, block: Block, length: int) -> bytearray:
        """The block's buffer, at least ``length`` long and lent to nobody."""
        old = block.buffer
        if len(old) >= length and not block.lent:
            return old
        new = self._buffer(max(length, len(old)))
        new[: len(old)] = old
        block.buffer = new
        block.lent = 0
        growth = len(new) - len(old)
        self.used_bytes += growth
        if block.pinned:
            self.pinned_bytes += growth
        return new

    def _buffer(self, length: int) -> bytearray:
        """A buffer of a power of two, at least ``length``; fresh memory costs page faults."""
        if length > CACHE_BLOCK_BYTES // 2:
            return self._spare.pop() if self._spare else bytearray(CACHE_BLOCK_BYTES)
        size = SMALLEST_BUFFER_BYTES
        while size < length:
            size *= 2
        return bytearray(size)

    def _make_room(self, length: int) -> None:
        while self.used_bytes + length > self.capacity_bytes and self._clean:
            (inode, index), block = self._clean.popitem(last=False)
            self._discard(block)
            start = index * CACHE_BLOCK_BYTES
            self._evicted(inode, start, start + CACHE_BLOCK_BYTES)

    def _discard(self, block: Block) -> None:
        buffer = block.buffer
        self.used_bytes -= len(buffer)
        if (
            len(buffer) == CACHE_BLOCK_BYTES
            and len(self._spare) < SPARE_BUFFERS_MAX
            and sys.getrefcount(buffer) <= _UNSHARED_REFERENCES
        ):
            self._spare.append(buffer)
