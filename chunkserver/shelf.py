"""The chunks of a server: an index of all, the state of those in use, and a bounded set of files.

A chunk whose state is all in its file may be put back and its file closed; one with anything in
the journal stays in use until its next checkpoint.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion
from ..fs.ports.disk import Disk, File
from .chunk_file import Chunk
from .layout import HEADER_MAX_BYTES, Header, chunk_path, unpack_header

FILES_MAX = 256
CHUNKS_IN_USE_MAX = 512


class Entry(NamedTuple):
    """What is known of every chunk."""

    version: ChunkVersion
    suspect: bool
    lost: int
    """As in the header; of a suspect one, its version."""
    stored_bytes: int


class OpenFiles:
    """Open files by path, closed again when there are too many that nobody uses."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._files: OrderedDict[str, File] = OrderedDict()
        self._used: dict[str, int] = {}

    def get(self, path: str, *, create: bool = False) -> File:
        """The file, good until the next await. NO_ENTRY when it is gone."""
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = self._disk.open(path, create=create)
            self._close_some()
        else:
            self._files.move_to_end(path)
        return file

    @contextmanager
    def using(self, path: str) -> Iterator[File]:
        """The file, good until the end of the block."""
        self._used[path] = self._used.get(path, 0) + 1
        try:
            yield self.get(path)
        finally:
            self._used[path] -= 1
            if not self._used[path]:
                del self._used[path]

    def close(self, path: str) -> None:
        """Close the file, if it is open."""
        file = self._files.pop(path, None)
        if file is not None:
            file.close()

    def close_all(self) -> None:
        for path in list(self._files):
            self.close(path)

    def _close_some(self) -> None:
        if len(self._files) > FILES_MAX:
            newest = next(reversed(self._files))
            for path in self._files:
                if path not in self._used and path != newest:
                    self.close(path)
                    return


class Shelf:
    """All chunks of a server."""

    def __init__(self, disk: Disk) -> None:
        self.files = OpenFiles(disk)
        self.index: dict[ChunkHandle, Entry] = {}
        self.stored_bytes = 0
        self._in_use: OrderedDict[ChunkHandle, Chunk] = OrderedDict()

    # --- the index -----------------------------------------------------------------------------

    def entry(self, handle: int) -> Entry | None:
        """What is known of a chunk; None when it is not held."""
        return self.index.get(ChunkHandle(handle))

    def enter(self, handle: ChunkHandle, entry: Entry) -> None:
        """A chunk is held, or has changed."""
        self.stored_bytes += entry.stored_bytes
        old = self.index.get(handle)
        if old is not None:
            self.stored_bytes -= old.stored_bytes
        self.index[handle] = entry

    def update(self, chunk: Chunk) -> None:
        """The chunk has changed: note it in the index."""
        entry = Entry(chunk.version, chunk.suspect, chunk.lost_until_now, chunk.stored_bytes)
        if self.index.get(chunk.handle) != entry:
            self.enter(chunk.handle, entry)

    def drop(self, handle: ChunkHandle) -> None:
        """A chunk is not held any more."""
        self.stored_bytes -= self.index.pop(handle).stored_bytes
        self._in_use.pop(handle, None)
        self.files.close(chunk_path(handle))

    # --- chunks in use -------------------------------------------------------------------------

    def chunks(self) -> list[Chunk]:
        """Those in use: all that are not idle, and some that are."""
        return list(self._in_use.values())

    def put(self, chunk: Chunk) -> None:
        """Take a chunk into use."""
        self._in_use[chunk.handle] = chunk
        self.update(chunk)
        if len(self._in_use) > CHUNKS_IN_USE_MAX:
            self._put_back_some()

    def get(self, handle: int) -> Chunk | None:
        """The chunk's state, if it is in use."""
        chunk = self._in_use.get(ChunkHandle(handle))
        if chunk is not None:
            self._in_use.move_to_end(chunk.handle)
        return chunk

    async def need(self, handle: int) -> Chunk:
        """The chunk's state, read from its file when it is not in use. NO_CHUNK; CORRUPT when
        the header was damaged since the start."""
        chunk = self.get(handle)
        if chunk is not None:
            return chunk
        known = ChunkHandle(handle)
        self._check_held(known)
        with self.files.using(chunk_path(handle)) as file:
            data = await file.read(0, HEADER_MAX_BYTES)
            chunk = self.get(handle)
            if chunk is None:
                self._check_held(known)
                chunk = _from_header(known, file, unpack_header(data))
                self.put(chunk)
        return chunk

    def _check_held(self, handle: ChunkHandle) -> None:
        if handle not in self.index:
            raise TideError(Code.NO_CHUNK, f"chunk {handle:016x}")

    def _put_back_some(self) -> None:
        """Put the least recently used idle chunk back; few are looked at, so that it is quick."""
        for _ in range(8):
            handle, chunk = next(iter(self._in_use.items()))
            self._in_use.move_to_end(handle)
            if chunk.idle:
                del self._in_use[handle]
                return


def _from_header(handle: ChunkHandle, file: File, header: Header | None) -> Chunk:
    if header is None or header.handle != handle:
        raise TideError(Code.CORRUPT, f"chunk {handle:016x}: the header of its file is damaged")
    chunk = Chunk(handle, header.version, header.sums)
    chunk.lost = header.lost
    chunk.suspect = header.suspect
    chunk.measure(file)
    chunk.floor = header.sequence
    return chunk
