"""Locks: flock(2) and fcntl(2), held by the metaservers for this mount's session.

Locking is a consistency point, in every mode. What was written under a lock is committed before the
lock is given back, and whoever gets it reads nothing that was cached before.

Whoever has a file open on which this session held a lock when it expired, gets EIO from then on:
others may have changed it, under the same lock.
"""

import os

from ..fs.errors import Code, TideError
from ..fs.limits import LOCK_END
from ..fs.messages.locks import LockAnswer, LockKind, LockList, LocksGranted, TestLock
from .appending import Appender
from .closings import Closings
from .fuse.driver import LockRange
from .handles import OpenFile
from .held_locks import Holder
from .inodes import File
from .locks import Locks, Wish
from .soon import Soon
from .vfs_caches import Surroundings
from .vfs_promises import PromiseOperations

FENCE_XATTR = b"user.tidefs.fence"
"""The highest token of the locks that this mount holds on a file, as decimal digits. It is never
stored, and not listed, so that no copy of a file takes it along."""

APPLICATIONS = (LockKind.RANGE, LockKind.WHOLE)


class LockOperations(PromiseOperations):
    """The part of the vfs that deals with locks."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.closings = Closings()
        self.locks = Locks(
            surroundings.meta,
            surroundings.nursery,
            self._locks_changed,
            self._locks_lost,
            surroundings.patience_ms,
        )
        self.appender = Appender(
            self.shell, self.files, self.mode, self.writer, self.locks, self.claim
        )
        surroundings.meta.listen(self)

    # --- what happens to the session (SessionEvents)

    def linked(self) -> None:
        self.promises_end(resumed=True)
        self.locks.linked()

    def expired(self, session: int) -> None:
        self.promises_end(resumed=False)
        if self.mode.write_through:
            self._lose_changes(session)
        self.locks.expired(session)

    def _lose_changes(self, session: int) -> None:
        """Of a write(2) that is under way nobody knows whether it was carried out. Sent again, it
        could replace what others have written since."""
        for file in self.files.modified():
            detail = f"inode {file.inode}: session {session} ended while it was being written"
            self.writer.lose(file, TideError(Code.DEVICE_ERROR, detail))

    def granted(self, notice: LocksGranted) -> None:
        self.locks.granted(notice)

    # --- what applications ask

    def getlk(self, handle: int, owner: int, lock: LockRange) -> Soon[LockRange | None]:
        return self._getlk(self.usable(handle), owner, lock)

    async def _getlk(self, opened: OpenFile, owner: int, lock: LockRange) -> LockRange | None:
        await self.closings.wait_none(opened.file.inode)
        what = (opened.file.inode, LockKind.RANGE, owner, lock.exclusive, lock.start, lock.end)
        found = await self._ask(what)
        if not found.locks:
            return None
        first = found.locks[0]
        pid = first.pid if first.host == self.host else 0  # of another machine's processes, none
        return LockRange(first.exclusive, first.start, first.end, pid)

    async def _ask(self, what: tuple[int, LockKind, int, bool, int, int]) -> LockList:
        while True:
            session = self.meta.session
            try:
                return await self.meta.call(TestLock(session, *what), session=session)
            except TideError as error:
                if error.code is not Code.SESSION_EXPIRED:
                    raise

    def setlk(
        self, handle: int, owner: int, lock: LockRange, *, wait: bool, flock: bool
    ) -> Soon[None]:
        return self._setlk(handle, self.usable(handle), owner, lock, wait=wait, flock=flock)

    async def _setlk(
        self, handle: int, opened: OpenFile, owner: int, lock: LockRange, *, wait: bool, flock: bool
    ) -> None:
        file = opened.file
        await self.closings.wait_none(file.inode)
        holder = Holder(file.inode, LockKind.WHOLE if flock else LockKind.RANGE, owner)
        start, end = (0, LOCK_END) if flock else (lock.start, lock.end)
        if (flock or not lock.exclusive) and self.locks.held.holds_exclusively(holder):
            await self._flush_locked(file)  # it may give up what it has
        wish = Wish(holder, lock.exclusive, start, end, wait, lock.pid, handle)
        await self.locks.acquire(wish, lambda answer: self.take_over(file, answer))
        opened.check_not_lost()

    def unlock(self, handle: int, owner: int, start: int, end: int, *, flock: bool) -> Soon[None]:
        opened = self.usable(handle)
        inode = opened.file.inode
        holder = Holder(inode, LockKind.WHOLE if flock else LockKind.RANGE, owner)
        if not self.locks.concerns(holder):
            return None
        return self._unlock_for(opened, holder, *((0, LOCK_END) if flock else (start, end)))

    async def _unlock_for(self, opened: OpenFile, holder: Holder, start: int, end: int) -> None:
        await self._unlock(opened.file, holder, start, end)
        opened.check_not_lost()

    async def _unlock(self, file: File, holder: Holder, start: int, end: int) -> None:
        try:
            await self._flush_locked(file)
        finally:
            await self.locks.release(holder, start, end)

    async def _flush_locked(self, file: File) -> None:
        """What was written under a lock reaches the servers, or never will: who gets the lock next
        must not be overtaken by it."""
        if not (file.modified or file.failure is not None):
            return
        try:
            await self.writer.write_back(file)
        except TideError as error:
            if file.lost is None:
                await self.writer.give_up(file)
                file.given_up = file.given_up or error
            raise

    # --- what closing gives back

    def locks_at_close(self, file: File, owner: int | None) -> list[Holder]:
        """What ends with one close(2) by ``owner``: all its fcntl locks on the file."""
        if owner is None:
            return []
        holder = Holder(file.inode, LockKind.RANGE, owner)
        return [holder] if self.locks.concerns(holder) else []

    def locks_at_release(self, handle: int, file: File) -> list[Holder]:
        """What ends with an open file: flock(2), and fcntl's open-file-description locks, of which
        the kernel says nothing then. (A process that took others through it has closed it, and lost
        them, before.)"""
        return self.locks.held.through(file.inode, handle)

    async def unlock_all(self, file: File, holders: list[Holder]) -> None:
        """Give them back. TideError: what was written could not be stored."""
        for holder in holders:
            await self._unlock(file, holder, 0, LOCK_END)

    # --- a new holder

    async def take_over(self, file: File, answer: LockAnswer) -> None:
        """Whoever had the lock before may have changed the file: forget what was cached, and have
        the kernel forget it."""
        before = self.attributes.get(file.inode)
        change = None if before is None else before.attributes.change
        await self.take_turn(file, answer)
        if self.kernel is None:
            return
        version = file.version
        if file.kernel_version != version:
            await self.kernel.forget_inode(file.inode)
            file.kernel_version = version
        elif answer.attributes.change != change:
            self.kernel.invalidate_inode(file.inode, attributes_only=True)

    async def take_turn(self, file: File, answer: LockAnswer) -> None:
        """As ``take_over``, for who only writes."""
        self.absorb(answer.attributes)
        if answer.after_loss:
            # Who had it may be alive after all, and write: not to these chunks any more.
            await self.writer.pusher.grant_anew(file)

    def _locks_changed(self, inode: int) -> None:
        file = self.files.peek(inode)
        if file is None:
            return
        token = self.locks.held.token(inode, *LockKind)
        file.fence = max(file.fence, token) if token else 0
        file.locked_in = self.locks.session if token else None

    # --- the session is over

    def _locks_lost(self, locked: set[int], turns: set[int]) -> None:
        for opened in self.open_files.all():
            opened.lost = opened.lost or opened.file.inode in locked
        for inode in locked | turns:
            error = TideError(
                Code.DEVICE_ERROR, f"inode {inode}: this mount's session expired, and its locks"
            )
            file = self.files.peek(inode)
            if file is not None and inode in locked:
                self.writer.lose(file, error, told=True)
            self.appender.lose(inode, error)

    def in_doubt(self, file: File) -> bool:
        """Whether locks on the file may have been lost without our knowledge: no answer has come
        for as long as the session's lease."""
        return file.locked_in is not None and self.clock.monotonic_ns() >= self.meta.lease_until_ns

    # --- the token

    def fence_text(self, inode: int) -> bytes:
        """The value of FENCE_XATTR; NO_ATTRIBUTE when this mount holds no lock on the file."""
        token = self.locks.held.token(inode, *APPLICATIONS)
        if not token:
            name = os.fsdecode(FENCE_XATTR)
            raise TideError(Code.NO_ATTRIBUTE, f"{name}: inode {inode} is not locked by this mount")
        return b"%d" % token
