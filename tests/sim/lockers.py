"""Applications that lock files through their mounts, as flock(2) and fcntl(2) have it, and hold
each other up: they wait, try, convert, are interrupted, close in circles, and die."""

from functools import partial

import trio
from tidefs.client.fuse.driver import LockRange
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages.locks import LockKind

from .cluster import Cluster
from .conditions import ViolationError
from .lock_book import Belief, Book
from .lock_ledger import Owner, Range
from .lock_watch import Asked
from .model import Path
from .sharers import Sharer
from .user import OpenFile, User

FILES: tuple[Path, ...] = ((b"x",), (b"y",))
POSITIONS = 4
HOLD_MAX_S = 0.5
INTERRUPT_MAX_S = 0.5
RANGES_MAX = 3

DOINGS = ("flock", "flock", "ranges", "ranges", "ranges", "convert", "interrupted", "test")


class Locker(Sharer):
    """One process."""

    def __init__(self, cluster: Cluster, name: str, number: int, book: Book) -> None:
        super().__init__(cluster, name)
        self._process = number + 1
        self._book = book

    # --- life ----------------------------------------------------------------------------------

    async def prepare(self, user: User) -> None:
        if self._process == 1:
            for path in FILES:
                await (await user.create(path, 0o644)).close()

    def client_died(self) -> None:
        super().client_died()
        self._book.forget(self.name)

    async def _close_all(self) -> None:
        self._book.forget(self.name)
        await super()._close_all()

    # --- what it does --------------------------------------------------------------------------

    async def _step(self) -> None:
        try:
            await getattr(self, f"_{self._random.choice(DOINGS)}")()
            await self._unlock_all()
        except TideError:  # WOULD_BLOCK or DEADLOCK: so it gives way
            await self._unlock_all()

    async def _flock(self) -> None:
        file = await self._some_file()
        await self._lock(file, self._some_lock(), wait=self._random.random() < 0.8, flock=True)
        await self._wait(HOLD_MAX_S)

    async def _convert(self) -> None:
        file = await self._some_file()
        flock = self._random.random() < 0.5
        for _ in range(3):
            await self._lock(file, self._some_lock(), wait=self._random.random() < 0.7, flock=flock)
            await self._wait(HOLD_MAX_S)

    async def _ranges(self) -> None:
        """Who does this in another order than others do may close a circle."""
        for _ in range(self._random.randint(1, RANGES_MAX)):
            file = await self._some_file()
            await self._lock(file, self._some_range(), wait=True, flock=False)
            await self._wait(HOLD_MAX_S)
        if self._random.random() < 0.3:
            part = self._some_range()
            await self._unlock(await self._some_file(), part.start, part.end, flock=False)

    async def _interrupted(self) -> None:
        file = await self._some_file()
        flock = self._random.random() < 0.5
        wanted = self._some_lock() if flock else self._some_range()
        with trio.move_on_after(self._random.uniform(0, INTERRUPT_MAX_S)):
            await self._lock(file, wanted, wait=True, flock=flock)
        await self._wait(HOLD_MAX_S)

    async def _test(self) -> None:
        file, wanted = await self._some_file(), self._some_range()
        with self._asking(file, wanted, flock=False) as asked:
            text = f"getlk #{file.inode} {wanted}"
            found = await self._ask(text, partial(file.in_the_way, self._process, wanted))
        if found is not None and not asked.blocked and self._is_in(asked):
            raise ViolationError(f"{self.name}: {text}: {found} is in the way, which nobody had")

    # --- locks ---------------------------------------------------------------------------------

    async def _lock(self, file: OpenFile, wanted: LockRange, *, wait: bool, flock: bool) -> None:
        text = f"{'flock' if flock else 'setlk'} #{file.inode} {wanted} {'waits' * wait}"
        with self._asking(file, wanted, flock=flock) as asked:
            self._give_up_for(asked.wanted)
            try:
                await self._ask(
                    text, partial(file.lock, self._process, wanted, wait=wait, flock=flock)
                )
            except TideError as error:
                self._check_refusal(text, asked, error, wait=wait)
                raise
        if not self._is_in(asked):
            return  # asked in a session that was over before: which one it is, is not known here
        belief = Belief(self.name, self._client(), asked.wanted, 0)
        if not belief.counts:
            return
        self._book.look()
        token = await self._ask(f"fence #{file.inode}", file.fence)
        if belief.counts:
            self._book.begin(belief._replace(token=token))

    def _give_up_for(self, wanted: Range) -> None:
        """What it has there may be taken from it before it gets the new one."""
        if wanted.who.kind is LockKind.WHOLE or not wanted.exclusive:
            self._book.end(wanted)

    def _check_refusal(self, text: str, asked: Asked, error: TideError, *, wait: bool) -> None:
        if not self._is_in(asked):
            return
        right = asked.in_circle if error.code is Code.DEADLOCK else asked.blocked and not wait
        if not right:
            raise ViolationError(f"{self.name}: {text} is refused for nothing: {error!r}")

    async def _unlock(self, file: OpenFile, start: int, end: int, *, flock: bool) -> None:
        self._book.look()
        self._book.end(self._range(file, LockRange(False, start, end, 0), flock=flock))
        text = f"unlock #{file.inode} {start}-{end} {'flock' * flock}"
        await self._ask(text, partial(file.unlock, self._process, start, end, flock=flock))

    async def _unlock_all(self) -> None:
        if self._random.random() < 0.3:
            await self._close_all()
            return
        for file in list(self._files.values()):
            for flock in (False, True):
                await self._unlock(file, 0, LOCK_END, flock=flock)

    # --- choosing ------------------------------------------------------------------------------

    async def _some_file(self) -> OpenFile:
        return await self._open(self._random.choice(FILES))

    def _some_lock(self) -> LockRange:
        return LockRange(self._random.random() < 0.6, 0, LOCK_END, self._process)

    def _some_range(self) -> LockRange:
        start = self._random.randrange(POSITIONS)
        end = self._random.choice((start + 1, start + 2, LOCK_END))
        return LockRange(self._random.random() < 0.6, start, end, self._process)

    # --- names of things -----------------------------------------------------------------------

    def _range(self, file: OpenFile, lock: LockRange, *, flock: bool) -> Range:
        owner = file.owner(self._process, flock=flock)
        session = self._client().lease.session
        who = Owner(LockKind.WHOLE if flock else LockKind.RANGE, session, owner)
        start, end = (0, LOCK_END) if flock else (lock.start, lock.end)
        return Range(who, file.inode, lock.exclusive, start, end)

    def _asking(self, file: OpenFile, lock: LockRange, *, flock: bool):  # type: ignore[no-untyped-def]
        return self._cluster.watch.locks.asking(self._range(file, lock, flock=flock))

    def _is_in(self, asked: Asked) -> bool:
        """Whether the session is still the one in which it began to ask."""
        session = asked.wanted.who.session
        ended = self._cluster.watch.locks.has_ended(session)
        return self._client().lease.session == session and not ended
