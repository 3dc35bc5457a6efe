"""O_APPEND: each write goes where the file ends, also when several machines append.

Whose turn it is to append is a lock (LockKind.APPEND). Its grant tells the size; what is written
behind it is committed before the turn is given back. A turn costs two entries of the log, so who
had not to wait for it keeps it for a moment (APPEND_TURN_MS): others that come meanwhile wait as
long as that. Who had to wait gives it back as soon as nobody here wants to append any more.

Appends of one mount to one file queue on ``File.appending``, which also guards the turn.

When the session is lost, what was appended in this turn and is not committed must not be written
any more: somebody else may have appended there. It is dropped, which the next flush tells.
"""

from collections.abc import Awaitable, Callable

import trio

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.limits import APPEND_TURN_MS, FILE_MAX_BYTES, LOCK_END
from ..fs.messages.locks import LockAnswer, LockKind
from ..fs.messages.meta import GetAttributes
from .held_locks import Holder
from .inodes import File, Files
from .locks import Locks, Prepare, Wish
from .modes import Mode
from .patience import NS_PER_MS
from .reading import Shell
from .writing import Writer


class _Turn:
    """``start``: what is behind it was appended by us. ``waited``: others append too. ``fresh``:
    the size is as its grant told."""

    __slots__ = ("file", "fresh", "start", "until_ns", "waited")

    def __init__(self, file: File, start: int, until_ns: int, waited: bool) -> None:
        self.file = file
        self.start = start
        self.until_ns = until_ns
        self.waited = waited
        self.fresh = True


class _Append:
    """One write(2) on its way, in a task of its own: once its bytes may be on a server, it goes on
    to its end, whatever becomes of who asked. Else they could arrive in somebody else's turn."""

    def __init__(self, file: File, data: Buffer, prepare: Prepare) -> None:
        self.file = file
        self.data = data
        self.prepare = prepare
        self.begun = trio.CancelScope()  # until its bytes are taken
        self.done = trio.Event()
        self.offset: int | None = None
        self.error: TideError | None = None


