"""Locks of this mount's session: asked for, waited for, given back, lost.

A lock counts here when its application is told. Until then an *attempt* carries it, in a task of
its own: whoever is interrupted meanwhile must not hold it, so what the servers granted is taken
back, even when the answer comes late. All that is sent belongs to one session and is never sent in
a later one: that has other locks.

Answers about one holder are taken in the order in which the servers gave them (``_in_turn``): else
a lock that is thought to be given back might be held for ever.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import trio

from ..fs.errors import Code, TideError
from ..fs.limits import LOCK_ASK_AGAIN_MS
from ..fs.messages.locks import (
    GetSessionLocks,
    LockAnswer,
    LockKind,
    LocksGranted,
    SetLock,
    Unlock,
    Withdraw,
)
from .held_locks import HeldLocks, Holder, Piece
from .servers import MetaServers

WITHDRAW_PATIENCE_S = 2.0
"""So long who is interrupted waits until the servers know; then they are told in the background."""

Prepare = Callable[[LockAnswer], Awaitable[None]]
"""What is to be done under a new lock before its application is told. TideError: it is given
back."""

Loss = Callable[[set[int], set[int]], None]
"""The session is over: files on which applications held locks, and those whose turn to append we
had."""


class Wish(NamedTuple):
    """One SetLock. ``handle``: the open file, 0 for none."""

    holder: Holder
    exclusive: bool
    start: int
    end: int
    wait: bool
    pid: int
    handle: int = 0

    def request(self) -> SetLock:
        return SetLock(*self.holder, self.exclusive, self.start, self.end, self.wait, self.pid)


class _Attempt:
    """One wish on its way. ``news``: granted, given up, or lost."""

    def __init__(self, wish: Wish, prepare: Prepare) -> None:
        self.wish = wish
        self.prepare = prepare
        self.session = 0
        self.waited = False
        self.given_up = False
        self.lost = False
        self.news = trio.Event()
        self.asked = trio.Event()
        self.done = trio.Event()
        self.outcome: LockAnswer | TideError | None = None
        self.before: list[Piece] = []

    def give_up(self) -> None:
        """Its application was interrupted."""
        self.given_up = True
        self.news.set()

    def lose(self) -> None:
        """Its session is over."""
        self.lost = True
        self.news.set()

    def check(self) -> None:
        """TideError when it must come to nothing."""
        if self.lost:
            raise TideError(
                Code.DEVICE_ERROR, f"session {self.session} is over, and with it this lock"
            )
        if self.given_up:
            raise TideError(Code.INTERRUPTED, "a lock that was waited for")


class _Turn:
    """Who asks about one holder, one at a time."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.users = 0


