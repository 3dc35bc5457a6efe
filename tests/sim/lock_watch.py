"""Looks on while the metaservers carry out what the log says about locks and sessions.

What may happen to locks stands in ``lock_ledger.py``. And a session may not be ended for its
silence as long as its client's own clock says that it must live: who holds a lock relies on that.

Requests that are refused are not in the log. Whoever makes one can say so before, and is told
afterwards whether there ever was a reason to refuse it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from tidefs.fs.messages.base import Request
from tidefs.fs.messages.locks import LockAnswer, SetLock, Unlock, Withdraw
from tidefs.metaserver.effects import Effect, LocksGranted
from tidefs.metaserver.entries import EndSession, Reap

from .conditions import ViolationError
from .lock_ledger import Ledger, Owner, Range
from .trace import Trace


class Lease(Protocol):
    """A client's knowledge of its session."""

    @property
    def session(self) -> int: ...

    @property
    def lease_until_ns(self) -> int: ...


class Asked:
    """A request for a lock that is under way. ``blocked``, ``in_circle``: at some moment of it
    somebody else had a conflicting one, or it would have closed a circle."""

    def __init__(self, wanted: Range) -> None:
        self.wanted = wanted
        self.blocked = False
        self.in_circle = False

    def look(self, ledger: Ledger) -> None:
        """Now is such a moment."""
        self.blocked = self.blocked or bool(ledger.in_the_way(self.wanted))
        self.in_circle = self.in_circle or ledger.closes_circle(self.wanted)


class LockWatch:
    """One run's."""

    def __init__(self, trace: Trace) -> None:
        self.ledger = Ledger()
        self._trace = trace
        self._asked: dict[Asked, None] = {}
        self._leases: dict[str, tuple[Lease, Callable[[], int]]] = {}
        self._ended: set[int] = set()

    # --- clients -------------------------------------------------------------------------------

    @contextmanager
    def connected(self, host: str, lease: Lease, now_ns: Callable[[], int]) -> Iterator[None]:
        """While this lasts a client lives there, with that clock."""
        self._leases[host] = lease, now_ns
        try:
            yield
        finally:
            del self._leases[host]

    def has_ended(self, session: int) -> bool:
        """Whether the metaservers have ended it."""
        return session in self._ended

    @contextmanager
    def asking(self, wanted: Range) -> Iterator[Asked]:
        """While this lasts, it is under way."""
        asked = Asked(wanted)
        self._asked[asked] = None
        asked.look(self.ledger)
        try:
            yield asked
        finally:
            del self._asked[asked]

    # --- metaservers ---------------------------------------------------------------------------

    def carried_out(
        self,
        index: int,
        session: int,
        request: Request[Any],
        reply: object,
        effects: Sequence[Effect],
    ) -> bool:
        """The entry at ``index`` was applied, for the first time anywhere; whether it was about
        locks."""
        told = self._tell(index, session, request, reply)
        if told is None:
            return False
        wrong = [*told]
        served = sorted(
            (ticket, effect.session, token)
            for effect in effects
            if isinstance(effect, LocksGranted)
            for ticket, token in effect.grants
        )
        for ticket, whose, token in served:
            wrong += self.ledger.served(index, whose, ticket, token)
        wrong += self.ledger.findings()
        for asked in self._asked:
            asked.look(self.ledger)
        self._complain(wrong)
        return True

    def compare(self, held: Iterable[Range]) -> None:
        """These are held according to the state, after the last entry that was carried out."""
        shown, expected = _joined(held), _joined(self.ledger.held)
        if shown != expected:
            more, fewer = shown - expected, expected - shown
            self._complain([f"the state has also {more} and lacks {fewer}"])

    # --- inside --------------------------------------------------------------------------------

    def _tell(
        self, index: int, session: int, request: Request[Any], reply: object
    ) -> Iterable[str] | None:
        match request:
            case SetLock():
                return self._set(index, _range(session, request), request, reply)
            case Unlock() if not isinstance(reply, Exception):
                self.ledger.unlocked(_range(session, request))
            case Withdraw() if isinstance(reply, LockAnswer):
                waits = self.ledger.waiting.get(request.ticket)
                if not reply.token and waits is not None and waits.who.session == session:
                    self.ledger.withdrawn(request.ticket)
            case EndSession():
                return self._end(request)
            case Reap():
                for inode in request.inodes:
                    self.ledger.gone(inode)
            case _:
                return None
        return ()

    def _set(self, index: int, wanted: Range, request: SetLock, reply: object) -> Iterator[str]:
        had_it = isinstance(reply, LockAnswer) and reply.token not in (0, index)
        if request.kind is request.kind.WHOLE and not had_it:
            self.ledger.unlocked(wanted)  # flock(2): what it had is given up first
        if not isinstance(reply, LockAnswer):
            return
        if not reply.token:
            yield from self.ledger.queued(index, wanted, reply.ticket)
        elif request.wait:
            yield from self.ledger.granted_at_once(index, wanted, reply.token)
        else:
            yield from self.ledger.granted(index, wanted, reply.token)

    def _end(self, request: EndSession) -> Iterator[str]:
        self.ledger.ended(request.session)
        self._ended.add(request.session)
        for host, (lease, now_ns) in self._leases.items():
            left_ns = lease.lease_until_ns - now_ns()
            if request.expired and lease.session == request.session and left_ns > 0:
                yield (
                    f"session {request.session} is ended for its silence, {left_ns / 1e9:.3f} s"
                    f" before {host} has to doubt it"
                )

    def _complain(self, wrong: Sequence[str]) -> None:
        if wrong:
            self._trace.note("locks", wrong[0])
            raise ViolationError(f"the lock table: {'; '.join(wrong[:3])}")


def _range(session: int, request: SetLock | Unlock) -> Range:
    exclusive = isinstance(request, SetLock) and request.exclusive
    who = Owner(request.kind, session, request.owner)
    return Range(who, request.inode, exclusive, request.start, request.end)


def _joined(ranges: Iterable[Range]) -> set[Range]:
    """Neighbours of one owner and mode as one."""
    found: list[Range] = []
    for one in sorted(ranges, key=lambda each: (each.who, each.inode, each.start)):
        last = found[-1] if found else None
        if last is not None and last == one._replace(start=last.start, end=one.start):
            found[-1] = last._replace(end=one.end)
        else:
            found.append(one)
    return set(found)
