"""Clones of chunks: over real sockets, and on a disk that crashes."""

import pytest
import trio
from tidefs.chunkserver.cloning import clone_chunk
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CHUNK_BYTES, KIB, MIB
from tidefs.fs.messages.chunk import CloneChunk, ReadChunk, SetVersion, WriteChunk
from tidefs.fs.messages.places import ServerPlace
from tidefs.tests.chunkserver.store_bench import BLOCK, Bench, content, refused_later, write
from tidefs.tests.sim import determinism

V = 1 << 32
SEEDS = range(30)


SERVER = 0x100
HERE = ServerPlace(SERVER, "here", [])


def clone(length, *, handle=8, version=V + 5, source=7, source_version=V, sources=(HERE,)):
    return CloneChunk(handle, version, source, source_version, length, list(sources))


def put(offset, *, handle=7, version=V, create=True):
    return WriteChunk(handle, version, offset, create, 0, [])


async def read(peer, handle, length, version=V, offset=0):
    _, data = await peer.exchange(ReadChunk(handle, version, offset, length))
    return bytes(data)


async def refused(call) -> Code:
    with pytest.raises(TideError) as caught:
        await call
    return caught.value.code


async def test_a_clone_from_this_disk_is_durable_and_takes_writes(open_house):
    async with open_house(1) as house:
        server = house.servers[0]
        client = await house.client(server)
        data = bytes(range(251)) * 20_000
        await client.call(put(100), payload=[data[: 4 * MIB]])
        await client.call(put(9 * MIB + 5), payload=[b"end"])
        await client.call(clone(9 * MIB + 7))
        await server.kill()
        await server.start()
        client = await house.client(server)
        found = await read(client, 8, 4 * MIB, V + 5)
        assert found == bytes(100) + data[: 4 * MIB - 100]
        assert await read(client, 8, 4 * MIB, V + 5, 8 * MIB) == bytes(MIB + 5) + b"en"
        peer = house.metaserver.peers[server.server]
        await peer.call(SetVersion(8, V + 5, V + 6, -1))
        await client.call(put(0, handle=8, version=V + 6), payload=[b"new"])
        assert await read(client, 8, 4, V + 6) == b"new\0"
        assert await read(client, 7, 101) == bytes(100) + data[:1], "the source is as it was"


async def test_the_first_write_after_a_clone(open_house):
    """It comes at the version at which the chunk was made, on every replica."""
    async with open_house(2) as house:
        first, second = house.servers
        clients = [await house.client(server) for server in house.servers]
        await clients[0].call(put(0), payload=[b"x" * 100_000])
        for client in clients:
            await client.call(clone(70_000, sources=[first.place]))
        written = WriteChunk(8, V + 5, 1, True, 0, [second.place])
        assert (await clients[0].call(written, payload=[b"y"])).serial == 1
        for client in clients:
            assert await read(client, 8, 100_000, V + 5) == b"xy" + b"x" * 69_998


