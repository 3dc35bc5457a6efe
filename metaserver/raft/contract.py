"""What consensus asks of its surroundings: sans-IO, in the manner of etcd's raft library.

The driver feeds the core (``tick``, ``propose``, ``step``) and asks for a ``Ready``. It then has
four duties, in this order (Raft, extended version, figure 2 and section 5.1):

1. put ``hard_state`` and ``records`` on stable storage;
2. only then send ``messages``: each of them may be a promise about what is on this disk;
3. apply the log up to ``committed_index``;
4. call ``advance``.

Bodies stay in the log: the core decides about indexes, and reads nothing back.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec


class Record(msgspec.Struct, frozen=True):
    """One entry of the log as consensus knows it: where it stands, and bytes."""

    term: int
    index: int
    body: bytes


class HardState(NamedTuple):
    """What a server may never forget: its term, and whom it gave its vote in it (0: nobody)."""

    term: int
    vote: int


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
