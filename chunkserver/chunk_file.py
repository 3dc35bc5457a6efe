"""One chunk in use: its checksums, what of it is on stable storage, how it is read and written.

Each 64 KiB block is in one of these states:

- *hole*: it has no checksum; it reads as zeros.
- *fresh*: written in place, never synced. Nothing was promised, so it is written in place again.
- *syncing*: a sync of the file is under way that covers it; what is written now goes to the
  journal, for the sync may catch it half.
- *synced*: promised. What is written now goes to the journal, is laid over the file's bytes when
  they are read (*overlay*), and is put in its place once the journal is on stable storage.

The file of a *clean* chunk is not touched: the first writes go to the journal, until that is on
stable storage. Hence after a crash of the machine only chunks with records in the journal, or
whose header is not clean, can hold bytes that nobody vouches for.
"""

from array import array
from typing import NamedTuple

import trio

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion
from ..fs.ports.disk import File
from .layout import (
    BLOCK_BYTES,
    DATA_START,
    Header,
    Span,
    block_sum,
    blocks_below,
    chunk_path,
    spans,
)

HELD_BLOCKS = 2
"""A write touches at most two blocks in part."""


class DamagedError(TideError):
    """The bytes of the block at ``offset`` do not match their checksum."""

    def __init__(self, handle: int, version: int, offset: int) -> None:
        super().__init__(
            Code.BAD_CHECKSUM, f"chunk {handle:016x} version {version:x}, block at {offset}"
        )
        self.handle = handle
        self.version = version
        self.offset = offset


class Patch(NamedTuple):
    """Bytes of journal record ``sequence`` that belong at ``start`` of a block."""

    sequence: int
    start: int
    data: memoryview


class Plan(NamedTuple):
    """How a write will be done; nothing has changed yet. Ranges are (start, stop) in the chunk.

    ``sums``: the checksums afterwards, from block ``first`` on. ``recorded``: the same for the
    blocks in ``journaled``, 0 where the block is not wholly known to be on stable storage.
    """

    offset: int
    data: memoryview
    first: int
    sums: "array[int]"
    journaled: tuple[int, int] | None
    recorded: "array[int]"
    straight: list[tuple[int, int]]

    def part(self, start: int, stop: int) -> memoryview:
        return self.data[start - self.offset : stop - self.offset]


