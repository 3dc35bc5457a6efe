"""A metaserver on given ports: everything composed, and the life of a member.

It recovers, runs its part in consensus, and listens. Whenever it is elected it leads, with tables
that are made anew from the state, until it does not.
"""

import logging
from collections.abc import Sequence

import trio

from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.messages.hello import METASERVER
from ..fs.ports import Ports
from ..fs.ports.network import Listener
from ..fs.rpc import Peer, serve
from .begin import start_driver
from .config import MetaserverConfig
from .directory import Directory
from .driver import Driver
from .format import open_folder
from .front import Front
from .group import Group
from .member_status import MemberView
from .raft.contract import Envelope
from .recovery import Recovered, recover
from .room import RoomKeeper
from .snapshot_receiver import SnapshotReceiver
from .snapshots import SnapshotSender
from .store import Stores
from .term import Term
from .upkeep import Upkeep

ALONE_PATIENCE_MS = 3_000

log = logging.getLogger(__name__)


async def run_node(
    config: MetaserverConfig,
    ports: Ports,
    stores: Stores,
    *,
    pid: int = 0,
    stopping: trio.Event | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``stopping`` is set (a leader then hands over first), or until cancelled.

    Started when it listens, whoever leads; the value are its addresses. Who is alone in its group
    has had the time to become its leader by then.

    TideError: FOREIGN_FOLDER or CORRUPT for what is in the data folder, INVALID for an address
    that cannot be listened on, DEVICE_ERROR when the disk of the log fails.
    """
    identity = Identity(config.cluster, METASERVER, config.server)
    founders = await open_folder(ports.disk, identity, config.data, config.own_place)
    recovered = await recover(ports.disk, stores, config.cluster, segment_bytes=config.log_segment)
    driver = await start_driver(config, ports, recovered, founders)
    receiver = SnapshotReceiver(ports.disk, recovered.checkpoints, driver)
    listeners: list[Listener] = []
    try:
        _check_cluster(config, driver)
        for address in config.listen:
            listeners.append(await ports.network.listen(address))
        async with trio.open_nursery() as nursery:
            node = _Node(config, ports, recovered, driver, receiver, listeners, pid, nursery)
            await node.start(listeners)
            await node.wait_if_alone()
            log.info("listening on %s", ", ".join(node.addresses))
            task_status.started(node.addresses)
            if stopping is not None:
                await stopping.wait()
                await node.hand_over()
                nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.close()
        receiver.close()
        driver.close()


def _check_cluster(config: MetaserverConfig, driver: Driver) -> None:
    """The state must be of the cluster that the identity file names, or new."""
    found = driver.state.totals.cluster
    if found not in ("", config.cluster):
        raise TideError(
            Code.FOREIGN_FOLDER,
            f"the state in {config.data} is of cluster {found}, not {config.cluster}",
        )


class _Node:
    """One member, composed. Its tasks run in ``nursery``."""

    def __init__(
        self,
        config: MetaserverConfig,
        ports: Ports,
        recovered: Recovered,
        driver: Driver,
        receiver: SnapshotReceiver,
        listeners: Sequence[Listener],
        pid: int,
        nursery: trio.Nursery,
    ) -> None:
        self.addresses = [listener.address for listener in listeners]
        self._config = config
        self._ports = ports
        self._identity = Identity(config.cluster, METASERVER, config.server)
        self._driver = driver
        self._receiver = receiver
        self._nursery = nursery
        directory = Directory(config.server, config.host, config.places)
        self._group = Group(ports, self._identity, directory, nursery)
        self._upkeep = Upkeep(recovered, driver, ports.clock, config.checkpoint_entries)
        self._sender = SnapshotSender(
            ports,
            self._group,
            recovered.checkpoints,
            driver.core.progress,
            lambda: driver.oplog.first_index,
        )
        self._upkeep.held_from = self._sender.needed_from
        self._room_keeper = RoomKeeper(self._group, driver, config.server)
        self._view = MemberView(
            config, driver, self._upkeep, self._sender, ports.clock, self.addresses, pid
        )
        self._front = Front(driver, self._group, receiver, self._view)
        self._group.deliver = driver.deliver
        self._group.learn(driver.core.configuration)
        driver.send = self._send

    async def start(self, listeners: Sequence[Listener]) -> None:
        """Begin everything that runs as long as the process."""
        await self._receiver.tidy()
        for task in (
            self._driver.run,
            self._upkeep.run,
            self._room_keeper.run,
            self._sender.run,  # also before a term is led: it may take a snapshot to commit
            self._front.keep_telling,
            self._keep_leading,
        ):
            self._nursery.start_soon(task)
        for listener in listeners:
            self._nursery.start_soon(self._serve, listener)

    async def wait_if_alone(self) -> None:
        """A group of one needs nobody to be elected; only a full disk keeps it from leading."""
        if self._driver.core.configuration.voters == [self._config.server]:
            with trio.move_on_after(ALONE_PATIENCE_MS / 1000):
                await self._front.wait_leading()

    async def hand_over(self) -> None:
        """Before it ends on purpose: spare the others the wait for its silence."""
        with trio.move_on_after(self._config.election_timeout / 1000):
            await self._front.hand_over()

    async def _serve(self, listener: Listener) -> None:
        await serve(
            self._ports, listener, self._identity, self._front.handle, self._nursery, self._opened
        )

    def _opened(self, peer: Peer) -> None:
        self._front.opened(peer)
        self._nursery.start_soon(self._front.watch, peer)

    def _send(self, envelopes: Sequence[Envelope]) -> None:
        # Who is a member is decided by consensus; whom it sends to must be connected.
        self._group.learn(self._driver.core.configuration)
        self._group.send(envelopes)

    async def _keep_leading(self) -> None:
        while True:
            number = await self._driver.wait_leading()
            term = Term(self._config, self._ports, self._driver, self._view, number)
            await term.run(self._front.lead)
            await self._driver.wait_not_leading(number)
            await self._front.follow()
