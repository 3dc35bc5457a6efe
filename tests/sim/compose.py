"""The product's own compositions, on simulated ports: the only file here that knows how it is put
together."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from tidefs.chunkserver.config import ChunkserverConfig
from tidefs.chunkserver.layout import DATA_START
from tidefs.chunkserver.node import run_node as run_chunkserver
from tidefs.chunkserver.records import RECORD_MAX_BYTES
from tidefs.client.client import Identity, open_client
from tidefs.client.fuse.driver import FileSystem
from tidefs.client.inodes import File
from tidefs.client.link import Who
from tidefs.client.metaclient import MetaClient
from tidefs.client.modes import mode_named
from tidefs.client.options import MountOptions
from tidefs.client.vfs import Vfs
from tidefs.fs import handshake
from tidefs.fs.config import Duration, Size
from tidefs.fs.limits import CHECKSUM_BLOCK_BYTES
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.ports import Ports
from tidefs.metaserver.config import MemberConfig, MetaserverConfig
from tidefs.metaserver.format import format_folder
from tidefs.metaserver.node import run_node as run_metaserver
from tidefs.metaserver.store_memory import MemoryStores

from .admin import Admin
from .callers import Metaservers, Mount
from .client_host import MountLife
from .cluster import Cluster, Lies, Server
from .group_watch import GroupWatch
from .kept_stores import Kept, KeptStores
from .trace import Trace

if TYPE_CHECKING:
    from .options import Options

CLUSTER_ID = "simulated"
GARBAGE_GRACE_MS = 5_000
PUBLISHED_LATE_S = 0.5
PATIENCE_MS = 3_600_000


async def build_cluster(
    seed: int,
    options: "Options",
    trace: Trace,
    watch: GroupWatch,
    lies: Lies,
    nursery: trio.Nursery,
) -> Cluster:
    """Servers with formatted disks, not yet started."""
    cluster = Cluster(seed, trace, watch, nursery)
    cluster.metaservers = [
        _metaserver(cluster, number, options, lies) for number in range(1, options.members + 1)
    ]
    founders = [member.place for member in cluster.metaservers]
    for member in cluster.metaservers:
        await _format(member, founders)

    async def joining(cluster: Cluster, number: int) -> Server:
        member = _metaserver(cluster, number, options, lies)
        await _format(member, None)
        return member

    cluster.admin = Admin(cluster, joining)
    for number in range(1, options.chunkservers + 1):
        cluster.chunkservers.append(_chunkserver(cluster, number, lies))
    return cluster


def _metaserver(cluster: Cluster, number: int, options: "Options", lies: Lies) -> Server:
    kept = Kept()

    async def run(ports: Ports, server: Server) -> None:
        config = metaserver_config(options, server.place, cluster.places())
        stores = KeptStores(ports.disk, kept) if options.kept_state else MemoryStores(ports.disk)
        await run_metaserver(config, ports, stores, pid=1, task_status=server)

    return Server(cluster, f"m{number}", run, server=number, lie=lies.metaserver)


async def _format(member: Server, founders: list[ServerPlace] | None) -> None:
    """Before the machine is given to anybody: power does not fail meanwhile."""
    identity = handshake.Identity(CLUSTER_ID, METASERVER, member.place.server)
    await format_folder(member.disk, identity, "data", founders)


def _chunkserver(cluster: Cluster, number: int, lies: Lies) -> Server:
    async def run(ports: Ports, server: Server) -> None:
        config = ChunkserverConfig(
            cluster=CLUSTER_ID,
            server=server.place.server,
            data="data",
            listen=server.place.addresses,
            metaservers=cluster.addresses(),
            host=server.host,
            journal_segment=Size(RECORD_MAX_BYTES + CHECKSUM_BLOCK_BYTES),
            scrub=Size(CHECKSUM_BLOCK_BYTES),
        )
        await run_chunkserver(config, ports, pid=1, task_status=server)

    return Server(
        cluster, f"s{number}", run, server=100 + number, lie=lies.chunkserver, data_start=DATA_START
    )


def metaserver_config(
    options: "Options", own: ServerPlace, members: list[ServerPlace]
) -> MetaserverConfig:
    """Repair and garbage collection come soon, so that runs see them."""
    return MetaserverConfig(
        cluster=CLUSTER_ID,
        server=own.server,
        data="data",
        listen=own.addresses,
        host=own.host,
        members=[
            MemberConfig(server=place.server, host=place.host, addresses=place.addresses)
            for place in members
        ],
        raft_heartbeat=Duration(options.patience.heartbeat_ms),
        election_timeout=Duration(options.patience.election_ms),
        replicas=options.replicas,
        repair_after=Duration(8_000),
        garbage_grace=Duration(GARBAGE_GRACE_MS),
        checkpoint_entries=options.checkpoint_entries,
        log_segment=Size(options.log_segment_bytes),
    )


class KnownLease:
    """What a client knows of the session that it is in: 0 when it was told that it is over."""

    def __init__(self, meta: MetaClient) -> None:
        self._meta = meta

    @property
    def session(self) -> int:
        session = self._meta._links.session
        return 0 if session is None else session.id

    @property
    def lease_until_ns(self) -> int:
        return self._meta.lease_until_ns


def mount(cluster: Cluster, options: "Options", lies: Lies) -> MountLife:
    """How a client lives."""

    async def life(ports: Ports, serve: Callable[[FileSystem], Awaitable[None]], host: str) -> None:
        async with trio.open_nursery() as nursery:
            client = await open_client(
                ports,
                Identity(cluster.addresses(), host, pid=1),
                MountOptions(mode=mode_named(options.mode)),
                nursery,
                timeout_ms=PATIENCE_MS,
            )
            if lies.close_publishes_late:
                _publish_late(client.vfs, nursery)
            with cluster.watch.locks.connected(
                host, KnownLease(client.meta), ports.clock.monotonic_ns
            ):
                await serve(client.vfs)
            await client.close()

    return life


def open_session(cluster: Cluster) -> Mount:
    """How a caller lives: a session, without a mount."""

    async def life(ports: Ports, work: Callable[[Metaservers], Awaitable[None]], host: str) -> None:
        async with trio.open_nursery() as nursery:
            metaservers = MetaClient(ports, cluster.addresses(), Who(host, 1))
            nursery.start_soon(metaservers.run)
            await metaservers.wait_linked(PATIENCE_MS)
            with cluster.watch.locks.connected(
                host, KnownLease(metaservers), ports.clock.monotonic_ns
            ):
                await work(metaservers)
            await metaservers.close()

    return life


def _publish_late(vfs: Vfs, nursery: trio.Nursery) -> None:
    """A broken client: close answers at once, and publishes a while later."""
    flush, release = vfs._flush, vfs._release_modified

    async def fsync_only(file: File, *, sync: bool) -> None:
        if sync:
            await flush(file, sync=True)

    async def release_late(file: File) -> None:
        await trio.sleep(PUBLISHED_LATE_S)
        await release(file)

    async def release_at_once(file: File) -> None:
        nursery.start_soon(release_late, file)

    vfs._flush = fsync_only  # type: ignore[method-assign]
    vfs._release_modified = release_at_once  # type: ignore[method-assign]
