"""A real mount whose kernel believes nothing, and whose client believes what it knows for an hour.

    python tests/bench/distrusted_mount.py ADDRESS MOUNTPOINT

Each stat comes to the client, and none goes on to a server. Writes "ready" when it is mounted, and
serves until it is unmounted.
"""

import os
import sys

import trio
from tidefs.client.attributes_cache import Cached
from tidefs.client.client import Identity, open_client
from tidefs.client.fuse.choice import Place, open_driver
from tidefs.client.modes import DEFAULT_MODE, Ground, Trust, mode_named
from tidefs.client.options import DriverName, MountOptions
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.process import use_memory_freely

HOUR_MS = 3_600_000


async def serve(address: str, point: str) -> None:
    """Mount, say so, and serve until it is unmounted."""
    use_memory_freely()
    setattr(Cached, "trust_ms", lambda cached, now_ns: 0)  # noqa: B010 - what the kernel is told
    trust = Trust(Ground.UNTIL, HOUR_MS, HOUR_MS)
    mode = mode_named(DEFAULT_MODE)._replace(entries=trust, attributes=trust)
    options = MountOptions(mode=mode, driver=DriverName.KERNEL)
    ports = Ports(RealClock(), RealRandomness(), RealDisk("/"), RealNetwork())
    async with trio.open_nursery() as nursery:
        client = await open_client(
            ports, Identity([address], "bench", os.getpid()), options, nursery
        )
        driver, client.vfs.kernel = open_driver(
            DriverName.KERNEL, client.vfs, Place(point, "bench", options)
        )
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await driver.serve_forever()
        await client.close()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], sys.argv[2])
