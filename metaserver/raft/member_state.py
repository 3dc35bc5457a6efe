"""One member's role, term, log and patience, and how they go over into each other. Pure.

The lowest of four floors that together are ``Member``, each in a file: this one, ``member_leads``,
``member_votes`` and ``core``. Nothing here knows of a message that came in.
"""

from ...fs.messages.raft import AppendReply, Configuration, RaftMessage
from .contract import Begin, Envelope, HardState, Progress, ReadReady, Ready, Role
from .election import Ballot, Patience
from .leading import Leading
from .log_view import LogView
from .membership import Membership
from .reads import FollowerReads


class MemberState:
    """What a member is, and what it will send."""

    def __init__(self, begin: Begin) -> None:
        self._server = begin.server
        self._timing = begin.timing
        self._now_ns = begin.now_ns
        self._hard_state = begin.hard_state
        """The term never falls; within a term the vote is given at most once (section 5.2)."""
        self._stored = begin.hard_state
        """The one on the disk. Messages wait in ``_messages`` until it is the one above."""
        if begin.terms.last_term > begin.hard_state.term:
            # A snapshot was installed, and the process ended before its term was stored.
            self._hard_state = HardState(begin.terms.last_term, 0)
        self._log = LogView(begin.terms)
        self._commit_index = begin.applied_index
        """Only rises, at most to the log's end; what is committed is never truncated."""
        self._applied_index = begin.applied_index
        """How far the driver has applied; at most ``_commit_index``, but see ``_committable``."""
        self._membership = Membership(
            begin.server,
            begin.configuration,
            begin.later,
            index=begin.applied_index if begin.logged else 0,
        )
        self._role = Role.FOLLOWER
        self._leader = 0
        self._patience = Patience(begin.timing, begin.below, begin.now_ns)
        self._ballot: Ballot | None = None
        """Of a pre-candidate and a candidate."""
        self._leading: Leading | None = None
        """Of a leader."""
        self._asked = FollowerReads(begin.timing, begin.now_ns)
        self._elections = 0
        self._early: list[Envelope] = []
        """Never Appends of an earlier leadership: those are made when a Ready is."""
        self._messages: list[Envelope] = []
        self._reads: list[ReadReady] = []
        self._ready: Ready | None = None
        """The one that is out."""
        assert self._commit_index <= self._log.last_index, "a state ahead of its log"

    # --- what is known ---------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        if self._role is Role.FOLLOWER and not self._membership.may_lead:
            return Role.LEARNER
        return self._role

    @property
    def term(self) -> int:
        return self._hard_state.term

    @property
    def leader(self) -> int:
        return self._leader

    @property
    def configuration(self) -> Configuration:
        return self._membership.current

    @property
    def next_index(self) -> int:
        return self._log.last_index + 1

    @property
    def commit_index(self) -> int:
        return self._commit_index

    @property
    def lease_until_ns(self) -> int:
        if self._leading is None:
            return 0
        return self._leading.lease_until_ns(committed_own=self._committed_own)

    @property
    def deadline_ns(self) -> int | None:
        if self._leading is not None:
            return self._leading.deadline_ns(self._now_ns)
        deadlines = (self._patience.deadline_ns, self._asked.deadline_ns)
        return min((one for one in deadlines if one is not None), default=None)

    @property
    def elections(self) -> int:
        return self._elections

    def progress(self) -> dict[int, Progress]:
        return {} if self._leading is None else self._leading.progress()

    @property
    def _committed_own(self) -> bool:
        """Whether a record of this leader's term is committed: then it knows what is (5.4.2)."""
        return self._log.terms.at(self._commit_index) == self.term

    # --- messages to others ----------------------------------------------------------------------

    def _send(self, receiver: int, message: RaftMessage) -> None:
        """After hard state and records are on the disk."""
        self._messages.append(Envelope(self._server, receiver, message))

    def _take_back_promises(self) -> None:
        """Do not send what was to be said about the log."""
        self._messages = [m for m in self._messages if not isinstance(m.message, AppendReply)]

    def _send_early(self, receiver: int, message: RaftMessage) -> None:
        assert self._hard_state == self._stored, "a leader has stored its term before it won"
        self._early.append(Envelope(self._server, receiver, message))

    # --- roles -----------------------------------------------------------------------------------

    def _adopt(self, term: int) -> None:
        """A higher term is under way."""
        assert term > self.term, (term, self.term)
        self._follow(0)
        self._take_back_promises()  # a leader of the new term may replace what they speak of
        self._hard_state = HardState(term, 0)

    def _follow(self, leader: int) -> None:
        """Be a follower, of ``leader`` (0: it is not known who leads)."""
        if self._leader != leader:
            self._reads += self._asked.fail()
        if self._leading is not None:
            self._reads += self._leading.fail_reads()
            self._leading = None
            self._patience.released(self._now_ns)
            self._patience.reset(self._now_ns)
        self._ballot = None
        self._role = Role.FOLLOWER
        self._leader = leader

    def _heard(self, leader: int) -> None:
        if self._leader != leader or self._role is not Role.FOLLOWER:
            self._follow(leader)
        self._patience.heard(self._now_ns)

    def _commit(self, index: int) -> None:
        if index > self._commit_index:
            assert index <= self._log.last_index, (index, self._log.last_index)
            self._commit_index = index
