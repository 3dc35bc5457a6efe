"""Holes in files: made by fallocate(2), found by lseek(2).

The metaserver drops whole chunks; what is a part of a chunk becomes zeros that are written like any
others. A crash in between leaves old bytes or zeros.
"""

import os

from ..fs.errors import Code, TideError
from ..fs.limits import CHUNK_BYTES, INLINE_MAX_BYTES, WRITE_BEHIND_BYTES
from ..fs.messages.meta import Punch
from .inodes import File
from .intervals import IntervalSet, Range
from .reading import Shell, extents
from .writing import Writer

_ZEROS = memoryview(bytes(WRITE_BEHIND_BYTES))


class Holes:
    """Makes and finds them, for all files of a mount."""

    def __init__(self, shell: Shell, writer: Writer) -> None:
        self._shell = shell
        self._writer = writer

    # --- making them -------------------------------------------------------------------------

    async def zero(self, file: File, start: int, end: int, size: int) -> None:
        """Bytes ``start`` to ``end - 1`` are zeros when this returns, as far as the file reaches;
        its size is at least ``size``."""
        if size <= file.size and self._lies_within_one_chunk(file, start, end):
            await self._write_zeros(file, start, end)
            return
        length = await self._punch(file, start, end, size)
        if end < length:
            for begin, stop in _edges(start, end):
                if await self._is_stored(file, begin, stop):
                    await self._write_zeros(file, begin, stop)

    def _lies_within_one_chunk(self, file: File, start: int, end: int) -> bool:
        """Whether the range is a part of one chunk, of which we know that it is stored."""
        end = min(end, file.size)
        index = start // CHUNK_BYTES
        begins = start % CHUNK_BYTES == 0
        ends = end % CHUNK_BYTES == 0 or end == file.size
        return (
            start < end <= (index + 1) * CHUNK_BYTES
            and not (begins and ends)
            and file.inline is False
            and file.layout.known(index)
            and file.layout.readable(index) is not None
        )

    async def _punch(self, file: File, start: int, end: int, size: int) -> int:
        """What the metaserver can do; the size of the file as it is then there."""
        async with self._writer.at_rest(file):
            file.check_not_lost()
            base = file.version
            request = Punch(file.inode, start, end, size)
            reply = await self._shell.meta.call(request, session=file.locked_in)
            attributes = reply.attributes
            file.layout.forget()
            file.punch(start, end)
            file.see_own(attributes, base)
            # With its last chunk gone it is inline again.
            file.inline = False if attributes.stored_bytes > INLINE_MAX_BYTES else None
            self._shell.absorb(attributes, own=True)
        return attributes.size

    async def _is_stored(self, file: File, start: int, end: int) -> bool:
        """Whether there is a chunk with a part of the range."""
        reply = await extents(self._shell, file, start)
        return not reply.inline and any(begin < end for begin, _ in reply.ranges)

    async def _write_zeros(self, file: File, start: int, end: int) -> None:
        """Change bytes of the file to zeros, and leave its size as it is."""
        while start < min(end, file.size):
            length = WRITE_BEHIND_BYTES - start % WRITE_BEHIND_BYTES
            if not self._writer.has_room(length):
                await self._writer.wait_room(length)
            stop = min(start + length, end, file.size)
            if start < stop:
                file.write(start, _ZEROS[: stop - start], self._shell.clock.wall_ns())
                self._writer.written(file, start)
            start += length

    # --- finding them ------------------------------------------------------------------------

    async def seek(self, file: File, offset: int, whence: int) -> int:
        """Where the next data begins, or the next hole, at ``offset`` or behind it.

        NO_SUCH_POSITION when that is behind the end, or there is no data any more. A hole is at
        least as large as a chunk, but for the one that every file ends with.
        """
        at = offset
        while True:
            reply = await extents(self._shell, file, at)
            if offset >= file.size:
                break
            whole = reply.until >= reply.attributes.size
            until = file.size if whole else min(reply.until, file.size)
            data = file.changes.pinned_ranges()
            for start, end in reply.ranges:
                data.add(start, end)
            found = _first(data, at, until, whence)
            if found is not None:
                return found
            if until >= file.size:
                if whence == os.SEEK_HOLE:
                    return file.size
                break
            at = until
        raise TideError(Code.NO_SUCH_POSITION, f"inode {file.inode}, at {offset}")


def _edges(start: int, end: int) -> list[Range]:
    """What of a range is a part of a chunk only."""
    first, stop = -(-start // CHUNK_BYTES) * CHUNK_BYTES, end // CHUNK_BYTES * CHUNK_BYTES
    if stop < first:
        return [(start, end)]
    return [(begin, until) for begin, until in ((start, first), (stop, end)) if begin < until]


def _first(data: IntervalSet, start: int, end: int, whence: int) -> int | None:
    """The first position in the range that holds data, or that does not; None: there is none."""
    found = data.within(start, end) if whence == os.SEEK_DATA else data.gaps(start, end)
    return found[0][0] if found else None
