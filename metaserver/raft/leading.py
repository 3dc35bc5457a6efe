"""What a member knows and does as long as it leads; thrown away when it does not any more. Pure."""

from collections.abc import Callable, Iterator

from ...fs.messages.raft import (
    AppendReply,
    HeartbeatReply,
    RaftMessage,
    ReadIndex,
    TimeoutNow,
)
from .contract import Progress, ReadReady, Timing
from .log_view import LogView
from .membership import Membership
from .reads import Answer, Asker, LeaderReads, Rounds, lease_ns
from .replication import Follower

UNBOUNDED_NS = (1 << 63) - 1
"""The lease of who is a majority on its own."""

Emit = Callable[[int, RaftMessage], None]
"""Sends a message to a member, early: a leader's word promises nothing about its own disk."""


class Leading:
    """One leadership: its followers, its rounds, its reads, its end."""

    def __init__(
        self,
        server: int,
        term: int,
        log: LogView,
        membership: Membership,
        timing: Timing,
        emit: Emit,
        now_ns: int,
    ) -> None:
        self._server = server
        self._term = term
        self._log = log
        self._membership = membership
        self._timing = timing
        self._emit = emit
        self._followers: dict[int, Follower] = {}
        """All other members, and those that leave until they know it."""
        self._leaving_until_ns: dict[int, int] = {}
        """Who is not a member any more, by what is committed, and how long it is told so."""
        self._rounds = Rounds()
        self._reads = LeaderReads()
        self._heartbeat_ns = now_ns
        """When the next round is due."""
        self._excused_ns = now_ns
        """Nobody is blamed for having been silent before."""
        self._excused_heard_ns = -1
        self.settled_index = 0
        """The configuration at that index is committed, and what follows from that is done."""
        self.transfer_to = 0
        """The voter that is to lead next; 0: none."""
        self._transfer_until_ns = 0
        self._resigned = False
        """Whether a TimeoutNow was sent: however late it arrives, it makes somebody stand for
        election with votes that stickiness does not hold back. So there is no lease any more in
        this term."""
        self.adopt_members(now_ns)

    # --- who follows -----------------------------------------------------------------------------

    def adopt_members(self, now_ns: int) -> None:
        """The configuration is another one."""
        for peer in self._membership.peers:
            if peer not in self._followers:
                self._followers[peer] = Follower(self._log, now_ns)

    def rolled_back(self) -> None:
        """Records that had been sent to nobody are forgotten, a configuration perhaps."""
        for server in [one for one in self._followers if one not in self._membership.peers]:
            self._drop(server)
        for follower in self._followers.values():
            follower.rolled_back()

    def see_off(self, now_ns: int) -> None:
        """The configuration is committed. Who is not in it goes on getting the log until it knows
        that, or is slow to: who does not know stands for election, for ever and in vain."""
        for server in self._followers:
            if server not in self._membership.peers and server not in self._leaving_until_ns:
                self._leaving_until_ns[server] = now_ns + 4 * self._timing.election_min_ns

    def sees_off(self, server: int) -> bool:
        """Whether that one may still answer, although it was removed."""
        return server in self._leaving_until_ns

    def resign(self, commit_index: int) -> None:
        """Led the group out of its own membership (Raft section 6): whoever has most goes on."""
        for server, follower in self._followers.items():
            if server not in self._membership.peers:
                self._emit(server, follower.news(self._term, commit_index, self._rounds.last))
        self.resign_to(self.most_up_to_date())

    def _say_goodbye(self, server: int, follower: Follower, commit_index: int) -> None:
        """The last word to one that leaves, when it has the record that says so."""
        if server in self._leaving_until_ns and follower.match_index >= self.settled_index:
            self._emit(server, follower.news(self._term, commit_index, self._rounds.last))
            self._drop(server)

    def _drop(self, server: int) -> None:
        del self._followers[server]
        self._leaving_until_ns.pop(server, None)

    def progress(self) -> dict[int, Progress]:
        return {server: self._followers[server].progress() for server in self._membership.peers}

    @property
    def has_work(self) -> bool:
        """Whether there may be something to send or to answer."""
        return bool(self._followers) or self._reads.has_new

    @property
    def last_round(self) -> int:
        return self._rounds.last

    def most_up_to_date(self) -> int:
        """Which other voter has most of the log; 0: there is none."""
        others = [one for one in self._membership.current.voters if one in self._followers]
        return max(others, key=lambda one: self._followers[one].match_index, default=0)

    # --- agreement -------------------------------------------------------------------------------

    def agreed_index(self) -> int:
        """Up to where a majority has the log on disk (Raft sections 5.3, 5.4.2)."""
        return self._membership.agreed(self._match_index)

    def _match_index(self, server: int) -> int:
        if server == self._server:
            return self._log.stable_index
        return self._followers[server].match_index

    def _round(self, server: int) -> int:
        return self._rounds.last if server == self._server else self._followers[server].round

    def _quorum_ns(self, now_ns: int) -> int:
        """When a majority was heard last."""

        def heard_ns(server: int) -> int:
            if server == self._server:
                return now_ns
            follower = self._followers[server]
            return max(follower.heard_ns, follower.since_ns)

        return self._membership.agreed(heard_ns)

    def is_deserted(self, now_ns: int) -> bool:
        """Whether no majority has answered for a shortest election time-out (thesis section 6.2).

        A process that was paused gets that time once, to find what was answered meanwhile.
        """
        heard_ns = self._quorum_ns(now_ns)
        late_ns = now_ns - max(heard_ns, self._excused_ns) - self._timing.election_min_ns
        if late_ns < 0:
            return False
        if late_ns > self._timing.heartbeat_ns and heard_ns != self._excused_heard_ns:
            self._excused_ns, self._excused_heard_ns = now_ns, heard_ns
            return False
        return True

    def deadline_ns(self, now_ns: int) -> int | None:
        """When ``tick`` has something to do."""
        if not self._followers:
            return None
        patience_ns = self._timing.election_min_ns
        deadline_ns = min(
            self._heartbeat_ns,
            max(self._quorum_ns(now_ns), self._excused_ns) + patience_ns,
        )
        return min(deadline_ns, self._transfer_until_ns) if self.transfer_to else deadline_ns

    # --- rounds ----------------------------------------------------------------------------------

    def begin_round(self, now_ns: int, commit_index: int, *, committed_own: bool) -> None:
        """Say to all that this member leads, and ask whether they agree."""
        number = self._rounds.begin(now_ns)
        if committed_own:
            self._reads.bind(number, commit_index)
        for server, follower in self._followers.items():
            self._emit(server, follower.heartbeat(self._term, commit_index, number))
        self._heartbeat_ns = now_ns + self._timing.heartbeat_ns

    def tick(self, now_ns: int, commit_index: int, *, committed_own: bool) -> None:
        """It is that late."""
        if self.transfer_to and now_ns >= self._transfer_until_ns:
            self.transfer_to = 0
        for server, until_ns in list(self._leaving_until_ns.items()):
            if now_ns >= until_ns:
                self._drop(server)
        if self._followers and now_ns >= self._heartbeat_ns:
            self.begin_round(now_ns, commit_index, committed_own=committed_own)
            self._hand_over()  # once more: it may have been lost

    def lease_until_ns(self, *, committed_own: bool) -> int:
        """See the contract."""
        if not committed_own or self.transfer_to or self._resigned:
            return 0
        if self._membership.is_sole:
            return UNBOUNDED_NS
        began_ns = self._rounds.confirmed_ns
        return 0 if began_ns is None else began_ns + lease_ns(self._timing)

    # --- answers ---------------------------------------------------------------------------------

    def appended(self, sender: int, reply: AppendReply, now_ns: int, commit_index: int) -> bool:
        """An Append was answered. Whether more may be committed now."""
        follower = self._followers.get(sender)
        if follower is None:
            return False  # it has left meanwhile
        follower.heard_ns = now_ns
        rose = follower.appended(reply)
        self._say_goodbye(sender, follower, commit_index)
        if rose and sender == self.transfer_to:
            self._hand_over()
        return rose

    def beaten(self, sender: int, reply: HeartbeatReply, now_ns: int) -> list[Answer]:
        """A heartbeat was answered: the reads that may go on now."""
        follower = self._followers.get(sender)
        if follower is None:
            return []
        follower.heard_ns = now_ns
        follower.beaten(reply)
        number = self._membership.agreed(self._round)
        self._rounds.confirm(number)
        return self._reads.confirmed(number)

    # --- sending ---------------------------------------------------------------------------------

    def send_appends(self, commit_index: int) -> None:
        """All that can go out now."""
        # Whoever is a majority on its own may yet have to forget what found no room on its disk:
        # nobody else is to have it before.
        log, sole = self._log, self._membership.is_sole
        last_index = log.stable_index if sole else log.last_index
        for server, follower in self._followers.items():
            if follower.has_all(last_index):
                continue
            for append in follower.appends(self._term, commit_index, last_index, self._rounds.last):
                self._emit(server, append)

    def tell_readers(self, commit_index: int) -> None:
        """Who waits for a read hears what is committed without waiting for the next round."""
        for server, follower in self._followers.items():
            told = follower.told_index
            if told < follower.reads_index and told < min(commit_index, follower.match_index):
                self._emit(server, follower.news(self._term, commit_index, self._rounds.last))

    # --- reads -----------------------------------------------------------------------------------

    def ask(self, asker: Asker) -> None:
        """A read is to be answered."""
        self._reads.add(asker)

    def serve_reads(self, now_ns: int, commit_index: int) -> Iterator[Answer]:
        """Those that may be answered without another round. Own records are committed."""
        if not self._reads.has_new:
            return
        # Who is a majority on its own leads as long as it does not give it away, lease or not.
        if self._membership.is_sole or now_ns < self.lease_until_ns(committed_own=True):
            for asker in self._reads.take_all():
                yield Answer(asker, commit_index)
        elif self._reads.want_round:
            self.begin_round(now_ns, commit_index, committed_own=True)

    def answer(self, answer: Answer) -> ReadReady | None:
        """To be told to the driver, or, when another member asked, sent to it: None."""
        (server, token), index = answer
        if server == self._server:
            return ReadReady(token, index)
        self._emit(server, ReadIndex(self._term, token, index))
        follower = self._followers.get(server)
        if follower is not None:
            follower.reads_index = max(follower.reads_index, index)
        return None

    def fail_reads(self) -> Iterator[ReadReady]:
        """This member does not lead any more."""
        for server, token in self._reads.take_all():
            if server == self._server:
                yield ReadReady(token, None)
            else:
                self._emit(server, ReadIndex(self._term, token, -1))

    # --- handing over ----------------------------------------------------------------------------

    def transfer(self, server: int, now_ns: int) -> None:
        """Let ``server``, a voter, lead (thesis section 3.10)."""
        self.transfer_to = server
        self._transfer_until_ns = now_ns + 2 * self._timing.election_min_ns
        self._hand_over()

    def _hand_over(self) -> None:
        target = self.transfer_to
        if target and target not in self._membership.voters:
            self.transfer_to = 0
        elif target and self._followers[target].match_index == self._log.last_index:
            self.resign_to(target)

    def resign_to(self, server: int) -> None:
        """Let it stand for election at once."""
        self._resigned = True
        self._emit(server, TimeoutNow(self._term))

    def check_invariants(self) -> None:
        """What is written at the fields."""
        for follower in self._followers.values():
            follower.check_invariants()
