"""What a member does to lead, and what it is asked to do then. Pure."""

from collections.abc import Sequence

from ...fs.codec import pack
from ...fs.errors import Code, TideError
from ...fs.messages.places import ServerPlace
from ...fs.messages.raft import (
    AppendReply,
    AskReadIndex,
    Configuration,
    HeartbeatReply,
    ReadIndex,
)
from .contract import HardState, Kind, ReadReady, Record, Role
from .leading import Leading
from .member_state import MemberState
from .membership import after_joint, is_same_group, plan_change
from .reads import Asker


class LeadingMember(MemberState):
    """Begins to lead, commits, changes the group; takes proposals and reads."""

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

    # --- followers answer ------------------------------------------------------------------------

    def _append_answered(self, sender: int, reply: AppendReply) -> None:
        if self._leading is not None and self._leading.appended(
            sender, reply, self._now_ns, self._commit_index
        ):
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
            if membership.index <= self._applied_index:  # what it has committed is answered
                leading.resign(self._commit_index)
                self._follow(0)
            return
        leading.settled_index = membership.index
        leading.see_off(self._now_ns)
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

    def _prepare_leading(self, leading: Leading) -> None:
        if self._committed_own:
            for answer in leading.serve_reads(self._now_ns, self._commit_index):
                read = leading.answer(answer)
                if read is not None:
                    self._reads.append(read)
            leading.tell_readers(self._commit_index)
        leading.send_appends(self._commit_index)
