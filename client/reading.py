"""Bytes from the servers: fills the gaps in what is cached, reads ahead, or reads straight through.

Each fetch is registered with its file while it is under way: a second reader waits for it instead
of asking again, and what is written or cut meanwhile is not overwritten when it arrives.
"""

from collections.abc import Awaitable
from contextlib import suppress
from typing import NamedTuple, Protocol

import trio

from ..fs.attributes import Attributes
from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.limits import CACHE_BLOCK_BYTES, CHUNK_BYTES, LAYOUT_CHUNKS_MAX, READ_AHEAD_BYTES
from ..fs.messages.meta import Extents, GetContent, GetExtents, GetLayout
from ..fs.messages.places import ChunkPlace
from ..fs.ports.clock import Clock
from .inodes import Fetch, File
from .layouts import PLACEMENT_ERRORS, question
from .patience import Patience
from .servers import ChunkServers, MetaServers

FETCH_MAX_BYTES = READ_AHEAD_BYTES // 4
_ZEROS = memoryview(bytes(FETCH_MAX_BYTES))


class Absorb(Protocol):
    """Tells all caches about attributes that came along; see `client/vfs_caches.py`."""

    def __call__(self, attributes: Attributes, *, own: bool = False) -> None: ...


class Shell(NamedTuple):
    """What reading and writing need of the mount."""

    meta: MetaServers
    chunks: ChunkServers
    clock: Clock
    nursery: trio.Nursery
    absorb: Absorb
    patience_ms: int | None
    """None: a hard mount."""


async def extents(shell: Shell, file: File, offset: int) -> Extents:
    """Where a file has stored bytes, from ``offset`` on, as far as one reply tells."""
    reply = await shell.meta.call(GetExtents(file.inode, offset))
    shell.absorb(reply.attributes)
    return reply


