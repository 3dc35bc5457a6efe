"""A write with the token of a lock that is lost, sent straight to the chunkservers.

A client knows that its session is over, and sends no such write: but one may be on its way, or the
client may be broken. So this one knows nothing, and everything but the token is right.
"""

import os
from pathlib import Path

import trio
from stage import CampaignError
from tidefs.client.chunkclient import ChunkClient
from tidefs.client.client import Identity, open_client
from tidefs.client.connections import Connections
from tidefs.client.options import MountOptions
from tidefs.deploy.target import Target
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.messages.meta import GetLayout
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness

HOST = "late"
LATE = b"late" * 1_000


def refusal(cluster: Path, path: Path, token: int) -> str:
    """What the first chunkserver of the file says. CampaignError when it takes the write."""
    return trio.run(_write, Target(str(cluster)), os.stat(path).st_ino, token)


async def _write(target: Target, inode: int, token: int) -> str:
    ports = Ports(RealClock(), RealRandomness(), RealDisk("/"), RealNetwork())
    assert target.cluster is not None
    servers = target.cluster.file.of(METASERVER)
    addresses = [one for server in servers for one in target.cluster.place(server).addresses]
    async with trio.open_nursery() as nursery:
        client = await open_client(
            ports, Identity(addresses, HOST, os.getpid()), MountOptions(), nursery
        )
        connections = Connections(ports, HOST, client.meta.cluster, nursery)
        chunks = ChunkClient(ports, client.meta, connections, HOST)
        try:
            (place,) = (await client.meta.call(GetLayout(inode, 0, 1, False))).chunks
            await chunks.write(place, 0, [LATE], token)
        except TideError as error:
            if error.code is not Code.FENCED:
                raise
            return str(error)
        finally:
            connections.close()
            await client.close()
            nursery.cancel_scope.cancel()
    raise CampaignError(f"a write with token {token} was taken")
