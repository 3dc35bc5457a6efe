"""One member's part in consensus: its role and term, and what comes in. Raft, sans-IO. Pure.

Sections without a name are those of Ongaro and Ousterhout, "In Search of an Understandable
Consensus Algorithm (Extended Version)"; the thesis is Ongaro's "Consensus: Bridging Theory and
Practice". Leading is a life of its own: ``leading.py``.
"""

from collections.abc import Sequence

from ...fs.codec import pack
from ...fs.errors import Code, TideError
from ...fs.messages.places import ServerPlace
from ...fs.messages.raft import (
    Append,
    AppendReply,
    AskReadIndex,
    Configuration,
    Heartbeat,
    HeartbeatReply,
    RaftMessage,
    ReadIndex,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from .checks import check_envelope, check_follows, check_reply, configurations_in
from .contract import (
    TERM_MAX,
    Begin,
    Core,
    Envelope,
    HardState,
    Kind,
    Progress,
    ReadReady,
    Ready,
    Record,
    Role,
)
from .election import Ballot, Patience
from .following import take_append
from .leading import Leading
from .log_view import LogView
from .membership import Membership, after_joint, is_same_group, plan_change
from .reads import Asker, FollowerReads


class Member(Core):
    """See the contract."""

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
        self._messages: list[Envelope] = []
        self._reads: list[ReadReady] = []
        self._ready: Ready | None = None
        """The one that is out."""
        assert self._commit_index <= self._log.last_index, "a state ahead of its log"
        if self._membership.always_sole:
            self._stand(transfer=False)  # nobody else can lead, or hold a lease

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

    # --- time ------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        self._now_ns = now_ns
        if self._leading is not None:
            if self._leading.is_deserted(now_ns):
                self._follow(0)
            else:
                self._leading.tick(now_ns, self._commit_index, committed_own=self._committed_own)
            return
        self._reads += self._asked.tick(now_ns)
        if self._patience.ended(now_ns):
            self._lose_patience()

    def _lose_patience(self) -> None:
        self._follow(0)
        if self._membership.may_lead:
            self._ask_before_standing()
        else:
            self._patience.deadline_ns = None  # nothing to stand for

    # --- messages --------------------------------------------------------------------------------

    def step(self, envelope: Envelope, now_ns: int) -> None:
        check_envelope(envelope, self._server)
        sender, _, message, records = envelope
        if sender != self._leader and self._membership.is_removed(sender):
            raise TideError(
                Code.INVALID, f"{sender:016x} was removed from the group; format it anew to join"
            )
        configurations = configurations_in(sender, records)
        self._check_contradictions(envelope)
        self._now_ns = now_ns
        if message.term < self.term:
            self._answer_stale(sender, message)
            return
        if isinstance(message, RequestVote):
            self._asked_for_vote(sender, message)
            return
        would_vote = isinstance(message, VoteReply) and message.pre and message.granted
        if message.term > self.term and not would_vote:
            self._adopt(message.term)
        if isinstance(message, Append):
            self._append_came(sender, message, records, configurations)
        else:
            self._take(sender, message)

    def _take(self, sender: int, message: RaftMessage) -> None:
        """One of this term."""
        match message:
            case Heartbeat():
                self._heartbeat_came(sender, message)
            case VoteReply():
                self._vote_came(sender, message)
            case AppendReply():
                self._append_answered(sender, message)
            case HeartbeatReply():
                self._heartbeat_answered(sender, message)
            case TimeoutNow():
                self._told_to_stand(sender)
            case AskReadIndex():
                self._asked_for_read(sender, message)
            case ReadIndex():
                self._reads += self._asked.answered(message.token, message.index)

    def _check_contradictions(self, envelope: Envelope) -> None:
        current = envelope.message.term == self.term
        if isinstance(envelope.message, Append | Heartbeat):
            if envelope.message.term >= self.term:
                leader = self._leader if current else 0
                check_follows(envelope, self._log, self._commit_index, leader)
        elif self._leading is not None and current:
            check_reply(envelope, self._log.last_index, self._leading.last_round)

    def _answer_stale(self, sender: int, message: RaftMessage) -> None:
        """Who is behind learns the term, and that it does not lead (section 5.1)."""
        term = self.term
        match message:
            case RequestVote():
                self._send(sender, VoteReply(term, message.pre, False))
            case Append():
                self._send(sender, AppendReply(term, False, message.previous_index, 0, 0))
            case Heartbeat():
                self._send(sender, HeartbeatReply(term, message.round, self._log.last_index))
            case AskReadIndex():
                self._send(sender, ReadIndex(term, message.token, -1))

    def _send(self, receiver: int, message: RaftMessage) -> None:
        """After hard state and records are on the disk."""
        self._messages.append(Envelope(self._server, receiver, message))

    def _send_early(self, receiver: int, message: RaftMessage) -> None:
        assert self._hard_state == self._stored, "a leader has stored its term before it won"
        self._early.append(Envelope(self._server, receiver, message))

    # --- roles -----------------------------------------------------------------------------------

    def _adopt(self, term: int) -> None:
        """A higher term is under way."""
        assert term > self.term, (term, self.term)
        self._follow(0)
        # They speak of a log that a leader of the new term may replace before they are sent.
        self._messages = [m for m in self._messages if not isinstance(m.message, AppendReply)]
        self._hard_state = HardState(term, 0)

    def _follow(self, leader: int) -> None:
        """Be a follower, of ``leader`` (0: it is not known who leads)."""
        if self._leader != leader:
            self._reads += self._asked.fail()
        if self._leading is not None:
            self._reads += self._leading.fail_reads()
            # Records that it speaks of may not be in this log any more when it is sent.
            self._early = [one for one in self._early if not isinstance(one.message, Append)]
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

    # --- elections -------------------------------------------------------------------------------

    def _ask_before_standing(self) -> None:
        """Pre-vote (thesis section 9.6): no new term unless it can be won."""
        self._role = Role.PRE_CANDIDATE
        self._patience.reset(self._now_ns)
        self._ballot = Ballot(self._membership)
        self._ballot.count(self._server, True)
        if self._ballot.won:
            self._stand(transfer=False)
        else:
            self._ask_for_votes(self.term + 1, pre=True, transfer=False)

    def _stand(self, *, transfer: bool) -> None:
        """Stand for election in a new term (section 5.2)."""
        if self.term >= TERM_MAX:
            self._follow(0)
            self._patience.reset(self._now_ns)
            return
        self._adopt(self.term + 1)
        self._hard_state = HardState(self.term, self._server)
        self._role = Role.CANDIDATE
        self._elections += 1
        self._patience.reset(self._now_ns)
        self._ballot = Ballot(self._membership)  # the own vote counts once it is on the disk
        self._ask_for_votes(self.term, pre=False, transfer=transfer)

    def _ask_for_votes(self, term: int, *, pre: bool, transfer: bool) -> None:
        if term > TERM_MAX:
            return
        message = RequestVote(term, self._log.last_index, self._log.last_term, pre, transfer)
        for voter in self._membership.peers:
            if voter in self._membership.voters:
                self._send(voter, message)

    def _asked_for_vote(self, sender: int, message: RequestVote) -> None:
        """A vote that is asked for in this term or a higher one."""
        sticky = self._leading is not None or self._patience.is_sticky(self._now_ns)
        if message.pre:
            granted = message.term > self.term and not sticky and self._would_vote(message)
            term = message.term if granted else self.term
            self._send(sender, VoteReply(term, True, granted))
            return
        if message.term > self.term:
            if sticky and not message.transfer:
                # Without taking note of the term (thesis section 4.2.3).
                self._send(sender, VoteReply(self.term, False, False))
                return
            self._adopt(message.term)
        free = self._hard_state.vote == sender or (not self._hard_state.vote and not self._leader)
        granted = free and self._would_vote(message)
        if granted:
            self._hard_state = HardState(self.term, sender)
            self._patience.reset(self._now_ns)
        self._send(sender, VoteReply(self.term, False, granted))

    def _would_vote(self, message: RequestVote) -> bool:
        """Whether its log is as good as this one (section 5.4.1).

        Who sees itself as a learner votes when it is asked: it may have been made a voter, and the
        record that says so not have arrived. Who belongs to no group yet does not.
        """
        known = bool(self._membership.current.voters)
        return known and self._log.up_to_date(message.last_index, message.last_term)

    def _vote_came(self, sender: int, message: VoteReply) -> None:
        asked = Role.PRE_CANDIDATE if message.pre else Role.CANDIDATE
        if self._ballot is None or self._role is not asked:
            return
        if message.granted and message.term != self.term + message.pre:
            return  # of another election
        self._ballot.count(sender, message.granted)
        self._tally()

    def _tally(self) -> None:
        assert self._ballot is not None
        if self._ballot.won:
            if self._role is Role.PRE_CANDIDATE:
                self._stand(transfer=False)
            elif self._hard_state == self._stored:  # else when it is
                self._lead()
        elif self._ballot.lost:
            self._follow(0)

    def _told_to_stand(self, sender: int) -> None:
        """The leader hands over (thesis section 3.10)."""
        follows = self._leading is None and self._leader in (0, sender)
        if follows and self._membership.may_lead and self._patience.may_stand(self._now_ns):
            self._stand(transfer=True)

    def _lead(self) -> None:
        """Elected. The first record makes all before it committed with it (section 5.4.2)."""
        assert self._hard_state == self._stored == HardState(self.term, self._server)
        self._ballot = None
        self._role = Role.LEADER
        self._leader = self._server
        self._leading = Leading(
            self._server,
            self.term,
            self._log,
            self._membership,
            self._timing,
            self._send_early,
            self._now_ns,
        )
        self._append_own(Kind.NOOP, b"")
        if self._membership.index == 0:  # the founding one, which never was in the log
            self._append_members(self._membership.current)
        self._leading.begin_round(self._now_ns, self._commit_index, committed_own=False)

    # --- a follower's log ------------------------------------------------------------------------

    def _append_came(
        self,
        sender: int,
        message: Append,
        records: Sequence[Record],
        configurations: Sequence[tuple[int, Configuration]],
    ) -> None:
        self._heard(sender)
        reply = take_append(
            self._log, self._membership, self._commit_index, message, records, configurations
        )
        self._answer_append(sender, reply)
        if reply.accepted:
            # What is behind these records may not be the leader's.
            last_new = message.previous_index + len(records)
            self._commit(min(message.commit_index, last_new))

    def _answer_append(self, sender: int, reply: AppendReply) -> None:
        """One answer stands for those before it, which wait for the same disk."""
        if reply.accepted and self._messages:
            _, receiver, last, _ = self._messages[-1]
            accepted = isinstance(last, AppendReply) and last.accepted and last.index <= reply.index
            if accepted and receiver == sender:  # of this term: ``_adopt`` keeps no other
                self._messages.pop()
        self._send(sender, reply)

    def _heartbeat_came(self, sender: int, message: Heartbeat) -> None:
        self._heard(sender)
        self._commit(message.commit_index)
        self._send(sender, HeartbeatReply(self.term, message.round, self._log.last_index))

    def _commit(self, index: int) -> None:
        if index > self._commit_index:
            assert index <= self._log.last_index, (index, self._log.last_index)
            self._commit_index = index

    # --- a leader's followers --------------------------------------------------------------------

    def _append_answered(self, sender: int, reply: AppendReply) -> None:
        if self._leading is not None and self._leading.appended(sender, reply, self._now_ns):
            self._commit_agreed()
            if self._leading is not None:
                self._leading.tell_readers(self._commit_index)

    def _heartbeat_answered(self, sender: int, reply: HeartbeatReply) -> None:
        if self._leading is not None:
            for answer in self._leading.beaten(sender, reply, self._now_ns):
                read = self._leading.answer(answer)
                if read is not None:
                    self._reads.append(read)
            self._leading.tell_readers(self._commit_index)

    def _commit_agreed(self) -> None:
        """Commit what a majority has, if it is of this term: an older one could still be replaced
        (section 5.4.2, figure 8)."""
        assert self._leading is not None
        agreed = self._leading.agreed_index()
        if agreed > self._commit_index and self._log.terms.at(agreed) == self.term:
            self._commit(agreed)
            self._leading_committed()

    def _leading_committed(self) -> None:
        """More is committed: a change of members may go on (section 6)."""
        leading, membership = self._leading, self._membership
        if leading is None or leading.settled_index == membership.index:
            return
        if membership.index > self._commit_index or not self._committed_own:
            return
        if not membership.is_voter and not membership.is_joint:
            # It has led the group out of its own membership (section 6). What it has committed is
            # to be answered first; then whoever has most goes on.
            if membership.index <= self._applied_index:
                leading.drop_departed(self._commit_index)
                leading.resign_to(leading.most_up_to_date())
                self._follow(0)
            return
        leading.settled_index = membership.index
        leading.drop_departed(self._commit_index)
        if membership.is_joint:
            self._append_members(after_joint(membership.current))

    def _append_own(self, kind: Kind, body: bytes) -> None:
        self._log.append([Record(self.term, self.next_index, body, kind)])

    def _append_members(self, configuration: Configuration) -> None:
        assert self._leading is not None
        self._append_own(Kind.MEMBERS, pack(configuration))
        self._membership.appended(self._log.last_index, configuration)
        self._leading.adopt_members(self._now_ns)

    # --- what the driver asks for ----------------------------------------------------------------

    def propose(self, bodies: Sequence[bytes], now_ns: int) -> Sequence[Record]:
        self._now_ns = now_ns
        self._check_leads()
        term, first = self.term, self.next_index
        records = [Record(term, index, body) for index, body in enumerate(bodies, first)]
        self._log.append(records)
        return records

    def _check_leads(self) -> Leading:
        if self._leading is None:
            who = f"{self._leader:016x} leads" if self._leader else "it is not known who leads"
            raise TideError(Code.NOT_LEADER, who)
        if self._leading.transfer_to:
            raise TideError(
                Code.UNAVAILABLE, f"{self._leading.transfer_to:016x} is about to lead; try again"
            )
        return self._leading

    def change_members(
        self,
        voters: Sequence[int],
        learners: Sequence[int],
        places: Sequence[ServerPlace],
        now_ns: int,
    ) -> None:
        self._now_ns = now_ns
        self._check_leads()
        if self._membership.is_joint or self._membership.index > self._commit_index:
            raise TideError(Code.BUSY, "another change of members is under way; wait for its end")
        if not self._committed_own:
            raise TideError(Code.BUSY, "this leader has only just been elected; try again")
        now = self._membership.current
        then = plan_change(now, voters, learners, places)
        if not is_same_group(now, then):
            self._append_members(then)

    def transfer(self, server: int, now_ns: int) -> None:
        self._now_ns = now_ns
        leading = self._leading
        if leading is not None and leading.transfer_to == server:
            return
        leading = self._check_leads()
        if server == self._server:
            raise TideError(Code.INVALID, f"{server:016x} leads already")
        if server not in self._membership.current.voters:
            raise TideError(Code.INVALID, f"{server:016x} is no voter, so it cannot lead")
        leading.transfer(server, now_ns)

    def read(self, token: int, now_ns: int) -> None:
        self._now_ns = now_ns
        if self._leading is not None:
            self._leading.ask(Asker(self._server, token))
        elif self._leader:
            self._asked.add(token)
        else:
            self._reads.append(ReadReady(token, None))

    def _asked_for_read(self, sender: int, message: AskReadIndex) -> None:
        if self._leading is not None:
            self._leading.ask(Asker(sender, message.token))
        else:
            self._send(sender, ReadIndex(self.term, message.token, -1))

    def restored(self, index: int, term: int, configuration: Configuration, now_ns: int) -> None:
        assert self._ready is None, "only while no Ready is out"
        assert self._leading is None, "a leader has all that is committed"
        assert index > self._commit_index, (index, self._commit_index)
        self._now_ns = now_ns
        if term > self.term:
            self._adopt(term)
        self._log.begin_anew(index, term)
        self._commit_index = self._applied_index = index
        self._membership.restored(index, configuration)
        self._patience.reset(now_ns)
        if self._leader:
            self._send(self._leader, AppendReply(self.term, True, index, 0, 0))

    def dropped_prefix(self, first_index: int) -> None:
        assert first_index <= self._applied_index + 1, (first_index, self._applied_index)
        self._log.terms.drop_before(first_index)

    # --- what is to be done ----------------------------------------------------------------------

    def ready(self) -> Ready | None:
        assert self._ready is None, "advance or abandon the last one first"
        if self._leading is None:
            for question in self._asked.questions(self.term, self._now_ns):
                self._send(self._leader, question)
        elif self._leading.has_work:
            self._prepare_leading(self._leading)
        self._check_invariants()
        committed_index = self._committable
        hard_state = None if self._hard_state == self._stored else self._hard_state
        if not (
            self._log.unstable
            or self._early
            or self._messages
            or self._reads
            or hard_state is not None
            or committed_index > self._applied_index
        ):
            return None
        records = tuple(self._log.unstable)
        self._ready = Ready(
            self._early, hard_state, records, self._messages, committed_index, self._reads
        )
        self._early, self._messages, self._reads = [], [], []
        return self._ready

    def _prepare_leading(self, leading: Leading) -> None:
        if self._committed_own:
            for answer in leading.serve_reads(self._now_ns, self._commit_index):
                read = leading.answer(answer)
                if read is not None:
                    self._reads.append(read)
        leading.send_appends(self._commit_index)

    @property
    def _committable(self) -> int:
        """What may be applied once this Ready is on the disk: for a majority of one, all of it."""
        if self._leading is not None and self._membership.is_sole:
            return self._log.last_index
        return self._commit_index

    def advance(self, ready: Ready, now_ns: int) -> None:
        assert ready is self._ready, "not the Ready that is out"
        self._ready = None
        self._now_ns = now_ns
        if ready.hard_state is not None:
            self._stored = ready.hard_state
        self._log.stored(ready.records)
        self._commit(ready.committed_index)
        self._applied_index = ready.committed_index
        self._membership.committed(ready.committed_index)
        if self._leading is not None:
            if self._commit_index < self._log.stable_index:
                self._commit_agreed()
            self._leading_committed()
        elif self._role is Role.CANDIDATE and self._stored == (self.term, self._server):
            assert self._ballot is not None
            self._ballot.count(self._server, True)
            self._tally()

    def abandon(self, ready: Ready, now_ns: int) -> None:
        assert ready is self._ready, "not the Ready that is out"
        self._ready = None
        self._now_ns = now_ns
        self._reads = [*ready.reads, *self._reads]
        self._messages = []  # those that came meanwhile may speak of what is forgotten now
        was_sole = self._membership.is_sole
        self._log.forget_unstable()
        self._membership.truncated_from(self._log.last_index + 1)
        # Committed it is, but this member has to hear of it again.
        self._commit_index = min(self._commit_index, self._log.last_index)
        is_sole = self._membership.is_sole
        if self._leading is not None and not (was_sole and is_sole):
            # What was sent of it may be on other disks, and become committed there.
            self._leading.resign_to(self._leading.most_up_to_date())
            self._follow(0)
            if not is_sole:
                self._patience.forgo(now_ns)
        elif self._leading is not None and self._log.last_term != self.term:
            self._follow(0)  # even the first record of its leadership is gone: stand again, later
        self._patience.reset(now_ns)

    def _check_invariants(self) -> None:
        """What is written at the fields, in one place."""
        log, term = self._log, self.term
        assert self._applied_index <= self._commit_index <= log.last_index
        assert log.stable_index + len(log.unstable) == log.last_index
        assert not log.unstable or log.unstable[0].index == log.stable_index + 1
        assert log.last_term <= term, "no record is of a term to come"
        assert self._membership.index <= log.last_index
        assert self._stored.term <= term
        assert self._stored.term < term or self._stored.vote in (0, self._hard_state.vote)
        assert (self._leading is not None) == (self._role is Role.LEADER)
        assert (self._leader == self._server) == (self._role is Role.LEADER)
        if self._leading is not None:
            assert self._hard_state == (term, self._server) == self._stored
            self._leading.check_invariants()
