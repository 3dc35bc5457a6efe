"""Changed bytes on their way out: write-behind, flush, fsync, truncation.

    write ── 1 MiB in a row is dirty ──> push to chunkservers ── 16 MiB pushed ──> Commit
    close, fsync ──> push all ──> (fsync: SyncChunk on every replica) ──> Commit

Bytes stay in the cache until the Commit that names them was answered, so whatever fails before
(a replica, a layout, a session and its reservations) is repaired by pushing them again. A file
that is still small enough goes into its inode: its dirty ranges are the patches of one Commit.

Bytes that are carried over from the inode were on stable storage there, in the log: the chunk that
takes them over is synced before the Commit that makes the inode forget them.

A flush, a Commit and a truncation hold the file's ``lock``. Pushes do not: they run several at a
time, and a flush or truncation first keeps new ones out (``frozen``) and waits for those under
way. No byte is ever in two pushes at once.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import trio

from ..fs.errors import Code, TideError
from ..fs.limits import (
    CHUNK_BYTES,
    DIRTY_MAX_BYTES,
    FRAME_PAYLOAD_MAX_BYTES,
    WRITE_BEHIND_AGE_MS,
    WRITE_BEHIND_BYTES,
)
from ..fs.messages.meta import Node, SetAttributes
from .committing import Committer
from .inodes import File, Files, Loss
from .intervals import Range
from .patience import Patience
from .pushing import Pusher
from .reading import Shell
from .syncing import Syncer

COMMIT_BEHIND_BYTES = DIRTY_MAX_BYTES // 4

SORTED_OUT_BY_FLUSH = frozenset({Code.LAYOUT_CHANGED, Code.SESSION_EXPIRED})
"""Not errors for an application: the bytes are still here, and a flush, which keeps pushes out,
learns what the file is now and writes them again."""


class Writer:
    """Writes for all files of a mount."""

    def __init__(
        self, shell: Shell, files: Files, claim: Callable[[File], Awaitable[None]]
    ) -> None:
        """``claim`` returns when a file may be written."""
        self._shell = shell
        self._claim = claim
        self._files = files
        self.pusher = Pusher(shell)
        self._syncer = Syncer(shell, self.pusher)
        self._committer = Committer(shell, self.pusher)
        self._busy = 0  # pushes and commits in the background
        self._room = trio.lowlevel.ParkingLot()
        self._pinned_max_bytes = files.blocks.capacity_bytes * 3 // 4

    # --- room for more

    def has_room(self, length: int) -> bool:
        """Whether so many bytes may become dirty now."""
        return (
            self._files.account.bytes + length <= DIRTY_MAX_BYTES
            and self._files.blocks.pinned_bytes + length <= self._pinned_max_bytes
        )

    async def wait_room(self, length: int) -> None:
        """Wait until they may. What cannot be written at all does not count: its writers were,
        or will be, told."""
        while not self.has_room(length):
            if self._busy:
                await self._room.park()
                continue
            candidates = [file for file in self._files.modified() if file.failure is None]
            if not candidates:
                return
            await self._flush_quietly(max(candidates, key=lambda file: file.changes.bytes))

    # --- in the background

    def written(self, file: File, offset: int) -> None:
        """The byte at ``offset`` became dirty: send what is long enough to be worth it."""
        if file.frozen or file.failure is not None:
            return
        around = file.changes.dirty.around(offset)
        if around is None:
            return
        start, end = around[0], around[1] // WRITE_BEHIND_BYTES * WRITE_BEHIND_BYTES
        if end - start < WRITE_BEHIND_BYTES or file.changes.pushing.intersects(start, end):
            return
        for begin, stop in pieces(start, end):
            file.changes.take(begin, stop)
            self._busy += 1
            self._shell.nursery.start_soon(self._push_behind, file, begin, stop)

    async def _push_behind(self, file: File, start: int, end: int) -> None:
        try:
            await self._push(file, start, end)
            if file.changes.pushed.bytes >= COMMIT_BEHIND_BYTES and not file.lock.locked():
                async with file.lock:
                    await self._commit_behind(file)
        except TideError as error:
            if error.code not in SORTED_OUT_BY_FLUSH:
                file.failure = file.failure or error
        finally:
            self._busy -= 1
            self._room.unpark_all()

    async def _commit_behind(self, file: File) -> None:
        """Commit what was pushed, while more is being written."""
        before = file.changes.redone
        try:
            if await self.pusher.push_head(file):
                if file.leaves_inode:
                    await self._syncer.sync(file)
                if file.changes.redone == before:
                    await self._committer.commit(file)
        except TideError as error:
            if error.code not in SORTED_OUT_BY_FLUSH:
                raise

    async def flush_forever(self) -> None:
        """Flush what has been dirty for a while, so that a crash of this machine loses little."""
        before: set[int] = set()
        while True:
            await trio.sleep(WRITE_BEHIND_AGE_MS / 1000)
            modified = [file for file in self._files.modified() if file.failure is None]
            for file in modified:
                if file.inode in before and not file.lock.locked():
                    # One that waits for its servers must not hold up the others.
                    self._shell.nursery.start_soon(self._flush_quietly, file)
            before = {file.inode for file in modified}

    async def _flush_quietly(self, file: File) -> None:
        try:
            await self._flush(file, sync=False)
        except TideError as error:
            file.failure = file.failure or error

    # --- when an application asks

    async def flush(self, file: File, *, sync: bool = False) -> None:
        """All that is dirty now is committed when this returns; with ``sync``, also on stable
        storage on every replica. Raises what failed, here or in the background before; an error
        in the background that was overcome since is none."""
        try:
            await self._flush(file, sync=sync)
        except TideError:
            if file.lost is not None:
                await file.lost.over.wait()
                file.given_up = None  # it is told now
            raise
        finally:
            file.failure = None
        told, file.given_up = file.given_up, None
        if told is not None:
            raise told

    async def write_back(self, file: File) -> None:
        """As ``flush``, for somebody who does not count as told: what was lost is still to be told
        to an application."""
        await self._flush(file, sync=False)
        file.failure = None

    async def _flush(self, file: File, *, sync: bool) -> None:
        async with file.lock, _Frozen(self, file):
            await self._flush_locked(file, sync=sync)
        self._room.unpark_all()

    async def _flush_locked(self, file: File, *, sync: bool) -> None:
        patience = Patience(self._shell.clock, self._shell.patience_ms)
        while True:
            before = file.changes.redone
            try:
                await self._flush_once(file, sync=sync)
                if file.changes.redone == before:
                    return
                reason = TideError(Code.REPLICA_FAILED, f"inode {file.inode}")
            except TideError as error:
                if error.code is Code.LAYOUT_CHANGED:
                    await self._committer.reload(file)
                elif error.code is Code.SESSION_EXPIRED:
                    self.pusher.redo_all(file)
                else:
                    raise
                reason = error
            await patience.wait(reason)
            file.check_not_lost()
            await self._claim(file)  # others may have been promised it meanwhile

    async def _flush_once(self, file: File, *, sync: bool) -> None:
        """Not done yet when something has become dirty again (``changes.redone``)."""
        file.check_not_lost()
        if file.modified and self._committer.fits_inline(file):
            await self._committer.patch(file)
            return
        before = file.changes.redone
        await self._push_all(file)
        if sync or file.leaves_inode:
            await self._syncer.sync(file)
        if file.changes.redone == before:
            await self._committer.commit(file)

    async def _push_all(self, file: File) -> None:
        """Push what is dirty now, several pieces at a time."""
        failures: list[TideError] = []
        if file.changes.dirty:
            await self.pusher.prepare(file)

        async def one(start: int, end: int) -> None:
            try:
                await self._push(file, start, end)
            except TideError as error:
                failures.append(error)

        todo = [piece for start, end in file.changes.dirty for piece in pieces(start, end)]
        for start, end in todo:
            file.changes.take(start, end)
        if len(todo) == 1:
            await self._push(file, *todo[0])
            return
        async with trio.open_nursery() as nursery:
            for start, end in todo:
                nursery.start_soon(one, start, end)
        if failures:
            raise failures[0]

    async def _push(self, file: File, start: int, end: int) -> None:
        try:
            await self.pusher.push(file, start, end)
        except BaseException:
            file.changes.failed(start, end)
            raise
        finally:
            file.pushes.unpark_all()

    @asynccontextmanager
    async def at_rest(self, file: File) -> AsyncIterator[None]:
        """All that was written before is committed, and nothing goes out meanwhile: for changes of
        the file that are made on the servers. What is written meanwhile comes after them."""
        async with file.lock, _Frozen(self, file):
            await self._flush_locked(file, sync=False)
            yield
        self._room.unpark_all()

    async def set_attributes(self, file: File, request: SetAttributes) -> Node:
        """Change a file's size or times, in order with what was written to it."""
        async with file.lock, _Frozen(self, file):
            if request.size is not None:
                await self._before_resize(file, request.size)
            file.check_not_lost()
            base, change = file.version, file.seen_change
            reply = await self._shell.meta.call(request, session=file.locked_in)
            if request.size is not None:
                if request.size == 0:
                    await self._committer.give_up(file)
                file.layout.forget()
                file.cut(request.size)
                if reply.attributes.change == change + 1:
                    file.see_own(reply.attributes, base)
                else:  # a size that it had already is no new version: this one is another's
                    file.see(reply.attributes)
                if request.size == 0:
                    file.inline = True
            elif file.modified and (request.mtime_ns is not None or request.mtime_now):
                # A later Commit of bytes that were written before must not change it again.
                file.mtime_ns = reply.attributes.mtime_ns
        self._room.unpark_all()
        return reply

    async def _before_resize(self, file: File, size: int) -> None:
        """What was written must reach the server first, for only what it knows of can be cut.

        When nothing will be left, bytes that are only here need not. Those that were pushed to a
        reserved chunk must: a later write would get the same chunk, with them in it.
        """
        try:
            if size or file.reserved:
                await self._flush_locked(file, sync=False)
        except TideError:
            if size:
                raise  # on a full disk, a truncation to nothing must work

    async def give_up(self, file: File, start: int = 0) -> None:
        """Drop what is not committed from ``start`` on: nobody will ever read it, or it could not
        be written and that was reported."""
        async with file.lock, _Frozen(self, file):
            await self._committer.give_up(file, start)
        self._room.unpark_all()

    def lose(self, file: File, error: TideError, start: int = 0, *, told: bool = False) -> None:
        """What was changed from ``start`` on and is not committed must not be written any more. It
        will be dropped soon, which ``error`` tells at the next flush; not if all who had the file
        open are ``told`` in another way: it is no concern of who opens it afterwards."""
        if file.lost is None and (file.modified or file.reserved):
            file.lost = Loss(error, start, told)
            self._shell.nursery.start_soon(self._drop_lost, file, file.lost)

    async def _drop_lost(self, file: File, loss: Loss) -> None:
        try:
            await self.give_up(file, loss.start)
        finally:
            file.given_up, file.lost = None if loss.told else loss.error, None
            loss.over.set()

    async def quiet(self, file: File) -> None:
        """Wait until no push of the file is under way."""
        while file.changes.pushing:
            await file.pushes.park()


class _Frozen:
    """Keeps pushes in the background out, and waits for those under way."""

    def __init__(self, writer: Writer, file: File) -> None:
        self._writer = writer
        self._file = file

    async def __aenter__(self) -> None:
        self._file.frozen += 1
        try:
            await self._writer.quiet(self._file)
        except BaseException:
            self._file.frozen -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._file.frozen -= 1


def pieces(start: int, end: int) -> Iterator[Range]:
    """A range cut where one request must end: at chunks, and at what a frame carries."""
    while start < end:
        limit = min((start // CHUNK_BYTES + 1) * CHUNK_BYTES, start + FRAME_PAYLOAD_MAX_BYTES)
        stop = min(end, limit)
        yield start, stop
        start = stop