async def stretches(shell: Shell, file: File) -> list[tuple[int, int]]:
    """The chunks that exist: first and count of those in a row, as one layout may name."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < file.server_size:
        reply = await extents(shell, file, at)
        for start, end in [] if reply.inline else reply.ranges:
            stop = -(-end // CHUNK_BYTES)
            for first in range(start // CHUNK_BYTES, stop, LAYOUT_CHUNKS_MAX):
                found.append((first, min(LAYOUT_CHUNKS_MAX, stop - first)))
        at = max(reply.until, at + 1)
    return found


class Reader:
    """Reads for all files of a mount."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def read(
        self, file: File, offset: int, length: int, unit_bytes: int
    ) -> Buffer | Awaitable[Buffer]:
        """The bytes, fewer at the end of the file; at once when they are cached."""
        end = min(offset + length, file.size)
        if offset >= end:
            return b""
        if file.valid.covers(offset, end):
            return file.get(offset, end)
        return self._read(file, offset, offset + length, unit_bytes)

    async def _read(self, file: File, start: int, end: int, unit_bytes: int) -> Buffer:
        while not file.valid.covers(start, min(end, file.size)):
            await self._fill(file, start, min(end, file.size), unit_bytes)
        return file.get(start, min(end, file.size)) if start < file.size else b""

    def ahead(self, file: File, start: int, end: int) -> None:
        """Begin to fetch what is missing of the range; nobody waits for it."""
        end = min(end, file.server_size)
        for begin, stop in file.valid.gaps(start, end):
            first = begin - begin % CACHE_BLOCK_BYTES
            while first < stop:
                last = min(first + FETCH_MAX_BYTES, _round_up(stop, CACHE_BLOCK_BYTES))
                if not any(_overlaps(fetch, first, last) for fetch in file.fetches):
                    fetch = Fetch(first, min(last, end))
                    file.fetches.append(fetch)
                    self._shell.nursery.start_soon(self._run_ahead, file, fetch)
                first = last

    async def read_through(self, file: File, offset: int, length: int) -> Buffer:
        """The bytes as the servers have them now, up to where the file ends there. What is written
        here and not committed yet is not among them: another mount might not see it afterwards."""
        file.layout.forget_read()
        return b"".join(await self._bytes(file, offset, offset + length, newest=True))

    async def _fill(self, file: File, start: int, end: int, unit_bytes: int) -> None:
        """Fetch the first gap in the range, or a part of it; or wait for who is doing that."""
        gaps = file.valid.gaps(start, end)
        if not gaps:
            return
        begin, stop = gaps[0]
        for other in file.fetches:
            if _overlaps(other, begin, stop):
                if other.start <= begin:
                    await other.done.wait()
                    return
                stop = min(stop, other.start)
        if begin >= file.server_size:  # behind what is committed there is nothing to fetch
            file.store_zeros(begin, min(stop, begin + FETCH_MAX_BYTES))
            return
        first = begin - begin % unit_bytes
        last = min(_round_up(stop, unit_bytes), first + FETCH_MAX_BYTES, file.server_size)
        fetch = Fetch(first, last)
        file.fetches.append(fetch)
        await self._run(file, fetch)

    async def _run_ahead(self, file: File, fetch: Fetch) -> None:
        with suppress(TideError):  # who really needs the bytes will ask again, and hear of it
            await self._run(file, fetch)

    async def _run(self, file: File, fetch: Fetch) -> None:
        try:
            at = fetch.start
            for buffer in await self._bytes(file, fetch.start, fetch.end):
                file.store(fetch, at, buffer)
                at += len(buffer)
        finally:
            file.fetches.remove(fetch)
            fetch.done.set()

    async def _bytes(
        self, file: File, start: int, end: int, *, newest: bool = False
    ) -> list[Buffer]:
        """The committed bytes of the range, zeros in holes; ``newest``: trust no layout, and end
        where the file ends."""
        patience = Patience(self._shell.clock, self._shell.patience_ms)
        while True:
            try:
                if file.inline is not False:
                    content, size = await self._content(file)
                    if content is not None:
                        stop = min(end, size) if newest else end
                        return _cut_out(content, start, max(start, stop))
                places = await self._places(file, start, end, newest)
                if places is not None and file.inline is not None:
                    stop = min(end, file.server_size) if newest else end
                    return await self._from_chunks(places, start, stop)
            except TideError as error:
                if error.code not in PLACEMENT_ERRORS:
                    raise
                file.layout.forget_range(start // CHUNK_BYTES, max(end - 1, start) // CHUNK_BYTES)
                await patience.wait(error)

    async def _content(self, file: File) -> tuple[memoryview | None, int]:
        """The inline bytes, None when the file has chunks; and the size that it had with them."""
        reply, content = await self._shell.meta.exchange(GetContent(file.inode, 0))
        self._shell.absorb(reply.attributes)
        if reply.attributes.data_version == file.version:
            file.inline = reply.inline
        if not reply.inline:
            return None, reply.attributes.size
        file.store_content(content)
        return content, reply.attributes.size

    async def _places(
        self, file: File, start: int, end: int, newest: bool
    ) -> list[ChunkPlace | None] | None:
        """Where the chunks of the range are, None for a hole; or None: the file changed, again."""
        first, last = start // CHUNK_BYTES, max(end - 1, start) // CHUNK_BYTES
        layout = file.layout
        wanted = range(first, last + 1)
        if newest or not all(layout.known(index) for index in wanted):
            count = len(wanted) if newest else question(first, file.server_size // CHUNK_BYTES)
            reply = await self._shell.meta.call(
                GetLayout(file.inode, first, max(count, len(wanted)), False)
            )
            self._shell.absorb(reply.attributes)
            if reply.attributes.data_version != file.version:
                return None
            layout.put(first, max(count, len(wanted)), reply.chunks, granted=False)
        return [layout.readable(index) for index in wanted]

    async def _from_chunks(
        self, places: list[ChunkPlace | None], start: int, end: int
    ) -> list[Buffer]:
        found: list[Buffer] = []
        for place in places:
            stop = min(end, (start // CHUNK_BYTES + 1) * CHUNK_BYTES)
            if stop <= start:
                break
            if place is None:
                found += _zeros(stop - start)
            elif not place.replicas:
                detail = f"no replica of chunk {place.handle:#x} is reachable"
                raise TideError(Code.UNAVAILABLE, detail)
            else:
                offset = start % CHUNK_BYTES
                found += await self._shell.chunks.read(place, offset, stop - start)
            start = stop
        return found


def _overlaps(fetch: Fetch, start: int, end: int) -> bool:
    return fetch.start < end and start < fetch.end


def _round_up(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit


def _zeros(length: int) -> list[Buffer]:
    pieces: list[Buffer] = [_ZEROS] * (length // len(_ZEROS))
    rest = length % len(_ZEROS)
    return [*pieces, _ZEROS[:rest]] if rest else pieces


def _cut_out(content: memoryview, start: int, end: int) -> list[Buffer]:
    """A range of a file that begins with ``content`` and goes on with zeros."""
    piece = content[start:end]
    return [piece, *_zeros(end - start - len(piece))]
