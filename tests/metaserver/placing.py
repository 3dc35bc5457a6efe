"""What tests of layouts and grants have in common: chunkservers that hold what the test says."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import MIB
from tidefs.fs.messages import meta

from .live import FakeChunkserver


async def chunkservers(server, count=3, **options):
    return [
        await FakeChunkserver(server, number, **options).start() for number in range(11, 11 + count)
    ]


async def refused(code: Code, awaitable) -> TideError:
    with pytest.raises(TideError) as caught:
        await awaitable
    assert caught.value.code is code, caught.value
    return caught.value


def write(servers, place):
    """A client's first write reaches every replica of a layout."""
    numbers = {replica.server for replica in place.replicas}
    for one in servers:
        if one.number in numbers:
            one.write(place)


async def written_file(server, servers, size=1 * MIB):
    """A client, a file with one committed chunk, and its layout."""
    client = await server.client()
    inode = await client.create("file")
    (place,) = await client.layout(inode, write=True)
    write(servers, place)
    await client.commit(inode, [place], size, base=await base_of(client, inode))
    return client, inode, place


async def base_of(client, inode):
    return (await client.call(meta.GetAttributes(inode))).attributes.data_version


def numbers(place):
    return {replica.server for replica in place.replicas}


async def again(server, one):
    """The same chunkserver connects again."""
    found = FakeChunkserver(server, one.number, one.place.host)
    found.chunks = one.chunks
    return await found.start()
