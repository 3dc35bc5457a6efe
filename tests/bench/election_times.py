"""How long a group is without a leader after a crash: Figure 16 of the Raft paper, simulated.

    python tests/bench/election_times.py [--plain] [--trials 1000] [--seed 1] [--range 12-24 ...]

The paper (section 9.3) crashes the leader of five servers, with a broadcast time of some 15 ms, at
a random moment within a heartbeat interval (half the shortest election time-out) behind a heartbeat
that all get at the same time, and measures until there is another leader. Logs differ in length, so
that not everybody can be elected. It shows two things. Above: with time-outs that do not differ
(150-150 ms) it takes longer than 10 s, for votes are split again and again; 5 ms of randomness
bring the median to 287 ms, and 50 ms the worst of 1,000 trials to 513 ms. Below: shorter time-outs
are quicker, down to 12-24 ms (35 ms on average, 152 ms at worst), which come near the broadcast
time.

Here the same is done with the pure core in virtual time; a message takes 7 to 8 ms (a round trip
15), a sync nothing. Three things differ from the paper's algorithm: the core asks before it stands
(pre-vote), a leader that hears no majority within the shortest time-out steps down (check-quorum),
and who has just heard a leader gives no vote. They cannot be turned off; ``--plain`` takes them out
of the core's source, as the tests of the tests do, for the algorithm of the paper.

What it finds (seed 1; median and worst, ms): plain, 150-150 never ends, 150-155 has 1,236 and
9,428, 150-175 has 170 and 955, 150-200 has 164 and 817, 12-24 has 68 and 285. The shape is the
paper's; narrow ranges do worse, for a request for votes is 7 ms on its way, in which others stand
too, while the paper's 15 ms were perhaps mostly syncs (``--latency 0.5-1.5`` has 121 ms for
150-155). With pre-vote a lost round costs a round trip and no time-out, so that hardly any
randomness is needed: 150-150 has 160 and 803, 150-155 153 and 498, 150-200 166 and 391, 150-300 197
and 442, 25-50 65 and 133. In exchange 12-24 cannot be: no leader hears a majority within less than
a round trip.
"""

import argparse
import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tidefs.fs.messages.raft import Append
from tidefs.metaserver.raft.contract import Begin, Core, Envelope, HardState, Record, Timing
from tidefs.metaserver.raft.core import Member
from tidefs.tests.metaserver.raft.harness import MS, Server, World
from tidefs.tests.metaserver.raft.monitor import Silent
from tidefs.tests.metaserver.raft.mutants import Mutation, mutant

UPPER = ("150-150", "150-151", "150-155", "150-175", "150-200", "150-300")
LOWER = ("12-24", "25-50", "50-100", "100-200", "150-300")
SERVERS = (1, 2, 3, 4, 5)
LEADER = 5
LATENCY_MS = "7-8"
GIVE_UP_MS = 10_000
HOPELESS_WIDTH_MS = 1
HOPELESS_TRIALS = 100
"""So many trials when time-outs are hardly random, for they take long; the paper does so too."""

PLAIN = (
    Mutation(
        "member_votes",
        "        self._role = Role.PRE_CANDIDATE\n",
        "        self._stand(transfer=False)\n        return\n",
    ),
    Mutation("leading", "        if late_ns < 0:\n", "        if True:\n"),
    Mutation(
        "leading",
        "max(self._quorum_ns(now_ns), self._excused_ns) + patience_ns",
        "UNBOUNDED_NS",
    ),
    Mutation(
        "election", "return now_ns - self._heard_ns < self._timing.election_min_ns", "return False"
    ),
)
"""Neither pre-vote, nor check-quorum, nor votes refused for a leader's sake."""


class Between(NamedTuple):
    """Drawn evenly from this range."""

    least_ms: float
    most_ms: float

    @classmethod
    def parse(cls, said: str) -> "Between":
        """``7-8``, ``0.5-1``."""
        least, _, most = said.partition("-")
        return cls(float(least), float(most))


class TimeOuts(NamedTuple):
    """Drawn evenly from this range."""

    least_ms: int
    most_ms: int

    def __str__(self) -> str:
        return f"{self.least_ms}-{self.most_ms}"


class Setting(NamedTuple):
    """What is measured."""

    make: Callable[[Begin], Core]
    latency: Between


def time_outs(said: str) -> TimeOuts:
    """``150-300``."""
    least, _, most = said.partition("-")
    found = TimeOuts(int(least), int(most))
    if not 0 < found.least_ms <= found.most_ms <= 2 * found.least_ms:
        raise argparse.ArgumentTypeError(f"{said}: from N to at most 2 N milliseconds")
    return found


