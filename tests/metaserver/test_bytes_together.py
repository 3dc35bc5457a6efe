"""A metaserver and a real chunkserver: what happens to bytes when writers meet, or die."""

import pytest
import trio
from tidefs.chunkserver.config import ChunkserverConfig
from tidefs.chunkserver.node import run_node
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.limits import CHUNK_BYTES, KIB
from tidefs.fs.messages import chunk, meta
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import connect, no_requests

from .live import CLUSTER, Metaserver

OLD = b"old" * KIB
NEW = b"new" * KIB
BEHIND = 20 * KIB


class House:
    """One metaserver, one chunkserver, and writers by hand."""

    def __init__(self, folder, nursery):
        self.nursery = nursery
        self.meta = Metaserver(folder, nursery, replicas=1)
        self.address = f"unix:{folder}/chunk.sock"
        data = folder / "chunks"
        data.mkdir()
        self.config = ChunkserverConfig(
            cluster=CLUSTER,
            server=11,
            data=str(data),
            listen=[self.address],
            metaservers=[self.meta.address],
            host="here",
            scrub=0,
        )
        self.ports = Ports(RealClock(), RealRandomness(), RealDisk(str(data)), RealNetwork())

    async def start(self):
        await self.meta.start()
        await self.nursery.start(self._run)
        hello = Identity(CLUSTER, "client", 0).hello()
        self.peer = await connect(self.ports, self.address, hello, no_requests, self.nursery)
        return self

    async def _run(self, *, task_status):
        await run_node(self.config, self.ports, task_status=task_status)

    async def write(self, place, offset, data):
        request = chunk.WriteChunk(place.handle, place.version, offset, place.fresh, 0, [])
        await self.peer.call(request, payload=[data])

    async def content(self, client, inode):
        """What a new reader sees."""
        reply, inline = await client.peer.exchange(meta.GetContent(inode, 0))
        size = reply.attributes.size
        if reply.inline:
            return bytes(inline).ljust(size, b"\0")
        found = bytearray(size)
        for place in await client.layout(inode, 0, size // CHUNK_BYTES + 1):
            start = place.index * CHUNK_BYTES
            length = min(size - start, CHUNK_BYTES)
            request = chunk.ReadChunk(place.handle, place.version, 0, length)
            _, data = await self.peer.exchange(request)
            found[start : start + len(data)] = data
        return bytes(found)


@pytest.fixture
async def house(tmp_path, nursery):
    return await House(tmp_path, nursery).start()


async def small_file(client, content):
    """An inline file, and its data version."""
    inode = await client.create("file")
    patches = [meta.Patch(0, len(content))]
    request = meta.Commit(inode, len(content), None, patches, [], 0, False)
    reply = await client.change(request, [content])
    return inode, reply.attributes.data_version


async def placed(client, inode):
    with trio.fail_after(10):
        (place,) = await client.layout(inode, write=True)
    return place


async def test_two_who_enlarge_a_small_file_at_once_do_not_undo_each_other(house):
    """The second one carries over what the first one has replaced by then."""
    one, two = await house.meta.client(), await house.meta.client()
    inode, base = await small_file(one, OLD)
    first, second = await placed(one, inode), await placed(two, inode)
    await house.write(first, 0, NEW)
    await one.commit(inode, [first], len(NEW), base=base)
    await house.write(second, 0, OLD)
    await house.write(second, BEHIND, b"more")
    with pytest.raises(TideError) as failed:
        await two.commit(inode, [second], BEHIND + 4, base=base)
    assert failed.value.code is Code.LAYOUT_CHANGED
    assert await house.content(one, inode) == NEW
    third = await placed(two, inode)
    assert (third.handle, third.fresh) == (first.handle, False)
    await house.write(third, BEHIND, b"more")
    await two.commit(inode, [third], BEHIND + 4)
    assert await house.content(one, inode) == NEW.ljust(BEHIND, b"\0") + b"more"
