"""One member's part in consensus: its role and term, and what comes in. Raft, sans-IO. Pure.

Sections without a name are those of Ongaro and Ousterhout, "In Search of an Understandable
Consensus Algorithm (Extended Version)"; the thesis is Ongaro's "Consensus: Bridging Theory and
Practice". Leading is a life of its own: ``leading.py``.
"""

from collections.abc import Sequence

from ...fs.errors import Code, TideError
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
from .contract import Begin, Core, Envelope, Ready, Record, Role
from .following import take_append
from .leading import Leading
from .member_votes import VotingMember


class Member(VotingMember, Core):
    """See the contract."""

    def __init__(self, begin: Begin) -> None:
        super().__init__(begin)
        if self._membership.always_sole:
            self._stand(transfer=False)  # nobody else can lead, or hold a lease

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
        if self._membership.is_removed(sender) and not self._hears_removed(sender):
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

    def _hears_removed(self, sender: int) -> bool:
        """It may lead until this is committed, or be just hearing of it."""
        if self._leading is not None:
            return self._leading.sees_off(sender)
        return sender == self._leader

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

    # --- following -------------------------------------------------------------------------------

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

    def wants_snapshot(self, index: int, term: int) -> bool:
        return index > self._commit_index and self._log.terms.at(index) != term

    def restored(self, index: int, term: int, configuration: Configuration, now_ns: int) -> None:
        assert self._ready is None, "only while no Ready is out"
        assert self._leading is None, "a leader has all that is committed"
        assert self.wants_snapshot(index, term), (index, term, self._commit_index)
        self._now_ns = now_ns
        if term > self.term:
            self._adopt(term)
        self._take_back_promises()
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
        self._check_invariants()
        records = tuple(self._log.unstable)
        self._ready = Ready(
            self._early, hard_state, records, self._messages, committed_index, self._reads
        )
        self._early, self._messages, self._reads = [], [], []
        return self._ready

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
        if self._leading is not None:
            self._lead_after_loss(self._leading, was_sole and self._membership.is_sole)
        self._patience.reset(now_ns)

    def _lead_after_loss(self, leading: Leading, alone: bool) -> None:
        """Records of a leader are forgotten; ``alone``: nobody else can have them."""
        if alone and self._log.last_term == self.term:
            leading.rolled_back()
            return
        best = leading.most_up_to_date()
        if best and not alone:
            leading.resign_to(best)  # it may have those records, and they may become committed
        self._follow(0)
        if not self._membership.is_sole:
            self._patience.forgo(self._now_ns)

    def _check_invariants(self) -> None:
        """What is written at the fields, in one place."""
        log, term = self._log, self.term
        assert self._applied_index <= self._commit_index <= log.last_index
        assert log.last_index == log.terms.last_index
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
