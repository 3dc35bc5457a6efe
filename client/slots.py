"""Slots: each carries one mutation at a time, from when it is first sent until it is answered.

A slot whose caller gave up is *left alone*: somebody else carries its mutation to the end, and
until then it is not used again.
"""

import trio

from ..fs.calls import Mutation
from ..fs.errors import Code, TideError
from .link import LinkKeeper
from .session import Session


class PendingChange:
    """A mutation on its way, with the slot that it keeps until it is answered."""

    def __init__(self, session: Session, mutation: Mutation) -> None:
        self.session = session
        self.mutation = mutation
        self.sent = False
        self.maybe_done = False
        self.over = False


class Slots:
    """All slots of the session that lives."""

    def __init__(self, links: LinkKeeper) -> None:
        self._links = links
        self._waiters = trio.lowlevel.ParkingLot()
        self._wanted = 0
        self._left_alone: set[PendingChange] = set()
        self._one_settled = trio.Event()

    async def take(self, wanted: int | None) -> PendingChange:
        """A free one, as soon as there is one; in session ``wanted`` or, None, in any.
        SESSION_EXPIRED."""
        self._wanted += 1
        try:
            while True:
                session = (await self._links.wait()).session
                if wanted not in (None, session.id):
                    raise over(wanted)
                mutation = session.take()
                if mutation is not None:
                    return PendingChange(session, mutation)
                await self._waiters.park()
        finally:
            self._wanted -= 1

    def take_now(self, session: Session) -> PendingChange | None:
        """A free one; None when there is none, or somebody waits, who would never have a turn."""
        mutation = None if self._wanted else session.take()
        return None if mutation is None else PendingChange(session, mutation)

    def give_back(self, change: PendingChange) -> None:
        """It was answered, or never sent."""
        change.over = True
        change.session.give_back(change.mutation)
        self._waiters.unpark()
        if change in self._left_alone:
            self._left_alone.remove(change)
            self._one_settled.set()
            self._one_settled = trio.Event()

    def leave_alone(self, change: PendingChange) -> None:
        """Nobody waits for it any more, if it is not over."""
        if not change.over:
            self._left_alone.add(change)

    def changed(self) -> None:
        """There is a new session, perhaps."""
        self._waiters.unpark_all()

    async def settled(self) -> None:
        """Return when nothing is under way any more that was left alone before this."""
        before = set(self._left_alone)
        while before & self._left_alone:
            await self._one_settled.wait()


def over(session: int | None) -> TideError:
    """A session has ended."""
    return TideError(Code.SESSION_EXPIRED, f"session {session}")
