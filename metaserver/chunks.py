"""Which chunks a file has, at which versions, and what truncations left to do and to remember.

Where the replicas are is never stored: chunkservers report it (GFS section 2.6.2).

A truncation into the middle of a chunk notes a *cut* at it. The bytes behind are still on the
chunkservers until the next grant drops them, so who wrote at a version up to ``cut_version``
cannot know whether its bytes survived. A chunk that was truncated away leaves its handle behind
at its index, so that a late Commit cannot bring back what may be deleted at any moment. Handles
given out for one index only ever rise, so the last one is enough. That a handle was given out for
this very file and index is the leader's to see to: it alone remembers its reservations.
"""

from collections.abc import Iterator
from itertools import takewhile

from ..fs.codec import pack, unpack
from ..fs.limits import CHUNK_BYTES, FILE_MAX_BYTES
from . import keys
from .inodes import Inode, Inodes
from .kv import KeyValue
from .records import ChunkRecord, FileChunk, Totals

NO_CUT = -1
INDEX_END = FILE_MAX_BYTES // CHUNK_BYTES
"""Chunk indexes are below it."""


class Chunks:
    """All chunks, by handle and by place in their file."""

    def __init__(self, kv: KeyValue, inodes: Inodes, totals: Totals) -> None:
        self._kv = kv
        self._inodes = inodes
        self._totals = totals

    def record(self, handle: int) -> ChunkRecord | None:
        """The chunk called ``handle``, or None."""
        if not 0 < handle < self._totals.next_handle:
            return None
        packed = self._kv.get(keys.numbered(keys.CHUNK, handle))
        return None if packed is None else ChunkRecord(*unpack(packed))

    def handle_at(self, inode: int, index: int) -> int:
        """The handle of a file's chunk, 0 where there is none."""
        return self._handle(keys.paired(keys.MAP, inode, index))

    def dropped_at(self, inode: int, index: int) -> int:
        """The handle that was last truncated away there, 0: none."""
        return self._handle(keys.paired(keys.DROPPED, inode, index))

    def of_file(self, inode: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """(index, handle) of a file's chunks from ``first`` on, by index."""
        after = keys.paired(keys.MAP, inode, first - 1) if first > 0 else b""
        for key, packed in self._kv.scan(keys.numbered(keys.MAP, inode), after):
            yield keys.last_number(key), unpack(packed)

    def described(self, inode: int, first: int, count: int) -> list[FileChunk]:
        """A file's chunks among ``first`` to ``first + count - 1``, by index."""
        found = []
        for index, handle in self.of_file(inode, first):
            if index >= first + count:
                break
            chunk = self.record(handle)
            assert chunk is not None, f"chunk {handle} of inode {inode} has no record"
            found.append(FileChunk(index, handle, chunk.version, chunk.cut))
        return found

    def add(self, inode: Inode, index: int, handle: int, version: int) -> None:
        """A written chunk becomes part of a file. The caller puts the inode."""
        self.put(handle, ChunkRecord(inode.number, index, version, NO_CUT, 0))
        self._kv.put(keys.paired(keys.MAP, inode.number, index), pack(handle))
        self._kv.delete(keys.paired(keys.DROPPED, inode.number, index))
        inode.chunks += 1
        self._totals.chunks += 1

    def put(self, handle: int, chunk: ChunkRecord) -> None:
        """Write a chunk's record anew."""
        self._kv.put(keys.numbered(keys.CHUNK, handle), pack(chunk))

    def note_cut(self, inode: int, size: int) -> None:
        """Bytes of the file from ``size`` on are to go from the chunk that holds that offset."""
        index, cut = divmod(size, CHUNK_BYTES)
        handle = self.handle_at(inode, index)
        chunk = self.record(handle)
        if chunk is None or cut == 0:
            return
        if chunk.cut != NO_CUT:
            cut = min(cut, chunk.cut)
        self.put(handle, ChunkRecord(inode, index, chunk.version, cut, chunk.version))

    def drop(self, inode: Inode, first: int, stop: int = INDEX_END) -> list[int]:
        """Take the chunks from index ``first`` to ``stop - 1`` from a file that lives on; their
        handles. The caller puts the inode.
        """
        places = self.of_file(inode.number, first)
        dropped = list(takewhile(lambda place: place[0] < stop, places))
        for index, handle in dropped:
            self._remove(inode, index, handle)
            self._kv.put(keys.paired(keys.DROPPED, inode.number, index), pack(handle))
        return [handle for _, handle in dropped]

    def drop_all(self, inode: Inode) -> list[int]:
        """Take everything from an inode that goes; the handles."""
        dropped = list(self.of_file(inode.number))
        for index, handle in dropped:
            self._remove(inode, index, handle)
        for key, _ in list(self._kv.scan(keys.numbered(keys.DROPPED, inode.number))):
            self._kv.delete(key)
        return [handle for _, handle in dropped]

    def account(self, inode: Inode) -> None:
        """Note the room that a file with chunks takes."""
        self._inodes.set_stored(inode, self.stored_bytes(inode))

    def stored_bytes(self, inode: Inode) -> int:
        """The room that its chunks take: whole ones, but for the one that holds the end."""
        index, used = divmod(inode.size, CHUNK_BYTES)
        unused = CHUNK_BYTES - used if self.handle_at(inode.number, index) else 0
        return inode.chunks * CHUNK_BYTES - unused

    def all(self, after: int = 0) -> Iterator[tuple[int, ChunkRecord]]:
        """Every (handle, chunk) behind the handle ``after``, by handle."""
        for key, packed in self._kv.scan(keys.CHUNK, keys.numbered(keys.CHUNK, after)):
            yield keys.last_number(key), ChunkRecord(*unpack(packed))

    def all_mapped(self) -> Iterator[tuple[int, int, int]]:
        """Every (inode, index, handle)."""
        return self._all_places(keys.MAP)

    def all_dropped(self) -> Iterator[tuple[int, int, int]]:
        """Every (inode, index, handle) that was truncated away."""
        return self._all_places(keys.DROPPED)

    def _all_places(self, prefix: bytes) -> Iterator[tuple[int, int, int]]:
        for key, packed in self._kv.scan(prefix):
            yield int.from_bytes(key[1:9], "big"), keys.last_number(key), unpack(packed)

    def _handle(self, key: bytes) -> int:
        packed = self._kv.get(key)
        return 0 if packed is None else int(unpack(packed))

    def _remove(self, inode: Inode, index: int, handle: int) -> None:
        self._kv.delete(keys.paired(keys.MAP, inode.number, index))
        self._kv.delete(keys.numbered(keys.CHUNK, handle))
        inode.chunks -= 1
        self._totals.chunks -= 1
