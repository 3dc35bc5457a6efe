"""A metaserver in this process, and clients and chunkservers that are only what a test says."""

import dataclasses
import itertools

import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.config import Duration, Size
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.identity import IDENTITY
from tidefs.fs.limits import GIB, HANDLES_PER_RESERVATION
from tidefs.fs.messages import chunk, meta
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Mutation, connect, no_requests
from tidefs.metaserver.config import MetaserverConfig
from tidefs.metaserver.format import format_folder
from tidefs.metaserver.node import run_node
from tidefs.metaserver.store_memory import MemoryStores

from .fake_disk import FakeDisk

CLUSTER = "cluster"
assert HANDLES_PER_RESERVATION > 1000


class Metaserver:
    """Its disk outlives it: ``stop`` and ``start`` again."""

    def __init__(self, folder, nursery, **options):
        self.address = f"unix:{folder}/meta.sock"
        self.nursery = nursery
        self.disk = FakeDisk()
        self.config = MetaserverConfig(
            **{
                "cluster": CLUSTER,
                "server": 1,
                "data": "data",
                "listen": [self.address],
                "replicas": 3,
                "heartbeat": Duration(50),
                "chunkserver_dead": Duration(300),
                "repair_after": Duration(300),
                "log_segment": Size(64 * 1024),
                **options,
            }
        )
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    async def start(self):
        """Formatted if it is not yet, for a group of one."""
        if not self.disk.exists(IDENTITY):
            identity = Identity(CLUSTER, "metaserver", self.config.server)
            await format_folder(self.disk, identity, "data", self.config.founders("test"))
        await self.nursery.start(self._run)
        return self

    async def _run(self, *, task_status):
        ports = self.ports()
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        with self._scope:
            await run_node(self.config, ports, MemoryStores(self.disk), task_status=task_status)
        self._stopped.set()

    def ports(self):
        return Ports(RealClock(), RealRandomness(), self.disk, RealNetwork())

    async def stop(self, *, crash=False):
        """End it; with ``crash``, what was not synced is gone."""
        disk = self.disk.crash() if crash else self.disk.kill()
        self._scope.cancel()
        await self._stopped.wait()
        self.disk = disk

    async def connect(self, handler=no_requests):
        """A connection without a session."""
        return await connect(
            self.ports(), self.address, Identity("", "client", 0).hello(), handler, self.nursery
        )

    async def client(self):
        client = Client(self)
        await client.open_session()
        return client


class Client:
    """A session, with one slot in use."""

    def __init__(self, server: Metaserver):
        self.server = server
        self.sequence = 0
        self.nonce = RealRandomness().bytes(16)

    async def open_session(self):
        self.peer = await self.server.connect()
        opened = await self.peer.call(meta.OpenSession(self.nonce, "here", 1))
        self.session = opened.session

    async def resume(self, open_inodes=(), reserved=()):
        self.peer = await self.server.connect()
        return await self.peer.call(
            meta.ResumeSession(self.session, list(open_inodes), list(reserved))
        )

    async def call(self, request):
        return await self.peer.call(request)

    async def change(self, request, payload=(), *, sequence=None, slot=0):
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        mutation = Mutation(self.session, slot, sequence)
        return await self.peer.call(request, payload=payload, mutation=mutation)

    async def create(self, name, *, parent=1, exclusive=True, opened=False):
        request = meta.Create(parent, name.encode(), Kind.FILE, 0o644, 0, 0, 0, exclusive, opened)
        return (await self.change(request)).attributes.inode

    async def layout(self, inode, first=0, count=1, *, write=False):
        found = await self.call(meta.GetLayout(inode, first, count, write))
        return found.chunks

    async def commit(self, inode, places, size, *, base=0):
        chunks = [meta.NewChunk(place.index, place.handle, place.version) for place in places]
        await self.change(meta.Commit(inode, size, None, [], chunks, base, True))


@dataclasses.dataclass
class FakeReplica:
    version: int
    clean: bool = True


class FakeChunkserver:
    """Answers as a chunkserver would, without bytes."""

    def __init__(self, server: Metaserver, number: int, host: str = ""):
        self.server = server
        self.number = number
        self.place = ServerPlace(number, host or f"host{number}", [f"unix:/nowhere/{number}"])
        self.free_bytes = 10 * GIB
        self.chunks: dict[int, FakeReplica] = {}
        self.asked: list[object] = []
        self.failing: set[type] = set()
        self.gate: trio.Event | None = None
        self.silent = False
        self.peer = None

    async def start(self, *, report=True):
        hello = Identity(CLUSTER, "chunkserver", self.number).hello()
        self.peer = await connect(
            self.server.ports(), self.server.address, hello, self._handle, self.server.nursery
        )
        await self.peer.call(chunk.Register(self.place, 1, 20 * GIB, self.free_bytes))
        if report:
            await self.report()
        self.server.nursery.start_soon(self._keep_beating, self.peer)
        return self

    async def report(self):
        reports = [
            chunk.ChunkReport(handle, replica.version, replica.clean)
            for handle, replica in self.chunks.items()
        ]
        await self.peer.call(chunk.ReportChunks(reports, True))

    async def _keep_beating(self, peer):
        while not peer.closed and not self.silent:
            try:
                await peer.call(chunk.Heartbeat(20 * GIB, self.free_bytes))
            except TideError:
                return
            await trio.sleep(0.05)

    def stop(self):
        self.peer.close("stopped")

    def write(self, place):
        """What a client's first write does."""
        self.chunks.setdefault(place.handle, FakeReplica(place.version))

    def _handle(self, incoming):
        request = incoming.request
        self.asked.append(request)
        if type(request) in self.failing:
            raise TideError(Code.DEVICE_ERROR, "told to fail")
        if self.gate is not None:
            return self._answer_later(incoming)
        self._answer(incoming)
        return None

    async def _answer_later(self, incoming):
        await self.gate.wait()
        self._answer(incoming)

    def _answer(self, incoming):
        request = incoming.request
        if isinstance(request, chunk.SetVersion):
            replica = self.chunks.get(request.handle)
            if replica is None:
                raise TideError(Code.NO_CHUNK, "no")
            if not request.version_min <= replica.version <= request.version:
                raise TideError(Code.STALE_VERSION, "no")
            replica.version = request.version
        elif isinstance(request, chunk.DeleteChunks):
            for handle, version_max in request.chunks:
                replica = self.chunks.get(handle)
                if replica is not None and replica.version <= version_max:
                    del self.chunks[handle]
        elif isinstance(request, chunk.CopyChunk):
            replica = self.chunks.get(request.handle)
            assert replica is None or replica.version <= request.version
            assert request.sources
            self.chunks[request.handle] = FakeReplica(request.version)
        else:
            raise AssertionError(request)
        incoming.reply(Done())


async def until(condition):
    """Wait for a condition that other tasks bring about."""
    with trio.fail_after(10):
        for pause_ms in itertools.chain([0, 1, 2, 5], itertools.repeat(10)):
            found = condition()
            if found:
                return found
            await trio.sleep(pause_ms / 1000)
    raise AssertionError


async def eventually(condition):
    """As ``until``, for a condition that must be asked for."""
    with trio.fail_after(10):
        for pause_ms in itertools.chain([0, 1, 2, 5], itertools.repeat(10)):
            if await condition():
                return
            await trio.sleep(pause_ms / 1000)
