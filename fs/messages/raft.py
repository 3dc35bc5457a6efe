"""What the members of the metaserver's group say to each other, and what anybody may ask one.

The first part is the Raft protocol. Its messages are notices: nobody waits for an answer, each may
be lost, doubled or late, and what would be the reply of an RPC in the paper is a notice of its own.
"""

from typing import TypeAlias

from .base import Done, Message, Notice, Request, method
from .places import ServerPlace


class Configuration(Message):
    """Who belongs to the group (Raft section 6). It stands in the log and in the state.

    While ``voters_before`` is not empty the configuration is *joint*: whatever needs a majority
    needs one of each list.
    """

    voters: list[int]
    voters_before: list[int]
    learners: list[int]  # receive the log and have no vote (thesis section 4.2.1)
    places: list[ServerPlace]  # of every voter and learner
    removed: list[int]  # ids that were members once, and never will be again


# --- Raft ------------------------------------------------------------------------------------


@method(0x0401)
class RequestVote(Notice):
    """Raft figure 2. ``pre``: would you? (``term`` is the one that the sender would begin.)

    ``transfer``: the leader itself asked for this election; having heard from it is no reason to
    refuse (thesis section 4.2.3).
    """

    term: int
    last_index: int
    last_term: int
    pre: bool
    transfer: bool


@method(0x0402)
class VoteReply(Notice):
    """``term``: the voter's; of a granted pre-vote, the one that was asked for."""

    term: int
    pre: bool
    granted: bool


@method(0x0403)
class Append(Notice):
    """Raft figure 2, AppendEntries: ``count`` records behind ``previous_index``.

    On the wire ``records`` has (term, kind, length of the body) of each, and the payload is the
    bodies, one behind the other. Inside a member it is empty: see ``Envelope``.
    """

    term: int
    previous_index: int
    previous_term: int
    commit_index: int
    count: int
    records: list[tuple[int, int, int]]


@method(0x0404)
class AppendReply(Notice):
    """``accepted``: this disk has the leader's log up to ``index``.

    Refused: ``index`` is the ``previous_index`` that did not fit. ``hint_index`` and
    ``hint_term`` tell where to go on (Raft section 5.3, last paragraphs; as etcd does it): the
    highest index at which the logs may agree, and the term there on this disk.
    """

    term: int
    accepted: bool
    index: int
    hint_index: int
    hint_term: int


@method(0x0405)
class Heartbeat(Notice):
    """The sender leads. ``commit_index`` is no higher than what it knows the receiver to have.

    ``round`` counts up; the answers to one round prove that the sender led when it began it.
    """

    term: int
    commit_index: int
    round: int


@method(0x0406)
class HeartbeatReply(Notice):
    """To the round of that number. ``last_index``: how far this disk's log reaches."""

    term: int
    round: int
    last_index: int


@method(0x0407)
class TimeoutNow(Notice):
    """Stand for election at once (thesis section 3.10)."""

    term: int


@method(0x0408)
class AskReadIndex(Notice):
    """A follower wants to answer a strong read (thesis section 6.4). ``token`` is its own."""

    term: int
    token: int


@method(0x0409)
class ReadIndex(Notice):
    """Apply the log up to ``index``, then the read ``token`` may be answered; -1: ask again."""

    term: int
    token: int
    index: int


@method(0x040A)
class Greet(Request[Done]):
    """First on a connection from one member to another, and then again and again: I live.

    ``run`` is drawn when a process starts. INVALID when another process with the same server id
    lives, BUSY while that is not known; WRONG_ROLE or FOREIGN_FOLDER to who does not belong here.
    """

    run: int


RaftMessage: TypeAlias = (
    RequestVote
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
    | AskReadIndex
    | ReadIndex
)


# --- snapshots -------------------------------------------------------------------------------


class SnapshotWanted(Message):
    """Where to go on, in bytes; the length of the snapshot: it is all there, and installed."""

    offset: int


@method(0x0410)
class OfferSnapshot(Request[SnapshotWanted]):
    """A checkpoint for who has fallen behind the log (Raft section 7).

    A receiver that has a part of the same one already (index, term, length, checksum) wants the
    rest; one that does not need it answers with the length.
    """

    index: int
    term: int
    length: int
    checksum: int  # xxh3-64 of the whole


@method(0x0411)
class SnapshotPiece(Request[SnapshotWanted]):
    """The payload belongs at ``offset``. BAD_CHECKSUM: send it again."""

    index: int
    offset: int
    checksum: int  # xxh3-64 of the payload


# --- what anybody may ask any member ---------------------------------------------------------


class MemberStatus(Message):
    """One member as it sees itself and the group."""

    cluster: str
    server: int
    host: str
    pid: int
    role: str  # see raft/contract.py: Role; "joining" before it was told to which group it belongs
    term: int
    leader: int  # 0: none is known
    commit_index: int
    applied_index: int
    first_index: int  # of the log
    last_index: int
    checkpoint_index: int
    snapshot_ns: int  # wall clock of the last checkpoint made or installed, 0: none since the start
    elections: int
    configuration: Configuration
    lag: list[tuple[int, int, int]]  # a leader: (server, match index, ms since it answered, or -1)
    spare_bytes: int = 0  # what its disk takes before changes are refused; negative: they are


@method(0x0420)
class GetMember(Request[MemberStatus]):
    """Answered at once by every member, whether it leads or not: also where to find the leader."""


class Digest(Message):
    """A checksum over all of the state at ``applied_index``: equal on all members."""

    applied_index: int
    digest: int


@method(0x0421)
class GetDigest(Request[Digest]):
    """Read the whole state and say what its checksum is. Takes long; any member answers."""


@method(0x0422)
class ChangeMembers(Request[Done]):
    """Add these members and remove those, all in one step of joint consensus, once the new ones
    have caught up. Answered when it is done; asking again for what is done already is harmless.

    Only the leader: NOT_LEADER. INVALID or UNAVAILABLE say in words why not: an even number, the
    last one, a removed one, or that a majority of the new group would not be up.
    """

    add: list[ServerPlace]
    remove: list[int]


@method(0x0423)
class TransferLeadership(Request[Done]):
    """Have another voter lead; ``server`` 0: whoever is furthest. Answered when it does."""

    server: int


class Metrics(Message):
    """Numbers by name; see docs/operations for what they mean."""

    values: list[tuple[str, float]]


@method(0x0424)
class GetMetrics(Request[Metrics]):
    """Any member answers for itself."""


@method(0x0425)
class MembersAre(Notice):
    """A leader to all that it serves: when other members are in force, and when its term is over.

    So whoever is connected need not ask, however quickly all that it knew are replaced.
    """

    status: MemberStatus
