"""Changes on their way into the log: those that wait for a turn, and those that wait for an answer.

The leader's part of an entry is decided here: its place and its time.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from ..fs.codec import Buffer, pack
from ..fs.errors import Code, TideError
from ..fs.limits import FRAME_PAYLOAD_MAX_BYTES, LOG_BATCH_MAX_ENTRIES, MIB
from ..fs.messages.base import Message, Request
from ..fs.ports.clock import Clock
from .entries import Entry
from .raft.contract import Record

BATCH_MAX_BYTES = 8 * MIB
ENTRY_MAX_BYTES = FRAME_PAYLOAD_MAX_BYTES
"""A larger one could be logged here, and never be sent to another member."""

log = logging.getLogger(__name__)

DoneCallback = Callable[[Message | TideError, int], None]
"""Gets the reply, or why there is none, and the index of the entry (0: it was not logged, or
nobody knows what becomes of it)."""


class Origin(NamedTuple):
    """Whose change it is: what makes it happen exactly once. All zeros: the leader's own."""

    session: int = 0
    slot: int = 0
    sequence: int = 0


OWN = Origin()


class Proposal(NamedTuple):
    """A change that somebody asks for."""

    request: Request[Any]
    payload: Buffer
    origin: Origin
    done: DoneCallback


class Proposals:
    """Those of one member. Each is answered once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stamped_ns = 0
        self._pending: dict[int, Proposal] = {}
        """By the index of the entry; all of the term that this member leads."""
        self.waiting: list[Proposal] = []

    def next_batch(self, first_index: int, term: int, state_ns: int) -> list[bytes]:
        """The packed entries of the first that wait, from ``first_index`` on: as many as go into
        the log together. ``state_ns`` is the time of the last entry that was applied."""
        bodies: list[bytes] = []
        size_bytes = 0
        while len(bodies) < min(len(self.waiting), LOG_BATCH_MAX_ENTRIES):
            proposal = self.waiting[len(bodies)]
            body = self._stamp(proposal, first_index + len(bodies), term, state_ns)
            if len(body) > ENTRY_MAX_BYTES:
                del self.waiting[len(bodies)]
                _answer(proposal, _too_large(proposal, len(body)), 0)
                continue
            size_bytes += len(body)
            if bodies and size_bytes > BATCH_MAX_BYTES:
                break
            bodies.append(body)
        return bodies

    def _stamp(self, proposal: Proposal, index: int, term: int, state_ns: int) -> bytes:
        """The entry. Time never goes back, whoever led before and whatever the clock does."""
        self._stamped_ns = max(self._stamped_ns + 1, state_ns + 1, self._clock.wall_ns())
        request, origin = proposal.request, proposal.origin
        return pack(
            Entry(
                index=index,
                term=term,
                time_ns=self._stamped_ns,
                session=origin.session,
                slot=origin.slot,
                sequence=origin.sequence,
                method=request.METHOD,
                fields=list(msgspec.structs.astuple(request)),
                payload=bytes(proposal.payload),
            )
        )

    def accepted(self, records: Sequence[Record]) -> None:
        """The first that wait became these records."""
        for record, proposal in zip(records, self.waiting, strict=False):
            self._pending[record.index] = proposal
        del self.waiting[: len(records)]

    def refuse(self, count: int, error: TideError) -> None:
        """The first ``count`` that wait are not logged."""
        batch = self.waiting[:count]
        del self.waiting[:count]
        for proposal in batch:
            _answer(proposal, error, 0)

    def answer(self, index: int, reply: Message | TideError) -> None:
        """The entry was applied. Nothing happens when nobody waits for it."""
        proposal = self._pending.pop(index, None)
        if proposal is not None:
            _answer(proposal, reply, index)

    def fail(self, records: Sequence[Record], error: TideError) -> None:
        """These are not in the log after all."""
        for record in records:
            proposal = self._pending.pop(record.index, None)
            if proposal is not None:
                _answer(proposal, error, 0)

    def fail_all(self, error: TideError) -> None:
        """Nobody knows what becomes of those that were logged: another one leads."""
        pending, self._pending = self._pending, {}
        for proposal in pending.values():
            _answer(proposal, error, 0)


def _too_large(proposal: Proposal, length: int) -> TideError:
    name = type(proposal.request).__name__
    return TideError(
        Code.TOO_LARGE, f"{name}: its entry has {length} bytes, {ENTRY_MAX_BYTES} are the most"
    )


def _answer(proposal: Proposal, outcome: Message | TideError, index: int) -> None:
    try:
        proposal.done(outcome, index)
    except Exception:
        log.exception("answering %s failed", type(proposal.request).__name__)
