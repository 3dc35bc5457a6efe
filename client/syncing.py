"""Chunks to stable storage: what fsync asks for.

A client keeps bytes until they are committed, not until they are synced. So when every replica of
a chunk lost power in between, what was written since its last sync may be gone there. The
chunkservers tell (see SyncChunk), as NFSv3's write verifier does (RFC 1813 section 3.3.21). Then
what the cache still holds of it is written again; only what it does not hold any more is lost,
and that is an error, once.
"""

import trio

from ..fs.errors import Code, TideError
from ..fs.limits import PUSHES_IN_FLIGHT_MAX
from ..fs.messages.meta import GetLayout
from ..fs.messages.places import ChunkPlace
from .inodes import File
from .intervals import Range
from .layouts import PLACEMENT_ERRORS
from .patience import Patience
from .pushing import Pusher
from .reading import Shell, stretches
from .unsynced import UnsyncedChunk


class Syncer:
    """Syncs for all files of a mount. The caller holds the file's lock."""

    def __init__(self, shell: Shell, pusher: Pusher) -> None:
        self._shell = shell
        self._pusher = pusher
        self._limit = trio.Semaphore(PUSHES_IN_FLIGHT_MAX)

    async def sync(self, file: File) -> None:
        """All chunks that were written since the last sync are on stable storage; or some of what
        was written has become dirty again (``changes.redone``), to be pushed and synced once more.

        DEVICE_ERROR, once, when a crash of all replicas may have taken bytes of ours that are not
        here any more.
        """
        if file.sync_all and file.inline is not True:
            for place in await self._all_places(file):
                file.unsynced.note_all(place)
        file.sync_all = False
        before = file.changes.redone
        patience = Patience(self._shell.clock, self._shell.patience_ms)
        while file.unsynced and file.changes.redone == before:
            failures: list[TideError] = []
            chunks, file.unsynced.chunks = file.unsynced.chunks, {}
            async with trio.open_nursery() as nursery:
                for chunk in chunks.values():
                    nursery.start_soon(self._sync, file, chunk, failures)
            for error in failures:
                if error.code not in PLACEMENT_ERRORS:
                    raise error
            if failures:
                await patience.wait(failures[0])

    async def _sync(self, file: File, chunk: UnsyncedChunk, failures: list[TideError]) -> None:
        """Sync one chunk, or note the failure and make ready for another attempt."""
        ranges = file.unsynced.take_ranges(chunk.place.index)
        try:
            async with self._limit:
                await self._shell.chunks.sync(chunk.place, chunk.since)
        except TideError as error:
            failures.append(error)
            file.unsynced.put_back(chunk, ranges)
            try:
                await self._repair(file, chunk, error)
            except TideError as second:
                failures.append(second)
        except BaseException:
            file.unsynced.put_back(chunk, ranges)
            raise

    async def _repair(self, file: File, chunk: UnsyncedChunk, error: TideError) -> None:
        """A replica failed, or lost something: what is here is written again under a new grant."""
        index = chunk.place.index
        slot = file.layout.writable(index)
        if slot is not None:
            self._pusher.lose(file, slot)
        else:
            self._pusher.redo(file, index)
        if file.unsynced.ranges_of(index) and file.write_again(index):
            file.unsynced.chunks.pop(index, None)
            return
        if error.code is Code.OUT_OF_ORDER:
            _give_up(file, index, error)
            return  # what they lost was truncated away, or was not ours
        place = await self._pusher.granted(file, index)
        if place is None or place.handle != chunk.place.handle:
            # Another took its place, or nothing: it was truncated away.
            file.unsynced.forget(index)
        elif place.fresh:
            _give_up(file, index, error)
        else:
            file.unsynced.chunks[index] = chunk.at(place)

    async def _all_places(self, file: File) -> list[ChunkPlace]:
        places: list[ChunkPlace] = []
        for first, count in await stretches(self._shell, file):
            reply = await self._shell.meta.call(GetLayout(file.inode, first, count, False))
            places += reply.chunks
        return places


def _give_up(file: File, index: int, error: TideError) -> None:
    """All replicas lost what is not here any more."""
    file.unsynced.chunks.pop(index, None)
    lost: list[Range] = file.unsynced.take_ranges(index)
    if lost:
        start, end = lost[0][0], lost[-1][1]
        detail = (
            f"bytes {start} to {end} of inode {file.inode} were not synced when all servers that"
            f" had them lost power ({error.detail})"
        )
        raise TideError(Code.DEVICE_ERROR, detail)
