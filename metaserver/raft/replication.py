"""What a leader knows of one other member's log, and what it sends there next. Pure.

Probe until the logs are known to agree somewhere, then replicate: a pipeline of Appends, each
behind the one before it, none of them waiting for an answer (thesis section 10.2.1).
"""

from collections import deque
from collections.abc import Iterator
from enum import Enum

from ...fs.limits import APPENDS_IN_FLIGHT_MAX, LOG_BATCH_MAX_ENTRIES
from ...fs.messages.raft import Append, AppendReply, Heartbeat, HeartbeatReply
from .contract import Progress
from .log_view import LogView


class Flow(Enum):
    """How Appends flow to a member."""

    PROBE = "probe"  # one at a time: it is not known yet where the logs agree
    REPLICATE = "replicate"  # a pipeline
    SNAPSHOT = "snapshot"  # none: what it needs is not in the log any more


class Follower:
    """One other member, voter or learner, in the eyes of the leader."""

    __slots__ = (
        "_checked_next",
        "_checked_round",
        "_flow",
        "_in_flight",
        "_log",
        "_probe_last",
        "_probe_round",
        "_probing",
        "_trial_index",
        "heard_ns",
        "match_index",
        "next_index",
        "reads_index",
        "round",
        "since_ns",
        "told_index",
    )

    def __init__(self, log: LogView, now_ns: int) -> None:
        self._log = log
        self.match_index = 0
        """Its disk has the leader's log up to here. Only rises; at most the log's last index."""
        self.next_index = log.last_index + 1
        """The next record to send. Above ``match_index``; a guess while probing."""
        self._flow = Flow.PROBE
        self._probing = False
        """While probing: an Append is under way."""
        self._probe_round = 0
        """The last round that had begun when it was sent."""
        self._probe_last = 0
        """The last record in it."""
        self._in_flight: deque[int] = deque()
        """While replicating: the last index of each unanswered Append, rising."""
        self._checked_round = 0
        self._checked_next = 1
        """When that round began, everything before that index had been sent."""
        self._trial_index: int | None = None
        """While a snapshot is needed: where the logs may agree nevertheless."""
        self.round = 0
        """The last round of heartbeats that it answered."""
        self.heard_ns = 0
        """When it last answered anything; 0: never."""
        self.since_ns = now_ns
        """Since when it is asked."""
        self.told_index = 0
        """The highest commit index that it was told."""
        self.reads_index = 0
        """A read of it waits until it has heard that this is committed."""

    @property
    def needs_snapshot(self) -> bool:
        return self._flow is Flow.SNAPSHOT

    def progress(self) -> Progress:
        return Progress(self.match_index, self.next_index, self.needs_snapshot, self.heard_ns)

    # --- sending -------------------------------------------------------------------------------

    def has_all(self, last_index: int) -> bool:
        """Whether there is nothing to send to it: the short way out of ``appends``."""
        return self.next_index > last_index and self._flow is Flow.REPLICATE

    def appends(
        self, term: int, commit_index: int, last_index: int, round_: int
    ) -> Iterator[Append]:
        """What to send now, of the records up to ``last_index``. They count as sent."""
        if self._flow is Flow.REPLICATE:
            while self.next_index <= last_index and len(self._in_flight) < APPENDS_IN_FLIGHT_MAX:
                if self.next_index < self._log.terms.first_index:
                    self._flow = Flow.SNAPSHOT
                    return
                append = self._append(self.next_index - 1, term, commit_index, last_index)
                self.next_index += append.count
                self._in_flight.append(self.next_index - 1)
                yield append
        elif self._flow is Flow.PROBE:
            if self.next_index < self._log.terms.first_index:
                self._flow = Flow.SNAPSHOT
            elif not self._probing:
                self._probing, self._probe_round = True, round_
                append = self._append(self.next_index - 1, term, commit_index, last_index)
                self._probe_last = append.previous_index + append.count
                yield append
        elif self._trial_index is not None:
            index, self._trial_index = self._trial_index, None
            yield self._append(index, term, commit_index, index)

    def _append(self, previous: int, term: int, commit_index: int, last_index: int) -> Append:
        count = min(last_index - previous, LOG_BATCH_MAX_ENTRIES)
        previous_term = self._log.terms.at(previous)
        assert previous_term is not None, previous
        self.told_index = max(self.told_index, min(commit_index, self.match_index))
        return Append(term, previous, previous_term, commit_index, max(0, count), [])

    def heartbeat(self, term: int, commit_index: int, round_: int) -> Heartbeat:
        """Of that round."""
        if self._checked_round <= self.round:
            self._checked_round, self._checked_next = round_, self.next_index
        return self.news(term, commit_index, round_)

    def news(self, term: int, commit_index: int, round_: int) -> Heartbeat:
        """One more of a round that has begun: only to tell what is committed."""
        # No higher than what it is known to have: its other records may not be the leader's.
        told = min(commit_index, self.match_index)
        self.told_index = max(self.told_index, told)
        return Heartbeat(term, told, round_)

    # --- answers -------------------------------------------------------------------------------

    def appended(self, reply: AppendReply) -> bool:
        """It answered an Append. Whether ``match_index`` rose."""
        if not reply.accepted:
            self._refused(reply)
            return False
        index = reply.index
        rose = index > self.match_index
        if rose:
            self.match_index = index
            self.next_index = max(self.next_index, index + 1)
        if self._flow is Flow.REPLICATE:
            while self._in_flight and self._in_flight[0] <= index:
                self._in_flight.popleft()
        elif rose or index >= self.next_index - 1:
            self._replicate()
        return rose

    def _replicate(self) -> None:
        if self.match_index + 1 >= self._log.terms.first_index:
            self._flow = Flow.REPLICATE
            self._in_flight.clear()
            self.next_index = self.match_index + 1
            if self._probing and self._probe_last >= self.next_index:
                # It goes over the wire in pieces, of which only the first was answered yet.
                self._in_flight.append(self._probe_last)
                self.next_index = self._probe_last + 1

    def _refused(self, reply: AppendReply) -> None:
        if reply.index <= self.match_index:
            return  # late: it has agreed to more since
        if self._flow is Flow.PROBE and reply.index != self.next_index - 1:
            return  # late: not the Append that is under way
        if self._flow is Flow.SNAPSHOT:
            return
        # Each side skips all records whose terms rule out that the logs agree there.
        agreed = self._log.agreement(min(reply.hint_index, reply.index - 1), reply.hint_term)
        self._probe(agreed + 1)

    def _probe(self, next_index: int) -> None:
        self.next_index = max(next_index, self.match_index + 1)
        self._flow = Flow.PROBE
        self._probing = False
        self._in_flight.clear()

    def beaten(self, reply: HeartbeatReply) -> None:
        """It answered a heartbeat. Messages may be lost; what was sent before that heartbeat, and
        is not there now, is sent again."""
        self.round = max(self.round, reply.round)
        common_index = min(reply.last_index, self._log.last_index)
        if self._flow is Flow.SNAPSHOT:
            if common_index >= self._log.terms.first_index - 1:
                self._trial_index = common_index
        elif self._flow is Flow.PROBE:
            if reply.round > self._probe_round:
                self._probing = False
        elif reply.round >= self._checked_round and self.match_index + 1 < self._checked_next:
            self._probe(min(common_index + 1, self._checked_next))

    def rolled_back(self) -> None:
        """The leader forgot records that it had sent to nobody."""
        self.next_index = min(self.next_index, self._log.last_index + 1)
        self._probe_last = min(self._probe_last, self._log.last_index)
        self._trial_index = None

    def check_invariants(self) -> None:
        """What is written at the fields."""
        assert self.match_index < self.next_index <= self._log.last_index + 1
        assert self.told_index <= self.match_index
        assert len(self._in_flight) <= APPENDS_IN_FLIGHT_MAX
