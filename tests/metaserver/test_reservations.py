"""Chunks that are handed out and not committed yet: whose they are, and what a restart leaves."""

import pytest
from tidefs.fs.errors import Code
from tidefs.fs.limits import CHUNK_BYTES, MIB
from tidefs.fs.messages import meta
from tidefs.fs.messages.chunk import CopyChunk

from .live import FakeReplica, Metaserver, until
from .placing import again, base_of, chunkservers, numbers, refused, write, written_file


@pytest.fixture
async def server(tmp_path, nursery):
    return await Metaserver(tmp_path, nursery).start()


async def test_two_writers_of_a_missing_chunk_have_one_each_until_one_has_made_it(server):
    servers = await chunkservers(server)
    one, two = await server.client(), await server.client()
    inode = await one.create("file")
    (first,) = await one.layout(inode, write=True)
    (second,) = await two.layout(inode, write=True)
    assert first.handle != second.handle
    assert await one.layout(inode, write=True) == [first]
    write(servers, first)
    write(servers, second)
    base = await base_of(one, inode)
    await refused(Code.LAYOUT_CHANGED, two.commit(inode, [first], MIB, base=base))
    await two.commit(inode, [second], MIB, base=base)
    await refused(Code.LAYOUT_CHANGED, one.commit(inode, [first], MIB, base=base))
    (found,) = await one.layout(inode, write=True)
    assert (found.handle, found.fresh) == (second.handle, False)


async def test_who_comes_too_late_gets_no_chunk_of_before_a_truncation(server):
    """Handles that are committed for an index only ever rise."""
    servers = await chunkservers(server)
    one, two = await server.client(), await server.client()
    inode = await one.create("file")
    (late,) = await one.layout(inode, write=True)
    (place,) = await two.layout(inode, write=True)
    write(servers, late)
    write(servers, place)
    await two.commit(inode, [place], MIB, base=await base_of(two, inode))
    await two.change(meta.SetAttributes(inode, size=0))
    base = await base_of(one, inode)
    await refused(Code.LAYOUT_CHANGED, one.commit(inode, [late], MIB, base=base))
    (again,) = await one.layout(inode, write=True)
    assert again.handle > max(late.handle, place.handle)


async def test_reservations_that_are_claimed_again_are_those_that_can_still_be_committed(server):
    servers = await chunkservers(server)
    one, two, three = [await server.client() for _ in range(3)]
    inode = await one.create("file")
    (made,) = await one.layout(inode, write=True)
    (late,) = await two.layout(inode, write=True)
    (other,) = await three.layout(inode, 1, write=True)
    for place in (made, late, other):
        write(servers, place)
    await one.commit(inode, [made], 2 * CHUNK_BYTES, base=await base_of(one, inode))
    await server.stop()
    await server.start()
    for chunkserver in servers:
        await chunkserver.start()
    claims = [(inode, 0, late.handle), (99, 0, other.handle), (inode, 1, other.handle)]
    await one.resume()
    await two.resume(reserved=claims)
    await three.resume(reserved=[(inode, 1, other.handle)])
    await refused(Code.LAYOUT_CHANGED, two.commit(inode, [late], MIB))
    await refused(Code.LAYOUT_CHANGED, three.commit(inode, [other], 2 * CHUNK_BYTES))
    await two.commit(inode, [other], 2 * CHUNK_BYTES)


async def test_a_failed_replica_of_a_chunk_that_is_not_committed_is_left_out(server):
    servers = await chunkservers(server)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    write(servers, place)
    await client.call(meta.ReportFailure(place.handle, place.version, [13]))
    (found,) = await client.layout(inode, write=True)
    assert (found.handle, found.fresh) == (place.handle, True)
    assert numbers(found) == {11, 12}
    base = await base_of(client, inode)
    await refused(Code.LAYOUT_CHANGED, client.commit(inode, [place], MIB, base=base))
    await client.commit(inode, [found], MIB, base=base)
    (read,) = await client.layout(inode)
    assert read.version == found.version, "the replica that failed must not count as up to date"
    assert numbers(read) == {11, 12}


async def test_a_chunk_that_is_given_back(server):
    """Its handle is not given out again, for somebody may write to it yet."""
    servers = await chunkservers(server)
    one, two = await server.client(), await server.client()
    inode = await one.create("file")
    (place,) = await one.layout(inode, write=True)
    write(servers, place)
    given_back = meta.ReportFailure(place.handle, place.version, [])
    await two.call(given_back)
    assert (await one.layout(inode, write=True))[0].handle == place.handle, "it is not that one's"
    await one.call(given_back)
    (found,) = await one.layout(inode, write=True)
    assert found.handle > place.handle
    base = await base_of(one, inode)
    await refused(Code.LAYOUT_CHANGED, one.commit(inode, [place], MIB, base=base))
    write(servers, found)
    await one.commit(inode, [found], MIB, base=base)
    await one.call(meta.ReportFailure(found.handle, found.version, []))
    (read,) = await one.layout(inode)
    assert read.handle == found.handle, "what was committed is not given back"