async def test_a_clone_from_a_neighbour(open_house):
    async with open_house(2) as house:
        first = house.servers[0]
        client, other = [await house.client(server) for server in house.servers]
        await client.call(put(0), payload=[b"a" * MIB])
        nowhere = first.place.__class__(0x999, "here", ["unix:/nowhere"])
        await other.call(clone(MIB // 2 + 1, sources=[nowhere, first.place]))
        assert await read(other, 8, MIB, V + 5) == b"a" * (MIB // 2 + 1)


async def test_an_old_replica_of_the_source_is_not_asked(open_house):
    async with open_house(2) as house:
        first, second = house.servers
        client, other = [await house.client(server) for server in house.servers]
        await client.call(put(0), payload=[b"old"])
        await other.call(put(0, version=V + 1), payload=[b"new"])
        await client.call(clone(3, source_version=V + 1, sources=[first.place, second.place]))
        assert await read(client, 8, 3, V + 5) == b"new"
        stale = clone(3, handle=9, source_version=V + 1, sources=[first.place])
        assert await refused(client.call(stale)) is Code.STALE_VERSION


async def test_clones_of_equal_bytes_have_equal_digests(open_house):
    async with open_house(2) as house:
        clients = [await house.client(server) for server in house.servers]
        content = b"a" * 200_000
        await clients[0].call(put(0), payload=[content + bytes(300_000)])
        await clients[1].call(put(0), payload=[content])
        first, second = (server.place for server in house.servers)

        async def digest(handle, client, source, length=400_000):
            request = clone(length, handle=handle, sources=[source])
            return (await client.call(request)).digest

        one = await digest(8, clients[0], first)
        assert one == await digest(8, clients[1], first) == await digest(9, clients[0], second)
        assert one != await digest(10, clients[0], second, 199_999)
        await clients[1].call(put(0), payload=[b"b"])
        assert one != await digest(11, clients[1], second)


async def test_a_replica_that_is_not_named_is_not_asked(open_house):
    """It may have lost bytes in a crash."""
    async with open_house(2) as house:
        clients = [await house.client(server) for server in house.servers]
        for client, content in zip(clients, (b"lost", b"kept"), strict=True):
            await client.call(put(0), payload=[content])
        await clients[0].call(clone(4, sources=[house.servers[1].place]))
        assert await read(clients[0], 8, 4, V + 5) == b"kept"


async def test_a_damaged_block_is_not_cloned(open_house):
    async with open_house(2) as house:
        first, second = house.servers
        clients = [await house.client(server) for server in house.servers]
        for client in clients:
            await client.call(put(0), payload=[b"x" * 200_000])
        await first.stop()
        path = first.folder / "chunks/07/0000000000000007"
        damaged = bytearray(path.read_bytes())
        damaged[64 * KIB + 70_000] ^= 4
        path.write_bytes(damaged)
        await first.start()
        client = await house.client(first)
        assert await refused(client.call(clone(200_000))) is Code.BAD_CHECKSUM
        assert await refused(read(client, 8, 1, V + 5)) is Code.NO_CHUNK
        await client.call(clone(200_000, sources=[first.place, second.place]))
        assert await read(client, 8, 200_000, V + 5) == b"x" * 200_000


async def test_what_cannot_be_cloned(open_house):
    async with open_house(1) as house:
        client = await house.client(house.servers[0])
        await client.call(put(0), payload=[b"x"])
        await client.call(put(0, handle=8, version=V + 9), payload=[b"y"])
        for request, code in [
            (clone(1, handle=9, source=6), Code.NO_CHUNK),
            (clone(CHUNK_BYTES + 1), Code.INVALID),
            (clone(-1), Code.INVALID),
            (clone(1, handle=7), Code.INVALID),
            (clone(1, handle=0), Code.INVALID),
            (clone(1), Code.STALE_VERSION),
        ]:
            assert await refused(client.call(request)) is code
        assert await read(client, 8, 1, V + 9) == b"y"


async def test_a_clone_replaces_what_an_earlier_attempt_left():
    bench = Bench()
    await bench.format()
    async with bench.store() as store:
        store.create(7, V)
        write(store, 7, 0, b"a" * 2 * BLOCK, V)
        await clone_chunk(store, None, SERVER, clone(2 * BLOCK))
        await clone_chunk(store, None, SERVER, clone(BLOCK + 1))
        assert await content(store, 8) == b"a" * (BLOCK + 1)
        await clone_chunk(store, None, SERVER, clone(0))
        assert await content(store, 8) == b""
    async with bench.store() as store:
        assert await content(store, 8) == b""


async def test_one_at_a_time():
    bench = Bench(latency_s=0.01)
    await bench.format()
    async with bench.store() as store, trio.open_nursery() as nursery:
        store.create(7, V)
        write(store, 7, 0, b"a", V)
        nursery.start_soon(clone_chunk, store, None, SERVER, clone(1))
        await trio.testing.wait_all_tasks_blocked()
        assert await refused_later(clone_chunk(store, None, SERVER, clone(1))) is Code.BUSY


async def test_a_full_disk():
    bench = Bench()
    await bench.format()
    async with bench.store() as store:
        store.create(7, V)
        for offset in range(0, 16 * MIB, 4 * MIB):
            write(store, 7, offset, b"a" * 4 * MIB, V)
        await store.sync(7)
        bench.settings = bench.settings._replace(capacity_bytes=30 * MIB)
    async with bench.store() as store:
        assert (
            await refused_later(clone_chunk(store, None, SERVER, clone(16 * MIB))) is Code.NO_SPACE
        )
        assert store.version(8) is None
        assert bench.disk.names("incoming") == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_leaves_the_whole_clone_or_none(seed):
    async def main():
        bench = Bench(seed, latency_s=0.01)
        await bench.format()
        answered = False
        async with bench.store("crash") as store, trio.open_nursery() as nursery:
            store.create(7, V)
            write(store, 7, 0, b"a" * BLOCK, V)
            write(store, 7, 2 * BLOCK, b"b" * 100, V)
            await store.sync(7)
            write(store, 7, 5, b"B", V)  # in the page cache only

            async def make():
                nonlocal answered
                await clone_chunk(store, None, SERVER, clone(2 * BLOCK + 50))
                answered = True

            nursery.start_soon(make)
            await trio.sleep(bench.random.random() * 0.08)
            nursery.cancel_scope.cancel()
        async with bench.store() as store:
            if store.version(8) is None:
                assert not answered
            else:
                wanted = b"aaaaaB" + b"a" * (BLOCK - 6) + bytes(BLOCK) + b"b" * 50
                assert await content(store, 8) == wanted
            assert (await content(store, 7))[BLOCK:] == bytes(BLOCK) + b"b" * 100
            assert bench.disk.names("incoming") == []
        assert not bench.damage

    determinism.run(main, seed)
