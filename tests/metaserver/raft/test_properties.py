"""Figure 3 of the Raft paper, and more (see monitor.py), under whatever may happen to a group.

Hypothesis puts acts of the nemesis together and finds the shortest story of a failure; plain random
walks with fixed seeds get further in the same time. ``RAFT_EXAMPLES=5000 RAFT_WALKS=20000 pytest``
on this file tries harder; a walk that fails names its seed.
"""

import os
import random
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from tidefs.metaserver.raft import replication

from .mutants import small_batches
from .nemesis import Nemesis, walk

EXAMPLES = int(os.environ.get("RAFT_EXAMPLES", "30"))
WALKS = int(os.environ.get("RAFT_WALKS", "100"))
SLICES = 5
STEPS = 400

SEEN = (
    *("elected", "committed", "crashed", "abandoned", "replaced", "installed", "refused", "read"),
    *("RequestVote", "VoteReply", "Append", "AppendReply", "Heartbeat", "HeartbeatReply"),
    *("TimeoutNow", "AskReadIndex", "ReadIndex"),
)
"""What must have come about somewhere in the walks."""

NUMBERS = st.integers(0, (1 << 16) - 1)
FEW = st.integers(0, 7)
TIMES_MS = st.integers(0, 599)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    for name in ("LOG_BATCH_MAX_ENTRIES", "APPENDS_IN_FLIGHT_MAX"):
        monkeypatch.setattr(replication, name, getattr(replication, name))
    small_batches(replication)


class Group(RuleBasedStateMachine):
    """Each rule is an act; the monitor inside checks every property at every step."""

    @initialize(clocks=st.integers(0, 3**6 - 1), patience=st.integers(0, 1 << 16))
    def begin(self, clocks, patience):
        self.nemesis = Nemesis(draws=random.Random(patience).randrange)
        self.nemesis.begin(clocks)

    @rule(ms=TIMES_MS)
    def run(self, ms):
        self.nemesis.run(ms)

    @rule(ms=TIMES_MS)
    def pause(self, ms):
        self.nemesis.pause(ms)

    @rule(number=FEW, alone=st.booleans())
    def tick(self, number, alone):
        (self.nemesis.impatient if alone else self.nemesis.tick)(number)

    @rule(number=NUMBERS)
    def deliver(self, number):
        self.nemesis.deliver(number)

    @rule()
    def deliver_all(self):
        self.nemesis.deliver_all()

    @rule(number=NUMBERS, again=st.booleans())
    def lose_or_double(self, number, again):
        (self.nemesis.double if again else self.nemesis.lose)(number)

    @rule(one=FEW, other=FEW)
    def cut(self, one, other):
        self.nemesis.cut(one, other)

    @rule(mask=st.integers(0, 127))
    def part(self, mask):
        self.nemesis.part(mask)

    @rule()
    def isolate_leader(self):
        self.nemesis.isolate_leader()

    @rule()
    def heal(self):
        self.nemesis.heal()

    @rule(number=FEW, torn=st.integers(0, 3), leader=st.booleans())
    def crash(self, number, torn, leader):
        (self.nemesis.crash_leader if leader else self.nemesis.crash)(number, torn)

    @rule(number=FEW, at_once=st.booleans())
    def restart(self, number, at_once):
        (self.nemesis.restart_at_once if at_once else self.nemesis.restart)(number, 0)

    @rule(number=NUMBERS, ms=st.integers(0, 1_999))
    def delay(self, number, ms):
        self.nemesis.delay(number, ms)

    @rule(number=FEW)
    def part_from_leader(self, number):
        self.nemesis.part_from_leader(number)

    @rule(number=FEW)
    def hold(self, number):
        self.nemesis.hold(number)

    @rule(number=FEW)
    def duty(self, number):
        self.nemesis.duty(number)

    @rule(number=FEW)
    def release(self, number):
        self.nemesis.release(number)

    @rule(number=FEW, tears=st.integers(0, 1), full=st.booleans())
    def disk(self, number, tears, full):
        if full:
            self.nemesis.fill(number, tears)
        else:
            self.nemesis.free()

    @rule(number=FEW, count=st.integers(0, 2))
    def propose(self, number, count):
        self.nemesis.propose(number, count)

    @rule(number=FEW, lease=st.booleans())
    def read(self, number, lease):
        (self.nemesis.read_from_leader if lease else self.nemesis.read_index)(number)

    @rule(number=FEW, to=FEW)
    def transfer(self, number, to):
        self.nemesis.transfer(number, to)

    @rule(to=FEW, ms=st.integers(0, 999))
    def transfer_late(self, to, ms):
        self.nemesis.transfer_late(to, ms)

    @rule(number=FEW)
    def coup(self, number):
        self.nemesis.coup(number)

    @rule(ms=TIMES_MS, count=st.integers(0, 2))
    def sleep(self, ms, count):
        self.nemesis.sleep(ms, count)

    @rule(number=FEW, mask=NUMBERS)
    def change(self, number, mask):
        self.nemesis.change(number, mask)

    @rule(number=FEW, keep=st.integers(0, 2), to=FEW)
    def compact(self, number, keep, to):
        self.nemesis.compact(number, keep)
        self.nemesis.offer(number, to)

    @rule(number=FEW)
    def install(self, number):
        self.nemesis.install(number)

    def teardown(self):
        if sys.exc_info()[0] is None and hasattr(self, "nemesis"):
            self.nemesis.recover()


def test_figure_3():
    wanted = settings(
        max_examples=EXAMPLES,
        stateful_step_count=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Group, settings=wanted)


@pytest.mark.parametrize("part", range(SLICES))
@pytest.mark.timeout(36_000)
def test_walks(part):
    for seed in range(part, WALKS, SLICES):
        try:
            walk(seed, STEPS)
        except AssertionError as error:
            raise AssertionError(f"walk({seed}, {STEPS}): {error}") from error


def test_walks_see_everything():
    """What never happens is not tested."""
    happened = walk(1, 0).world.monitor.happened
    for seed in range(20):
        happened += walk(seed, STEPS).world.monitor.happened
    for what in SEEN:
        assert happened[what] > 2, (what, happened)
