"""Callers that try for the same few locks, beside what other callers do: locks are objects of the
same history. Nobody waits here; who waits is a matter of ``lockers.py``."""

from typing import Any

from tidefs.fs.errors import TideError
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages import locks
from tidefs.fs.messages.base import Request

from .callers import REGISTERS, Caller
from .lock_objects import BLOCKED, OK, Ended, Free, Holder, Holders, TryLock
from .objects import Read

LOCKS = REGISTERS
"""On the same files: two of them, so that runs without locks are what they were."""
WHOLE = LOCKS[0]
"""This one is flock(2)'s, the other one fcntl(2)'s."""
OWNERS = 2


class LockCaller(Caller):
    """One of them."""

    _session = 0
    _last_answer: float = 0
    _metaservers: Any = None

    def stop(self, *, machine: bool) -> None:
        super().stop(machine=machine)
        self._may_end()

    async def _work(self, ports: Any, metaservers: Any) -> None:
        self._metaservers, self._session = metaservers, 0
        await super()._work(ports, metaservers)
        self._may_end()

    def _may_end(self) -> None:
        """From now on the session ends, sooner or later."""
        if self._session:
            for lock in LOCKS:
                self._history.call(self.host, Ended(lock, self._session))
        self._session = 0

    def _something(self) -> object:
        self._look_at_session()
        chance = self._random
        lock, owner = chance.choice(LOCKS), chance.randrange(OWNERS)
        if chance.random() < 0.2:
            return chance.choice((Holders(lock), Read(lock)))
        if self._only_reads:
            return Holders(lock)
        if chance.random() < 0.5:
            return Free(lock, self._session, owner)
        exclusive = chance.random() < 0.7
        return TryLock(lock, self._session, owner, exclusive, lock == WHOLE)

    def _look_at_session(self) -> None:
        if self._metaservers.session == self._session:
            return
        if self._session:
            for lock in LOCKS:
                what = Ended(lock, self._session)
                self._history.happened_since(self._last_answer, self.host, what, OK)
        self._session, self._last_answer = self._metaservers.session, self._history.now

    async def _ask_metaservers(self, metaservers: Any, what: object) -> Any:
        session = self._session if isinstance(what, TryLock | Free) else None
        return await metaservers.call(self._request(what), session=session)

    def _say(self, number: int, answer: object) -> None:
        super()._say(number, answer)
        self._last_answer = self._history.now

    # --- on the wire ---------------------------------------------------------------------------

    def _request(self, what: object) -> Request[Any]:
        if isinstance(what, Read):
            return super()._request(what)
        inode = self._places.registers[what.lock]  # type: ignore[attr-defined]
        match what:
            case TryLock(_, _, owner, exclusive, whole):
                kind = _kind(whole=whole)
                return locks.SetLock(inode, kind, owner, exclusive, 0, LOCK_END, False, 1)
            case Free(lock, _, owner):
                return locks.Unlock(inode, _kind(whole=lock == WHOLE), owner, 0, LOCK_END)
            case Holders():
                return locks.ListLocks(inode, 0, 100)
        raise AssertionError(what)

    def _answer(self, what: object, reply: Any) -> object:
        match what:
            case TryLock():
                return reply.token
            case Holders():
                return tuple(
                    sorted(
                        Holder(one.session, one.owner, one.exclusive, one.token)
                        for one in reply.locks
                    )
                )
        return super()._answer(what, reply)

    def _refused(self, error: TideError) -> bool:
        return error.code.name == BLOCKED or super()._refused(error)


def _kind(*, whole: bool) -> locks.LockKind:
    return locks.LockKind.WHOLE if whole else locks.LockKind.RANGE
