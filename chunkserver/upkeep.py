"""Bringing chunks to stable storage: sync, checkpoint, and the flusher that does both in time.

*Sync* makes what was written to a chunk safe: a few fresh bytes by way of the journal, many by
syncing the chunk file. *Checkpoint* writes the chunk's header, after which the journal is not
needed for it any more: first into the journal, for a header that is torn in place must be found
somewhere whole; then in place, behind which one sync makes header and bytes safe together.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.limits import MIB
from ..fs.ports.clock import Clock
from ..fs.ports.disk import Disk
from .chunk_file import Chunk
from .jobs import Jobs
from .journal import Journal
from .layout import BLOCK_BYTES, chunk_folder
from .records import Kind, sync_body, write_body
from .shelf import Shelf

log = logging.getLogger(__name__)

FLUSH_S = 5.0
JOURNAL_SYNC_MAX_BYTES = BLOCK_BYTES
JOURNAL_WANTED_BYTES = 128 * MIB
JOURNAL_MAX_BYTES = 256 * MIB
OVERLAY_WANTED_BYTES = 16 * MIB
OVERLAY_MAX_BYTES = 64 * MIB
APPLY_BYTES_PER_TURN = 4 * MIB
WORKERS = 4

Work = Callable[[Chunk], Awaitable[None]]


class Upkeep:
    """The way of un-synced bytes to stable storage."""

    def __init__(self, disk: Disk, clock: Clock, shelf: Shelf, journal: Journal) -> None:
        self.overlay_bytes = 0
        self.jobs = Jobs()
        self.kept: dict[int, int] = {}  # handle -> first record needed, while its file changes
        self.journal = journal
        self._disk = disk
        self._clock = clock
        self._shelf = shelf
        self._overlaid: dict[int, Chunk] = {}
        self._bell = trio.Event()
        self._relief = trio.Event()
        self._warned: set[int] = set()

    # --- the overlay ---------------------------------------------------------------------------

    def laid_over(self, chunk: Chunk, count: int) -> None:
        """So many bytes of a chunk wait for the journal."""
        self._overlaid[chunk.handle] = chunk
        self.overlay_bytes += count
        if self.overlay_bytes > OVERLAY_WANTED_BYTES:
            self.journal.request_sync()
        if self.journal.size_bytes > JOURNAL_WANTED_BYTES:
            self._bell.set()

    @property
    def crowded(self) -> bool:
        """Whether writers should wait, for the disk does not keep up with them."""
        return self.overlay_bytes > OVERLAY_MAX_BYTES or self.journal.size_bytes > JOURNAL_MAX_BYTES

    async def relieved(self) -> None:
        """Return when it is not crowded any more."""
        while self.crowded:
            self._bell.set()
            self.journal.request_sync()
            await self._relief.wait()

    async def apply_synced(self) -> None:
        """Put into the chunk files what the journal has on stable storage by now."""
        turn = 0
        for handle, chunk in list(self._overlaid.items()):
            turn += self._apply(chunk)
            if not chunk.overlay:
                self._overlaid.pop(handle, None)
            if turn > APPLY_BYTES_PER_TURN:
                turn = 0
                await trio.lowlevel.checkpoint()
        self._give_relief()

    def _give_relief(self) -> None:
        self._relief.set()
        self._relief = trio.Event()

    def _apply(self, chunk: Chunk) -> int:
        """What cannot be put in its place now (a full disk) stays where it is."""
        if chunk.gone or not chunk.overlay:
            return 0
        before = chunk.overlay_bytes
        try:
            chunk.apply(self._shelf.files.get(chunk.path), self.journal.synced)
        except TideError as error:
            self._warn(chunk, error)
        count = before - chunk.overlay_bytes
        self.overlay_bytes -= count
        return count

    def forget(self, chunk: Chunk) -> None:
        """The chunk is gone, and what waited for it."""
        self.overlay_bytes -= chunk.overlay_bytes
        self._overlaid.pop(chunk.handle, None)
        chunk.gone = True
        chunk.overlay.clear()
        chunk.overlay_bytes = 0

    # --- sync ----------------------------------------------------------------------------------

    async def sync(self, chunk: Chunk) -> None:
        """All that was written to the chunk before is on stable storage when this returns."""
        _check(chunk)
        if (chunk.fresh and not self._by_journal(chunk)) or chunk.syncing:
            await self.jobs.run(partial(self._sync_by_file, chunk))
        await self.journal.wait_synced(chunk.newest)

    async def _sync_by_file(self, chunk: Chunk) -> None:
        with chunk:
            async with chunk.lock:
                _check(chunk)
                if chunk.fresh:
                    await self._sync_file(chunk)

    def _by_journal(self, chunk: Chunk) -> bool:
        """Put the fresh bytes into the journal, if they are few and at hand."""
        if sum(chunk.fresh.values()) > JOURNAL_SYNC_MAX_BYTES:
            return False
        file = self._shelf.files.get(chunk.path)
        found: list[tuple[int, Buffer]] = []
        for block, end in sorted(chunk.fresh.items()):
            content = chunk.read_nowait(file, block * BLOCK_BYTES, end)
            if content is None or len(content) < end:
                return False
            found.append((block, content))
        for block, content in found:
            body = write_body(
                chunk.version, block * BLOCK_BYTES, chunk.sums[block : block + 1], [content]
            )
            chunk.noted(self.journal.append(Kind.WRITE, chunk.handle, body))
            del chunk.fresh[block]
        return True

    async def _sync_file(self, chunk: Chunk) -> None:
        """Sync the chunk file; with the lock held. Then the journal knows the checksums."""
        chunk.syncing = set(chunk.fresh)
        chunk.fresh.clear()
        try:
            with self._shelf.files.using(chunk.path) as file:
                await file.sync()
                if chunk.new:
                    await self._disk.sync_folder(chunk_folder(chunk.handle))
        except TideError as error:
            # What the file holds now is not known, and a second sync would not tell.
            chunk.failure = error
            raise
        entries = [(block, chunk.sums[block]) for block in sorted(chunk.syncing)]
        chunk.noted(self.journal.append(Kind.SYNC, chunk.handle, [sync_body(entries)]))
        chunk.syncing.clear()

    async def drain(self, chunk: Chunk) -> None:
        """Bring everything into the file, with the lock held, while nobody writes. NO_SPACE."""
        if chunk.fresh:
            await self._sync_file(chunk)
        await self.journal.wait_synced(chunk.newest)
        self._apply(chunk)
        if chunk.overlay:
            raise TideError(Code.NO_SPACE, f"chunk {chunk.handle:016x}: putting bytes in place")

    # --- checkpoint ----------------------------------------------------------------------------

    async def checkpoint(self, chunk: Chunk) -> None:
        """Make the chunk file complete by itself, so that the journal can do without its
        records."""
        async with chunk.lock:
            if chunk.gone or chunk.idle:
                return
            _check(chunk)
            if chunk.fresh:
                await self._sync_file(chunk)
            await self.write_header(chunk)

    async def write_header(self, chunk: Chunk) -> None:
        """The second half of a checkpoint; with the lock held."""
        sequence = self.journal.next_sequence
        header = chunk.header(sequence)
        packed = header.pack()
        self.journal.append(Kind.HEADER, chunk.handle, [packed])
        chunk.behind_header = 0
        if header.clean:
            chunk.marked = None
        await self.journal.wait_synced(sequence)
        with self._shelf.files.using(chunk.path) as file:
            self._apply(chunk)
            if any(patches[0].sequence < sequence for patches in chunk.overlay.values()):
                return  # no room for them in the file: their records are still needed
            file.write(0, [packed])
            await file.sync()
            if chunk.new:
                await self._disk.sync_folder(chunk_folder(chunk.handle))
        chunk.new = False
        chunk.floor = sequence
        chunk.oldest = chunk.behind_header

    # --- in time -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush what lingers and keep the journal short, until cancelled."""
        while True:
            with trio.move_on_after(FLUSH_S):
                await self._bell.wait()
            self._bell = trio.Event()
            await self.flush(idle_ns=int(FLUSH_S * 1e9))
            self._give_relief()

    async def flush(self, idle_ns: int) -> None:
        """Sync what is un-synced; checkpoint chunks that nobody wrote to for ``idle_ns``, and
        those that make the journal long."""
        now_ns = self._clock.monotonic_ns()
        long = self.journal.size_bytes > JOURNAL_WANTED_BYTES
        middle = (self._dead() + self.journal.last) // 2
        work: list[tuple[Work, Chunk]] = []
        for chunk in self._shelf.chunks():
            if chunk.idle:
                continue
            old = long and 0 < chunk.oldest <= middle
            if old or now_ns - chunk.changed_ns >= idle_ns:
                work.append((self.checkpoint, chunk))
            elif chunk.fresh or chunk.newest > self.journal.synced:
                work.append((self.sync, chunk))
        await self._work(work)
        await self.trim()

    async def _work(self, work: list[tuple[Work, Chunk]]) -> None:
        jobs = iter(work)

        async def worker() -> None:
            for do, chunk in jobs:
                await self._try(do, chunk)

        async with trio.open_nursery() as nursery:
            for _ in range(min(WORKERS, len(work))):
                nursery.start_soon(worker)

    async def _try(self, do: Work, chunk: Chunk) -> None:
        with chunk:
            try:
                await do(chunk)
            except TideError as error:
                self._warn(chunk, error)
            else:
                self._warned.discard(chunk.handle)

    def _warn(self, chunk: Chunk, error: TideError) -> None:
        if chunk.handle not in self._warned:
            self._warned.add(chunk.handle)
            log.warning("chunk %016x cannot be brought to stable storage: %s", chunk.handle, error)

    async def finish(self) -> None:
        """Bring everything to its place, and have the journal say so."""
        await self.flush(idle_ns=0)
        await self._trim()

    async def trim(self) -> None:
        """Remove what of the journal is of no use any more."""
        if self.journal.trimmable(self._dead()):
            await self._trim()

    async def _trim(self) -> None:
        try:
            await self.journal.trim(self._dead())
        except TideError as error:
            if error.code is not Code.NO_SPACE:
                raise
            log.warning("the journal stays as long as it is: %s", error)

    def _dead(self) -> int:
        needed = [chunk.oldest for chunk in self._shelf.chunks() if chunk.oldest]
        return min([*needed, *self.kept.values(), self.journal.next_sequence])


def _check(chunk: Chunk) -> None:
    if chunk.gone:
        raise TideError(Code.NO_CHUNK, f"chunk {chunk.handle:016x} was deleted")
    if chunk.failure is not None:
        raise chunk.failure
