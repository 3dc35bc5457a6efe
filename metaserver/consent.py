"""Nothing that was promised changes before who was promised it consents.

Before a change is proposed, what it touches is marked, so that nobody is promised it anew; then
what others were promised of it is recalled, and waited for. Names may have moved meanwhile, so it
looks again, until there is nothing to recall. (Gray and Cheriton 1989, section 2, for leases.)

What a change touches hangs on names as they are when it is *carried out*, and the state shows them
as they are now. So who follows a name waits for what is in the log already and moves that one.

Nobody who is asked to consent waits for anything here but to commit what he holds alone; and a
change waits for recalls, and for changes that are in the log, which wait for nobody. A question
waits for recalls only, a claim for all of these and for claims before it. So no circle can close.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

from ..fs.limits import CLAIM_PATIENCE_MS
from ..fs.messages.base import Request
from ..fs.messages.meta import Change
from .leader import Leader
from .marks import NOBODY, Marks
from .recalls import Recalls
from .service_reads import Answer
from .state import State
from .touched import Inodes, Names, asked, follows_names, moved, told, touched

Answered: TypeAlias = Answer | Awaitable[Answer]
Answering: TypeAlias = Callable[[], Answered]


class _KeptError(Exception):
    """Another session holds one of these alone."""

    def __init__(self, inodes: Inodes) -> None:
        super().__init__(inodes)
        self.inodes = inodes


class UnderWay:
    """A change from when it is asked for until its outcome is known."""

    __slots__ = ("change", "inodes", "moves", "session")

    def __init__(self, session: int, change: Change[Any], inodes: Inodes) -> None:
        self.session = session
        self.change = change
        self.inodes = inodes
        self.moves: Names = ()
        """Once it is in the log."""


class Consent:
    """Who may go on, and who waits for whom, under one leader."""

    def __init__(self, state: State, leader: Leader, recalls: Recalls) -> None:
        self._state = state
        self._promises = leader.promises
        self._awaited = leader.awaited
        self._recalls = recalls
        self._moving = Marks[tuple[int, bytes]]()
        """Names that change with what is in the log and not carried out yet."""
        self._asking = Marks[int]()
        """Inodes of questions that wait until somebody has them alone no more."""
        self._claims: dict[int, list[object]] = {}
        """Of each inode, in the order in which they came."""
        self._heard = trio.Event()
        self._over: trio.Event | None = None
        """The end of a change, a question or a claim; only while somebody waits for it."""

    def look_again(self) -> None:
        """A session that was awaited may be no more."""
        if self._awaited.promised < 2:
            self._heard.set()
            self._heard = trio.Event()

    # --- changes -----------------------------------------------------------------------------

    def begin(self, session: int, change: Change[Any]) -> UnderWay:
        """A change is under way from now on: ``end`` it. It may be proposed once it ``is_free``."""
        inodes = touched(self._state, change)
        self._promises.changing.add(session, inodes)
        return UnderWay(session, change, inodes)

    def is_free(self, under_way: UnderWay) -> bool:
        """Whether nobody else was promised what the change touches, as far as is known."""
        session, promises = under_way.session, self._promises
        return not (
            self._awaited.promised_to_others(session)
            or (self._moving and self._follows_what_moves(under_way.change))
            or promises.is_in_the_way(session, under_way.inodes)
            or (promises.has_exclusive and self._is_kept_from(session, under_way.change))
        )

    async def obtain(self, under_way: UnderWay) -> None:
        """Until it is free; then it is proposed at once."""
        while True:
            self._mark_more(under_way)
            if self.is_free(under_way):
                return
            if self._awaited.promised_to_others(under_way.session):
                await self._heard.wait()
            elif self._follows_what_moves(under_way.change):
                await self._next_is_over()
            else:
                await self._recall_for(under_way)

    def proposed(self, under_way: UnderWay) -> None:
        """It is in the log, or will be before all that is proposed later."""
        under_way.moves = moved(under_way.change)
        self._moving.add(NOBODY, under_way.moves)

    def end(self, under_way: UnderWay) -> None:
        """Its outcome is known."""
        self._promises.changing.remove(under_way.session, under_way.inodes)
        self._moving.remove(NOBODY, under_way.moves)
        self._one_is_over()

    def disown(self, under_way: UnderWay) -> None:
        """Its session goes on on another connection, and may never hear of the outcome: to its
        promises there, this is somebody else's change."""
        self._promises.changing.remove(under_way.session, under_way.inodes)
        under_way.session = NOBODY
        self._promises.changing.add(NOBODY, under_way.inodes)

    def _one_is_over(self) -> None:
        if self._over is not None:
            self._over.set()
            self._over = None

    async def _next_is_over(self) -> None:
        if self._over is None:
            self._over = trio.Event()
        await self._over.wait()

    def _follows_what_moves(self, change: Change[Any]) -> bool:
        return follows_names(change) and any(name in self._moving for name in moved(change))

    def _is_kept_from(self, session: int, request: Request[Any]) -> bool:
        return self._promises.is_kept_from(session, asked(self._state, request))

    async def _recall_for(self, under_way: UnderWay) -> None:
        session, inodes, promises = under_way.session, under_way.inodes, self._promises
        told_too = asked(self._state, under_way.change)
        self._recalls.send(promises.take(session, inodes))
        self._recalls.send(promises.take_exclusive(session, told_too))
        out = promises.out(session, inodes) + promises.out_exclusive(session, told_too)
        await self._recalls.all_over(out)

    def _mark_more(self, under_way: UnderWay) -> None:
        found = touched(self._state, under_way.change)
        more = tuple(inode for inode in found if inode not in under_way.inodes)
        self._promises.changing.add(under_way.session, more)
        under_way.inodes += more

    # --- questions ---------------------------------------------------------------------------

    def reading(self, session: int, request: Request[Any], answer: Answering) -> Answered:
        """The answer to a question of ``session`` (0: of nobody's). What another one holds alone
        is recalled first: he may keep changes of it to himself."""
        if not self._promises.has_exclusive:
            return answer()
        try:
            return self._read(session, request, answer)
        except _KeptError as error:
            return self._read_later(session, request, answer, error)

    def _read(self, session: int, request: Request[Any], answer: Answering) -> Answered:
        """The answer; _KeptError names what is to be recalled before."""
        self._check_kept(session, asked(self._state, request))
        found = answer()
        if isinstance(found, Answer):
            self._check_kept(session, told(found.message))
        return found

    def _check_kept(self, session: int, inodes: Inodes) -> None:
        if self._promises.is_kept_from(session, inodes):
            raise _KeptError(inodes)

    async def _read_later(
        self, session: int, request: Request[Any], answer: Answering, error: _KeptError
    ) -> Answer:
        while True:
            inodes = error.inodes
            self._asking.add(session, inodes)
            try:
                self._recalls.send(self._promises.take_exclusive(session, inodes))
                await self._recalls.all_over(self._promises.out_exclusive(session, inodes))
                found = self._read(session, request, answer)
            except _KeptError as again:
                error = again
            else:
                return found if isinstance(found, Answer) else await found
            finally:
                self._asking.remove(session, inodes)
                self._one_is_over()

    # --- claims ------------------------------------------------------------------------------

    async def claim(self, session: int, inode: int, is_here: Callable[[], bool]) -> bool:
        """An exclusive promise; False when that takes too long, or there is no room for it, or the
        session is not ``is_here`` any more. First come, first served."""
        mine, turn = (inode,), object()
        line = self._claims.setdefault(inode, [])
        line.append(turn)
        self._promises.claiming.add(session, mine)
        try:
            with trio.move_on_after(CLAIM_PATIENCE_MS / 1000):
                while line[0] is not turn:
                    await self._next_is_over()
                await self._alone(session, inode)
                if is_here() and self._recalls.makes_room(1):
                    self._promises.claim(session, inode)
                    return True
        finally:
            self._promises.claiming.remove(session, mine)
            line.remove(turn)
            if not line:
                del self._claims[inode]
            self._one_is_over()
        return False

    async def _alone(self, session: int, inode: int) -> None:
        """Until nobody else is promised it, changes it, or has waited for an answer about it: who
        claims again and again must not keep everybody else waiting."""
        mine, promises = (inode,), self._promises
        while True:
            if self._awaited.promised_to_others(session):
                await self._heard.wait()
            elif promises.is_in_the_way(session, mine):
                self._recalls.send(promises.take(session, mine))
                await self._recalls.all_over(promises.out(session, mine))
            elif promises.changing.by_others(session, inode) or self._asking.by_others(
                session, inode
            ):
                await self._next_is_over()
            else:
                return
