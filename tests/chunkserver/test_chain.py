"""Writes along the chain, over real sockets: order, repetitions, failures that walk back."""

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CHUNK_BYTES, KIB, MIB
from tidefs.fs.messages.chunk import (
    CopyChunk,
    DeleteChunks,
    ReadChunk,
    SetVersion,
    SyncChunk,
    WriteChunk,
)
from tidefs.fs.rpc import Mutation

V = 1 << 32


def write(house, offset=0, *, version=V, create=True, serial=0, handle=7, chain=None, fence=0):
    if chain is None:
        chain = [server.place for server in house.servers[1:]]
    return WriteChunk(handle, version, offset, create, serial, chain, fence)


async def read(house, server, offset, length, *, version=V, handle=7) -> bytes:
    peer = await house.client(server)
    _, data = await peer.exchange(ReadChunk(handle, version, offset, length))
    peer.close("done")
    return bytes(data)


async def refused(call) -> TideError:
    with pytest.raises(TideError) as caught:
        await call
    return caught.value


async def test_a_chain_of_three_has_the_bytes_everywhere_in_the_order_of_the_primary(open_house):
    async with open_house(3) as house:
        client = await house.client(house.servers[0])
        serials = []

        async def one(number: int) -> None:
            data = bytes([number]) * (1 * MIB)
            written = await client.call(write(house, number % 2 * 512 * KIB), payload=[data])
            serials.append(written.serial)

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(one, number)
        assert sorted(serials) == list(range(1, 13))
        contents = {await read(house, server, 0, 2 * MIB) for server in house.servers}
        assert len(contents) == 1
        assert len(contents.pop()) == 1 * MIB + 512 * KIB


async def test_a_replica_that_is_killed_is_named_and_the_others_go_on_after_a_grant(open_house):
    async with open_house(3) as house:
        client = await house.client(house.servers[0])
        await client.call(write(house), payload=[b"one"])
        await house.servers[1].kill()
        error = await refused(client.call(write(house, 3), payload=[b"two"]))
        assert error.code is Code.REPLICA_FAILED
        assert error.detail.endswith(": 0000000000000101")
        for server in (house.servers[0], house.servers[2]):
            peer = house.metaserver.peers[server.server]
            await peer.call(SetVersion(7, V, V + 1, -1))
        chain = [house.servers[2].place]
        written = await client.call(write(house, 3, version=V + 1, chain=chain), payload=[b"TWO"])
        assert written.serial == 1
        for server in (house.servers[0], house.servers[2]):
            assert await read(house, server, 0, 6, version=V + 1) == b"oneTWO"


async def test_the_last_of_the_chain_is_named_by_the_first(open_house):
    async with open_house(3) as house:
        client = await house.client(house.servers[0])
        await client.call(write(house), payload=[b"one"])
        await house.servers[2].kill()
        error = await refused(client.call(write(house, 3), payload=[b"two"]))
        assert error.code is Code.REPLICA_FAILED
        assert error.detail.endswith(": 0000000000000102")


async def test_a_repetition_gets_the_first_answer_and_is_not_done_again(open_house):
    async with open_house(2) as house:
        client = await house.client(house.servers[0])
        again = Mutation(5, 0, 1)
        first = await client.call(write(house), payload=[b"old"], mutation=again)
        await client.call(write(house), payload=[b"new"], mutation=Mutation(5, 0, 2))
        second = await client.call(write(house), payload=[b"old"], mutation=again)
        assert second == first
        for server in house.servers:
            assert await read(house, server, 0, 3) == b"new"


async def test_what_does_not_follow_in_order_is_refused(open_house):
    async with open_house(1) as house:
        client = await house.client(house.servers[0])
        assert (await refused(client.call(write(house, serial=2)))).code is Code.OUT_OF_ORDER
        assert not house.servers[0].folder.joinpath("chunks/07/0000000000000007").exists()
        await client.call(write(house, serial=1), payload=[b"x"])
        assert (await refused(client.call(write(house, serial=1)))).code is Code.OUT_OF_ORDER
        assert (await refused(client.call(write(house, serial=3)))).code is Code.OUT_OF_ORDER
        await client.call(write(house, serial=2), payload=[b"y"])