class Appender:
    """Appends to all files of a mount. ``prepare``: see Locks."""

    def __init__(
        self,
        shell: Shell,
        files: Files,
        mode: Mode,
        writer: Writer,
        locks: Locks,
        claim: Callable[[File], Awaitable[None]],
    ) -> None:
        """``claim`` returns when a file may be written; nothing happens behind that."""
        self._shell = shell
        self._files = files
        self._mode = mode
        self._writer = writer
        self._locks = locks
        self._claim = claim
        self._turns: dict[int, _Turn] = {}

    def append_now(self, file: File, data: Buffer) -> int | None:
        """Append to what is cached; None when that cannot be done without waiting."""
        turn = self._turns.get(file.inode)
        if (
            turn is None
            or turn.waited
            or self._mode.write_through
            or file.appending.locked()
            or file.failure is not None
            or file.lost is not None
            or self._shell.clock.monotonic_ns() >= turn.until_ns
            or not self._writer.has_room(len(data))
        ):
            return None
        return self._write(file, data)

    async def append(self, file: File, data: Buffer, prepare: Prepare) -> int:
        """Append; the offset at which it is. In the modes that say so, it is committed."""
        append = _Append(file, data, prepare)
        self._shell.nursery.start_soon(self._carry, append)
        try:
            await append.done.wait()
        finally:
            append.begun.cancel()
        if append.offset is not None:
            return append.offset
        raise append.error or TideError(Code.DEVICE_ERROR, "the file system is being unmounted")

    async def finish(self, file: File) -> None:
        """Give the turn back now: the file was unlinked, or has changes that will be dropped. Else
        the turn outlives the last handle, and who opens the file soon again has it still."""
        async with file.appending:
            await self._give_back(file)

    async def _carry(self, append: _Append) -> None:
        file = append.file
        try:
            async with file.appending:
                try:
                    with append.begun:
                        await self._make_ready(append)
                    if not append.begun.cancel_called:
                        append.offset = await self._append(file, append.data)
                finally:
                    await self._give_back_if_wanted(file)
        except TideError as error:
            append.error, append.offset = error, None
        finally:
            append.done.set()

    async def _make_ready(self, append: _Append) -> None:
        """The turn is ours, and there is room. A turn may be lost whenever something is awaited."""
        file, length = append.file, len(append.data)
        if file.failure is not None:
            await self._writer.flush(file)  # raises what is wrong, if it still is
        while True:
            await self._take_turn(file, append.prepare)
            if not self._writer.has_room(length):
                await self._writer.wait_room(length)
            await self._claim(file)
            if self.has_turn(file):
                return

    async def _append(self, file: File, data: Buffer) -> int:
        offset = self._write(file, data)
        if self._mode.write_through:
            await self._write_out(file, offset)
        return offset

    def has_turn(self, file: File) -> bool:
        return file.inode in self._turns

    def lose(self, inode: int, error: TideError) -> None:
        """The session is over, and with it the turn."""
        turn = self._turns.pop(inode, None)
        if turn is not None:
            self._files.released(turn.file)
            start = min(turn.start, turn.file.server_size)
            self._writer.lose(turn.file, error, start)

    def _write(self, file: File, data: Buffer) -> int:
        self._turns[file.inode].fresh = False
        offset = file.size
        if offset + len(data) > FILE_MAX_BYTES:
            raise TideError(Code.FILE_TOO_LARGE, f"{len(data)} bytes appended at {offset}")
        file.write(offset, data, self._shell.clock.wall_ns())
        if not self._mode.write_through:
            self._writer.written(file, offset)
        return offset

    async def _write_out(self, file: File, offset: int) -> None:
        try:
            await self._writer.flush(file)
        except TideError:
            await self._writer.give_up(file, offset)
            raise
        finally:
            if not self._mode.cache_data:
                file.drop_clean(keep_unsynced=True)

    # --- the turn. The caller has ``file.appending``

    async def _take_turn(self, file: File, prepare: Prepare) -> None:
        """Ours when this returns, and the size is known."""
        while not await self._has_turn_still(file):
            await self._obtain_turn(file, prepare)

    async def _has_turn_still(self, file: File) -> bool:
        turn = self._turns.get(file.inode)
        if turn is None:
            return False
        if self._shell.clock.monotonic_ns() >= turn.until_ns:
            await self._give_back(file)
            return False
        if not turn.fresh and not self._mode.cache_data:  # files are truncated without a turn
            reply = await self._shell.meta.call(GetAttributes(file.inode))
            self._shell.absorb(reply.attributes)
        return self._turns.get(file.inode) is turn

    async def _obtain_turn(self, file: File, prepare: Prepare) -> None:
        if file.lost is not None:
            await file.lost.over.wait()
        wish = Wish(_holder(file), True, 0, LOCK_END, True, 0)
        sizes: list[int] = []

        async def prepare_and_look(answer: LockAnswer) -> None:
            await prepare(answer)
            sizes.append(file.size)

        waited = await self._locks.acquire(wish, prepare_and_look)
        if not self._locks.held.holds(wish.holder):
            return  # it is lost already
        until_ns = self._shell.clock.monotonic_ns() + APPEND_TURN_MS * NS_PER_MS
        turn = self._turns[file.inode] = _Turn(file, sizes[0], until_ns, waited)
        self._files.opened(file)
        self._shell.nursery.start_soon(self._end_in_time, turn)

    async def _end_in_time(self, turn: _Turn) -> None:
        await trio.sleep(APPEND_TURN_MS / 1000)
        async with turn.file.appending:
            if self._turns.get(turn.file.inode) is turn:
                await self._give_back(turn.file)

    async def _give_back_if_wanted(self, file: File) -> None:
        turn = self._turns.get(file.inode)
        if turn is not None and turn.waited and not file.appending.statistics().tasks_waiting:
            await self._give_back(file)

    async def _give_back(self, file: File) -> None:
        """Commit what was appended. What cannot be is dropped: its place is somebody else's now."""
        turn = self._turns.get(file.inode)
        if turn is None:
            return
        try:
            if file.modified:
                await self._writer.write_back(file)
        except TideError as error:
            if file.lost is None:
                await self._writer.give_up(file, min(turn.start, file.server_size))
                file.given_up = file.given_up or error
        if self._turns.get(file.inode) is turn:
            del self._turns[file.inode]
            self._files.released(file)
            await self._locks.release(_holder(file), 0, LOCK_END)


def _holder(file: File) -> Holder:
    return Holder(file.inode, LockKind.APPEND, 0)
