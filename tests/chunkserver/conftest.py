"""Chunkservers in this process, over real Unix sockets, and someone who speaks with them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from tidefs.chunkserver.config import ChunkserverConfig
from tidefs.chunkserver.node import run_node
from tidefs.fs.config import Size
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.limits import MIB
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.chunk import (
    Heartbeat,
    Register,
    Registered,
    ReportBad,
    ReportChunks,
)
from tidefs.fs.messages.hello import CLIENT, METASERVER
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import Configuration, GetMember, MemberStatus
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network import Listener
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Incoming, Peer, connect, no_requests, serve

CLUSTER = "test"


class Server:
    """One chunkserver that can be stopped, killed and started again."""

    def __init__(self, house: "House", number: int) -> None:
        self.house = house
        self.server = 0x100 + number
        self.folder = house.folder / f"chunk-{number}"
        self.folder.mkdir(exist_ok=True)
        self.address = f"unix:{house.folder}/{number}.sock"
        self.place = ServerPlace(self.server, "here", [self.address])
        self.disk = RealDisk(str(self.folder))
        self.capacity: int | None = None
        self.scrub = 0
        self.scope: trio.CancelScope | None = None
        self.stopping = trio.Event()
        self.ended = trio.Event()

    async def start(self) -> None:
        config = ChunkserverConfig(
            cluster=CLUSTER,
            server=self.server,
            data=str(self.folder),
            listen=[self.address],
            metaservers=self.house.metaservers,
            host="here",
            capacity=None if self.capacity is None else Size(self.capacity),
            journal_segment=Size(5 * MIB),
            scrub=Size(self.scrub),
        )
        ports = Ports(RealClock(), RealRandomness(), self.disk, RealNetwork())
        self.stopping, self.ended = trio.Event(), trio.Event()

        async def live(*, task_status: trio.TaskStatus[list[str]]) -> None:
            with trio.CancelScope() as self.scope:
                await run_node(config, ports, stopping=self.stopping, task_status=task_status)
            self.ended.set()

        await self.house.nursery.start(live)

    async def kill(self) -> None:
        assert self.scope is not None
        self.scope.cancel()
        await self._wait_ended()

    async def stop(self) -> None:
        self.stopping.set()
        await self._wait_ended()

    async def _wait_ended(self) -> None:
        await self.ended.wait()
        self.house.metaserver.complete.discard(self.server)


class Metaserver:
    """Takes what chunkservers tell, and can call them."""

    def __init__(self, house: "House") -> None:
        self.house = house
        self.peers: dict[int, Peer] = {}
        self.reports: dict[int, dict[int, object]] = {}
        self.complete: set[int] = set()
        self.bad: list[ReportBad] = []
        self.news = trio.Event()
        self.server = 1
        self.term = 1
        self.leads = True
        self.claimed: int | None = None
        """The term that it tells who asks, when that is another one."""
        self.asked = 0
        self.asker: Peer | None = None
        self.on_register: Callable[[Peer], None] = lambda peer: None

    def handle(self, incoming: Incoming) -> None:
        request = incoming.request
        server = incoming.peer.remote.server
        if isinstance(request, GetMember):
            incoming.reply(self.status(incoming))
        elif not self.leads:
            incoming.fail(TideError(Code.NOT_LEADER, ""))
        elif isinstance(request, Register):
            self.peers[server] = incoming.peer
            self.reports[server] = {}
            self.complete.discard(server)
            incoming.reply(Registered(50, self.term))
            self.on_register(incoming.peer)
        else:
            if isinstance(request, ReportChunks):
                self.reports[server].update({chunk.handle: chunk for chunk in request.chunks})
                if request.last:
                    self.complete.add(server)
            elif isinstance(request, ReportBad):
                self.bad.append(request)
            else:
                assert isinstance(request, Heartbeat)
            incoming.reply(Done())
        self.news.set()
        self.news = trio.Event()

    def status(self, incoming: Incoming) -> MemberStatus:
        self.asked += 1
        self.asker = incoming.peer
        nobody = Configuration([], [], [], [], [])
        role, leader = ("leader", self.server) if self.leads else ("follower", 0)
        numbers = (self.claimed or self.term, leader, 0, 0, 0, 0, 0, 0, 0)
        return MemberStatus(
            CLUSTER, self.server, "", 1, role, *numbers, configuration=nobody, lag=[]
        )

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self.news.wait()


class House:
    """A metaserver and some chunkservers."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.nursery = nursery
        self.metaserver = Metaserver(self)
        self.metaservers = [f"unix:{folder}/meta.sock"]
        self.ports = Ports(RealClock(), RealRandomness(), RealDisk(str(folder)), RealNetwork())
        self.servers: list[Server] = []
        self.listeners: list[Listener] = []

    async def open(self, count: int) -> None:
        await self.listen(self.metaserver, self.metaservers[0])
        for _ in range(count):
            await self.add()
        await self.metaserver.until(lambda: len(self.metaserver.complete) == count)

    async def listen(self, metaserver: Metaserver, address: str) -> None:
        listener = await self.ports.network.listen(address)
        self.listeners.append(listener)
        identity = Identity(CLUSTER, METASERVER, metaserver.server)
        self.nursery.start_soon(
            serve, self.ports, listener, identity, metaserver.handle, self.nursery
        )

    async def add(self) -> None:
        server = Server(self, len(self.servers))
        self.servers.append(server)
        await server.start()

    async def client(self, server: Server, role: str = CLIENT) -> Peer:
        hello = Identity(CLUSTER, role, 0 if role == CLIENT else 9).hello()
        return await connect(self.ports, server.address, hello, no_requests, self.nursery)


@pytest.fixture
def open_house(tmp_path: Path) -> Callable[[int], object]:
    @asynccontextmanager
    async def opened(count: int) -> AsyncIterator[House]:
        async with trio.open_nursery() as nursery:
            house = House(tmp_path, nursery)
            await house.open(count)
            yield house
            nursery.cancel_scope.cancel()
        for listener in house.listeners:
            listener.close()

    return opened


@pytest.fixture
def tools() -> SimpleNamespace:
    """For tests that put servers together themselves."""
    return SimpleNamespace(House=House, Server=Server, Metaserver=Metaserver, CLUSTER=CLUSTER)
