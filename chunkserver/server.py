"""A chunkserver process: a configuration file, this machine's ports, and a clean end at SIGTERM."""

import os
import resource

import trio

from ..fs.config import load
from ..fs.errors import TideError, first_error
from ..fs.log import set_up
from ..fs.messages.hello import CHUNKSERVER
from ..fs.ports import Ports
from ..fs.ports.clock import RealClock
from ..fs.ports.disk_real import RealDisk
from ..fs.ports.network_real import RealNetwork
from ..fs.ports.randomness import RealRandomness
from ..fs.process import locked, stop_at_signal, tell_ready, use_memory_freely
from .config import ChunkserverConfig
from .node import run_node


async def run_server(config_path: str) -> None:
    """Serve until SIGTERM or SIGINT. TideError says why it cannot."""
    config = load(config_path, ChunkserverConfig)
    config.check(config_path)
    set_up(config.log_level)
    use_memory_freely()
    _allow_many_files()
    with locked(config.data, CHUNKSERVER):
        ports = Ports(RealClock(), RealRandomness(), RealDisk(config.data), RealNetwork())
        stopping = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(stop_at_signal, stopping.set)
                addresses = await nursery.start(_run_node, config, ports, stopping)
                tell_ready(config.ready_file, addresses)
                await stopping.wait()
        except* TideError as group:
            raise first_error(group) from None


async def _run_node(
    config: ChunkserverConfig,
    ports: Ports,
    stopping: trio.Event,
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    await run_node(config, ports, pid=os.getpid(), stopping=stopping, task_status=task_status)


def _allow_many_files() -> None:
    """Connections and chunk files need descriptors: take as many as this process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
