"""The store: chunks that can be written, read, synced, versioned, deleted; and what survives what.

- A kill of the process loses nothing that was written.
- A crash of the machine loses nothing that was synced; what was not may be old, new or torn, and
  the chunk is then reported as not clean.
- Bytes are checked whenever they are read; damaged ones are never returned.
- A write that finds the disk full changes nothing.

``run`` must be running; everything else may be used once it has called ``started``.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import trio

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion
from ..fs.limits import FREE_SPACE_RESERVE_BYTES, FREE_SPACE_RESERVE_PARTS, MIB
from ..fs.messages.chunk import ChunkReport
from ..fs.ports.clock import Clock
from ..fs.ports.disk import Disk, DiskSpace
from . import recovery
from .chunk_file import Chunk, DamagedError, Plan
from .incoming import IncomingChunk
from .journal import Journal
from .layout import (
    BLOCK_BYTES,
    CHUNKS,
    DATA_START,
    FOLDERS,
    HEADER_MAX_BYTES,
    INCOMING,
    block_sum,
    chunk_folder,
    chunk_path,
    spans,
)
from .records import JOURNAL, RECORD_MAX_BYTES, Kind, Version, number_body, version_body, write_body
from .shelf import Shelf
from .upkeep import Upkeep

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * MIB
LOW_SPACE_BYTES = 256 * MIB
"""With less left than that, room is taken before a write, so that it cannot stop half-way."""


class Settings(NamedTuple):
    """``capacity_bytes``: use no more than that, whatever the disk has."""

    server: int
    capacity_bytes: int | None = None
    segment_bytes: int = SEGMENT_BYTES


async def make_folders(disk: Disk, settings: Settings) -> None:
    """Make an empty store, durably."""
    for number in range(FOLDERS):
        disk.make_folder(chunk_folder(number))
    for folder in (INCOMING, JOURNAL):
        disk.make_folder(folder)
    await disk.sync_folder(CHUNKS)
    await disk.sync_folder("")
    journal = Journal(disk, settings.server, settings.segment_bytes)
    await journal.make()
    journal.close()


class Store:
    """The chunks of one chunkserver. ``on_damage`` hears of damage when it is met."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        settings: Settings,
        on_damage: Callable[[DamagedError], None],
    ) -> None:
        assert settings.segment_bytes > RECORD_MAX_BYTES, settings.segment_bytes
        self.shelf = Shelf(disk)
        self.journal = Journal(disk, settings.server, settings.segment_bytes)
        self.upkeep = Upkeep(disk, clock, self.shelf, self.journal)
        self.journal.on_synced = self.upkeep.apply_synced
        self._disk = disk
        self._clock = clock
        self._settings = settings
        self._on_damage = on_damage
        self._stopping = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover, then keep the store until ``stop``; cancelled, leave all as a kill would.

        CORRUPT when the journal is damaged, DEVICE_ERROR when it cannot be synced.
        """
        try:
            found = await recovery.load(self._disk, self.shelf, self.journal)
            async with trio.open_nursery() as nursery:
                self.upkeep.jobs.nursery = nursery
                nursery.start_soon(self.journal.run)
                await recovery.rebuild_all(self._disk, self.shelf, self.upkeep, found)
                nursery.start_soon(self.upkeep.run)
                task_status.started()
                await self._stopping.wait()
                await self.upkeep.finish()
                nursery.cancel_scope.cancel()
        finally:
            self.journal.close()
            self.shelf.files.close_all()

    def stop(self) -> None:
        """Have ``run`` bring everything to stable storage and return."""
        self._stopping.set()

    # --- what there is -------------------------------------------------------------------------

    def version(self, handle: int) -> ChunkVersion | None:
        """The version of a chunk; None when it is not held."""
        entry = self.shelf.entry(handle)
        return None if entry is None else entry.version

    def lost(self, handle: int) -> int:
        """The newest version at which a crash may have taken bytes of a chunk, 0: none."""
        entry = self.shelf.entry(handle)
        return 0 if entry is None else entry.lost

    def reports(self) -> list[ChunkReport]:
        """All chunks, for the metaserver."""
        return [
            ChunkReport(handle=handle, version=entry.version, clean=not entry.suspect)
            for handle, entry in sorted(self.shelf.index.items())
        ]

    def space(self) -> DiskSpace:
        """How much there is, and how much of it may still be written."""
        total_bytes, free_bytes = self._disk.space()
        reserve_bytes = min(FREE_SPACE_RESERVE_BYTES, total_bytes // FREE_SPACE_RESERVE_PARTS)
        free_bytes = max(free_bytes - reserve_bytes, 0)
        capacity_bytes = self._settings.capacity_bytes
        if capacity_bytes is not None:
            used_bytes = self.shelf.stored_bytes + self.journal.size_bytes
            total_bytes = min(total_bytes, capacity_bytes)
            free_bytes = min(free_bytes, max(capacity_bytes - used_bytes, 0))
        return DiskSpace(total_bytes, free_bytes)

    def check_room(self, length: int) -> bool:
        """NO_SPACE when ``length`` bytes have no room; else whether there is little left."""
        free_bytes = self.space().free_bytes
        if free_bytes < length:
            raise TideError(Code.NO_SPACE, f"writing {length} bytes, {free_bytes} are free")
        return free_bytes - length < LOW_SPACE_BYTES

    # --- writing -------------------------------------------------------------------------------

    def create(self, handle: ChunkHandle, version: ChunkVersion) -> None:
        """Make an empty chunk."""
        assert handle not in self.shelf.index, handle
        if handle in self.upkeep.kept:
            raise TideError(Code.BUSY, f"chunk {handle:016x} is being removed", delay_ms=100)
        low = self.check_room(0)
        path = chunk_path(handle)
        file = self.shelf.files.get(path, create=True)
        try:
            if low:
                file.allocate(0, HEADER_MAX_BYTES)
            sequence = self.journal.append(Kind.CREATE, handle, [number_body(version)])
        except TideError:
            self.shelf.files.close(path)
            self._disk.remove(path)
            raise
        chunk = Chunk.created(handle, version, sequence)
        chunk.changed_ns = self._clock.monotonic_ns()
        self.shelf.put(chunk)

    def write_nowait(self, handle: int, version: int, offset: int, data: memoryview) -> int | None:
        """Write at exactly that version, in the page cache; ``data`` must not change any more.

        Returns the journal record that must be synced before the write is acknowledged (0: none),
        or None when nothing was done, because the disk must be waited for: then ``warm`` first.
        NO_CHUNK; STALE_VERSION; NO_SPACE changes nothing; BAD_CHECKSUM when a block that the
        write covers partly is damaged; DEVICE_ERROR.
        """
        chunk = self.shelf.get(handle)
        if chunk is None:
            if self.shelf.entry(handle) is None:
                raise TideError(Code.NO_CHUNK, f"chunk {handle:016x}")
            return None
        if chunk.closed or chunk.version != version:
            raise stale(handle, chunk.version, f"{version:x}")
        if chunk.failure is not None:
            raise chunk.failure
        if not data:
            return 0
        try:
            plan = self._plan(chunk, offset, data)
            if plan is None:
                chunk.forget_held()
                return None
            self._carry_out(chunk, plan)
        except TideError as error:
            chunk.forget_held()
            self._tell(error)
            raise
        needed = max(chunk.born, chunk.marked or 0)
        return needed if needed > self.journal.synced else 0

    def _plan(self, chunk: Chunk, offset: int, data: memoryview) -> Plan | None:
        file = self.shelf.files.get(chunk.path)
        plan = chunk.plan(file, offset, data, self.journal.synced)
        if plan is not None and self.check_room(len(data)):
            file.allocate(DATA_START + offset, len(data))
        return plan

    def _carry_out(self, chunk: Chunk, plan: Plan) -> None:
        sequence = 0
        if plan.journaled is not None:
            start, stop = plan.journaled
            body = write_body(chunk.version, start, plan.recorded, [plan.part(start, stop)])
            sequence = self.journal.append(Kind.WRITE, chunk.handle, body)
        try:
            for start, stop in plan.straight:
                file = self.shelf.files.get(chunk.path)
                file.write(DATA_START + start, [plan.part(start, stop)])
        except TideError as error:
            # Some of it may be in the file, under checksums that do not know of it.
            chunk.failure = error
            self._on_damage(DamagedError(chunk.handle, chunk.version, start))
            raise
        overlay_bytes = chunk.overlay_bytes if sequence else 0
        chunk.done(plan, sequence, self._clock.monotonic_ns())
        if sequence:
            self.upkeep.laid_over(chunk, chunk.overlay_bytes - overlay_bytes)
        self.shelf.update(chunk)

    async def warm(self, handle: int, offset: int, length: int) -> None:
        """Read what a write to that range needs to know."""
        with await self.shelf.need(handle) as chunk:
            for span in spans(offset, length):
                if not span.whole:
                    try:
                        with self.shelf.files.using(chunk.path) as file:
                            await chunk.warm(file, span.block)
                    except DamagedError as error:
                        self._tell(error)
                        raise

    async def wait_synced(self, sequence: int) -> None:
        """Return once that journal record is on stable storage."""
        await self.journal.wait_synced(sequence)

    # --- reading -------------------------------------------------------------------------------

    def read_nowait(self, handle: int, offset: int, length: int) -> Buffer | None:
        """Bytes, checked; fewer at the end of the chunk. None: use ``read``. NO_CHUNK,
        BAD_CHECKSUM."""
        chunk = self.shelf.get(handle)
        if chunk is None:
            return None
        try:
            return chunk.read_nowait(self.shelf.files.get(chunk.path), offset, length)
        except DamagedError as error:
            self._tell(error)
            raise

    async def read(self, handle: int, offset: int, length: int) -> Buffer:
        """As ``read_nowait``, waiting for the disk."""
        with await self.shelf.need(handle) as chunk:
            try:
                with self.shelf.files.using(chunk.path) as file:
                    return await chunk.read(file, offset, length)
            except DamagedError as error:
                self._tell(error)
                raise

    def _tell(self, error: TideError) -> None:
        if isinstance(error, DamagedError):
            self._on_damage(error)

    # --- durability ----------------------------------------------------------------------------

    async def sync(self, handle: int, since: int = 0) -> None:
        """Everything written to the chunk before is on stable storage when this returns.

        OUT_OF_ORDER when a crash may have taken bytes that were written from version ``since`` on.
        """
        with await self.shelf.need(handle) as chunk:
            chunk.check_kept(since)
            try:
                await self.upkeep.sync(chunk)
            except TideError as error:
                self._tell(error)
                raise

    async def set_version(self, handle: int, version_min: int, version: int, cut: int) -> None:
        """Take a new version, durably, and with ``cut`` (or -1) drop the bytes from there on.

        Nothing when it has that version already. NO_CHUNK, STALE_VERSION.
        """
        await self.upkeep.jobs.run(partial(self._set_version, handle, version_min, version, cut))

    async def _set_version(self, handle: int, version_min: int, version: int, cut: int) -> None:
        with await self.shelf.need(handle) as chunk:
            await self._check_and_take_version(chunk, version_min, version, cut)
            await self.journal.wait_synced(chunk.newest)

    async def _check_and_take_version(
        self, chunk: Chunk, version_min: int, version: int, cut: int
    ) -> None:
        handle = chunk.handle
        async with chunk.lock:
            if chunk.gone:
                raise TideError(Code.NO_CHUNK, f"chunk {handle:016x}")
            if not version_min <= chunk.version <= version:
                raise stale(handle, chunk.version, f"{version_min:x} to {version:x}")
            if chunk.failure is not None:
                raise chunk.failure
            if chunk.version < version:
                await self._take_version(chunk, version, cut)

    async def _take_version(self, chunk: Chunk, version: int, cut: int) -> None:
        chunk.closed = True
        try:
            if 0 <= cut < chunk.length:
                await self._cut(chunk, version, cut)
            else:
                self._note_version(chunk, Version(version, -1, 0))
        finally:
            chunk.closed = False

    def _note_version(self, chunk: Chunk, version: Version) -> None:
        body = version_body(version)
        chunk.noted(self.journal.append(Kind.VERSION, chunk.handle, [body]))
        if chunk.suspect:
            chunk.lost = chunk.version
        chunk.version = ChunkVersion(version.version)
        chunk.suspect = False
        self.shelf.update(chunk)

    async def _cut(self, chunk: Chunk, version: int, cut: int) -> None:
        """Truncate, with the lock held. The header that follows keeps a replay from truncating
        once more, when there are new bytes behind the cut."""
        await self.upkeep.drain(chunk)
        within = cut % BLOCK_BYTES
        found = 0
        with self.shelf.files.using(chunk.path) as file:
            if within and chunk.sum_at(cut // BLOCK_BYTES):
                kept = await chunk.read(file, cut - within, within)
                found = block_sum(kept)
            self._note_version(chunk, Version(version, cut, found))
            chunk.cut(cut, found)
            self.shelf.update(chunk)
            await self.journal.wait_synced(chunk.newest)
            file.truncate(DATA_START + cut)
            await file.sync()
        chunk.floor = chunk.newest
        await self.upkeep.write_header(chunk)

    async def delete(self, chunks: Sequence[tuple[int, int]]) -> list[int]:
        """Delete chunks, each up to a version; which ones were. Durable when this returns."""
        return await self.upkeep.jobs.run(partial(self._delete, chunks))

    async def _delete(self, chunks: Sequence[tuple[int, int]]) -> list[int]:
        deleted = [
            handle for handle, version_max in chunks if await self._bury(handle, version_max)
        ]
        if deleted:
            await self.journal.wait_synced(max(self.upkeep.kept[handle] for handle in deleted))
            for handle in deleted:
                self._disk.remove(chunk_path(handle))
            for folder in sorted({chunk_folder(handle) for handle in deleted}):
                await self._disk.sync_folder(folder)
            for handle in deleted:
                del self.upkeep.kept[handle]
        return deleted

    async def _bury(self, handle: int, version_max: int) -> bool:
        """Make a chunk unreachable, and say so in the journal."""
        try:
            chunk = await self.shelf.need(handle)
        except TideError as error:
            if error.code is Code.NO_CHUNK:
                return False
            raise
        async with chunk.lock:
            if chunk.gone or chunk.version > version_max:
                return False
            body = [number_body(chunk.version)]
            self.upkeep.kept[handle] = self.journal.append(Kind.DELETE, handle, body)
            self.upkeep.forget(chunk)
            self.shelf.drop(chunk.handle)
            return True

    # --- copies --------------------------------------------------------------------------------

    def incoming(self, handle: ChunkHandle, version: ChunkVersion) -> IncomingChunk:
        """A chunk that is being copied from elsewhere; there once it is adopted."""
        return IncomingChunk(self._disk, self.shelf, self.upkeep, handle, version)


def stale(handle: int, version: int, wanted: str) -> TideError:
    """The error of a request at another version than the chunk has here."""
    return TideError(
        Code.STALE_VERSION, f"chunk {handle:016x} has version {version:x} here, wanted was {wanted}"
    )
