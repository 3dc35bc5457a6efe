"""The journal on disk: appended to at once, on stable storage a moment later, for all together.

``append`` puts a record into the page cache, where a kill of the process cannot reach it. One task
syncs; whoever waits meanwhile shares the next sync (group commit). Segments none of whose records
is of use any more are removed.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence

import trio

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.ports.disk import Disk, File
from .records import (
    JOURNAL,
    SEGMENT_START,
    Kind,
    SegmentHead,
    number_body,
    owner_of,
    pack_record,
    pack_segment_head,
    record_bytes,
    segment_path,
)
from .replay import History, Segment, read_journal


class _OpenSegment:
    """A segment that is appended to, or was."""

    __slots__ = ("end", "file", "first")

    def __init__(self, first: int, file: File, end: int) -> None:
        self.first = first
        self.file = file
        self.end = end


class Journal:
    """One a chunkserver. ``last`` is the number of the newest record, ``synced`` of the newest on
    stable storage. ``on_synced`` is awaited after each sync.

    When a sync fails, nobody knows what is on stable storage: all further use raises the error.
    """

    def __init__(self, disk: Disk, server: int, segment_bytes: int) -> None:
        self.last = 0
        self.synced = 0
        self.on_synced: Callable[[], Awaitable[None]] | None = None
        self._disk = disk
        self._owner = owner_of(server)
        self._segment_bytes = segment_bytes
        self._dead = 1
        self._segments: list[_OpenSegment] = []
        self._unsynced: list[_OpenSegment] = []
        self._names_unsynced = False
        self._wanted = trio.Event()
        self._round = trio.Event()
        self._failure: TideError | None = None

    # --- the beginning -------------------------------------------------------------------------

    async def make(self) -> None:
        """An empty journal, durably."""
        self._open_segment()
        await self._sync()

    async def read(self) -> History:
        """What is there; the journal then goes on behind it. CORRUPT as ``read_journal``."""
        found: list[Segment] = []
        for name in self._disk.names(JOURNAL):
            file = self._disk.open(f"{JOURNAL}/{name}")
            found.append(Segment(int(name, 16), memoryview(await file.read(0, file.size()))))
            file.close()
        history = read_journal(found, self._owner)
        for first in history.useless:
            self._disk.remove(segment_path(first))
        for segment in found:
            if segment.first <= history.last:
                file = self._disk.open(segment_path(segment.first))
                end = history.end if segment.first == history.last else len(segment.data)
                self._segments.append(_OpenSegment(segment.first, file, end))
        self.last = history.next_sequence - 1
        await self._settle()
        return history

    async def _settle(self) -> None:
        """What was read is on stable storage, and behind it there is nothing."""
        last = self._segments[-1]
        last.file.truncate(last.end)
        with contextlib.suppress(TideError):
            last.file.allocate(0, self._segment_bytes)
        self._unsynced = list(self._segments)
        self._names_unsynced = True
        await self._sync()

    # --- appending -----------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """How much room the journal takes."""
        return sum(segment.end for segment in self._segments)

    @property
    def next_sequence(self) -> int:
        """The number that the next record gets."""
        return self.last + 1

    def append(self, kind: Kind, handle: int, body: Sequence[Buffer]) -> int:
        """Put a record at the end; its number. NO_SPACE leaves everything as it was."""
        self._check()
        needed = record_bytes(sum(map(len, body)))
        segment = self._segments[-1]
        if segment.end > SEGMENT_START and segment.end + needed > self._segment_bytes:
            segment = self._open_segment()
        record = pack_record(kind, handle, self.next_sequence, self.synced, self._owner, body)
        segment.file.write(segment.end, record)
        segment.end += needed
        self.last += 1
        if not self._unsynced or self._unsynced[-1] is not segment:
            self._unsynced.append(segment)
        return self.last

    def _open_segment(self) -> _OpenSegment:
        path = segment_path(self.next_sequence)
        file = self._disk.open(path, create=True)
        head = pack_segment_head(SegmentHead(self.next_sequence, self._dead))
        try:
            file.allocate(0, self._segment_bytes)  # syncing is quicker in room that is there
            file.write(0, [head])
        except TideError:
            file.close()
            self._disk.remove(path)
            raise
        segment = _OpenSegment(self.next_sequence, file, SEGMENT_START)
        self._segments.append(segment)
        self._unsynced.append(segment)
        self._names_unsynced = True
        return segment

    # --- syncing -------------------------------------------------------------------------------

    def request_sync(self) -> None:
        """Have everything appended so far synced soon."""
        self._wanted.set()

    async def wait_synced(self, sequence: int) -> None:
        """Return once record ``sequence`` and all before it are on stable storage."""
        while self.synced < sequence:
            self._check()
            self._wanted.set()
            await self._round.wait()

    async def run(self) -> None:
        """Sync whenever somebody wants it, until cancelled. Raises when a sync failed."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            if self.synced < self.last:
                await self._sync()
                if self.on_synced is not None:
                    await self.on_synced()

    async def _sync(self) -> None:
        target, segments = self.last, self._unsynced
        names, self._names_unsynced = self._names_unsynced, False
        self._unsynced = []
        try:
            for segment in segments:
                await segment.file.sync()
            if names:
                await self._disk.sync_folder(JOURNAL)
        except TideError as error:
            self._failure = TideError(
                Code.DEVICE_ERROR, f"the journal cannot be synced: {error.detail}"
            )
            raise
        else:
            self.synced = target
        finally:
            self._round.set()
            self._round = trio.Event()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # --- trimming ------------------------------------------------------------------------------

    def trimmable(self, dead: int) -> bool:
        """Whether a segment could go if the records below ``dead`` are of no use."""
        return len(self._segments) > 1 and self._segments[1].first <= dead

    async def trim(self, dead: int) -> None:
        """Remove the segments all of whose records are below ``dead``."""
        await self.wait_synced(self.append(Kind.TRIM, 0, [number_body(dead)]))
        self._dead = max(self._dead, dead)
        while self.trimmable(dead):
            segment = self._segments.pop(0)
            segment.file.close()
            self._disk.remove(segment_path(segment.first))

    def close(self) -> None:
        """Close the files."""
        for segment in self._segments:
            segment.file.close()
