"""Members of a group on the simulated network: the connections and snapshots outlive everything."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from tidefs.fs.errors import TideError
from tidefs.fs.messages.meta import MakeDirectory, SetXattr
from tidefs.fs.ports import Ports
from tidefs.metaserver import snapshots
from tidefs.metaserver.entries import FormatCluster
from tidefs.tests.metaserver.members import place, until
from tidefs.tests.metaserver.real_members import CLUSTER, Member
from tidefs.tests.sim import determinism
from tidefs.tests.sim.network import HostNetwork, SimulatedNetwork, Weather
from tidefs.tests.sim.ports import SimulatedClock, SimulatedRandomness
from tidefs.tests.sim.postman import Postman
from tidefs.tests.sim.trace import Trace
from tidefs.tests.sim.wire import split

HOSTS = ("m1", "m2", "m3")


class Run:
    """Three members, each on a host of its own."""

    def __init__(self, seed: int, nursery: trio.Nursery) -> None:
        self.trace = Trace()
        self.postman = Postman()
        self.network = SimulatedNetwork(self.postman, f"network {seed}", self.trace, split)
        places = [place(n, f"tcp:{host}:1") for n, host in enumerate(HOSTS, 1)]
        self.members = [
            Member(
                one.server,
                one.addresses[0],
                places,
                nursery,
                election_ms=250,
                ports=self._ports(seed, host),
            )
            for one, host in zip(places, HOSTS, strict=True)
        ]
        nursery.start_soon(self.postman.run_forever)

    def _ports(self, seed: int, host: str) -> Ports:
        clock = SimulatedClock(drift=0.001 * HOSTS.index(host))
        randomness = SimulatedRandomness(f"{seed} {host}")
        return Ports(clock, randomness, None, self.network.attach(host))

    async def start(self, member: Member) -> None:
        ports = member.ports._replace(network=self.network.attach(HOSTS[member.server - 1]))
        member.ports = ports
        await member.start()

    async def stop(self, member: Member, *, machine: bool = False) -> None:
        network = member.ports.network
        assert isinstance(network, HostNetwork)
        network.kill(machine=machine)
        await member.stop()

    async def leader(self) -> Member:
        while True:
            for member in self.members:
                if not member.ended.is_set() and member.driver.lease_holds():
                    return member
            await trio.sleep(0.02)

    async def change(self, change: object) -> None:
        """Have somebody make it, whoever leads; it may have been made before."""
        while True:
            leader = await self.leader()
            try:
                with trio.move_on_after(5):
                    await leader.driver.perform(change)
                    return
            except TideError as error:
                self.trace.note("op", f"{error.code.name}")
                if not error.retryable:
                    return
            await trio.sleep(0.05)

    async def agree(self) -> None:
        await until(lambda: len({m.driver.state.totals.applied_index for m in self.members}) == 1)
        assert len({await m.driver.store.digest() for m in self.members}) == 1
        self.trace.note("check", str(self.members[0].driver.state.totals.applied_index))


def simulated(seed: int, story: Callable[[Run], Awaitable[None]]) -> str:
    """The digest of a run's trace."""

    async def main() -> str:
        async with trio.open_nursery() as nursery:
            run = Run(seed, nursery)
            for member in run.members:
                await run.start(member)
            await run.change(FormatCluster(CLUSTER, 1, 0o755, 0, 0))
            await story(run)
            run.network.weather = Weather()
            with trio.fail_after(10):
                await run.agree()
            nursery.cancel_scope.cancel()
        return run.trace.digest()

    return determinism.run(main, seed)


def storm(run: Run) -> None:
    weather = run.network.weather
    weather.drop = weather.duplicate = weather.late_duplicate = weather.slow = 0.03
    weather.slow_max_s = 0.3


async def fill(run: Run, prefix: str, count: int) -> None:
    for number in range(count):
        await run.change(MakeDirectory(1, f"{prefix}{number}".encode(), 0o755, 0, 0))


async def losses_and_resets(run: Run) -> None:
    storm(run)
    for turn in range(4):
        await fill(run, f"{turn}.", 20)
        network = run.members[turn % 3].ports.network
        assert isinstance(network, HostNetwork)
        network.reset_all()


async def snapshot_in_a_storm(run: Run) -> None:
    leader = await run.leader()
    behind = next(member for member in run.members if member is not leader)
    await run.stop(behind)
    await fill(run, "missed", 60)
    for _ in range(20):
        await run.change(SetXattr(1, b"user.x", bytes(8000), 0))
    for member in run.members:
        if member is not behind:
            await member.make_checkpoint()
    storm(run)
    for seconds in (0.2, 0.4):
        await run.start(behind)
        await trio.sleep(seconds)
        await run.stop(behind)
    await run.start(behind)
    await fill(run, "meanwhile", 20)
    await until(lambda: behind.driver.oplog.first_index > 1, within_s=60)


async def silent_deaths(run: Run) -> None:
    """Machines that lose their power and are up again at once: nobody is told."""
    for turn in range(6):
        await fill(run, f"{turn}.", 5)
        member = run.members[turn % 3]
        await run.stop(member, machine=True)
        await run.start(member)


async def partitions(run: Run) -> None:
    """Each member is cut off in turn, in one direction or both; what is sent is held, or lost."""
    for turn in range(6):
        host, others = HOSTS[turn % 3], [HOSTS[(turn + 1) % 3], HOSTS[(turn + 2) % 3]]
        links = [(host, other) for other in others] + [(other, host) for other in others]
        cut = links if turn % 2 else links[2 * (turn // 2 % 2) :][:2]
        for link in cut:
            run.network.block(*link, hold=turn < 3)
        await fill(run, f"{turn}.", 5)
        await trio.sleep(5)
        for link in cut:
            run.network.open(*link)
        with trio.fail_after(5):
            await run.agree()


STORIES = (losses_and_resets, snapshot_in_a_storm, silent_deaths, partitions)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(snapshots, "SNAPSHOT_PIECE_BYTES", 512)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("story", STORIES)
def test_all_agree_in_the_end(seed, story):
    simulated(seed, story)


def test_a_run_repeats_itself():
    for story in STORIES:
        assert simulated(7, story) == simulated(7, story)
