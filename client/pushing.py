"""One range of changed bytes to all replicas of its chunk."""

from contextlib import suppress

import trio

from ..fs.errors import Code, TideError
from ..fs.limits import (
    CALL_TIMEOUT_MS,
    CHUNK_BYTES,
    INLINE_MAX_BYTES,
    PUSHES_IN_FLIGHT_MAX,
)
from ..fs.messages.meta import GetContent, GetLayout, Layout, ReportFailure
from ..fs.messages.places import ChunkPlace
from .fencing import raise_fence
from .inodes import File, Reservation, Written
from .intervals import FOREVER
from .layouts import PLACEMENT_ERRORS, Slot
from .patience import Patience
from .reading import Shell, stretches


async def give_back(shell: Shell, handle: int) -> None:
    """A chunk that was reserved is not used. There may be bytes in it, or come late, that nobody
    must ever read; and whoever asks for one at its place would get it again."""
    with trio.move_on_after(CALL_TIMEOUT_MS / 1000, shield=True), suppress(TideError):
        await shell.meta.call(ReportFailure(handle, 0, []))


class Pusher:
    """Sends for all files of a mount; keeps each file's ``written`` and ``unsynced`` true."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._limit = trio.Semaphore(PUSHES_IN_FLIGHT_MAX)

    async def push(self, file: File, start: int, end: int) -> None:
        """Send a range that lies in one chunk and was taken. It has arrived when this returns."""
        index = start // CHUNK_BYTES
        patience = Patience(self._shell.clock, self._shell.patience_ms)
        await self.prepare(file)
        while True:
            slot = None
            file.check_not_lost()
            try:
                slot = await self._slot(file, index)
                good = await self._send(file, slot, start, end)
            except TideError as error:
                if error.code is Code.FENCED:
                    await raise_fence(self._shell.meta, file, error)
                    continue
                if error.code not in PLACEMENT_ERRORS:
                    raise
                if slot is not None:
                    self.lose(file, slot)
                await patience.wait(error)
            else:
                if good:
                    _note(file, slot.place)
                    file.unsynced.note(slot.place, start, end)
                    file.changes.arrived(start, end)
                    return

    async def push_head(self, file: File) -> bool:
        """Before chunks are committed to a file that is inline: what replaces its inline bytes
        must be pushed. False when a part of that is still on its way."""
        if file.inline_base is None:
            return True
        while head := file.changes.dirty.within(0, INLINE_MAX_BYTES):
            start, end = head[0]
            if file.changes.pushing.intersects(start, end):
                return False
            file.changes.take(start, end)
            try:
                await self.push(file, start, end)
            except BaseException:
                file.changes.failed(start, end)
                raise
            finally:
                file.pushes.unpark_all()
        return not file.changes.pushing.intersects(0, INLINE_MAX_BYTES)

    async def prepare(self, file: File) -> None:
        """Before the first chunk of a file that is inline: carry its bytes over."""
        if _has_chunks(file):
            return
        async with file.layout.lock:
            if _has_chunks(file):
                return
            inline_size = min(file.server_size, INLINE_MAX_BYTES)
            if file.inline is None or not file.valid.covers(0, inline_size):
                reply, content = await self._shell.meta.exchange(GetContent(file.inode, 0))
                self._shell.absorb(reply.attributes)
                file.inline = reply.inline
                if not reply.inline:
                    return
                file.store_content(content)
                # As large as it is now. Behind its content there are no bytes.
                inline_size = min(file.server_size, len(content))
            used_before = 0 in file.reserved
            file.carry(min(file.size, INLINE_MAX_BYTES) if used_before else inline_size)
            file.inline_base = file.version

    def redo_all(self, file: File) -> None:
        """Nothing that was pushed and not committed counts: the session was lost."""
        file.changes.redo(0, FOREVER)
        file.written.clear()
        file.layout.forget()

    def void_reservations(self, file: File) -> None:
        """Chunks that were reserved in a session that is lost must be written anew."""
        session = self._shell.meta.session
        for index, reservation in list(file.reserved.items()):
            if reservation.session != session:
                slot = file.layout.writable(index)
                if slot is not None:
                    file.layout.forget_slot(slot)
                self.redo(file, index)
                self._unreserve(file, index)

    # --- places

    async def _slot(self, file: File, index: int) -> Slot:
        """Where to write chunk ``index``, under a grant."""
        reservation = file.reserved.get(index)
        if reservation is not None and reservation.session != self._shell.meta.session:
            self.void_reservations(file)
        slot = file.layout.writable(index)
        if slot is None:
            await self.granted(file, index)
            slot = file.layout.writable(index)
            if slot is None:
                detail = f"chunk {index} of inode {file.inode} was not granted"
                raise TideError(Code.UNAVAILABLE, detail)
        return slot

    async def granted(self, file: File, index: int) -> ChunkPlace | None:
        """The place of a chunk, with a grant to write it."""
        async with file.layout.lock:
            slot = file.layout.writable(index)
            if slot is not None:
                return slot.place
            session = self._shell.meta.session
            reply = await self._shell.meta.call(GetLayout(file.inode, index, 1, True))
            self._shell.absorb(reply.attributes)
            _check_still_inline(file, reply)
            file.layout.put(index, 1, reply.chunks, granted=True)
            place = next((place for place in reply.chunks if place.index == index), None)
            if place is None:
                return None
            self._reserve(file, place, session)
            written = file.written.get(index)
            if written is not None and written.handle != place.handle:
                self.redo(file, index)
            return place

    def _reserve(self, file: File, place: ChunkPlace, session: int) -> None:
        held = file.reserved.get(place.index)
        if held is not None and held.handle != place.handle:
            self._unreserve(file, place.index)
        if place.fresh:
            file.reserved[place.index] = Reservation(place.handle, session)
            self._shell.meta.reserved(file.inode, place.index, place.handle)

    def _unreserve(self, file: File, index: int) -> None:
        reservation = file.reserved.pop(index)
        self._shell.meta.committed(file.inode, index, reservation.handle)

    # --- bytes

    async def _send(self, file: File, slot: Slot, start: int, end: int) -> bool:
        """Send a range; whether it is where the chunk is.

        Meanwhile the index may have got another chunk, or the chunk another grant: a server that
        is not in it and holds nothing would make a fresh chunk at the old version.
        """
        index = slot.place.index
        if slot.making is not None:
            async with slot.making:
                if slot.place.fresh:
                    return await self._make(file, slot, start, end)
        await self._send_now(file, slot.place, start, end)
        current = file.layout.writable(index)
        return current is None or current.is_same(slot)

    async def _make(self, file: File, slot: Slot, start: int, end: int) -> bool:
        """The first write to a fresh chunk; as ``_send``."""
        index = slot.place.index
        if file.layout.writable(index) is not slot:
            return False
        await self._send_now(file, slot.place, start, end)
        if file.layout.writable(index) is not slot:
            return False
        slot.made()
        return True

    async def _send_now(self, file: File, place: ChunkPlace, start: int, end: int) -> None:
        async with self._limit:
            file.check_not_lost()
            loan = file.lend(start, end)
            await self._shell.chunks.write(place, start % CHUNK_BYTES, loan.buffers, file.fence)
            loan.give_back()

    async def grant_anew(self, file: File) -> None:
        """Have all chunks of the file granted to this session: what another one was granted counts
        no more, if that is over."""
        patience = Patience(self._shell.clock, self._shell.patience_ms)
        while True:
            try:
                for first, count in await stretches(self._shell, file):
                    ask = GetLayout(file.inode, first, count, True)
                    reply = await self._shell.meta.call(ask, session=file.locked_in)
                    file.layout.put(first, count, reply.chunks, granted=True)
            except TideError as error:
                if error.code not in PLACEMENT_ERRORS:
                    raise
                await patience.wait(error)
            else:
                return

    def lose(self, file: File, slot: Slot) -> None:
        """A replica failed: ask for a new layout, and push what is not committed again."""
        file.layout.forget_slot(slot)
        self.redo(file, slot.place.index)

    def redo(self, file: File, index: int) -> None:
        """Push what is not committed of a chunk again."""
        file.changes.redo(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES)
        file.written.pop(index, None)


def _note(file: File, place: ChunkPlace) -> None:
    """The chunk holds bytes that no Commit has named."""
    before = file.written.get(place.index)
    version = place.version if before is None else min(before.version, place.version)
    file.written[place.index] = Written(place.handle, version)


def _check_still_inline(file: File, layout: Layout) -> None:
    """LAYOUT_CHANGED when bytes that were carried over would fall into a chunk of another's."""
    if file.inline_base is None:
        return
    fresh = all(place.fresh for place in layout.chunks)
    if not fresh or layout.attributes.data_version != file.inline_base:
        raise TideError(Code.LAYOUT_CHANGED, f"inode {file.inode} was changed elsewhere")


def _has_chunks(file: File) -> bool:
    return file.inline is False or file.inline_base is not None
