"""A metaserver process: a configuration file, this machine's ports, and a clean end at SIGTERM."""

import fcntl
import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from ..fs.config import load
from ..fs.errors import Code, TideError
from ..fs.log import set_up
from ..fs.ports import Ports
from ..fs.ports.clock import RealClock
from ..fs.ports.disk_real import RealDisk
from ..fs.ports.network_real import RealNetwork
from ..fs.ports.randomness import RealRandomness
from .config import MetaserverConfig
from .format import LOCK
from .node import run_node
from .store_lmdb import LmdbStores

log = logging.getLogger(__name__)


async def run_server(config_path: str) -> None:
    """Serve until SIGTERM or SIGINT. TideError says why it cannot."""
    config = load(config_path, MetaserverConfig)
    config.check(config_path)
    set_up(config.log_level)
    folder = config.data
    with _locked(folder):
        disk = RealDisk(folder)
        ports = Ports(RealClock(), RealRandomness(), disk, RealNetwork())
        stores = LmdbStores(disk, folder, config.cluster)
        async with trio.open_nursery() as nursery:
            await nursery.start(_cancel_at_signal, nursery)
            addresses = await nursery.start(_run_node, config, ports, stores)
            _tell_ready(config.ready_file, addresses)


async def _run_node(
    config: MetaserverConfig,
    ports: Ports,
    stores: LmdbStores,
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    await run_node(config, ports, stores, pid=os.getpid(), task_status=task_status)


async def _cancel_at_signal(nursery: trio.Nursery, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("ending: %s", signal.Signals(number).name)
            nursery.cancel_scope.cancel()
            return


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Have the data folder for this process alone. BUSY when another one has it."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        descriptor = os.open(
            os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise TideError(
            Code.FOREIGN_FOLDER, f"{folder} cannot be used ({error.strerror}): name another folder"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TideError(
                Code.BUSY, f"{folder} is in use by another metaserver: end that one first"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _tell_ready(path: str, addresses: list[str]) -> None:
    """Let whoever started this process know that it listens."""
    if path:
        new = Path(path + ".new")
        new.write_text(json.dumps({"pid": os.getpid(), "addresses": addresses}) + "\n")
        new.rename(path)
