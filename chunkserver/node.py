"""A chunkserver on given ports: everything composed, from the data folder to the listeners."""

import logging

import trio

from ..fs.errors import TideError, first_error
from ..fs.handshake import Identity
from ..fs.messages.hello import CHUNKSERVER
from ..fs.messages.places import ServerPlace
from ..fs.ports import Ports
from ..fs.ports.network import Listener
from ..fs.rpc import serve
from .config import ChunkserverConfig
from .fence import Fence, load_fence
from .format import open_folder
from .heartbeat import Reporter
from .neighbours import Neighbours
from .scrub import scrub
from .service import Service
from .store import Settings, Store

log = logging.getLogger(__name__)


async def run_node(
    config: ChunkserverConfig,
    ports: Ports,
    *,
    pid: int = 0,
    stopping: trio.Event | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``stopping`` is set, then bring everything to stable storage. Cancelled, it
    ends as if it was killed.

    Started when it listens; the value are its addresses. TideError: FOREIGN_FOLDER or CORRUPT for
    what is in the data folder, INVALID for an address that cannot be listened on, DEVICE_ERROR
    when the disk of the journal fails.
    """
    identity = Identity(config.cluster, CHUNKSERVER, config.server)
    settings = Settings(config.server, config.capacity, config.journal_segment)
    await open_folder(ports.disk, identity, settings, config.data)
    until = trio.Event() if stopping is None else stopping
    fence = await load_fence(ports.disk)
    reporter = Reporter(ports, identity, config.metaservers, pid)
    store = Store(ports.disk, ports.clock, settings, reporter.damaged)
    try:
        async with trio.open_nursery() as keeper:
            await keeper.start(store.run)
            await _serve(config, ports, identity, store, fence, reporter, until, task_status)
            store.stop()
    except* TideError as group:
        raise first_error(group) from None
    log.info("everything is on stable storage")


async def _serve(
    config: ChunkserverConfig,
    ports: Ports,
    identity: Identity,
    store: Store,
    fence: Fence,
    reporter: Reporter,
    stopping: trio.Event,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    listeners: list[Listener] = []
    try:
        for address in config.listen:
            listeners.append(await ports.network.listen(address))
        addresses = [listener.address for listener in listeners]
        place = ServerPlace(config.server, config.host, addresses)
        async with trio.open_nursery() as tasks:
            neighbours = Neighbours(ports, identity, config.host, tasks)
            service = Service(config.server, store, fence, neighbours, tasks, reporter.news)
            for listener in listeners:
                tasks.start_soon(serve, ports, listener, identity, service.handle, tasks)
            tasks.start_soon(reporter.run, place, store, fence, service.handle)
            if config.scrub:
                tasks.start_soon(scrub, store, config.scrub)
            log.info("listening on %s", ", ".join(addresses))
            task_status.started(addresses)
            await stopping.wait()
            tasks.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.close()
