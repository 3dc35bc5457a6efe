"""Changes, exactly once: refused early, logged, answered; a repetition gets the first answer.

A (session, slot) has one mutation in flight (RFC 8881 section 2.10.6). A repetition of it is one
of four: still in flight (it waits for the same answer), answered from the log (the state has the
reply), refused without an entry (the refusal is remembered here), or older than the slot.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.limits import BUSY_DELAY_MS, ENTRY_PAYLOAD_MAX_BYTES, SESSION_SLOTS
from ..fs.messages.base import Message
from ..fs.messages.meta import Change, Commit, Create, CreateUnnamed, Entry, NewChunk, Node
from ..fs.rpc import Mutation
from .consent import Consent, UnderWay
from .driver import Driver
from .leader import Leader
from .proposing import Origin
from .state import State

Done = Callable[[Message | TideError, bool], None]
"""Gets the outcome, and whether it is of this moment; else it is an answer of earlier."""

_SENT_AGAIN = frozenset(
    {Code.BUSY, Code.UNAVAILABLE, Code.NOT_LEADER, Code.TIMED_OUT, Code.DISCONNECTED}
)
"""Refusals after which a client sends the very same mutation once more."""


class _InFlight:
    """A mutation that is on its way through the log, and who waits for it."""

    def __init__(self, sequence: int, under_way: UnderWay, done: Done) -> None:
        self.sequence = sequence
        self.under_way = under_way
        self.waiting = [done]

    def answer(self, outcome: Message | TideError) -> None:
        for waiter in self.waiting:
            waiter(outcome, True)


class _Refused:
    """The last mutation of a slot that was answered with an error and left no entry."""

    def __init__(self, sequence: int, error: TideError) -> None:
        self.sequence = sequence
        self.error = error


class Changes:
    """All mutations of all sessions."""

    def __init__(self, state: State, driver: Driver, leader: Leader, consent: Consent) -> None:
        self._state = state
        self._driver = driver
        self._leader = leader
        self._consent = consent
        self._in_flight: dict[tuple[int, int], _InFlight] = {}
        self._refused: dict[int, dict[int, _Refused]] = {}

    def submit(
        self, mutation: Mutation | None, request: Change[Any], payload: Buffer, done: Done
    ) -> Awaitable[None] | None:
        """Carry out a change; ``done`` gets the outcome, now or later. Raises what refuses it.

        What comes back, if anything, is to be awaited: promises are recalled first."""
        mutation = self._check(mutation, request)
        slot = mutation.session, mutation.slot
        pending = self._in_flight.get(slot)
        if pending is not None:
            self._join(pending, mutation, request, done)
            return None
        record = self._state.slot(*slot)
        if record is not None and mutation.sequence <= record.sequence:
            if mutation.sequence < record.sequence:
                raise _stale(mutation)
            done(record.answer(), False)
            return None
        refused = self._refused.get(mutation.session, {}).get(mutation.slot)
        if refused is not None and mutation.sequence <= refused.sequence:
            if mutation.sequence < refused.sequence:
                raise _stale(mutation)
            raise refused.error
        return self._propose(mutation, request, payload, done)

    def resumed(self, session: int) -> None:
        """The session goes on on another connection than the one on which it asked."""
        for slot in range(SESSION_SLOTS):
            pending = self._in_flight.get((session, slot))
            if pending is not None:
                self._consent.disown(pending.under_way)

    def session_ended(self, session: int) -> None:
        self._refused.pop(session, None)

    def _check(self, mutation: Mutation | None, request: Change[Any]) -> Mutation:
        name = type(request).__name__
        if mutation is None:
            raise TideError(Code.MALFORMED, f"{name} without a session, slot and sequence")
        if not 0 <= mutation.slot < SESSION_SLOTS or mutation.sequence < 1:
            raise TideError(
                Code.MALFORMED, f"{name} with slot {mutation.slot}, sequence {mutation.sequence}"
            )
        if not self._leader.leases.is_alive(mutation.session):
            raise TideError(Code.SESSION_EXPIRED, f"session {mutation.session}")
        self._leader.heard_of(mutation.session)
        return mutation

    def _join(
        self, pending: _InFlight, mutation: Mutation, request: Change[Any], done: Done
    ) -> None:
        if mutation.sequence < pending.sequence:
            raise _stale(mutation)
        if mutation.sequence > pending.sequence:
            raise TideError(
                Code.BUSY,
                f"slot {mutation.slot} has another mutation in flight",
                delay_ms=BUSY_DELAY_MS,
            )
        if type(request) is not type(pending.under_way.change):
            raise TideError(
                Code.MALFORMED, f"sequence {mutation.sequence} was another request before"
            )
        pending.waiting.append(done)

    def _propose(
        self, mutation: Mutation, request: Change[Any], payload: Buffer, done: Done
    ) -> Awaitable[None] | None:
        slot = mutation.session, mutation.slot
        try:
            self._check_now(mutation, request, payload)
        except TideError as error:
            self._remember(mutation, error)
            raise
        pending = _InFlight(mutation.sequence, self._consent.begin(mutation.session, request), done)
        if not self._consent.is_free(pending.under_way):
            self._in_flight[slot] = pending
            return self._propose_later(mutation, request, payload, pending)
        try:
            self._log(mutation, request, payload, pending)
        except TideError as error:
            self._consent.end(pending.under_way)
            self._remember(mutation, error)
            raise
        self._in_flight[slot] = pending
        return None

    async def _propose_later(
        self, mutation: Mutation, request: Change[Any], payload: Buffer, pending: _InFlight
    ) -> None:
        """After what was promised to others is recalled; and the state may be another one then."""
        try:
            await self._consent.obtain(pending.under_way)
            self._check_now(mutation, request, payload)
            self._log(mutation, request, payload, pending)
        except BaseException as error:
            del self._in_flight[mutation.session, mutation.slot]
            self._consent.end(pending.under_way)
            if not isinstance(error, TideError):
                raise
            self._remember(mutation, error)
            pending.answer(error)

    def _check_now(self, mutation: Mutation, request: Change[Any], payload: Buffer) -> None:
        """Raise what must fail on the state as it is: without an effect to remember it needs no
        entry."""
        if isinstance(request, Commit):
            self._check_new_chunks(mutation.session, request)
        _check_size(request, payload)
        fields = list(msgspec.structs.astuple(request))
        self._state.precheck(request.METHOD, fields, payload, mutation.session)

    def _log(
        self, mutation: Mutation, request: Change[Any], payload: Buffer, pending: _InFlight
    ) -> None:
        def answered(outcome: Message | TideError, index: int) -> None:
            del self._in_flight[mutation.session, mutation.slot]
            self._consent.end(pending.under_way)
            if isinstance(outcome, TideError):
                if index == 0:
                    self._remember(mutation, outcome)
            else:
                self._follow(mutation.session, request, outcome)
            pending.answer(outcome)

        self._driver.propose(request, answered, payload=payload, origin=Origin(*mutation))
        self._consent.proposed(pending.under_way)

    def _remember(self, mutation: Mutation, error: TideError) -> None:
        """A delayed repetition of what was refused must not be carried out later."""
        if error.code not in _SENT_AGAIN:
            slots = self._refused.setdefault(mutation.session, {})
            slots[mutation.slot] = _Refused(mutation.sequence, error)

    # --- what the leader's tables have to do with it -----------------------------------------

    def _check_new_chunks(self, session: int, request: Commit) -> None:
        """Chunks that a Commit adds must be those that the session has reserved, at their version.

        That one was taken by all replicas that count from then on. In a chunk that was written at
        an older one only, bytes may be missing: it was begun anew, perhaps, on other servers,
        because those of the older grant had lost it.
        """
        for chunk in request.chunks:
            if self._state.chunk(chunk.handle) is None:
                self._check_reserved(session, request.inode, chunk)

    def _check_reserved(self, session: int, inode: int, chunk: NewChunk) -> None:
        """LAYOUT_CHANGED when a new chunk is not reserved: it may be deleted at any moment."""
        name = f"inode {inode}: chunk {chunk.handle:016x}"
        reservation = self._leader.reservations.of(chunk.handle)
        if reservation is None or (session, inode, chunk.index) != (
            reservation.session,
            reservation.inode,
            reservation.index,
        ):
            raise TideError(
                Code.LAYOUT_CHANGED, f"{name} is not reserved for index {chunk.index} any more"
            )
        version = self._leader.granted_version(reservation)
        if chunk.version < version:
            raise TideError(
                Code.LAYOUT_CHANGED,
                f"{name} was written at version {chunk.version:x}, and granted anew at {version:x}",
            )

    def _follow(self, session: int, request: Change[Any], reply: Message) -> None:
        """After it was applied, before it is answered."""
        if (isinstance(request, Create) and request.open) or isinstance(request, CreateUnnamed):
            assert isinstance(reply, Entry | Node)
            self._leader.opens.open(session, reply.attributes.inode)
        elif isinstance(request, Commit):
            for chunk in request.chunks:
                self._leader.committed(chunk)


def _stale(mutation: Mutation) -> TideError:
    return TideError(
        Code.STALE_SEQUENCE, f"sequence {mutation.sequence} of slot {mutation.slot} is over"
    )


def _check_size(request: Change[Any], payload: Buffer) -> None:
    if len(payload) > ENTRY_PAYLOAD_MAX_BYTES:
        raise TideError(
            Code.TOO_LARGE,
            f"{type(request).__name__} with {len(payload)} bytes beside it (the limit is"
            f" {ENTRY_PAYLOAD_MAX_BYTES} bytes)",
        )
