"""A metaserver process: a configuration file, this machine's ports, and a clean end at SIGTERM."""

import os

import trio

from ..fs.config import load
from ..fs.handshake import Identity
from ..fs.log import set_up
from ..fs.messages.hello import METASERVER
from ..fs.ports import Ports
from ..fs.ports.clock import RealClock
from ..fs.ports.disk_real import RealDisk
from ..fs.ports.network_real import RealNetwork
from ..fs.ports.randomness import RealRandomness
from ..fs.process import locked, stop_at_signal, tell_ready, use_memory_freely
from .config import MetaserverConfig
from .format import format_folder
from .node import run_node
from .store_lmdb import LmdbStores


async def format_server(config_path: str, *, join: bool = False) -> bool:
    """Prepare the empty data folder that a configuration names, for a founder of the group in
    ``members``, or to ``join`` a group. False when that was done before.

    TideError: BAD_CONFIG, or FOREIGN_FOLDER for a folder that is something else already.
    """
    config = load(config_path, MetaserverConfig)
    config.check(config_path)
    founders = None if join else config.founders(config_path)
    set_up(config.log_level)
    with locked(config.data, METASERVER):
        identity = Identity(config.cluster, METASERVER, config.server)
        return await format_folder(RealDisk(config.data), identity, config.data, founders)


async def run_server(config_path: str) -> None:
    """Serve until SIGTERM or SIGINT. TideError says why it cannot."""
    config = load(config_path, MetaserverConfig)
    config.check(config_path)
    set_up(config.log_level)
    use_memory_freely()
    folder = config.data
    with locked(folder, METASERVER):
        disk = RealDisk(folder)
        ports = Ports(RealClock(), RealRandomness(), disk, RealNetwork())
        stores = LmdbStores(disk, folder, config.cluster)
        stopping, starting = trio.Event(), trio.CancelScope()

        def stop() -> None:
            stopping.set()
            starting.cancel()

        async with trio.open_nursery() as nursery:
            await nursery.start(stop_at_signal, stop)
            with starting:
                addresses = await nursery.start(_run_node, config, ports, stores, stopping)
                tell_ready(config.ready_file, addresses)


async def _run_node(
    config: MetaserverConfig,
    ports: Ports,
    stores: LmdbStores,
    stopping: trio.Event,
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    await run_node(
        config, ports, stores, pid=os.getpid(), stopping=stopping, task_status=task_status
    )