class Locks:
    """Implements ``SessionEvents``. ``on_change``: the locks of this file are others now."""

    def __init__(
        self,
        meta: MetaServers,
        nursery: trio.Nursery,
        on_change: Callable[[int], None],
        on_loss: Loss,
        patience_ms: int | None,
    ) -> None:
        """``patience_ms``: how long the servers may take to answer; None: as long as it takes."""
        self.held = HeldLocks()
        self.session = 0
        """In which the locks are held."""
        self._meta = meta
        self._nursery = nursery
        self._on_change = on_change
        self._on_loss = on_loss
        self._patience_s = math.inf if patience_ms is None else patience_ms / 1000
        self._attempts: dict[_Attempt, None] = {}  # a set would have no order to lose them in
        self._tickets: dict[int, _Attempt] = {}
        self._early: set[int] = set()  # granted before the answer with the ticket was read
        self._turns: dict[Holder, _Turn] = {}
        self._asking = False
        self._ask_now = trio.Event()

    # --- what an application asks for

    async def acquire(self, wish: Wish, prepare: Prepare) -> bool:
        """Return when it is held and prepared; whether it had to be waited for.

        WOULD_BLOCK, DEADLOCK; INTERRUPTED never: who is cancelled does not hold it.
        """
        attempt = _Attempt(wish, prepare)
        self._attempts[attempt] = None
        self._nursery.start_soon(self._carry, attempt)
        try:
            await self._answered(attempt.asked)
            await attempt.done.wait()
        except TideError:
            attempt.give_up()
            raise
        except trio.Cancelled:
            attempt.give_up()
            with trio.move_on_after(WITHDRAW_PATIENCE_S, shield=True):
                await attempt.done.wait()
            raise
        if isinstance(attempt.outcome, LockAnswer):
            return attempt.waited
        raise attempt.outcome or TideError(Code.DEVICE_ERROR, "the file system is being unmounted")

    async def release(self, holder: Holder, start: int, end: int) -> None:
        """It holds nothing there any more. No question is asked when it held nothing.

        Also when this is cancelled: then it will be done as soon as it can be. NO_LOCKS when it
        would split a lock in two, and there are too many; then it holds what it held.
        """
        if not self.concerns(holder):
            return
        done = trio.Event()
        failures: list[TideError] = []
        self._nursery.start_soon(self._release, holder, start, end, done, failures)
        await self._answered(done)
        if failures:
            raise failures[0]

    async def _release(
        self, holder: Holder, start: int, end: int, done: trio.Event, failures: list[TideError]
    ) -> None:
        try:
            async with self._in_turn(holder):
                if self.held.holds(holder):
                    await self._unlock(holder, start, end)
        except TideError as error:
            failures.append(error)
        finally:
            done.set()

    async def _answered(self, event: trio.Event) -> None:
        with trio.move_on_after(self._patience_s):
            await event.wait()
            return
        raise TideError(
            Code.TIMED_OUT,
            f"no answer about a lock within {self._patience_s} s (this mount is soft)",
        )

    def concerns(self, holder: Holder) -> bool:
        """Whether it holds anything, or something is being asked about it."""
        return self.held.holds(holder) or holder in self._turns

    async def prove(self) -> None:
        """Return when the session that holds the locks is known to live, or known to be over."""
        try:
            await self._meta.renew(self.session)
        except TideError as error:
            if error.code is not Code.SESSION_EXPIRED:
                raise

    # --- what happens to the session

    def linked(self) -> None:
        """Notices may have been missed."""
        self._ask_now.set()

    def granted(self, notice: LocksGranted) -> None:
        """Locks that were waited for."""
        for ticket, _ in notice.grants:
            attempt = self._tickets.get(ticket)
            if attempt is not None:
                attempt.news.set()
            elif any(attempt.session == notice.session for attempt in self._attempts):
                self._early.add(ticket)

    def expired(self, session: int) -> None:
        """All locks of that session are gone."""
        for attempt in self._attempts:
            if attempt.session == session:
                attempt.lose()
        if self.session != session:
            return
        locked = self.held.inodes(LockKind.RANGE, LockKind.WHOLE)
        turns = self.held.inodes(LockKind.APPEND)
        self.held.clear()
        self.session = 0
        self._on_loss(locked, turns)
        for inode in locked | turns:
            self._on_change(inode)

    # --- one attempt

    async def _carry(self, attempt: _Attempt) -> None:
        try:
            attempt.outcome = await self._obtain(attempt)
        except TideError as error:
            attempt.outcome = error
        finally:
            attempt.asked.set()
            self._attempts.pop(attempt, None)
            if not self._attempts:
                self._early.clear()
            attempt.done.set()

    async def _obtain(self, attempt: _Attempt) -> LockAnswer:
        wish = attempt.wish
        async with self._in_turn(wish.holder):
            try:
                answer = await self._ask(attempt)
            except TideError as error:
                if error.code is Code.WOULD_BLOCK:
                    self._give_up_for_conversion(wish)
                raise
            attempt.asked.set()
            if answer.token:
                self._accept(attempt, answer)
            else:
                self._give_up_for_conversion(wish)
        if not answer.token:
            attempt.waited = True
            answer = await self._wait(attempt, answer.ticket)
        try:
            attempt.check()
            if answer.token:
                await attempt.prepare(answer)
            attempt.check()
        except TideError:
            await self._restore(attempt)
            raise
        return answer

    async def _ask(self, attempt: _Attempt) -> LockAnswer:
        request = attempt.wish.request()
        while True:
            attempt.session = self._meta.session
            try:
                return await self._meta.call(request, session=attempt.session)
            except TideError as error:
                # One that was over before is not its loss.
                if error.code is not Code.SESSION_EXPIRED or attempt.lost:
                    raise

    async def _wait(self, attempt: _Attempt, ticket: int) -> LockAnswer:
        """How it came out, also when it was given up. Without a token, it is held no more: it was
        given up in time, or given back at once by another thread of its process."""
        self._tickets[ticket] = attempt
        self._see_to_asking()
        try:
            if ticket not in self._early:
                await attempt.news.wait()
        finally:
            del self._tickets[ticket]
        if attempt.lost:
            attempt.check()
        async with self._in_turn(attempt.wish.holder):
            request = Withdraw(attempt.wish.holder.inode, ticket)
            answer = await self._meta.call(request, session=attempt.session)
            if answer.token:
                self._accept(attempt, answer)
        return answer

    def _accept(self, attempt: _Attempt, answer: LockAnswer) -> None:
        if attempt.lost:
            attempt.check()
        wish = attempt.wish
        attempt.before = self.held.pieces(wish.holder, wish.start, wish.end)
        piece = Piece(wish.start, wish.end, wish.exclusive)
        self.session = attempt.session
        self.held.granted(wish.holder, piece, answer.token, wish.handle)
        self._on_change(wish.holder.inode)

    def _give_up_for_conversion(self, wish: Wish) -> None:
        """flock(2): what was held is given up first, so it is gone when the other mode cannot be
        had."""
        if wish.holder.kind is LockKind.WHOLE:
            self.held.unlocked(wish.holder, wish.start, wish.end)
            self._on_change(wish.holder.inode)

    async def _restore(self, attempt: _Attempt) -> None:
        """Nobody was told of the lock: all is as it was before, as far as that can be had without
        waiting."""
        if attempt.lost:
            return
        wish = attempt.wish
        with suppress(TideError):
            async with self._in_turn(wish.holder):
                for start, end, exclusive in attempt.before:
                    if exclusive is None:
                        await self._unlock(wish.holder, start, end)
                    elif exclusive is False and wish.exclusive:
                        part = wish._replace(exclusive=False, start=start, end=end, wait=False)
                        answer = await self._meta.call(part.request(), session=attempt.session)
                        piece = Piece(start, end, False)
                        self.held.granted(wish.holder, piece, answer.token, wish.handle)
                self._on_change(wish.holder.inode)

    async def _unlock(self, holder: Holder, start: int, end: int) -> None:
        """Asked again while the servers' disks are full: else the lock would be held, by nobody, as
        long as the session lives."""
        session, is_full = self.session, True
        while is_full:
            is_full = False
            try:
                await self._meta.settled()
                await self._meta.call(Unlock(*holder, start, end), session=session)
            except TideError as error:
                if error.code not in (Code.SESSION_EXPIRED, Code.NO_SPACE):
                    raise
                is_full = error.code is Code.NO_SPACE
            if is_full:
                await trio.sleep(LOCK_ASK_AGAIN_MS / 1000)
        self.held.unlocked(holder, start, end)
        self._on_change(holder.inode)

    @asynccontextmanager
    async def _in_turn(self, holder: Holder) -> AsyncIterator[None]:
        turn = self._turns.setdefault(holder, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[holder]

    # --- asking again

    def _see_to_asking(self) -> None:
        if not self._asking:
            self._asking = True
            self._nursery.start_soon(self._ask_while_waiting)

    async def _ask_while_waiting(self) -> None:
        try:
            while self._tickets:
                with trio.move_on_after(LOCK_ASK_AGAIN_MS / 1000):
                    await self._ask_now.wait()
                self._ask_now = trio.Event()
                with suppress(TideError):
                    await self._ask_how_they_stand()
        finally:
            self._asking = False

    async def _ask_how_they_stand(self) -> None:
        asked = dict(self._tickets)
        for session in {attempt.session for attempt in asked.values()}:
            standing = await self._meta.call(GetSessionLocks(session), session=session)
            for ticket, attempt in asked.items():
                if attempt.session == session and ticket not in standing.waiting:
                    attempt.news.set()
