"""The test of the tests: members that break one rule each are caught, by a few random walks.

Each mutation is a change of the core's source; one that does not fit any more says so. Safety is
mostly found broken by the monitor, sometimes by an assertion in the core itself.
"""

import pytest

from . import harness
from .mutants import Mutation, mutant
from .nemesis import walk
from .test_paper_5_logs import (
    test_nothing_is_committed_that_the_follower_may_have_from_somebody_else,
)
from .test_paper_6_members import test_who_was_removed_stands_until_that_is_committed
from .test_paper_7_8 import test_a_request_to_stand_that_comes_late_breaks_no_lease

SEEDS = 150
STEPS = 400

MUTATIONS = {
    "votes-twice": Mutation(
        "member_votes",
        "free = self._hard_state.vote == sender or ("
        "not self._hard_state.vote and not self._leader)",
        "free = True",
    ),
    "commits-by-counting": Mutation(
        "member_leads", " and self._log.terms.at(agreed) == self.term:", ":"
    ),
    "votes-before-the-sync": Mutation(
        "member_votes",
        "self._send(sender, VoteReply(self.term, False, granted))",
        "self._send(sender, VoteReply(self.term, False, granted))"
        "; self._early.append(self._messages.pop())",
    ),
    "asks-for-votes-before-the-sync": Mutation(
        "member_votes",
        "                self._send(voter, message)",
        "                self._send(voter, message); self._early.append(self._messages.pop())",
    ),
    "answers-before-the-sync": Mutation(
        "core",
        "                self._messages.pop()\n        self._send(sender, reply)",
        "                self._messages.pop()\n        self._send(sender, reply)"
        "; self._early.append(self._messages.pop())",
    ),
    "never-stores-its-vote": Mutation(
        "core",
        "hard_state = None if self._hard_state == self._stored else self._hard_state",
        "hard_state = None; self._stored = self._hard_state",
    ),
    "counts-its-own-unsynced-record": Mutation(
        "leading", "return self._log.stable_index", "return self._log.last_index"
    ),
    "reads-without-the-lease": Mutation(
        "leading", "now_ns < self.lease_until_ns(committed_own=True)", "True"
    ),
    "reads-before-a-commit-of-its-own": Mutation(
        "member_leads",
        "        if self._committed_own:\n            for answer",
        "        if True:\n            for answer",
    ),
    "lease-without-drift": Mutation(
        "reads",
        "max(0, patience - patience // timing.drift_parts - timing.drift_ns)",
        "patience",
    ),
    "lease-from-the-answer": Mutation(
        "reads",
        "self.confirmed_ns = self._open.popleft()[1]",
        "self._open.popleft(); self.confirmed_ns = self._open[-1][1] if self._open else 10**18",
    ),
    "forgets-whom-it-heard": Mutation(
        "election",
        '        self._heard_ns = now_ns\n        """When a live',
        '        self._heard_ns = now_ns - timing.election_min_ns\n        """When a live',
    ),
    "votes-though-it-hears-a-leader": Mutation(
        "election", "return now_ns - self._heard_ns < self._timing.election_min_ns", "return False"
    ),
    "votes-for-shorter-logs": Mutation(
        "log_view",
        "return (last_term, last_index) >= (self.last_term, self.last_index)",
        "return last_term >= self.last_term",
    ),
    "votes-for-older-logs": Mutation(
        "log_view",
        "return (last_term, last_index) >= (self.last_term, self.last_index)",
        "return last_index >= self.last_index",
    ),
    "truncates-on-every-append": Mutation(
        "following",
        "if record.index > commit_index and log.terms.at(record.index) != record.term:",
        "if record.index > commit_index:",
    ),
    "does-not-check-what-is-before": Mutation(
        "following",
        "if previous > commit_index and log.terms.at(previous) != message.previous_term:",
        "if previous > log.last_index:",
    ),
    "beats-with-every-commit-index": Mutation(
        "replication", "told = min(commit_index, self.match_index)", "told = commit_index"
    ),
    "one-answer-is-a-majority": Mutation(
        "membership", "return values[(len(values) - 1) // 2]", "return values[-1]"
    ),
    "one-half-of-a-joint-group-decides": Mutation(
        "membership",
        "self.halves = (now.voters, now.voters_before) if now.voters_before else (now.voters,)",
        "self.halves = (now.voters,)",
    ),
    "does-not-wait-for-the-joint-group": Mutation(
        "member_leads",
        "if membership.index > self._commit_index or not self._committed_own:",
        "if not self._committed_own:",
    ),
    "keeps-a-lost-configuration": Mutation(
        "membership", "        if self.index < index:\n", "        if True:\n"
    ),
    "forgets-the-configuration-of-a-snapshot": Mutation(
        "core", "        self._membership.restored(index, configuration)\n", ""
    ),
    "takes-what-came-meanwhile-for-stored": Mutation(
        "log_view",
        "                    del self.unstable[:count]\n"
        "                    self.stable_index = record.index",
        "                    self.unstable.clear()\n"
        "                    self.stable_index = self.terms.last_index",
    ),
}

QUICK = {
    "counts-its-own-unsynced-record": 13,
    "forgets-whom-it-heard": 28,
    "reads-before-a-commit-of-its-own": 71,
    "votes-for-older-logs": 27,
}
"""Where a seed that finds it soon is known. Only for speed: any other ones will do."""

BY_HAND = {
    "goes-silent-outside-the-group": (
        Mutation(
            "membership",
            """return self.is_voter or any(
            self._server in known.voters or self._server in known.voters_before
            for _, known in self._known
        )""",
            "return self.is_voter",
        ),
        test_who_was_removed_stands_until_that_is_committed,
    ),
    "lease-after-handing-over": (
        Mutation("leading", "or self.transfer_to or self._resigned:", "or self.transfer_to:"),
        test_a_request_to_stand_that_comes_late_breaks_no_lease,
    ),
    "believes-every-commit-index": (
        Mutation(
            "core",
            "self._commit(min(message.commit_index, last_new))",
            "self._commit(min(message.commit_index, self._log.last_index))",
        ),
        test_nothing_is_committed_that_the_follower_may_have_from_somebody_else,
    ),
}
"""Those that need more luck than a few walks have, and the test that is made for them."""


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_caught(name):
    make = mutant(name, MUTATIONS[name])
    first = QUICK.get(name, 0)
    for seed in range(first, first + SEEDS):
        try:
            walk(seed, STEPS, make)
        except Exception:
            return
    pytest.fail(f"{SEEDS} walks did not notice {name}")


@pytest.mark.parametrize("name", BY_HAND)
def test_mutation_is_caught_by(name, monkeypatch):
    mutation, test = BY_HAND[name]
    test()
    monkeypatch.setattr(harness, "MAKE", mutant(name, mutation))
    with pytest.raises(AssertionError):
        test()
