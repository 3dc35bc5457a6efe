"""What consensus and its surroundings ask of each other: sans-IO, in the manner of etcd's library.

The driver feeds the core (``tick``, ``propose``, ``step``, ...), each time with the time it is, and
asks for a ``Ready``. It then has five duties, in this order (Raft, extended version, figure 2;
Ongaro's thesis, section 10.2.1, for the first):

1. send ``early``: what promises nothing about this disk (a leader's entries may reach the
   followers' disks before its own);
2. put ``hard_state`` and ``records`` on stable storage;
3. only then send ``messages``: each of them may be a promise about what is on this disk;
4. apply the log up to ``committed_index``, then answer ``reads`` whose index is applied;
5. call ``advance``.

Bodies stay in the log: the core decides about indexes and terms, and reads nothing back. An
``Append`` that it emits says which records are meant; the driver fills them in.
"""

from collections.abc import Callable, Sequence
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

import msgspec

from ...fs.messages.places import ServerPlace
from ...fs.messages.raft import Configuration, RaftMessage
from .terms import Terms

TERM_MAX = (1 << 31) - 1
"""Chunk versions have a term in their upper half and fit 63 bits. A higher one is refused."""


class Kind(IntEnum):
    """What a record's body is. Stored in the log and sent over the wire."""

    ENTRY = 0  # a packed entries.Entry
    NOOP = 1  # nothing: a new leader's first record (thesis section 3.6.2)
    MEMBERS = 2  # a packed Configuration, in force as soon as it is in the log (Raft section 6)


class Record(msgspec.Struct, frozen=True):
    """One entry of the log as consensus knows it: where it stands, and bytes."""

    term: int
    index: int
    body: bytes
    kind: Kind = Kind.ENTRY


class HardState(NamedTuple):
    """What a server may never forget: its term, and whom it gave its vote in it (0: nobody)."""

    term: int
    vote: int


class Envelope(NamedTuple):
    """A message from one member to another.

    ``records`` belong to an Append: empty when the core emits it (``count`` says how many are
    meant, behind ``previous_index``), filled in by who sends it and when it arrives.
    """

    sender: int
    receiver: int
    message: RaftMessage
    records: Sequence[Record] = ()


class ReadReady(NamedTuple):
    """The answer to ``read``: when ``read_index`` is applied the state is fresh enough.

    None: it is not known who leads; ask again later, or somebody else.
    """

    token: int
    read_index: int | None


class Ready(NamedTuple):
    """What is to be done now."""

    early: Sequence[Envelope]
    hard_state: HardState | None  # None: as it was
    records: Sequence[Record]  # follow one another; an overlap replaces what the log has
    messages: Sequence[Envelope]
    committed_index: int
    reads: Sequence[ReadReady]


class Role(Enum):
    """What a member is at the moment (Raft, figure 4; pre-candidate: thesis section 9.6)."""

    LEARNER = "learner"
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Timing(NamedTuple):
    """How patient a member is; all in nanoseconds of its own clock."""

    heartbeat_ns: int
    election_min_ns: int
    """A follower waits this long, and up to twice as long, before it stands for election. Nobody
    who has heard from a leader within this time gives a vote (thesis section 4.2.3), so a leader
    that was heard by a majority leads for so long: its lease (section 6.4.1)."""
    drift_parts: int
    """Clocks of two members differ by at most one part in so many."""
    drift_ns: int
    """And so much more is taken off the lease."""


class Progress(NamedTuple):
    """What a leader knows of another member."""

    match_index: int  # its log is the leader's up to here
    next_index: int
    needs_snapshot: bool  # it needs records that the leader's log does not have any more
    heard_ns: int  # when it answered last, 0: never


class Begin(NamedTuple):
    """What a member knows when it starts."""

    server: int
    hard_state: HardState
    terms: Terms
    """Of the records in the log; the core goes on with its own copy."""
    applied_index: int
    configuration: Configuration
    """The one in force at ``applied_index``: from the state, or the founding one."""
    later: Sequence[tuple[int, Configuration]]
    """Those in the log behind it, with their indexes."""
    timing: Timing
    now_ns: int
    below: Callable[[int], int]
    """A random number from 0 to one less than the argument: where time-outs are drawn from."""
    logged: bool = True
    """False: ``configuration`` is the founding one and never was in the log, although something
    else may have been. The first leader puts it there. (With nothing applied it never was.)"""


