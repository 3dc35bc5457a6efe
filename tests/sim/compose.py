"""The product's own compositions, on simulated ports: the only file here that knows how it is put
together."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio
from tidefs.chunkserver.config import ChunkserverConfig
from tidefs.chunkserver.layout import DATA_START
from tidefs.chunkserver.node import run_node as run_chunkserver
from tidefs.chunkserver.records import RECORD_MAX_BYTES
from tidefs.client.client import Identity, open_client
from tidefs.client.fuse.driver import FileSystem
from tidefs.client.inodes import File
from tidefs.client.modes import mode_named
from tidefs.client.options import MountOptions
from tidefs.client.vfs import Vfs
from tidefs.fs.config import Duration, Size
from tidefs.fs.limits import CHECKSUM_BLOCK_BYTES, LOG_SEGMENT_BYTES
from tidefs.fs.ports import Ports
from tidefs.metaserver.check import check
from tidefs.metaserver.config import MetaserverConfig
from tidefs.metaserver.node import _start_driver
from tidefs.metaserver.node import run_node as run_metaserver
from tidefs.metaserver.recovery import recover
from tidefs.metaserver.store_memory import MemoryStores

from .client_host import MountLife
from .cluster import Cluster, Lies, Process, Server
from .conditions import ViolationError
from .final_checks import Inspector
from .kept_stores import Kept, KeptStores
from .rivals import Rival
from .trace import Trace
from .watched_disk import WatchedDisk
from .workload import Worker

if TYPE_CHECKING:
    from .simulation import Options

CLUSTER_ID = "simulated"
METASERVER = "m"
META_ADDRESS = f"tcp:{METASERVER}:1"
GARBAGE_GRACE_MS = 5_000
PUBLISHED_LATE_S = 0.5
PATIENCE_MS = 3_600_000


def build_cluster(
    seed: int, options: "Options", trace: Trace, lies: Lies, nursery: trio.Nursery
) -> Cluster:
    """Servers with empty disks, not yet started."""
    cluster = Cluster(seed, trace, nursery)
    config = metaserver_config(options)

    kept = Kept()

    async def metaserver(ports: Ports, status: Server) -> None:
        stores = KeptStores(ports.disk, kept) if options.kept_state else MemoryStores(ports.disk)
        await run_metaserver(config, ports, stores, pid=1, task_status=status)

    cluster.metaserver = Server(cluster, METASERVER, metaserver, lie=lies.metaserver)
    for number in range(1, options.chunkservers + 1):
        cluster.chunkservers.append(_chunkserver(cluster, number, lies))
    return cluster


def _chunkserver(cluster: Cluster, number: int, lies: Lies) -> Server:
    host = f"s{number}"
    config = ChunkserverConfig(
        cluster=CLUSTER_ID,
        server=100 + number,
        data="data",
        listen=[f"tcp:{host}:1"],
        metaservers=[META_ADDRESS],
        host=host,
        journal_segment=Size(RECORD_MAX_BYTES + CHECKSUM_BLOCK_BYTES),
        scrub=Size(CHECKSUM_BLOCK_BYTES),
    )

    async def chunkserver(ports: Ports, status: Server) -> None:
        await run_chunkserver(config, ports, pid=1, task_status=status)

    return Server(cluster, host, chunkserver, lie=lies.chunkserver, data_start=DATA_START)


def metaserver_config(options: "Options") -> MetaserverConfig:
    """Repair and garbage collection come soon, so that runs see them."""
    return MetaserverConfig(
        cluster=CLUSTER_ID,
        server=1,
        data="data",
        listen=[META_ADDRESS],
        host=METASERVER,
        replicas=options.replicas,
        repair_after=Duration(8_000),
        garbage_grace=Duration(GARBAGE_GRACE_MS),
        log_segment=Size(LOG_SEGMENT_BYTES),
    )


def mount(options: "Options", lies: Lies) -> MountLife:
    """How a client lives."""

    async def life(ports: Ports, serve: Callable[[FileSystem], Awaitable[None]], host: str) -> None:
        async with trio.open_nursery() as nursery:
            client = await open_client(
                ports,
                Identity([META_ADDRESS], host, pid=1),
                MountOptions(mode=mode_named(options.mode)),
                nursery,
                timeout_ms=PATIENCE_MS,
            )
            if lies.close_publishes_late:
                _publish_late(client.vfs, nursery)
            await serve(client.vfs)
            await client.close()

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


async def check_servers(cluster: Cluster, workers: Sequence[Worker | Rival]) -> None:
    """See ``final_checks.py``."""
    visitor = Process(cluster, "inspector")
    ports, scope = visitor.begin(visitor.no_disk())

    async def inspect() -> None:
        async with trio.open_nursery() as nursery:
            inspector = Inspector(ports, nursery, cluster.conditions)
            await inspector.wait_until_well(META_ADDRESS)
            for worker in workers:
                while not await inspector.compare_replicas(META_ADDRESS, worker):
                    await inspector.wait_until_well(META_ADDRESS)
            nursery.cancel_scope.cancel()

    await visitor.live(scope, inspect)


async def check_state(cluster: Cluster, options: "Options") -> None:
    """What recovery makes of the metaserver's disk after a power failure must be consistent."""
    server = cluster.metaserver
    server.stop(machine=True)
    ports, scope = server.begin(
        WatchedDisk(server.disk, server.host, cluster.trace, cluster.postman)
    )

    async def check_recovered() -> None:
        stores = MemoryStores(ports.disk)
        recovered = await recover(
            ports.disk, stores, CLUSTER_ID, segment_bytes=metaserver_config(options).log_segment
        )
        await _start_driver(metaserver_config(options), ports, recovered)
        wrong = check(recovered.state)
        orphans = recovered.state.orphans()
        if wrong or orphans:
            raise ViolationError(f"in the metaserver's state: {wrong[:5]}, orphans {orphans[:5]}")
        known = {handle for handle, _ in recovered.state.all_chunks()}
        for other in cluster.chunkservers:
            garbage = other.chunks() - known
            if garbage:
                raise ViolationError(f"chunks on {other.host} that no file has: {garbage}")

    await server.live(scope, check_recovered)
