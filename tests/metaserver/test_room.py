"""A leader whose disk is full, or nearly: whoever has room leads instead."""

import itertools

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.metaserver import room
from tidefs.metaserver.room import who_has_room
from tidefs.metaserver.space import Room

from .group_live import LiveGroup
from .live import eventually

RESERVE_BYTES = 32 * 2**20


@pytest.fixture
async def group(tmp_path, nursery, monkeypatch):
    monkeypatch.setattr(room, "ROOM_LOOK_MS", 10)
    return await LiveGroup(tmp_path, nursery, 3).start()


def leave(member, free_bytes):
    """So much room on its disk."""
    member.disk.reserved_bytes += member.disk.space().free_bytes - free_bytes


@pytest.mark.parametrize("free_bytes", [RESERVE_BYTES * 3 // 2, RESERVE_BYTES // 2, 0])
async def test_a_leader_without_room_hands_over_to_who_has_some(group, free_bytes):
    client = await group.client()
    await client.create("before")
    leader = await group.leader()
    leave(leader, free_bytes)

    async def handed_over():
        return await group.leader() is not leader

    await eventually(handed_over)
    await client.create("after")
    assert await client.names() == {"before", "after"}


async def test_when_nobody_has_room_changes_are_refused_and_reads_are_not(group):
    client = await group.client()
    await client.create("file")
    for member in group.up():
        leave(member, RESERVE_BYTES // 3)

    names = (f"more-{number}" for number in itertools.count())

    async def refused():
        try:
            await client.create(next(names))
        except TideError as error:
            return error.code is Code.NO_SPACE
        return False

    await eventually(refused)
    assert "file" in await client.names()
    leave(group.up()[0], 10 * RESERVE_BYTES)

    async def possible():
        return not await refused()

    await eventually(possible)


async def test_each_member_says_how_much_room_it_has(group):
    follower = group.others(await group.leader())[0]
    leave(follower, RESERVE_BYTES - 7)

    async def told():
        return (await follower.status()).spare_bytes == -7

    await eventually(told)


@pytest.mark.parametrize(
    ("free", "others", "expected"),
    [
        (200, {2: 500, 3: 900}, 0),  # twice the reserve is enough
        (199, {2: 500, 3: 900}, 3),
        (199, {2: 199}, 0),  # hardly better: it would come back soon
        (199, {2: 200}, 2),
        (20, {2: 21, 3: 0}, 2),
        (20, {2: 20, 3: -1}, 0),
        (0, {2: 0}, 0),  # better, but it would refuse as well
        (0, {}, 0),
    ],
)
def test_who_has_room(free, others, expected):
    assert who_has_room(Room(free, 100), others) == expected