async def test_writes_want_the_exact_version_and_reads_at_least_one(open_house):
    async with open_house(1) as house:
        client = await house.client(house.servers[0])
        await client.call(write(house, version=V + 5), payload=[b"x"])
        stale = await refused(client.call(write(house, version=V + 4), payload=[b"y"]))
        assert stale.code is Code.STALE_VERSION
        missed = await refused(client.call(write(house, version=V + 6), payload=[b"y"]))
        assert missed.code is Code.OUT_OF_ORDER
        assert await read(house, house.servers[0], 0, 1, version=V) == b"x"
        old = await refused(read(house, house.servers[0], 0, 1, version=V + 6))
        assert old.code is Code.STALE_VERSION


async def test_requests_that_make_no_sense_are_refused(open_house):
    async with open_house(1) as house:
        client = await house.client(house.servers[0])
        for request, code in (
            (write(house, create=False), Code.NO_CHUNK),
            (write(house, CHUNK_BYTES), Code.INVALID),
            (write(house, -1), Code.INVALID),
            (ReadChunk(7, V, 0, 1), Code.NO_CHUNK),
            (ReadChunk(7, V, 0, 5 * MIB), Code.INVALID),
            (ReadChunk(7, V, CHUNK_BYTES, 1), Code.INVALID),
            (SyncChunk(7, V), Code.NO_CHUNK),
            (SetVersion(7, V, V, -1), Code.WRONG_ROLE),
            (DeleteChunks([(7, V)]), Code.WRONG_ROLE),
        ):
            payload = [b"x"] if isinstance(request, WriteChunk) else []
            error = await refused(client.call(request, payload=payload))
            assert error.code is code, request
        peer = house.metaserver.peers[house.servers[0].server]
        assert (await refused(peer.call(SetVersion(7, V, V, -1)))).code is Code.NO_CHUNK


async def test_a_restarted_replica_has_everything_and_waits_for_a_grant(open_house):
    async with open_house(2) as house:
        client = await house.client(house.servers[0])
        await client.call(write(house), payload=[b"unsynced"])
        for end in (house.servers[1].kill, house.servers[1].stop):
            await end()
            await house.servers[1].start()
            await house.metaserver.until(lambda: len(house.metaserver.complete) == 2)
            assert await read(house, house.servers[1], 0, 99) == b"unsynced"
        report = house.metaserver.reports[house.servers[1].server][7]
        assert (report.version, report.clean) == (V, True)
        error = await refused(client.call(write(house, 8), payload=[b"!"]))
        assert error.code is Code.REPLICA_FAILED
        assert "waits for a new grant" in error.detail


async def test_a_cut_takes_bytes_away_for_good(open_house):
    async with open_house(1) as house:
        client = await house.client(house.servers[0])
        peer = house.metaserver.peers[house.servers[0].server]
        await client.call(write(house), payload=[b"x" * 100_000])
        await client.call(SyncChunk(7, V))
        await peer.call(SetVersion(7, V, V + 1, 70_000))
        assert await read(house, house.servers[0], 69_990, 99) == b"x" * 10
        await client.call(write(house, 80_000, version=V + 1), payload=[b"y"])
        found = await read(house, house.servers[0], 69_990, 99_999)
        assert found == b"x" * 10 + bytes(10_000) + b"y"
        assert (await refused(peer.call(SetVersion(7, V + 2, V + 3, -1)))).code is (
            Code.STALE_VERSION
        )
        assert (await refused(peer.call(SetVersion(7, V, V, -1)))).code is Code.STALE_VERSION


async def test_a_copy_is_whole_durable_and_takes_writes(open_house):
    async with open_house(2) as house:
        first, second = house.servers
        client = await house.client(first)
        data = bytes(range(256)) * 20_000
        for offset in (0, 3 * len(data)):
            await client.call(write(house, offset, chain=[]), payload=[data[: 4 * MIB]])
            await client.call(write(house, offset + 4 * MIB, chain=[]), payload=[data[4 * MIB :]])
        peer = house.metaserver.peers[second.server]
        nowhere = house.servers[0].place.__class__(0x999, "here", ["unix:/nowhere"])
        await peer.call(CopyChunk(7, V, [nowhere, first.place]))
        await house.metaserver.until(lambda: 7 in house.metaserver.reports[second.server])
        for offset in range(0, 5 * len(data), 4 * MIB):
            one = await read(house, first, offset, 4 * MIB)
            assert await read(house, second, offset, 4 * MIB) == one
        wrong = await refused(peer.call(CopyChunk(7, V + 9, [first.place])))
        assert wrong.code is Code.STALE_VERSION
        await second.kill()
        await second.start()
        assert await read(house, second, 0, 10) == data[:10]


