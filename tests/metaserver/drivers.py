"""Drivers over disks that forget: alone, or several that hear each other."""

import trio
from tidefs.fs.config import Size
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.ports import Ports
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.metaserver.begin import start_driver
from tidefs.metaserver.config import MetaserverConfig
from tidefs.metaserver.driver import Driver
from tidefs.metaserver.entries import FormatCluster
from tidefs.metaserver.format import configuration_of
from tidefs.metaserver.recovery import recover
from tidefs.metaserver.store_memory import MemoryStores

from .fake_disk import FakeDisk
from .live import until

SEGMENT_BYTES = 64 * 1024


class FakeClock:
    """The wall clock is what a test says, the other one trio's."""

    def __init__(self):
        self.wall = 1_000

    def monotonic_ns(self) -> int:
        return int(trio.current_time() * 1e9)

    def wall_ns(self) -> int:
        return self.wall


def config_of(server: int, **options) -> MetaserverConfig:
    return MetaserverConfig(
        cluster="cluster",
        server=server,
        data="data",
        listen=["unix:/nowhere"],
        **options,
    )


async def start_one(disk, clock, *, server=1, stores=None, founders=None) -> Driver:
    """What a disk holds, as a driver that does not run yet; by default alone in its group."""
    config = config_of(server, log_segment=Size(9 << 20))
    stores = stores or MemoryStores(disk)
    recovered = await recover(disk, stores, "cluster", segment_bytes=SEGMENT_BYTES)
    ports = Ports(clock, RealRandomness(), disk, None)
    driver = await start_driver(
        config, ports, recovered, founders or configuration_of([config.own_place])
    )
    driver.space = None
    return driver


class Members:
    """A group whose messages arrive at once, or not at all. For the virtual clock.

    ``cut`` has the pairs (from, to) between which nothing arrives, ``alive`` who runs.
    """

    def __init__(self, nursery: trio.Nursery, count: int):
        self.nursery = nursery
        self.clock = FakeClock()
        places = [ServerPlace(server, "", []) for server in range(1, count + 1)]
        self.founders = configuration_of(places)
        self.disks = {place.server: FakeDisk() for place in places}
        self.drivers: dict[int, Driver] = {}
        self.sent = []
        self.cut: set[tuple[int, int]] = set()
        self._scopes: dict[int, trio.CancelScope] = {}

    async def start(self, *servers: int) -> None:
        for server in servers or sorted(self.disks):
            founders = self.founders if server in self.founders.voters else configuration_of([])
            disk = self.disks.setdefault(server, FakeDisk())
            driver = await start_one(disk, self.clock, server=server, founders=founders)
            driver.send = self._send
            self.drivers[server] = driver
            self._scopes[server] = trio.CancelScope()
            self.nursery.start_soon(self._run, driver, self._scopes[server])

    async def _run(self, driver, scope):
        with scope:
            await driver.run()

    def stop(self, server: int, *, crash: bool = True) -> None:
        """Its process ends, and with it, unless it is only killed, what was not synced."""
        self._scopes.pop(server).cancel()
        del self.drivers[server]
        disk = self.disks[server]
        self.disks[server] = disk.crash() if crash else disk.kill()

    def _send(self, envelopes):
        for envelope in envelopes:
            self.sent.append(envelope)
            receiver = self.drivers.get(envelope.receiver)
            if receiver and (envelope.sender, envelope.receiver) not in self.cut:
                receiver.deliver(envelope)

    def isolate(self, server: int) -> None:
        for other in self.disks:
            self.cut |= {(server, other), (other, server)}

    def heal(self) -> None:
        self.cut.clear()

    async def leader(self, *, but: int = 0) -> Driver:
        """Whoever leads first, of those that run."""
        found = []

        async def wait(driver, scope):
            await driver.wait_leading()
            found.append(driver)
            scope.cancel()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for server, driver in self.drivers.items():
                    if server != but:
                        nursery.start_soon(wait, driver, nursery.cancel_scope)
        return found[0]

    def id_of(self, driver: Driver) -> int:
        (server,) = [server for server, one in self.drivers.items() if one is driver]
        return server

    def others(self, driver: Driver) -> list[Driver]:
        return [one for one in self.drivers.values() if one is not driver]

    async def settle(self) -> None:
        """Until all that run have applied the same."""
        await until(lambda: len({self._reach(driver) for driver in self.drivers.values()}) == 1)
        digests = {driver.state.digest() for driver in self.drivers.values()}
        assert len(digests) == 1

    def _reach(self, driver: Driver) -> tuple[int, int]:
        return driver.state.totals.applied_index, driver.oplog.last_index


async def formatted(members: Members) -> Driver:
    """The leader of a group whose cluster has its id."""
    await members.start()
    leader = await members.leader()
    await leader.perform(FormatCluster("cluster", 1, 0o755, 0, 0))
    return leader