class Core(Protocol):
    """One member's part in consensus. ``now_ns`` never goes back from one call to the next.

    ``raft/core.py`` has the one implementation; this is what the driver may rely on.
    """

    # --- what is known ---

    @property
    def role(self) -> Role: ...

    @property
    def term(self) -> int: ...

    @property
    def leader(self) -> int:
        """The server id of the leader, 0 when there is none known."""
        ...

    @property
    def configuration(self) -> Configuration:
        """The latest one in the log, committed or not."""
        ...

    @property
    def next_index(self) -> int:
        """The index that the next proposal gets, as long as this member leads."""
        ...

    @property
    def commit_index(self) -> int: ...

    @property
    def lease_until_ns(self) -> int:
        """Until then nobody else can lead: reads of the applied state are strong (thesis section
        6.4.1). 0 when this member does not lead, has committed nothing in its term yet (section
        6.4, step 1), or is handing over."""
        ...

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` has something to do; None: never."""
        ...

    @property
    def elections(self) -> int:
        """How often this member stood for election since it started."""
        ...

    def progress(self) -> dict[int, Progress]:
        """Of all other members; empty when this one does not lead."""
        ...

    # --- what happens ---

    def tick(self, now_ns: int) -> None:
        """It is that late."""
        ...

    def step(self, envelope: Envelope, now_ns: int) -> None:
        """A message came in. TideError, in words, when it is refused: it is not for this member,
        its sender was removed, it has holes, its term is out of range. Nothing has changed then.
        """
        ...

    def propose(self, bodies: Sequence[bytes], now_ns: int) -> Sequence[Record]:
        """Begin to replicate these entries. NOT_LEADER names the leader if another one is;
        UNAVAILABLE while leadership is handed over."""
        ...

    def change_members(
        self,
        voters: Sequence[int],
        learners: Sequence[int],
        places: Sequence[ServerPlace],
        now_ns: int,
    ) -> None:
        """Begin to go over to these members, by joint consensus when the voters change (Raft
        section 6). ``places`` has one for each of them. Done when ``configuration`` is not joint
        any more and committed.

        NOT_LEADER; BUSY while another change is under way or nothing of this term is committed;
        INVALID, in words: none at all, duplicates, an even number of voters, one that was removed.
        """
        ...

    def transfer(self, server: int, now_ns: int) -> None:
        """Hand the leadership to a voter (thesis section 3.10); it is given up after one election
        time-out. NOT_LEADER, INVALID."""
        ...

    def read(self, token: int, now_ns: int) -> None:
        """Find out what must be applied before a strong read (ReadIndex, thesis section 6.4);
        ``Ready.reads`` has the answer. Followers ask the leader."""
        ...

    def wants_snapshot(self, index: int, term: int) -> bool:
        """Whether a snapshot that ends with this record has what this member lacks. If its log has
        that very record it must not be replaced: what is behind it may have been promised (Raft
        section 7)."""
        ...

    def restored(self, index: int, term: int, configuration: Configuration, now_ns: int) -> None:
        """A snapshot, which was wanted, took the place of state and log; it ends with the record of
        that index and term. Only while no Ready is out."""
        ...

    def dropped_prefix(self, first_index: int) -> None:
        """The log begins there from now on."""
        ...

    # --- what is to be done ---

    def ready(self) -> Ready | None:
        """What is to be done; None when nothing is. One at a time: ``advance`` or ``abandon``."""
        ...

    def advance(self, ready: Ready, now_ns: int) -> None:
        """All of ``ready`` was done."""
        ...

    def abandon(self, ready: Ready, now_ns: int) -> None:
        """There was no room on the disk: hard state and records of ``ready`` are not there, its
        messages were not sent, nothing of it was applied. A leader of others steps down and lets
        them lead (its entries may be on their disks); a group of one forgets the records."""
        ...
