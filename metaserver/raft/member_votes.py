"""Standing for election, and voting (section 5.2; thesis sections 4.2.3 and 9.6). Pure."""

from ...fs.messages.raft import RequestVote, VoteReply
from .contract import TERM_MAX, HardState, Role
from .election import Ballot
from .member_leads import LeadingMember


class VotingMember(LeadingMember):
    """Asks for votes and gives them."""

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
        if sticky and not message.transfer:
            # Without taking note of the term (thesis section 4.2.3).
            self._send(sender, VoteReply(self.term, False, False))
            return
        if message.term > self.term:
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
