"""Layouts and write grants, with chunkservers that are only what the test says."""

import pytest
import trio
from tidefs.fs.config import Duration
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import GIB, MIB
from tidefs.fs.messages import meta
from tidefs.fs.messages.chunk import CopyChunk, DeleteChunks, ReportBad, SetVersion

from .live import FakeChunkserver, FakeReplica, Metaserver, eventually, until
from .placing import again, base_of, chunkservers, numbers, refused, write, written_file


@pytest.fixture
async def server(tmp_path, nursery):
    return await Metaserver(tmp_path, nursery).start()


# --- chunks that do not exist yet ----------------------------------------------------------------


async def test_a_missing_chunk_is_reserved_on_distinct_servers(server):
    await chunkservers(server, 5)
    client = await server.client()
    inode = await client.create("file")
    places = await client.layout(inode, 0, 3, write=True)
    assert [place.index for place in places] == [0, 1, 2]
    assert len({place.handle for place in places}) == 3
    assert len({place.version for place in places}) == 3
    for place in places:
        assert place.fresh
        assert len(numbers(place)) == 3
    assert await client.layout(inode, 0, 3) == [], "to a reader they are holes"
    assert await client.layout(inode, 0, 3, write=True) == places


async def test_a_committed_chunk_is_read_where_it_was_written(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    (found,) = await client.layout(inode)
    assert (found.handle, found.version, found.fresh) == (place.handle, place.version, False)
    assert numbers(found) == {11, 12, 13}
    (again,) = await client.layout(inode, write=True)
    assert (again.version, again.fresh) == (place.version, False)
    assert not any(one.asked for one in servers), "the grant of the reservation is still good"


async def test_too_few_servers_is_to_be_tried_again_and_no_room_is_final(server):
    await chunkservers(server, 1)
    client = await server.client()
    inode = await client.create("file")
    error = await refused(Code.UNAVAILABLE, client.layout(inode, write=True))
    assert "1 chunkservers are up, a write needs 2" in error.detail
    assert error.retryable
    full = FakeChunkserver(server, 20)
    full.free_bytes = 1
    await full.start()
    error = await refused(Code.NO_SPACE, client.layout(inode, write=True))
    assert "1 of 2 chunkservers have room" in error.detail


async def test_the_minimum_is_enough_while_fewer_are_up(server):
    await chunkservers(server, 2)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    assert len(place.replicas) == 2


async def test_a_server_without_room_gets_no_new_chunks(server):
    await chunkservers(server, 3)
    full = FakeChunkserver(server, 20)
    full.free_bytes = 10 * MIB
    await full.start()
    client = await server.client()
    inode = await client.create("file")
    for place in await client.layout(inode, 0, 20, write=True):
        assert 20 not in numbers(place)


async def test_distinct_hosts_are_preferred(server):
    for number, host in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c")]:
        await FakeChunkserver(server, number, host).start()
    client = await server.client()
    inode = await client.create("file")
    for place in await client.layout(inode, 0, 20, write=True):
        assert {replica.host for replica in place.replicas} == {"a", "b", "c"}


# --- grants of chunks that exist -----------------------------------------------------------------


async def test_a_restarted_metaserver_makes_a_new_grant(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    await server.stop(crash=True)
    await server.start()
    servers = [await again(server, one) for one in servers]
    await client.resume()
    (found,) = await client.layout(inode, write=True)
    assert found.version > place.version
    assert found.handle == place.handle
    assert {one.chunks[place.handle].version for one in servers} == {found.version}
    await server.stop(crash=True)
    await server.start()
    servers = [await again(server, one) for one in servers]
    (read,) = await (await server.client()).layout(inode)
    assert read.version == found.version, "the grant was logged before it was given out"


async def test_after_a_restart_a_grant_waits_for_who_was_there_before(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    await server.stop(crash=True)
    await server.start()
    await client.resume()
    found = []

    async def ask():
        found.extend(await client.layout(inode, write=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        for one in servers:
            await again(server, one)
    assert numbers(found[0]) == {11, 12, 13}
    assert found[0].version > place.version


async def test_those_who_ask_at_once_share_a_grant(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    await client.call(meta.ReportFailure(place.handle, place.version, []))
    gate = trio.Event()
    for one in servers:
        one.gate = gate
    found = []

    async def ask():
        found.extend(await client.layout(inode, write=True))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await until(lambda: all(one.asked for one in servers))
        gate.set()
    assert len({place.version for place in found}) == 1
    assert all(len(one.asked) == 1 for one in servers)


async def test_a_failed_replica_is_left_out_of_the_next_grant(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    await client.call(meta.ReportFailure(place.handle, place.version, [12]))
    (found,) = await client.layout(inode, write=True)
    assert found.version > place.version
    assert numbers(found) == {11, 13}
    assert servers[1].chunks[place.handle].version == place.version, "it is stale now"
    await client.call(meta.ReportFailure(place.handle, place.version, [11]))
    assert await client.layout(inode, write=True) == [found], "a late report changes nothing"


async def test_a_chunk_that_was_never_made_is_placed_anew(server):
    servers = await chunkservers(server, 4)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    failed = place.replicas[0].server
    await client.call(meta.ReportFailure(place.handle, place.version, [failed]))
    (found,) = await client.layout(inode, write=True)
    assert found.fresh
    assert found.version > place.version
    assert len(found.replicas) == 3
    assert failed not in numbers(found) or len(servers) == 3


async def test_a_server_that_failed_is_taken_when_there_is_no_other(server):
    servers = await chunkservers(server, 2)
    client, inode, place = await written_file(server, servers)
    await client.call(meta.ReportFailure(place.handle, place.version, [12]))
    (found,) = await client.layout(inode, write=True)
    assert numbers(found) == {11, 12}


async def test_too_few_replicas_are_copied_first(server):
    servers = await chunkservers(server, 4)
    client, inode, place = await written_file(server, servers)
    held = [one for one in servers if one.number in numbers(place)]
    (spare,) = [one for one in servers if one.number not in numbers(place)]
    for one in held[1:]:
        one.stop()
    await until(lambda: held[1].peer.closed)

    async def enough():
        found = await client.call(meta.GetStatus())
        return sum(s.state == "up" for s in found.servers) == 2

    await eventually(enough)
    (found,) = await client.layout(inode, write=True)
    assert numbers(found) == {held[0].number, spare.number}
    assert spare.chunks[place.handle].version == found.version


async def test_fewer_than_the_minimum_cannot_be_written_but_read(server):
    servers = await chunkservers(server)
    client, inode, _place = await written_file(server, servers)
    for one in servers[1:]:
        one.stop()

    async def alone():
        return [numbers(place) for place in await client.layout(inode)] == [{11}]

    await eventually(alone)
    await refused(Code.UNAVAILABLE, client.layout(inode, write=True))
    servers[0].stop()

    async def nobody():
        return not (await client.layout(inode))[0].replicas

    await eventually(nobody)


async def test_a_stale_replica_is_never_read(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    servers[2].stop()
    await until(lambda: servers[2].peer.closed)
    await client.call(meta.ReportFailure(place.handle, place.version, [13]))
    await client.layout(inode, write=True)
    late = FakeChunkserver(server, 13)
    late.chunks = servers[2].chunks
    await late.start()
    (read,) = await client.layout(inode)
    assert numbers(read) == {11, 12}


async def test_a_truncation_is_cut_before_anything_behind_it_is_read(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    await client.change(meta.SetAttributes(inode, size=1000))
    (found,) = await client.layout(inode)
    assert found.version == place.version
    assert not any(one.asked for one in servers), "what is left may be read as it is"
    await client.change(meta.SetAttributes(inode, size=2000))
    (found,) = await client.layout(inode)
    assert found.version > place.version
    for one in servers:
        assert [r.cut for r in one.asked if isinstance(r, SetVersion)] == [1000]
    (again,) = await client.layout(inode, write=True)
    assert again.version == found.version
    with pytest.raises(TideError) as caught:
        await client.commit(inode, [place], MIB)
    assert caught.value.code is Code.LAYOUT_CHANGED


async def test_a_cut_that_cannot_be_made_leaves_nothing_to_read(server):
    servers = await chunkservers(server)
    client, inode, _ = await written_file(server, servers)
    await client.change(meta.SetAttributes(inode, size=1000))
    await client.change(meta.SetAttributes(inode, size=2000))
    for one in servers:
        one.failing = {SetVersion}
    (found,) = await client.layout(inode)
    assert found.replicas == []


# --- repair and garbage --------------------------------------------------------------------------


async def test_a_lost_copy_is_made_again_on_another_server(server):
    servers = await chunkservers(server, 4)
    client, inode, place = await written_file(server, servers)
    (spare,) = [one for one in servers if one.number not in numbers(place)]
    (lost,) = [one for one in servers if one.number == place.replicas[0].server]
    lost.stop()
    await until(lambda: place.handle in spare.chunks)

    async def healthy():
        found = await client.call(meta.GetStatus())
        return found.chunks_missing_copies == 0

    await eventually(healthy)
    (read,) = await client.layout(inode)
    assert len(read.replicas) == 3
    assert lost.number not in numbers(read)
    (found,) = await client.layout(inode, write=True)
    assert numbers(found) == numbers(read)


async def test_nothing_is_copied_while_a_server_is_only_restarted(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery, repair_after=Duration(60_000)).start()
    servers = await chunkservers(server, 4)
    client, _inode, place = await written_file(server, servers)
    held = [one for one in servers if one.number in numbers(place)]
    held[0].stop()

    async def missed():
        return (await client.call(meta.GetStatus())).chunks_missing_copies == 1

    await eventually(missed)
    await again(server, held[0])

    async def healthy():
        return (await client.call(meta.GetStatus())).chunks_missing_copies == 0

    await eventually(healthy)
    assert not any(isinstance(r, CopyChunk) for one in servers for r in one.asked)


async def test_a_damaged_copy_is_replaced_and_told_about(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    bad = servers[1]
    await bad.peer.call(ReportBad(place.handle, place.version, 65536))
    (read,) = await client.layout(inode)
    assert bad.number not in numbers(read)
    found = await client.call(meta.GetStatus())
    assert any("bad block" in problem and "offset 65536" in problem for problem in found.problems)
    await until(lambda: any(isinstance(r, CopyChunk) for r in bad.asked))

    async def whole():
        return bad.number in numbers((await client.layout(inode))[0])

    await eventually(whole)
    assert not any(isinstance(r, DeleteChunks) for r in bad.asked), (
        "what is there stays until the new copy is complete: the source may be damaged too"
    )
    found = await client.call(meta.GetStatus())
    assert any("has been replaced" in problem for problem in found.problems)


async def test_the_only_copy_is_read_though_it_is_damaged(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery, replicas=1).start()
    servers = await chunkservers(server, 1)
    client, inode, place = await written_file(server, servers)
    await servers[0].peer.call(ReportBad(place.handle, place.version, 0))
    (read,) = await client.layout(inode)
    assert numbers(read) == {11}


async def test_an_unclean_copy_is_used_only_when_there_is_no_clean_one(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    for one in servers[:2]:
        one.stop()
    await until(lambda: servers[0].peer.closed and servers[1].peer.closed)
    servers[2].chunks[place.handle].clean = False
    await servers[2].report()
    unclean = await again(server, servers[2])

    async def only():
        return numbers((await client.layout(inode))[0]) == {unclean.number}

    await eventually(only)
    await again(server, servers[0])

    async def clean():
        return numbers((await client.layout(inode))[0]) == {servers[0].number}

    await eventually(clean)


async def test_chunks_of_a_removed_file_are_deleted_at_once(server):
    servers = await chunkservers(server)
    client, _, place = await written_file(server, servers)
    await client.change(meta.Unlink(1, b"file"))
    await until(lambda: all(place.handle not in one.chunks for one in servers))


async def test_what_nobody_knows_is_deleted_after_a_while(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery, garbage_grace=Duration(1)).start()
    servers = await chunkservers(server)
    client, _, place = await written_file(server, servers)
    inode = await client.create("other")
    (reserved,) = await client.layout(inode, write=True)
    write(servers, reserved)
    servers[0].chunks[999_999] = FakeReplica(5)
    for one in servers:
        await one.report()
    await until(lambda: 999_999 not in servers[0].chunks)
    for one in servers:
        assert {place.handle, reserved.handle} <= set(one.chunks)
    await client.call(meta.CloseSession(client.session))
    await until(lambda: all(reserved.handle not in one.chunks for one in servers))


async def test_a_silent_chunkserver_is_down(server):
    one = FakeChunkserver(server, 11)
    await one.start()
    client = await server.client()
    found = await client.call(meta.GetStatus())
    assert [s.state for s in found.servers] == ["leader", "up"]
    one.silent = True

    async def down():
        found = await client.call(meta.GetStatus())
        return found.servers[1].state == "down" and any(
            "is down since" in problem for problem in found.problems
        )

    await eventually(down)


async def test_space_is_told_in_bytes_of_one_copy(server):
    await chunkservers(server, 3)
    client = await server.client()
    space = await client.call(meta.GetSpace())
    assert (space.total_bytes, space.free_bytes) == (20 * GIB, 10 * GIB)


# --- chunks that were never synced, when machines lose power -------------------------------------


async def lost_chunk(server):
    """A committed chunk, and servers that all came back without it."""
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers)
    for one in servers:
        one.stop()
        one.chunks.clear()
        await until(lambda one=one: one.peer.closed)
    return client, inode, place, [await again(server, one) for one in servers]


async def test_a_lost_chunk_cannot_be_read_and_status_says_so(server):
    client, inode, _, _ = await lost_chunk(server)
    error = await refused(Code.DEVICE_ERROR, client.layout(inode))
    assert "its bytes are lost" in error.detail

    async def told():
        found = await client.call(meta.GetStatus())
        return any(f"are lost (files with inode {inode})" in p for p in found.problems)

    await eventually(told)


async def test_a_lost_chunk_is_begun_anew_by_who_writes_it(server):
    client, inode, place, servers = await lost_chunk(server)
    (found,) = await client.layout(inode, write=True)
    assert (found.handle, found.fresh) == (place.handle, True)
    assert found.version > place.version
    assert len(found.replicas) == 3
    write(servers, found)
    await client.commit(inode, [found], MIB)
    (read,) = await client.layout(inode)
    assert read.version == found.version
    assert len(read.replicas) == 3
    assert not (await client.layout(inode, write=True))[0].fresh


async def test_a_chunk_is_not_lost_while_somebody_is_away(server):
    client, inode, _, servers = await lost_chunk(server)
    servers[0].stop()

    async def waits():
        try:
            return (await client.layout(inode))[0].replicas == []
        except TideError:
            return False

    await eventually(waits)
    await refused(Code.UNAVAILABLE, client.layout(inode, write=True))


async def test_a_chunk_that_was_made_after_the_report_is_found(server):
    """Its servers registered anew between the grant and the first write."""
    servers = await chunkservers(server)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    servers = [await again(server, one) for one in servers]
    write(servers, place)
    await client.commit(inode, [place], MIB, base=await base_of(client, inode))

    async def everywhere():
        return numbers((await client.layout(inode))[0]) == {11, 12, 13}

    await eventually(everywhere)
