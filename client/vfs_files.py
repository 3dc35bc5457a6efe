"""Open files: open, create, read, write, flush, fsync, release.

What close and fsync promise, and who sees a write when, is decided by the fields of the mode.
An unlinked file that is open keeps working: everything here goes by inode, and the servers keep
its bytes as long as a session has it open.
"""

import logging
import os
from collections.abc import Callable
from typing import TypeVar

import trio

from ..fs.attributes import Attributes, Kind
from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.limits import FILE_MAX_BYTES, READINGS_AT_END_MS
from ..fs.messages.meta import (
    Content,
    Create,
    CreateUnnamed,
    Entry,
    Node,
    Open,
    SetAttributes,
)
from .answers import settled, then
from .fuse.driver import Caller, Known, Opened
from .handles import OpenFile
from .held_locks import Holder
from .inodes import File
from .soon import Soon
from .vfs_attributes import CAPABILITY
from .vfs_names import NameOperations

log = logging.getLogger(__name__)

T = TypeVar("T")


class FileOperations(NameOperations):
    """The part of the vfs that deals with the bytes of files."""

    unreported: TideError | None = None
    """The first failure to store bytes that no close(2) and no fsync(2) was there to be told."""

    # --- open

    def open(self, inode: int, flags: int, *, kill_privileges: bool = False) -> Soon[Opened]:
        """Asks the server what the file is now, and drops cached bytes of another version. What is
        promised need not be asked."""
        file = self.open_promised(inode)
        if file is not None:
            return self._truncated(file, flags, kill_privileges=kill_privileges)
        before = self.attributes.get(inode)
        change = None if before is None else before.attributes.change
        held = self.version_held(inode)

        def learn(answer: tuple[Content, Buffer]) -> Soon[Opened]:
            reply, content = answer
            file = self._opened_again(reply)

            def use() -> Soon[Opened]:
                self.learn_content(file, reply, content, held)
                if reply.attributes.change != change and self.kernel is not None:
                    self.kernel.invalidate_inode(inode, attributes_only=True)
                return self._truncated(file, flags, kill_privileges=kill_privileges)

            return use() if file.lost is None else self._when_settled(file, use)

        asked = self.meta.start_exchange(Open(inode, held))
        return then(asked, learn, lambda error: self.failed(inode, error))

    def _opened_again(self, reply: Content) -> File:
        """The server has it open for us."""
        attributes = reply.attributes
        inode = attributes.inode
        self.meta.opened(inode)
        self.unannounced.discard(inode)
        self.absorb(attributes, promised=reply.promised)
        if attributes.links == 0 and not self._is_open(inode):
            # Its last name went elsewhere; the kernel looks the path up again, and finds out.
            self.meta.released(inode)
            gone = TideError(Code.STALE_HANDLE, f"inode {inode} has no name any more")
            self.failed(inode, gone)
            raise gone
        return self._opened(attributes)

    async def _when_settled(self, file: File, use: Callable[[], Soon[Opened]]) -> Opened:
        """Who opens a file does not suffer from what was lost before."""
        assert file.lost is not None
        try:
            await file.lost.over.wait()
        except BaseException:
            self._released(file)
            raise
        return await settled(use())

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> Soon[tuple[Known, Opened]]:
        exclusive = bool(flags & os.O_EXCL)
        request = Create(
            parent,
            name,
            Kind.FILE,
            mode,
            caller.uid,
            caller.gid,
            0,
            exclusive=exclusive,
            open=True,
            umask=caller.umask,
        )

        def learn(reply: Entry) -> Soon[tuple[Known, Opened]]:
            attributes = reply.attributes
            self.meta.opened(attributes.inode)
            self.unannounced.discard(attributes.inode)
            self._made(parent, name, reply)
            opening = self._truncated(self._opened(attributes), flags)
            return then(opening, lambda opened: (self.known(attributes, parent), opened))

        return self.ask(parent, request, learn)

    def tmpfile(
        self, parent: int, mode: int, flags: int, caller: Caller
    ) -> Soon[tuple[Known, Opened]]:
        """O_TMPFILE: no other mount can find it before it gets a name, which O_EXCL rules out."""
        request = CreateUnnamed(
            parent,
            mode,
            caller.uid,
            caller.gid,
            caller.umask,
            linkable=not flags & os.O_EXCL,
        )

        def learn(reply: Node) -> tuple[Known, Opened]:
            self.meta.opened(reply.attributes.inode)
            self.absorb(reply.attributes, own=True)
            opened = self._handle(self._opened(reply.attributes), flags)
            return self.known(reply.attributes), opened

        return self.ask(parent, request, learn)

    def _is_open(self, inode: int) -> bool:
        file = self.files.peek(inode)
        return file is not None and file.openings > 0

    def _opened(self, attributes: Attributes) -> File:
        file = self.files.get(attributes)
        self.files.opened(file)
        return file

    def _handle(self, file: File, flags: int) -> Opened:
        mode = self.mode
        keep_cache = mode.keep_kernel_cache and file.kernel_version == file.version
        file.kernel_version = file.version
        append, unseen = bool(flags & os.O_APPEND), bool(flags & os.O_NOATIME)
        # Of a file that others append to as well, the kernel does not know the size.
        direct = mode.direct_io or append
        mappable = flags & os.O_ACCMODE == os.O_RDWR and not direct
        opened = OpenFile(file, append=append, mappable=mappable, unseen=unseen)
        return Opened(self.open_files.add(opened), keep_cache, direct)

    def _truncated(self, file: File, flags: int, *, kill_privileges: bool = False) -> Soon[Opened]:
        """A handle; with O_TRUNC, when nothing is in the file any more."""
        opened = self._handle(file, flags)
        kills = kill_privileges and self.may_have_privileges(file.inode)
        if flags & os.O_TRUNC and (file.size or kills):
            return self._truncate(file, opened, kills=kills)
        if opened.keep_cache and flags & os.O_ACCMODE != os.O_WRONLY and not flags & os.O_NOATIME:
            self.was_read(file.inode)  # the kernel has its pages: reading will not be seen here
        return opened

    async def _truncate(self, file: File, opened: Opened, *, kills: bool) -> Opened:
        request = SetAttributes(file.inode, size=0, kill_privileges=kills)
        try:
            reply = await self.writer.set_attributes(file, request)
        except BaseException:
            self.open_files.pop(opened.handle).close()
            self._released(file)
            raise
        self.absorb(reply.attributes, own=True)
        if kills:
            self.unlearn(file.inode, CAPABILITY)
        return opened

    # --- read and write

    def read(self, handle: int, offset: int, length: int) -> Soon[Buffer]:
        opened = self.usable(handle)
        file = opened.file
        if self.in_doubt(file):
            return self._when_proved(lambda: self.read(handle, offset, length))
        if opened.read_at_change != file.seen_change or self.readings.always:
            opened.read_at_change = file.seen_change
            if not opened.unseen:
                self.was_read(file.inode)
        if not self.mode.cache_data:
            return self.reader.read_through(file, offset, length)
        if self.mode.promises:
            return self.read_promised(opened, offset, length)
        ahead = opened.read_ahead.follow(offset, length)
        found = self.reader.read(file, offset, length, opened.read_ahead.unit_bytes)
        if ahead is not None:
            self.reader.ahead(file, *ahead)
        return found

    def write(
        self,
        handle: int,
        offset: int,
        data: Buffer,
        *,
        kill_privileges: bool = False,
        append: bool | None = None,
    ) -> Soon[int]:
        opened = self.usable(handle)
        file = opened.file
        if append is None:  # the driver does not say: pages come through any handle
            append = opened.append and not file.mappable
        if not append and offset + len(data) > FILE_MAX_BYTES:
            raise TideError(Code.FILE_TOO_LARGE, f"a write at {offset}")
        if not len(data):
            return 0
        if self.in_doubt(file):
            return self._when_proved(
                lambda: self.write(
                    handle, offset, data, kill_privileges=kill_privileges, append=append
                )
            )
        if kill_privileges and self.may_have_privileges(file.inode):
            return self._write_without_privileges(handle, offset, data, append)
        return self._append(file, offset, data) if append else self._write(file, offset, data)

    def _write(self, file: File, offset: int, data: Buffer) -> Soon[int]:
        if self.mode.write_through:
            return self._write_through(file, offset, data)
        if file.failure is not None or file.lost or not self.writer.has_room(len(data)):
            return self._write_later(file, offset, data)
        return self._write_now(file, offset, data)

    async def _write_without_privileges(
        self, handle: int, offset: int, data: Buffer, append: bool | None
    ) -> int:
        await self.kill_privileges(self.open_files.get(handle).file.inode)
        written = self.write(handle, offset, data, append=append)
        return written if isinstance(written, int) else await written

    def _write_now(self, file: File, offset: int, data: Buffer) -> int:
        file.write(offset, data, self.clock.wall_ns())
        self.writer.written(file, offset)
        return len(data)

    async def _write_later(self, file: File, offset: int, data: Buffer) -> int:
        if file.lost is not None:
            await file.lost.over.wait()
        if file.failure is not None:
            await self.writer.flush(file)  # raises what is wrong, if it still is
        await self.writer.wait_room(len(data))
        return self._write_now(file, offset, data)

    async def _write_through(self, file: File, offset: int, data: Buffer) -> int:
        """The bytes are committed when this returns."""
        await self.writer.wait_room(len(data))
        async with file.appending:  # one at a time: who fails gives up all that is changed
            await self.claim(file)
            file.write(offset, data, self.clock.wall_ns())
            await self.write_out(file)
        return len(data)

    def _append(self, file: File, believed_end: int, data: Buffer) -> Soon[int]:
        """``believed_end``: where the kernel thinks that the bytes are now."""
        offset = self.appender.append_now(file, data)
        if offset is None:
            return self._append_later(file, believed_end, data)
        self._appended(file, believed_end, offset)
        return len(data)

    async def _append_later(self, file: File, believed_end: int, data: Buffer) -> int:
        offset = await self.appender.append(file, data, lambda turn: self.take_turn(file, turn))
        self._appended(file, believed_end, offset)
        return len(data)

    def _appended(self, file: File, believed_end: int, offset: int) -> None:
        if offset != believed_end and self.kernel is not None:
            self.kernel.invalidate_inode(file.inode, attributes_only=False)

    async def _when_proved(self, again: Callable[[], Soon[T]]) -> T:
        """Do it once it is known whether the session lives, and with it the file's locks."""
        await self.locks.prove()
        return await settled(again())

    # --- the end

    def flush(self, handle: int, owner: int | None = None) -> Soon[None]:
        """At each close(2): in the modes that say so, others see all that was written; and the
        closing process loses its fcntl locks on the file."""
        file = self.usable(handle).file
        holders = self.locks_at_close(file, owner)
        if holders:
            return self._flush_and_unlock(file, holders)
        if not self.mode.flush_at_close or not file.has_news:
            return None
        if self._is_unlinked(file):
            return None  # nobody can open it any more: the bytes matter only while it is open
        return self._flush(file, sync=False)

    async def _flush_and_unlock(self, file: File, holders: list[Holder]) -> None:
        try:
            await self.unlock_all(file, holders)
        finally:
            file.given_up = None  # it is told now

    def untold(self, handle: int) -> None:
        """Nobody heard of the error that the last flush ended with."""
        self.open_files.get(handle).file.told = False

    def fsync(self, handle: int, data_only: bool) -> Soon[None]:
        """All that was written is on stable storage on every replica, size and time in the log.

        ``data_only`` makes no difference: the size is part of what makes the data readable, and
        all comes in one entry.
        """
        file = self.usable(handle).file
        if not (file.has_news or file.unsynced or file.sync_all):
            return None
        return self._flush(file, sync=True)

    async def _flush(self, file: File, *, sync: bool) -> None:
        try:
            await self.writer.flush(file, sync=sync)
        except TideError:
            file.told = True
            raise

    def release(self, handle: int, owner: int | None = None) -> Soon[None]:
        opened = self.open_files.pop(handle)
        opened.close()
        file = opened.file
        holders = self.locks_at_release(handle, file)
        unlinked_turn = self.appender.has_turn(file) and self._is_unlinked(file)
        if holders or file.modified or file.reserved or unlinked_turn:
            self.closings.begins(file.inode)
            return self._release_slowly(file, holders)
        self._released(file)
        return None

    async def _release_slowly(self, file: File, holders: list[Holder]) -> None:
        try:
            await self.unlock_all(file, holders)
        except TideError as error:
            log.warning("inode %d: what was written under a lock is lost: %s", file.inode, error)
            self.unreported = self.unreported or error
        finally:
            self.closings.ends(file.inode)
            if file.openings == 1 + self.appender.has_turn(file):
                await self.appender.finish(file)
            await self._release_modified(file)

    async def _release_modified(self, file: File) -> None:
        """Changes may come behind the last close(2), from a mapping that lived on. The last handle
        takes with it what could not be stored."""
        try:
            if file.has_news and not self._is_unlinked(file):
                await self.writer.flush(file)
        except TideError as error:
            log.warning(
                "inode %d: what was written last could not be stored: %s", file.inode, error
            )
            if not file.told:
                self.unreported = self.unreported or error
        finally:
            if file.openings == 1 and (file.modified or file.reserved):
                await self.writer.give_up(file)
            self._released(file)

    def _released(self, file: File) -> None:
        self.files.released(file)
        self.meta.released(file.inode, known=file.inode not in self.unannounced)
        if not file.openings:
            self.unannounced.discard(file.inode)
        if self._is_unlinked(file):
            self.files.forget(file.inode)

    def _is_unlinked(self, file: File) -> bool:
        known = self.attributes.get(file.inode)
        return known is not None and known.attributes.links == 0

    async def close(self) -> None:
        """Before the mount ends: everything that is dirty goes to the servers.

        Raises the first error when some of it could not, or could not before and no application
        was there any more to be told.
        """
        failures = [] if self.unreported is None else [self.unreported]
        for file in self.files.modified():
            try:
                await self.writer.flush(file)
            except TideError as error:
                failures.append(error)
        with trio.move_on_after(READINGS_AT_END_MS / 1000):
            await self.tell_readings()
        if failures:
            raise failures[0]
