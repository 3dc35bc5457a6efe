"""Drivers over disks that forget: alone, or several that hear each other."""

import trio
from tidefs.fs.config import Size
from tidefs.fs.ports import Ports
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.metaserver.begin import start_driver
from tidefs.metaserver.config import MetaserverConfig
from tidefs.metaserver.driver import Driver
from tidefs.metaserver.format import configuration_of
from tidefs.metaserver.recovery import recover
from tidefs.metaserver.store_memory import MemoryStores

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
