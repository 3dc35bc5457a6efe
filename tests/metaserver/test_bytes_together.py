"""A metaserver and a real chunkserver: what happens to bytes when writers meet, or die."""

import pytest
import trio
from tidefs.chunkserver.config import ChunkserverConfig
from tidefs.chunkserver.node import run_node
from tidefs.fs.config import Duration
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.limits import CHUNK_BYTES, FRAME_PAYLOAD_MAX_BYTES, KIB
from tidefs.fs.messages import chunk, meta
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import connect, no_requests

from .live import CLUSTER, Metaserver, eventually

OLD = b"old" * KIB
NEW = b"new" * KIB
BEHIND = 20 * KIB


class House:
    """One metaserver, one chunkserver, and writers by hand."""

    def __init__(self, folder, nursery):
        self.nursery = nursery
        self.meta = Metaserver(folder, nursery, replicas=1, session_lease=Duration(300))
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

    async def expire(self, witness):
        """Until all sessions but one are over."""

        async def is_over():
            await witness.call(meta.KeepAlive(witness.session))
            return (await witness.call(meta.GetStatus())).sessions == 1

        await eventually(is_over)

    async def content(self, client, inode):
        """What a new reader sees."""
        reply, inline = await client.peer.exchange(meta.GetContent(inode, 0))
        size = reply.attributes.size
        if reply.inline:
            return bytes(inline).ljust(size, b"\0")
        found = bytearray(size)
        for place in await client.layout(inode, 0, size // CHUNK_BYTES + 1):
            start = place.index * CHUNK_BYTES
            end = min(size - start, CHUNK_BYTES)
            for offset in range(0, end, FRAME_PAYLOAD_MAX_BYTES):
                length = min(end - offset, FRAME_PAYLOAD_MAX_BYTES)
                request = chunk.ReadChunk(place.handle, place.version, offset, length)
                _, data = await self.peer.exchange(request)
                found[start + offset : start + offset + len(data)] = data
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


# --- bytes that nobody ever committed ------------------------------------------------------------


async def file_with_a_tail(house, client):
    """A file with one chunk, and behind its end the bytes of a writer that has died."""
    inode, base = await small_file(client, OLD)
    place = await placed(client, inode)
    await house.write(place, 0, NEW)
    await client.commit(inode, [place], len(NEW), base=base)
    dying = await house.meta.client()
    await house.write(await placed(dying, inode), BEHIND, b"never committed")
    dying.peer.close("it died")
    return inode


async def test_what_was_never_committed_is_zeros_when_the_file_is_extended(house):
    client = await house.meta.client()
    inode = await file_with_a_tail(house, client)
    await client.change(meta.SetAttributes(inode, size=2 * BEHIND))
    assert await house.content(client, inode) == NEW.ljust(2 * BEHIND, b"\0")


async def test_what_was_never_committed_is_zeros_when_another_chunk_is_written(house):
    client = await house.meta.client()
    inode = await file_with_a_tail(house, client)
    (place,) = await client.layout(inode, 1, write=True)
    await house.write(place, 0, b"next")
    await client.commit(inode, [place], CHUNK_BYTES + 4)
    content = await house.content(client, inode)
    assert content == NEW.ljust(CHUNK_BYTES, b"\0") + b"next"


async def test_what_was_never_committed_is_zeros_in_front_of_what_is_written_later(house):
    """Its session has expired meanwhile."""
    client = await house.meta.client()
    inode = await file_with_a_tail(house, client)
    await house.expire(client)
    place = await placed(client, inode)
    await house.write(place, 2 * BEHIND, b"later")
    await client.commit(inode, [place], 2 * BEHIND + 5)
    assert await house.content(client, inode) == NEW.ljust(2 * BEHIND, b"\0") + b"later"


async def test_what_was_never_committed_is_zeros_also_after_a_failover(house):
    client = await house.meta.client()
    inode = await file_with_a_tail(house, client)
    await house.meta.stop()
    await house.meta.start()
    await client.resume()
    place = await placed(client, inode)
    await house.write(place, 2 * BEHIND, b"later")
    await client.commit(inode, [place], 2 * BEHIND + 5)
    assert await house.content(client, inode) == NEW.ljust(2 * BEHIND, b"\0") + b"later"


async def test_who_lives_is_told_that_what_it_pushed_was_dropped(house):
    one, two = await house.meta.client(), await house.meta.client()
    inode, base = await small_file(one, OLD)
    place = await placed(one, inode)
    await house.write(place, 0, NEW)
    await one.commit(inode, [place], len(NEW), base=base)
    await house.write(place, BEHIND, b"mine")
    await two.change(meta.SetAttributes(inode, size=2 * BEHIND))
    with pytest.raises(TideError) as failed:
        await one.commit(inode, [place], BEHIND + 4)
    assert failed.value.code is Code.LAYOUT_CHANGED
    again = await placed(one, inode)
    await house.write(again, BEHIND, b"mine")
    await one.commit(inode, [again], BEHIND + 4)
    content = NEW.ljust(BEHIND, b"\0") + b"mine"
    assert await house.content(one, inode) == content.ljust(2 * BEHIND, b"\0")


async def test_appending_costs_no_grant(house):
    client = await house.meta.client()
    inode, base = await small_file(client, OLD)
    place = first = await placed(client, inode)
    await house.write(place, 0, OLD)
    await client.commit(inode, [place], len(OLD), base=base)
    for count in range(1, 10):
        place = await placed(client, inode)
        await house.write(place, count * len(OLD), NEW)
        await client.commit(inode, [place], (count + 1) * len(OLD))
    assert place.version == first.version
    assert await house.content(client, inode) == OLD + 9 * NEW
