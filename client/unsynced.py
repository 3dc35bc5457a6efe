"""What of a file was written to chunkservers and may be in their page caches only. Pure."""

from typing import NamedTuple

from ..fs.limits import CHUNK_BYTES
from ..fs.messages.places import ChunkPlace
from .intervals import IntervalSet, Range


class UnsyncedChunk(NamedTuple):
    """A chunk with such bytes. ``since``: the oldest version at which we wrote some of them, 0:
    others did, or we did before we forgot."""

    place: ChunkPlace
    since: int

    def at(self, place: ChunkPlace) -> "UnsyncedChunk":
        """The same bytes, at another version or on other replicas."""
        return UnsyncedChunk(place, self.since)


class Unsynced:
    """Chunks to be synced; and ``ranges``, the bytes that we wrote, which would have to be written
    again if all replicas lost power before that."""

    __slots__ = ("chunks", "ranges")

    def __init__(self) -> None:
        self.chunks: dict[int, UnsyncedChunk] = {}
        self.ranges = IntervalSet()

    def __bool__(self) -> bool:
        return bool(self.chunks)

    def note(self, place: ChunkPlace, start: int, end: int) -> None:
        """We wrote a range of the file to this chunk."""
        known = self.chunks.get(place.index)
        if known is None or known.place.handle != place.handle or not known.since:
            known = UnsyncedChunk(place, place.version)
        self.chunks[place.index] = known.at(place)
        self.ranges.add(start, end)

    def note_all(self, place: ChunkPlace) -> None:
        """Somebody may have written anything to this chunk."""
        self.chunks.setdefault(place.index, UnsyncedChunk(place, 0))

    def ranges_of(self, index: int) -> list[Range]:
        """Our bytes in one chunk."""
        return self.ranges.within(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES)

    def take_ranges(self, index: int) -> list[Range]:
        """As ``ranges_of``; they are being synced. What is written meanwhile is noted anew."""
        taken = self.ranges_of(index)
        self.ranges.remove(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES)
        return taken

    def put_back(self, chunk: UnsyncedChunk, ranges: list[Range]) -> None:
        """It was not synced."""
        newer = self.chunks.get(chunk.place.index)
        if newer is None:
            self.chunks[chunk.place.index] = chunk
        elif newer.place.handle == chunk.place.handle:
            since = min(chunk.since or newer.since, newer.since or chunk.since)
            self.chunks[chunk.place.index] = UnsyncedChunk(newer.place, since)
        for start, end in ranges:
            self.ranges.add(start, end)

    def forget(self, index: int) -> None:
        """The chunk does not belong to the file, and never will."""
        self.chunks.pop(index, None)
        self.take_ranges(index)

    def drop(self, start: int, end: int) -> None:
        """These bytes are not in the file any more; nor are chunks that lie in the range."""
        self.ranges.remove(start, end)
        first, stop = -(-start // CHUNK_BYTES), end // CHUNK_BYTES
        for index in [index for index in self.chunks if first <= index < stop]:
            del self.chunks[index]
