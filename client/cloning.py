"""copy_file_range(2) without the bytes: chunkservers clone whole chunks among themselves.

A new chunk is reserved for each one of the source, every replica of it makes its own from what it
has, and one Commit puts them all into the file. They go where the target has a hole; holes of the
source stay holes. Everything else, and whatever fails, is NOT_SUPPORTED: then the kernel copies
the bytes through its page cache, and knows how to report what is wrong.
"""

import logging
from typing import NamedTuple

import trio

from ..fs.errors import Code, TideError
from ..fs.limits import (
    CHUNK_BYTES,
    CLONE_CHUNKS_MAX,
    CLONE_MIN_BYTES,
    CLONES_IN_FLIGHT_MAX,
)
from ..fs.messages.meta import Commit, Extents, GetLayout, NewChunk
from ..fs.messages.places import ChunkPlace
from .inodes import File
from .intervals import IntervalSet
from .pushing import give_back
from .reading import Shell, extents
from .writing import Writer

log = logging.getLogger(__name__)


class _Plan(NamedTuple):
    """What to clone. ``chunks``: those of the source, by their index in the target."""

    offset: int
    length: int
    chunks: dict[int, ChunkPlace]
    inline_base: int


class Cloner:
    """Clones for all files of a mount."""

    def __init__(self, shell: Shell, writer: Writer) -> None:
        self._shell = shell
        self._writer = writer

    async def clone(
        self, source: File, source_offset: int, target: File, target_offset: int, length: int
    ) -> int:
        """How many bytes of ``source`` are in ``target`` now; 0 behind the source's end.

        NOT_SUPPORTED when none of them can be cloned.
        """
        if source is not target:
            await self._writer.flush(source)
        async with self._writer.at_rest(target):
            plan = await self._plan(source, source_offset, target, target_offset, length)
            if plan.length:
                try:
                    await self._carry_out(plan, target)
                except TideError as error:
                    log.info("inode %d is copied, not cloned: %s", source.inode, error)
                    raise _not_cloned(str(error)) from error
        return plan.length

    # --- what can be cloned ------------------------------------------------------------------

    async def _plan(
        self, source: File, source_offset: int, target: File, target_offset: int, length: int
    ) -> _Plan:
        found = await extents(self._shell, source, source_offset)
        if found.inline and found.attributes.stored_bytes:
            raise _not_cloned("the source is small")
        source_size = found.attributes.size
        length = min(length, max(0, source_size - source_offset), CLONE_CHUNKS_MAX * CHUNK_BYTES)
        if not length:
            return _Plan(target_offset, 0, {}, 0)
        before = await extents(self._shell, target, target_offset)
        if before.inline and before.attributes.stored_bytes:
            raise _not_cloned("the target is small")
        length = _clonable(length, source_offset, source_size, target_offset, before)
        if length < CLONE_MIN_BYTES:
            raise _not_cloned("too few bytes are where chunks can be cloned")
        places = await self._places(source, source_offset, length, found)
        shift = (target_offset - source_offset) // CHUNK_BYTES
        chunks = {place.index + shift: place for place in places}
        base = before.attributes.data_version if before.inline else 0
        return _Plan(target_offset, length, chunks, base)

    async def _places(
        self, source: File, offset: int, length: int, found: Extents
    ) -> list[ChunkPlace]:
        first = offset // CHUNK_BYTES
        count = -(-length // CHUNK_BYTES)
        reply = await self._shell.meta.call(GetLayout(source.inode, first, count, False))
        if reply.attributes.data_version != found.attributes.data_version:
            raise _not_cloned("the source is being changed")
        return reply.chunks

    # --- doing it ----------------------------------------------------------------------------

    async def _carry_out(self, plan: _Plan, target: File) -> None:
        made: dict[int, ChunkPlace] = {}
        try:
            await self._make_all(plan, target, made)
            await self._commit(plan, target, made)
        except BaseException:
            await self._give_back(target, made)
            raise

    async def _make_all(self, plan: _Plan, target: File, made: dict[int, ChunkPlace]) -> None:
        """Reserve and fill the new chunks; ``made``: those that are reserved."""
        limit = trio.CapacityLimiter(CLONES_IN_FLIGHT_MAX)
        failures: list[TideError] = []

        async def make(index: int, source: ChunkPlace) -> None:
            async with limit:
                if failures:
                    return
                try:
                    await self._make(plan, target, index, source, made)
                except TideError as error:
                    failures.append(error)

        async with trio.open_nursery() as nursery:
            for index, source in plan.chunks.items():
                nursery.start_soon(make, index, source)
        if failures:
            raise failures[0]

    async def _make(
        self,
        plan: _Plan,
        target: File,
        index: int,
        source: ChunkPlace,
        made: dict[int, ChunkPlace],
    ) -> None:
        if index in target.reserved:
            raise _not_cloned("there were attempts to write to the target")
        place = await self._writer.pusher.granted(target, index)
        if place is None or not place.fresh:
            raise _not_cloned(f"chunk {index} of the target was written meanwhile")
        made[index] = place
        length = min(CHUNK_BYTES, plan.offset + plan.length - index * CHUNK_BYTES)
        await self._shell.chunks.clone(place, source, length)

    async def _commit(self, plan: _Plan, target: File, made: dict[int, ChunkPlace]) -> None:
        end = plan.offset + plan.length
        chunks = [
            NewChunk(index, place.handle, place.version) for index, place in sorted(made.items())
        ]
        base = target.version
        request = Commit(target.inode, end, None, [], chunks, plan.inline_base, False)
        target.check_not_lost()
        reply = await self._shell.meta.call(request, session=target.locked_in)
        for index in made:
            self._not_reserved(target, index)
            slot = target.layout.writable(index)
            if slot is not None:
                slot.made()
        target.forget_clean(plan.offset, end)
        target.see_own(reply.attributes, base)
        if chunks and target.version == reply.attributes.data_version:
            target.inline = False
        self._shell.absorb(reply.attributes, own=True)

    async def _give_back(self, target: File, made: dict[int, ChunkPlace]) -> None:
        """Nobody may ever write to these chunks: a clone that is late would replace the bytes."""
        for index, place in made.items():
            slot = target.layout.writable(index)
            if slot is not None:
                target.layout.forget_slot(slot)
            self._not_reserved(target, index)
            await give_back(self._shell, place.handle)

    def _not_reserved(self, target: File, index: int) -> None:
        held = target.reserved.pop(index, None)
        if held is not None:
            self._shell.meta.committed(target.inode, index, held.handle)


def _clonable(
    length: int, source_offset: int, source_size: int, target_offset: int, target: Extents
) -> int:
    """How many bytes from the offsets on can be cloned: into a hole of the target, by whole chunks
    but for one with which the source ends, and the target too."""
    end = target_offset + length
    stored = IntervalSet(target.ranges).within(target_offset, end)
    if stored:
        end = stored[0][0]
    if target.until < target.attributes.size:
        end = min(end, target.until)
    at_both_ends = (
        source_offset + end - target_offset >= source_size and end >= target.attributes.size
    )
    return max(0, (end if at_both_ends else end - end % CHUNK_BYTES) - target_offset)


def _not_cloned(why: str) -> TideError:
    return TideError(Code.NOT_SUPPORTED, f"cloning: {why}")