def group(wanted: TimeOuts, dice: random.Random, setting: Setting) -> World:
    """Five members whose logs are of different lengths for ever, the last one's the longest."""
    least_ns, width_ns = wanted.least_ms * MS, (wanted.most_ms - wanted.least_ms) * MS
    timing = Timing(least_ns // 2, least_ns, drift_parts=100, drift_ns=1)
    fast_ns, slow_ns = (int(ms * MS) for ms in setting.latency)
    world = World(
        SERVERS,
        make=setting.make,
        timing=timing,
        monitor=Silent(),
        latency_ns=lambda: dice.randint(fast_ns, slow_ns),
    )
    world.network.loses = makes_logs_equal
    for server in world.servers.values():
        server.below = lambda bound: dice.randint(0, min(width_ns, bound - 1))
        server.disk.hard_state = HardState(1, 0)
        server.disk.write([Record(1, index + 1, b"x") for index in range(server.server)])
    return world.start()


def makes_logs_equal(envelope: Envelope) -> bool:
    """Appends are lost: some followers cannot be elected, as in the paper."""
    return isinstance(envelope.message, Append)


def trial(wanted: TimeOuts, dice: random.Random, setting: Setting) -> float:
    """Milliseconds from the crash of the leader to the next; NaN: it could not go on leading."""
    world = group(wanted, dice, setting)
    leader = world[LEADER]
    elect(world, leader)
    # Some heartbeats, so that all is quiet; the last one goes to all at the same moment.
    for _ in range(3):
        heartbeat_ns = world.due_ns(leader)
        assert heartbeat_ns is not None
        world.run(heartbeat_ns - world.now_ns)
    world.run(dice.randint(0, wanted.least_ms * MS // 2 - 1))
    if not leader.leads:
        return math.nan
    crashed_ns = world.now_ns
    leader.crash()
    world.run(GIVE_UP_MS * MS, lambda: world.leader() is not None)
    return (world.now_ns - crashed_ns) / MS


def elect(world: World, leader: Server) -> None:
    """Only this one loses patience, and all hear of it before they look at their clocks."""
    world.now_ns = world.due_ns(leader) or 0
    leader.tick()
    while (packet := world.network.first()) and (not leader.leads or world.network.flying(LEADER)):
        world.now_ns = max(world.now_ns, packet.due_ns)
        world.deliver(packet)
    assert leader.leads, "who has the longest log is elected"


def row(wanted: TimeOuts, trials: int, seed: int, setting: Setting) -> str:
    """The line of a table."""
    hopeless = wanted.most_ms - wanted.least_ms <= HOPELESS_WIDTH_MS
    count = min(trials, HOPELESS_TRIALS) if hopeless else trials
    dice = random.Random(f"{seed} {wanted}")
    took = sorted(trial(wanted, dice, setting) for _ in range(count))
    if any(math.isnan(ms) for ms in took):
        return f"| {wanted} | no leader hears a majority in time | | | | | {count} |\n"
    cells = [took[count // 10], statistics.median(took), took[count * 9 // 10], took[-1]]
    never = sum(ms >= GIVE_UP_MS for ms in took)
    figures = " | ".join("> 10,000" if ms >= GIVE_UP_MS else f"{ms:,.0f}" for ms in cells)
    return f"| {wanted} | {figures} | {never} | {count} |\n"


def table(title: str, ranges: Sequence[TimeOuts], trials: int, seed: int, setting: Setting) -> None:
    """Print one of the figure's two graphs, a line for each range."""
    sys.stdout.write(f"\n{title}\n\n")
    sys.stdout.write("| time-out ms | p10 ms | median ms | p90 ms | max ms | never | trials |\n")
    sys.stdout.write("|---|---:|---:|---:|---:|---:|---:|\n")
    for wanted in ranges:
        sys.stdout.write(row(wanted, trials, seed, setting))
        sys.stdout.flush()


def main() -> None:
    """Both graphs, or the ranges that are asked for."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000, help="for each range (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="the same one, the same table")
    parser.add_argument("--range", action="append", metavar="A-B", help="milliseconds; repeatable")
    parser.add_argument(
        "--plain", action="store_true", help="without pre-vote and check-quorum, as in the paper"
    )
    parser.add_argument("--latency", default=LATENCY_MS, help="of a message, ms (default 7-8)")
    options = parser.parse_args()
    make = mutant("plain", *PLAIN) if options.plain else Member
    setting = Setting(make, Between.parse(options.latency))
    graphs = {"Randomness": UPPER, "Shorter time-outs": LOWER}
    if options.range:
        graphs = {"Time without a leader": options.range}
    for title, ranges in graphs.items():
        table(title, [time_outs(said) for said in ranges], options.trials, options.seed, setting)


if __name__ == "__main__":
    main()
