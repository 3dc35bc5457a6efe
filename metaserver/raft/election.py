"""Standing for election: the votes that came in, and when patience ends. Pure.

Raft section 5.2; pre-vote: thesis section 9.6; who heard from a leader gives no vote: 4.2.3.
"""

from collections.abc import Callable

from .contract import Timing
from .membership import Membership


class Ballot:
    """The votes of one election, or of the question before it."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._granted: set[int] = set()
        self._refused: set[int] = set()

    def count(self, voter: int, granted: bool) -> None:
        """Each voter's first answer counts. Who has no vote is not heard."""
        if voter in self._membership.voters and voter not in self._granted | self._refused:
            (self._granted if granted else self._refused).add(voter)

    @property
    def won(self) -> bool:
        return self._membership.is_majority(self._granted)

    @property
    def lost(self) -> bool:
        """Whether those who have not refused are no majority any more."""
        return not self._membership.is_majority(self._membership.voters - self._refused)


class Patience:
    """When a member last heard from a leader, and when it stands for election itself."""

    def __init__(self, timing: Timing, below: Callable[[int], int], now_ns: int) -> None:
        self._timing = timing
        self._below = below
        self._heard_ns = now_ns
        """When a live leader was heard. A start counts: before it there may have been one, whose
        lease rests on this member (thesis section 6.4.1)."""
        self._not_before_ns = now_ns
        """This member does not stand for election before."""
        self._excused = False
        """Whether a late tick was forgiven since a leader was heard."""
        self._wait_ns = 0
        """From one to two shortest election time-outs, drawn anew for each election."""
        self.deadline_ns: int | None = None
        """When to stand for election; None: never."""
        self.reset(now_ns)

    def reset(self, now_ns: int) -> None:
        """Wait for a random time (section 5.2)."""
        shortest = self._timing.election_min_ns
        self._wait_ns = shortest + self._below(shortest)
        self._wait(now_ns)

    def _wait(self, now_ns: int) -> None:
        self.deadline_ns = max(now_ns + self._wait_ns, self._not_before_ns)

    def heard(self, now_ns: int) -> None:
        """From a leader."""
        self._heard_ns = now_ns
        self._excused = False
        self._wait(now_ns)

    def forgo(self, now_ns: int) -> None:
        """Others should lead: do not stand for two of the longest election time-outs."""
        self._not_before_ns = now_ns + 4 * self._timing.election_min_ns

    def released(self, now_ns: int) -> None:
        """This member has led itself, and does not any more: it need not protect its own lease."""
        self._heard_ns = now_ns - self._timing.election_min_ns
        self._excused = False

    def may_stand(self, now_ns: int) -> bool:
        return now_ns >= self._not_before_ns

    def is_sticky(self, now_ns: int) -> bool:
        """Whether a leader was heard so lately that nobody else gets a vote."""
        return now_ns - self._heard_ns < self._timing.election_min_ns

    def ended(self, now_ns: int) -> bool:
        """Whether the deadline has passed. A process that was paused gets a moment first, to find
        what the leader has sent it meanwhile."""
        if self.deadline_ns is None or now_ns < self.deadline_ns:
            return False
        if now_ns - self.deadline_ns > self._timing.heartbeat_ns and not self._excused:
            self._excused = True
            self.deadline_ns = now_ns + self._timing.heartbeat_ns
            return False
        self._excused = False
        return True