async def test_bytes_from_before_a_chunk_was_begun_anew_are_not_committed(server):
    """All servers that had it have lost it: the writer must push again."""
    servers = await chunkservers(server)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    write(servers, place)
    for one in servers:
        one.chunks.clear()
    await client.call(meta.ReportFailure(place.handle, place.version, [11]))
    (anew,) = await client.layout(inode, write=True)
    assert (anew.handle, anew.fresh) == (place.handle, True)
    base = await base_of(client, inode)
    await refused(Code.LAYOUT_CHANGED, client.commit(inode, [place], MIB, base=base))
    write(servers, anew)
    await client.commit(inode, [anew], MIB, base=base)


async def test_a_chunk_that_was_truncated_away_is_reserved_anew(server):
    servers = await chunkservers(server)
    client, inode, place = await written_file(server, servers, size=CHUNK_BYTES)
    await client.change(meta.SetAttributes(inode, size=0))
    await until(lambda: all(place.handle not in one.chunks for one in servers))
    (found,) = await client.layout(inode, write=True)
    assert found.handle > place.handle
    assert found.fresh


async def test_a_reservation_is_claimed_again_after_a_restart(server):
    servers = await chunkservers(server)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    write(servers, place)
    await server.stop(crash=True)
    await server.start()
    servers = [await again(server, one) for one in servers]
    await client.resume(reserved=[(inode, 0, place.handle)])
    (found,) = await client.layout(inode, write=True)
    assert (found.handle, found.fresh) == (place.handle, True)
    assert found.version > place.version
    assert numbers(found) == {11, 12, 13}
    await client.commit(inode, [found], MIB, base=await base_of(client, inode))
    assert len(await client.layout(inode)) == 1


async def test_a_claimed_chunk_that_nobody_made_is_placed_anew(server):
    servers = await chunkservers(server)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    await server.stop(crash=True)
    await server.start()
    for one in servers:
        await again(server, one)
    await client.resume(reserved=[(inode, 0, place.handle)])
    (found,) = await client.layout(inode, write=True)
    assert found.fresh
    assert len(found.replicas) == 3


async def test_an_outdated_copy_is_replaced_when_a_write_needs_it(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery, replicas=2).start()
    servers = await chunkservers(server, 2)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    write(servers, place)
    servers[0].chunks[place.handle] = FakeReplica(place.version - 1)
    failed = meta.ReportFailure(place.handle, place.version, [servers[0].number])
    await client.call(failed)
    (found,) = await client.layout(inode, write=True)
    assert len(found.replicas) == 2
    assert any(isinstance(r, CopyChunk) for r in servers[0].asked)


async def test_a_copy_that_is_known_to_be_outdated_is_replaced_too(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery, replicas=2).start()
    servers = await chunkservers(server, 2)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    write(servers, place)
    await server.stop(crash=True)
    await server.start()
    servers[0].chunks[place.handle] = FakeReplica(place.version - 1)
    servers = [await again(server, one) for one in servers]
    await client.resume(reserved=[(inode, 0, place.handle)])
    (found,) = await client.layout(inode, write=True)
    assert len(found.replicas) == 2
    assert any(isinstance(r, CopyChunk) for r in servers[0].asked)


async def test_copies_of_an_earlier_grant_do_not_stand_in_the_way_of_a_fresh_chunk(server):
    """Its writer never got it committed; all servers missed the last grant."""
    servers = await chunkservers(server)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    for one in servers:
        one.chunks[place.handle] = FakeReplica(place.version - 1)
    failed = meta.ReportFailure(place.handle, place.version, sorted(numbers(place)))
    await client.call(failed)
    (found,) = await client.layout(inode, write=True)
    assert found.fresh
    assert found.version > place.version
    assert not any(place.handle in one.chunks for one in servers)


async def test_the_copy_on_a_server_that_failed_before_is_the_source_when_it_is_the_last(
    tmp_path, nursery
):
    server = await Metaserver(tmp_path, nursery, replicas=2).start()
    servers = await chunkservers(server, 2)
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    write(servers, place)
    await client.call(meta.ReportFailure(place.handle, place.version, [servers[0].number]))
    del servers[1].chunks[place.handle]
    (found,) = await client.layout(inode, write=True)
    assert len(found.replicas) == 2
    assert any(isinstance(r, CopyChunk) for r in servers[1].asked)


async def test_handles_are_never_given_out_twice(server):
    await chunkservers(server)
    client = await server.client()
    inode = await client.create("file")
    (before,) = await client.layout(inode, write=True)
    await server.stop(crash=True)
    await server.start()
    await chunkservers(server)
    other = await server.client()
    second = await other.create("other")
    (after,) = await other.layout(second, write=True)
    assert after.handle > before.handle
