"""A metaserver on given ports: everything composed, from the data folder to the listeners."""

import logging
from collections.abc import Sequence
from typing import Any

import trio

from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.identity import IDENTITY
from ..fs.messages.hello import METASERVER
from ..fs.ports import Ports
from ..fs.ports.network import Listener
from ..fs.rpc import Peer, serve
from .begin import start_driver
from .caretaker import Caretaker
from .config import MetaserverConfig
from .driver import Driver
from .entries import FormatCluster
from .format import format_folder, open_folder
from .leader import Leader
from .recovery import Recovered, recover
from .service import Service
from .state import State
from .store import Stores
from .upkeep import Upkeep

log = logging.getLogger(__name__)


async def run_node(
    config: MetaserverConfig,
    ports: Ports,
    stores: Stores,
    *,
    pid: int = 0,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Started when it listens; the value are its addresses.

    TideError: FOREIGN_FOLDER or CORRUPT for what is in the data folder, INVALID for an address
    that cannot be listened on, DEVICE_ERROR when the disk of the log fails.
    """
    identity = Identity(config.cluster, METASERVER, config.server)
    if not config.members and not ports.disk.exists(IDENTITY):
        await format_folder(ports.disk, identity, config.data, [config.own_place])
    founders = await open_folder(ports.disk, identity, config.data, config.own_place)
    recovered = await recover(ports.disk, stores, config.cluster, segment_bytes=config.log_segment)
    driver = await start_driver(config, ports, recovered, founders)
    await _lead(config, ports, identity, recovered, driver, pid, task_status)


async def _lead(
    config: MetaserverConfig,
    ports: Ports,
    identity: Identity,
    recovered: Recovered,
    driver: Driver,
    pid: int,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    listeners: list[Listener] = []
    try:
        for address in config.listen:
            listeners.append(await ports.network.listen(address))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.run)
            term = await driver.wait_leading()
            await _begin_term(config, driver, recovered.state)
            leader = Leader(config, ports, driver, recovered.state, term)
            leader.addresses = [listener.address for listener in listeners]
            leader.pid = pid
            await leader.begin()
            caretaker = Caretaker(leader)
            service = Service(recovered.state, driver, leader, caretaker)
            upkeep = Upkeep(recovered, driver, config.checkpoint_entries)
            nursery.start_soon(leader.run)
            nursery.start_soon(caretaker.run)
            nursery.start_soon(upkeep.run)
            _serve_all(ports, identity, listeners, service, nursery)
            log.info("listening on %s", ", ".join(leader.addresses))
            task_status.started(leader.addresses)
    finally:
        for listener in listeners:
            listener.close()
        driver.close()


async def _begin_term(config: MetaserverConfig, driver: Driver, state: State) -> None:
    """Give a new cluster its id, and make sure that an old one has it."""
    found = state.totals.cluster
    if found == config.cluster:
        return
    if found:
        raise TideError(
            Code.FOREIGN_FOLDER,
            f"the state in {config.data} is of cluster {found}, not {config.cluster}",
        )
    await driver.perform(
        FormatCluster(
            cluster=config.cluster,
            replicas=config.replicas,
            root_mode=config.root_mode,
            root_uid=config.root_uid,
            root_gid=config.root_gid,
        )
    )


def _serve_all(
    ports: Ports,
    identity: Identity,
    listeners: Sequence[Listener],
    service: Service,
    nursery: trio.Nursery,
) -> None:
    def on_open(peer: Peer) -> None:
        nursery.start_soon(watch, peer)

    async def watch(peer: Peer) -> None:
        await peer.wait_closed()
        service.gone(peer)

    async def serve_one(listener: Listener) -> Any:
        await serve(ports, listener, identity, service.handle, nursery, on_open)

    for listener in listeners:
        nursery.start_soon(serve_one, listener)
