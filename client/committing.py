"""Commit: what was written becomes part of the file."""

from typing import NamedTuple

from ..fs.codec import Buffer
from ..fs.limits import CHUNK_BYTES, INLINE_MAX_BYTES
from ..fs.messages.meta import Commit, GetContent, NewChunk, Node, Patch
from .inodes import File, Written
from .intervals import FOREVER, IntervalSet
from .pushing import Pusher, give_back
from .reading import Shell


class _Attempt(NamedTuple):
    """What one Commit names, to be kept or put back."""

    written: dict[int, Written]
    fresh: list[int]
    ranges: IntervalSet
    mtime_ns: int | None
    base: int


class Committer:
    """Commits for all files of a mount. The caller holds the file's lock."""

    def __init__(self, shell: Shell, pusher: Pusher) -> None:
        self._shell = shell
        self._pusher = pusher

    def fits_inline(self, file: File) -> bool:
        """Whether all bytes of the file may live in its inode, as far as is known."""
        return (
            file.size <= INLINE_MAX_BYTES and file.inline is not False and file.inline_base is None
        )

    async def patch(self, file: File) -> None:
        """Commit the dirty ranges of a small file. Nothing of it is being pushed."""
        file.check_not_lost()
        patches: list[Patch] = []
        payload: list[Buffer] = []
        for start, end in list(file.changes.dirty):
            patches.append(Patch(start, end - start))
            payload.append(bytes(file.get(start, end)))
            file.changes.take(start, end)
            file.changes.arrived(start, end)
        attempt = _begin(file)
        size = attempt.ranges.end
        request = Commit(file.inode, size, attempt.mtime_ns, patches, [], 0, False)
        try:
            reply = await self._shell.meta.call(request, payload, session=file.locked_in)
        except BaseException:
            # They were on no chunkserver: dirty again, as before.
            file.changes.commit_failed()
            file.changes.redo(0, FOREVER)
            raise
        self._done(file, attempt, reply)
        if file.version == reply.attributes.data_version:
            file.inline = True

    async def commit(self, file: File) -> None:
        """Commit what was pushed."""
        file.check_not_lost()
        self._pusher.void_reservations(file)
        if not file.changes.pushed and not file.written:
            return
        assert not any(file.changes.dirty.intersects(*carried) for carried in file.carried)
        attempt = _begin(file)
        chunks = [
            NewChunk(index, written.handle, written.version)
            for index, written in sorted(attempt.written.items())
        ] + self._unfinished(file, attempt)
        overwritten = len(attempt.fresh) < len(chunks)
        request = Commit(
            file.inode,
            attempt.ranges.end,
            attempt.mtime_ns,
            [],
            chunks,
            file.inline_base or 0,
            overwritten,
        )
        try:
            reply = await self._shell.meta.call(request, session=file.locked_in)
        except BaseException:
            file.changes.commit_failed()
            for index, written in attempt.written.items():
                file.written.setdefault(index, written)
            raise
        for index in attempt.fresh:
            held = file.reserved.pop(index, None)
            if held is not None:
                self._shell.meta.committed(file.inode, index, held.handle)
        self._done(file, attempt, reply)
        file.inline_base = None
        file.carried.clear()
        if file.version == reply.attributes.data_version:
            file.inline = False

    def _unfinished(self, file: File, attempt: _Attempt) -> list[NewChunk]:
        """The chunk that holds the end of the file, when what follows there is still on its way.

        Unless it is named, a Commit of bytes further on cuts off what lies in it behind the end.
        """
        end = file.server_size
        index = end // CHUNK_BYTES
        slot = file.layout.writable(index)
        if (
            attempt.ranges.end <= end
            or index in attempt.written
            or slot is None
            or slot.place.fresh
        ):
            return []
        stop = (index + 1) * CHUNK_BYTES
        changes = file.changes
        if not (changes.pushing.intersects(end, stop) or changes.dirty.intersects(end, stop)):
            return []
        return [NewChunk(index, slot.place.handle, slot.place.version)]

    async def reload(self, file: File) -> None:
        """Others changed the file: learn what it is now, and make ready to write our bytes again.

        Nothing of it is being pushed.
        """
        reply, content = await self._shell.meta.exchange(GetContent(file.inode, 0))
        file.uncarry()
        self._pusher.redo_all(file)
        self._shell.absorb(reply.attributes)
        file.inline = reply.inline
        if reply.inline:
            file.store_content(content)

    async def give_up(self, file: File, start: int = 0) -> None:
        """Drop what is not committed from ``start`` on."""
        session = self._shell.meta.session
        handles = [held.handle for held in file.reserved.values() if held.session == session]
        for index, held in file.reserved.items():
            self._shell.meta.committed(file.inode, index, held.handle)
            file.unsynced.forget(index)
        file.reserved.clear()
        self._pusher.redo_all(file)
        file.drop_changes(start)
        for handle in handles:
            await give_back(self._shell, handle)

    def _done(self, file: File, attempt: _Attempt, reply: Node) -> None:
        file.changes.commit_done()
        if not file.changes:
            file.mtime_ns = None
        file.see_own(reply.attributes, attempt.base)
        self._shell.absorb(reply.attributes, own=True)
        for start, end in attempt.ranges:
            file.settle(start, end)


def _begin(file: File) -> _Attempt:
    written, file.written = file.written, {}
    fresh = [index for index in written if index in file.reserved]
    file.changes.begin_commit()
    ranges = IntervalSet(file.changes.committing)
    return _Attempt(written, fresh, ranges, file.mtime_ns, file.version)