class Chunk:
    """The state of one chunk. Whoever changes it durably and awaits meanwhile holds ``lock``."""

    def __init__(self, handle: ChunkHandle, version: ChunkVersion, sums: "array[int]") -> None:
        self.handle = handle
        self.version = version
        self.path = chunk_path(handle)
        self.lock = trio.Lock()
        self.users = 0  # tasks that await something with this state in hand
        self.gone = False
        self.suspect = False
        self.lost = 0  # newest version before this one at which a crash may have taken bytes
        self.closed = False  # to writes, while a new version is being taken
        self.failure: TideError | None = None  # a sync failed: what is in the file is not known
        self.new = False  # its name, or its header, may not be on stable storage

        self.sums = sums
        self.blocks = sum(1 for found in sums if found)
        self.fresh: dict[int, int] = {}  # block -> end of the bytes written, in the block
        self.syncing: set[int] = set()
        self.overlay: dict[int, list[Patch]] = {}
        self.overlay_bytes = 0
        self.length = 0  # end of the bytes, overlay included
        self.in_file = 0  # end of the bytes in the file
        self.changes = 0  # counts what makes an earlier read of the file worthless
        self.changed_ns = 0

        self.floor = 0  # all records up to here are in the file, on stable storage
        self.oldest = 0  # first record that the header does not cover; 0: none
        self.behind_header = 0  # the same, once the header being written is in place
        self.newest = 0
        self.marked: int | None = (
            None  # with this record synced, a crash cannot hide un-synced bytes
        )
        self.born = 0  # its CREATE record; no write is acknowledged before that is synced
        self._held: dict[int, bytearray] = {}  # the blocks last written in part, as they are now

    @classmethod
    def created(cls, handle: ChunkHandle, version: ChunkVersion, sequence: int) -> "Chunk":
        """A new and empty one, by its CREATE record."""
        chunk = cls(handle, version, array("Q"))
        chunk.new = True
        chunk.marked = 0
        chunk.born = sequence
        chunk.floor = sequence
        chunk.noted(sequence)
        return chunk

    def measure(self, file: File) -> None:
        """Learn the length from the file. One that is too short for its checksums is damaged, and
        must not pass for one that ends there."""
        self.in_file = max(file.size() - DATA_START, 0)
        while self.sums and not self.sums[-1]:
            self.sums.pop()
        self.length = max(self.in_file, (len(self.sums) - 1) * BLOCK_BYTES + 1)

    # --- records -------------------------------------------------------------------------------

    def noted(self, sequence: int) -> None:
        """A record about this chunk was appended."""
        self.newest = sequence
        self.oldest = self.oldest or sequence
        self.behind_header = self.behind_header or sequence

    def header(self, sequence: int) -> Header:
        """The header that is true when its record has the number ``sequence``."""
        sums = array("Q", self.sums)
        for block in self.fresh:
            sums[block] = 0
        return Header(
            self.handle,
            self.version,
            sequence,
            self.floor,
            self.lost,
            clean=not self.fresh,
            suspect=self.suspect,
            sums=sums,
        )

    def check_kept(self, since: int) -> None:
        """OUT_OF_ORDER when bytes that were written from version ``since`` on (0: do not ask) may
        have gone in a crash of the machine."""
        lost = self.lost_until_now
        if 0 < since <= lost:
            raise TideError(
                Code.OUT_OF_ORDER,
                f"chunk {self.handle:016x}: the machine crashed at version {lost:x}, before all"
                f" that was written since {since:x} was synced",
            )

    @property
    def lost_until_now(self) -> int:
        """The newest version at which a crash may have taken bytes, 0: none."""
        return self.version if self.suspect else self.lost

    @property
    def idle(self) -> bool:
        """Whether everything about it stands in its file."""
        dirty = self.oldest or self.fresh or self.syncing or self.overlay or self.new
        return not dirty and not self.users

    def __enter__(self) -> "Chunk":
        """Keep this state in use, also while awaiting."""
        self.users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.users -= 1

    @property
    def stored_bytes(self) -> int:
        """What it occupies, nearly."""
        return min(self.blocks * BLOCK_BYTES, self.length)

    # --- reading -------------------------------------------------------------------------------

    def read_nowait(self, file: File, offset: int, length: int) -> Buffer | None:
        """Bytes, checked; fewer at the end. None when the disk must be waited for.

        DamagedError names the block.
        """
        end = min(offset + length, self.length)
        if end <= offset:
            return b""
        first, stop = offset // BLOCK_BYTES, blocks_below(end)
        start, want = self.extent(first, stop)
        raw = file.read_nowait(DATA_START + start, want) if want else b""
        if raw is None or len(raw) < want:
            return None
        return self.verified(raw, first, stop)[offset - start : end - start]

    async def read(self, file: File, offset: int, length: int) -> Buffer:
        """As ``read_nowait``, waiting for the disk."""
        while True:
            found = self.read_nowait(file, offset, length)
            if found is not None:
                return found
            first, stop = offset // BLOCK_BYTES, blocks_below(offset + length)
            start, want = self.extent(first, stop)
            changes = self.changes
            raw = await file.read(DATA_START + start, want)
            if changes == self.changes:
                end = min(offset + length, self.length)
                return self.verified(raw, first, blocks_below(end))[offset - start : end - start]

    def extent(self, first: int, stop: int) -> tuple[int, int]:
        """Where blocks ``first`` to ``stop - 1`` start, and how many of their bytes are in the
        file."""
        start = first * BLOCK_BYTES
        return start, max(min(stop * BLOCK_BYTES, self.length, self.in_file) - start, 0)

    def verified(self, raw: Buffer, first: int, stop: int) -> memoryview:
        """The blocks as they are now, up to the end of the chunk, from their bytes in the file."""
        size = min(stop * BLOCK_BYTES, self.length) - first * BLOCK_BYTES
        blocks = range(first, stop)
        plain = len(raw) == size and not any(
            block in self.overlay or not self.sum_at(block) for block in blocks
        )
        content = memoryview(raw) if plain else self._composed(raw, first, stop, size)
        for block in blocks:
            expected = self.sum_at(block)
            part = content[(block - first) * BLOCK_BYTES : (block - first + 1) * BLOCK_BYTES]
            if expected and block_sum(part) != expected:
                raise DamagedError(self.handle, self.version, block * BLOCK_BYTES)
        return content

    def _composed(self, raw: Buffer, first: int, stop: int, size: int) -> memoryview:
        content = bytearray(size)
        usable = min(len(raw), size)
        content[:usable] = memoryview(raw)[:usable]
        for block in range(first, stop):
            base = (block - first) * BLOCK_BYTES
            if not self.sum_at(block):
                until = min(base + BLOCK_BYTES, size)
                content[base:until] = bytes(until - base)
            for patch in self.overlay.get(block, ()):
                at = base + patch.start
                content[at : at + len(patch.data)] = patch.data
        return memoryview(content)

    def sum_at(self, block: int) -> int:
        """The checksum of a block; 0 for a hole."""
        return self.sums[block] if block < len(self.sums) else 0

    # --- writing -------------------------------------------------------------------------------

    def plan(self, file: File, offset: int, data: memoryview, synced: int) -> Plan | None:
        """How to write ``data``, with the journal synced up to ``synced``; None when a block must
        be read from the disk first. DamagedError when one that is written partly is damaged."""
        sums = array("Q")
        touched = list(spans(offset, len(data)))
        at = 0
        for span in touched:
            part = data[at : at + span.stop - span.start]
            at += len(part)
            found = block_sum(part) if span.whole else self._patched(file, span, part)
            if found is None:
                return None
            sums.append(found)
        first = touched[0].block
        untouchable = self.marked is None or self.marked > synced
        kept = [
            at
            for at, span in enumerate(touched)
            if untouchable or (self.sum_at(span.block) and span.block not in self.fresh)
        ]
        end = offset + len(data)
        if not kept:
            return Plan(offset, data, first, sums, None, array("Q"), [(offset, end)])
        start = max(offset, (first + kept[0]) * BLOCK_BYTES)
        stop = min(end, (first + kept[-1] + 1) * BLOCK_BYTES)
        recorded = sums[kept[0] : kept[-1] + 1]
        for at, span in enumerate(touched[kept[0] : kept[-1] + 1]):
            if not span.whole and (span.block in self.syncing or span.block in self.fresh):
                recorded[at] = 0
        straight = [(a, b) for a, b in ((offset, start), (stop, end)) if a < b]
        return Plan(offset, data, first, sums, (start, stop), recorded, straight)

    def _patched(self, file: File, span: Span, data: memoryview) -> int | None:
        """The checksum of a block with ``data`` in it; None when its content is not at hand."""
        content = self._content(file, span.block)
        if content is None:
            return None
        content[span.start : span.stop] = data
        self._hold(span.block, content)
        return block_sum(content)

    def _content(self, file: File, block: int) -> bytearray | None:
        held = self._held.get(block)
        if held is not None:
            return held
        if not self.sum_at(block):
            return bytearray(BLOCK_BYTES)
        found = self.read_nowait(file, block * BLOCK_BYTES, BLOCK_BYTES)
        return None if found is None else _padded(found)

    async def warm(self, file: File, block: int) -> None:
        """Read a block, so that the next write to it need not wait."""
        if self.sum_at(block):
            found = await self.read(file, block * BLOCK_BYTES, BLOCK_BYTES)
            self._hold(block, _padded(found))

    def _hold(self, block: int, content: bytearray) -> None:
        self._held.pop(block, None)
        self._held[block] = content
        if len(self._held) > HELD_BLOCKS:
            del self._held[next(iter(self._held))]

    def forget_held(self) -> None:
        """A planned write was not done, or the content changed otherwise."""
        self._held.clear()

    def done(self, plan: Plan, sequence: int, now_ns: int) -> None:
        """The write was done as planned; its record, if it has one, is ``sequence``."""
        if plan.journaled is not None:
            self.noted(sequence)
            self.marked = self.marked if self.marked is not None else sequence
            start, stop = plan.journaled
            self._lay_over(sequence, start, plan.part(start, stop))
        for start, stop in plan.straight:
            for span in spans(start, stop - start):
                self.fresh[span.block] = max(self.fresh.get(span.block, 0), span.stop)
            self.in_file = max(self.in_file, stop)
        last = plan.first + len(plan.sums)
        if last > len(self.sums):
            self.sums.extend([0] * (last - len(self.sums)))
        self.blocks += self.sums[plan.first : last].count(0)
        self.sums[plan.first : last] = plan.sums
        self._forget_replaced(plan)
        self.length = max(self.length, plan.offset + len(plan.data))
        self.changes += 1
        self.changed_ns = now_ns

    def found(self, block: int, found: int, end: int) -> None:
        """A block of the file that nobody vouched for has this checksum; to be synced."""
        if block >= len(self.sums):
            self.sums.extend([0] * (block + 1 - len(self.sums)))
        self.blocks += bool(found) - bool(self.sums[block])
        self.sums[block] = found
        if found:
            self.fresh[block] = end

    def _forget_replaced(self, plan: Plan) -> None:
        """Blocks that were written as a whole did not pass through the held ones."""
        for block in list(self._held):
            base = block * BLOCK_BYTES - plan.offset
            if 0 <= base <= len(plan.data) - BLOCK_BYTES:
                del self._held[block]

    def _lay_over(self, sequence: int, offset: int, data: memoryview) -> None:
        at = 0
        for span in spans(offset, len(data)):
            part = data[at : at + span.stop - span.start]
            at += len(part)
            patch = Patch(sequence, span.start, part)
            self.overlay_bytes += len(part)
            if span.whole:
                self.overlay_bytes -= sum(
                    len(replaced.data) for replaced in self.overlay.get(span.block, ())
                )
                self.overlay[span.block] = [patch]
                self.fresh.pop(span.block, None)
            else:
                self.overlay.setdefault(span.block, []).append(patch)

    def apply(self, file: File, synced: int) -> None:
        """Put into the file what the journal has on stable storage."""
        for block, patches in list(self.overlay.items()):
            while patches and patches[0].sequence <= synced:
                patch = patches[0]
                at = block * BLOCK_BYTES + patch.start
                file.write(DATA_START + at, [patch.data])
                self.in_file = max(self.in_file, at + len(patch.data))
                del patches[0]
                self.overlay_bytes -= len(patch.data)
                self.changes += 1
            if not patches:
                del self.overlay[block]

    def cut(self, offset: int, found: int) -> None:
        """The bytes from ``offset`` on are gone; ``found`` is the checksum of the block there."""
        assert not self.overlay, "a cut chunk was synced first"
        assert not self.fresh
        del self.sums[blocks_below(offset) :]
        if offset % BLOCK_BYTES and len(self.sums) == blocks_below(offset):
            self.sums[-1] = found
        self.blocks = sum(1 for found in self.sums if found)
        self.length = min(self.length, offset)
        self.in_file = min(self.in_file, offset)
        self.changes += 1
        self.forget_held()


def _padded(content: Buffer) -> bytearray:
    whole = bytearray(BLOCK_BYTES)
    whole[: len(content)] = content
    return whole
