"""Consensus in a group of one: what is on this disk is committed."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from .contract import HardState, Record


class Envelope(NamedTuple):
    """A message of consensus from one server to another; what is in it is the core's business."""

    sender: int
    receiver: int
    body: bytes


class SnapshotOffer(msgspec.Struct, frozen=True):
    """A checkpoint that stands for the log up to ``index``."""

    term: int
    index: int
    path: str


class Ready(NamedTuple):
    """What is to be done now."""

    hard_state: HardState | None  # None: as it was
    records: Sequence[Record]  # follow one another; an overlap replaces what the log has
    messages: Sequence[Envelope]
    committed_index: int
    snapshot: SnapshotOffer | None


class Core(Protocol):
    """One server's part in consensus."""

    @property
    def term(self) -> int: ...

    @property
    def leader(self) -> int:
        """The server id of the leader, 0 when there is none known."""
        ...

    @property
    def next_index(self) -> int:
        """The index that the next proposal gets, as long as this server leads."""
        ...

    @property
    def tick_ms(self) -> int:
        """How often ``tick`` wants to be called; 0: never."""
        ...

    def tick(self) -> None:
        """Time passed."""
        ...

    def propose(self, bodies: Sequence[bytes]) -> Sequence[Record]:
        """Begin to replicate these entries; NOT_LEADER names the leader when another one is."""
        ...

    def step(self, message: Envelope) -> None:
        """A message from another server came in."""
        ...

    def ready(self) -> Ready | None:
        """What is to be done; None when nothing is. One at a time: ``advance`` or ``abandon``."""
        ...

    def advance(self, ready: Ready) -> None:
        """All of ``ready`` was done."""
        ...

    def abandon(self, ready: Ready) -> None:
        """There was no room for ``ready``'s records: they are not in the log, and never were.

        A leader of several servers must not let go of what it may have sent: it steps down.
        """
        ...


class SoleCore:
    """Leads from its start, in a term of its own: chunk versions and fencing rest on that."""

    def __init__(self, server: int, before: HardState, last_index: int, applied_index: int) -> None:
        """``before`` is the hard state of the last run; the log reaches to ``last_index``."""
        self._server = server
        self._hard_state = HardState(before.term + 1, server)
        self._hard_state_pending = True
        self._persisted_index = last_index
        self._applied_index = applied_index
        self._unstable: list[Record] = []

    @property
    def term(self) -> int:
        return self._hard_state.term

    @property
    def leader(self) -> int:
        return self._server

    @property
    def next_index(self) -> int:
        return self._persisted_index + len(self._unstable) + 1

    @property
    def tick_ms(self) -> int:
        return 0

    def tick(self) -> None:
        """Nobody to elect, nobody to hear from."""

    def propose(self, bodies: Sequence[bytes]) -> Sequence[Record]:
        first = self.next_index
        records = [Record(self.term, index, body) for index, body in enumerate(bodies, first)]
        self._unstable.extend(records)
        return records

    def step(self, message: Envelope) -> None:
        raise AssertionError(f"a group of one got a message from {message.sender:016x}")

    def ready(self) -> Ready | None:
        if not (
            self._hard_state_pending
            or self._unstable
            or self._applied_index < self._persisted_index
        ):
            return None
        hard_state = self._hard_state if self._hard_state_pending else None
        records = tuple(self._unstable)
        # The driver applies after it persisted, so these very records count as committed.
        return Ready(hard_state, records, (), self._persisted_index + len(records), None)

    def advance(self, ready: Ready) -> None:
        self._hard_state_pending = False
        self._applied_index = self._persisted_index = ready.committed_index
        del self._unstable[: len(ready.records)]

    def abandon(self, ready: Ready) -> None:
        if ready.hard_state is not None:
            self._hard_state_pending = False
        del self._unstable[: len(ready.records)]