async def test_deleted_chunks_are_gone_up_to_the_version_named(open_house):
    async with open_house(1) as house:
        client = await house.client(house.servers[0])
        peer = house.metaserver.peers[house.servers[0].server]
        for handle in (7, 8):
            await client.call(write(house, handle=handle), payload=[b"x"])
        await peer.call(DeleteChunks([(7, V), (8, V - 1), (9, V)]))
        assert (await refused(read(house, house.servers[0], 0, 1))).code is Code.NO_CHUNK
        assert await read(house, house.servers[0], 0, 1, handle=8) == b"x"
        assert not house.servers[0].folder.joinpath("chunks/07/0000000000000007").exists()


async def test_a_flipped_bit_is_never_served_and_is_reported(open_house):
    async with open_house(1) as house:
        server = house.servers[0]
        client = await house.client(server)
        await client.call(write(house), payload=[b"x" * 200_000])
        await client.call(SyncChunk(7, V))
        await server.stop()
        path = server.folder / "chunks/07/0000000000000007"
        content = bytearray(path.read_bytes())
        content[64 * KIB + 70_000] ^= 4
        path.write_bytes(content)
        await server.start()
        await house.metaserver.until(lambda: server.server in house.metaserver.complete)
        assert await read(house, server, 0, 64 * KIB) == b"x" * 64 * KIB
        bad = await refused(read(house, server, 64 * KIB, 10))
        assert bad.code is Code.BAD_CHECKSUM
        await house.metaserver.until(lambda: house.metaserver.bad)
        assert house.metaserver.bad[0].offset == 64 * KIB
        client = await house.client(server)
        peer = house.metaserver.peers[server.server]
        await peer.call(SetVersion(7, V, V + 1, -1))
        partly = client.call(write(house, 64 * KIB + 5, version=V + 1), payload=[b"y"])
        assert (await refused(partly)).code is Code.BAD_CHECKSUM
        await peer.call(SetVersion(7, V, V + 2, -1))
        whole = write(house, 64 * KIB, version=V + 2)
        await client.call(whole, payload=[b"y" * 64 * KIB])
        assert await read(house, server, 64 * KIB, 10) == b"y" * 10


async def test_a_full_server_takes_nothing_of_the_write_and_goes_on(open_house):
    async with open_house(1) as house:
        server = house.servers[0]
        await server.stop()
        server.capacity = 3 * MIB
        await server.start()
        client = await house.client(server)
        await client.call(write(house), payload=[b"x" * MIB])
        error = await refused(client.call(write(house, MIB), payload=[b"y" * 4 * MIB]))
        assert error.code is Code.NO_SPACE
        assert await read(house, server, MIB, 99) == b""
        await client.call(write(house, MIB), payload=[b"y" * 1000])
        assert await read(house, server, MIB - 1, 3) == b"xyy"
        await client.call(SyncChunk(7, V))


async def test_a_token_that_is_too_old_is_refused_before_anything_is_written(open_house):
    async with open_house(3) as house:
        client = await house.client(house.servers[0])
        await client.call(write(house, fence=5), payload=[b"old"])
        await client.call(write(house, fence=9), payload=[b"new"])
        error = await refused(client.call(write(house, fence=8), payload=[b"LATE"]))
        assert error.code is Code.FENCED
        assert error.detail.endswith(": 9")
        await client.call(write(house, 3), payload=[b"er"])  # who holds no lock may write
        for server in house.servers:
            assert await read(house, server, 0, 5) == b"newer"


async def test_every_replica_has_seen_the_token(open_house):
    async with open_house(2) as house:
        client = await house.client(house.servers[0])
        await client.call(write(house, fence=9), payload=[b"new"])
        direct = await house.client(house.servers[1])
        error = await refused(direct.call(write(house, serial=2, chain=[], fence=8)))
        assert error.code is Code.FENCED


async def test_a_new_grant_forgets_tokens_but_not_why_an_old_one_is_refused(open_house):
    async with open_house(2) as house:
        client = await house.client(house.servers[0])
        await client.call(write(house, fence=9), payload=[b"one"])
        for server in house.servers:
            peer = house.metaserver.peers[server.server]
            await peer.call(SetVersion(7, V, V + 1, -1))
        late = await refused(client.call(write(house, fence=8), payload=[b"LATE"]))
        assert late.code is Code.FENCED
        late = await refused(client.call(write(house, fence=9), payload=[b"LATE"]))
        assert late.code is Code.STALE_VERSION
        await client.call(write(house, version=V + 1, fence=8), payload=[b"two"])
        for server in house.servers:
            assert await read(house, server, 0, 3, version=V + 1) == b"two"
