"""Folders are formatted once, on purpose; what is not formatted is not started on."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.identity import IDENTITY
from tidefs.fs.messages.places import ServerPlace
from tidefs.metaserver.format import format_folder, open_folder

from .fake_disk import FakeDisk

OURS = Identity("cluster", "metaserver", 1)
FOUNDERS = [ServerPlace(n, f'"host" {n}\\ ü𝄞\x7f', [f"tcp:h:{n}", "unix:/x"]) for n in (1, 2, 3)]
OWN = ServerPlace(1, "here", ["tcp:here:1"])
OLD = 'format = 1\nrole = "metaserver"\ncluster = "cluster"\nserver = 1\n'


def with_identity(text):
    disk = FakeDisk()
    disk.open(IDENTITY, create=True).write(0, [text.encode()])
    return disk


async def refused(coroutine, code=Code.FOREIGN_FOLDER):
    with pytest.raises(TideError) as caught:
        await coroutine
    assert caught.value.code is code
    return caught.value.detail


async def test_a_founder_knows_the_founders():
    disk = FakeDisk()
    assert await format_folder(disk, OURS, "data", FOUNDERS)
    configuration = await open_folder(disk.crash(), OURS, "data", OWN)
    assert configuration.voters == [1, 2, 3]
    assert configuration.places == FOUNDERS
    assert not configuration.voters_before
    assert not configuration.learners


async def test_one_that_joins_belongs_to_no_group():
    disk = FakeDisk()
    assert await format_folder(disk, OURS, "data", None)
    configuration = await open_folder(disk.crash(), OURS, "data", OWN)
    assert configuration.voters == configuration.places == []


async def test_a_folder_from_before_there_were_groups_is_a_group_of_one():
    disk = with_identity(OLD)
    configuration = await open_folder(disk, OURS, "data", OWN)
    assert configuration.voters == [1]
    assert configuration.places == [OWN]
    assert not await format_folder(disk, OURS, "data", [OWN])
    assert "as a group of one" in await refused(format_folder(disk, OURS, "data", FOUNDERS))
    assert "as a group of one" in await refused(format_folder(disk, OURS, "data", None))


async def test_the_same_again_is_nothing_to_do():
    disk = FakeDisk()
    await format_folder(disk, OURS, "data", FOUNDERS)
    moved = [ServerPlace(place.server, "new", ["tcp:new:1"]) for place in reversed(FOUNDERS)]
    assert not await format_folder(disk, OURS, "data", moved)
    joining = FakeDisk()
    await format_folder(joining, OURS, "data", None)
    assert not await format_folder(joining, OURS, "data", None)


async def test_something_else_is_refused_and_says_what_it_is():
    disk = FakeDisk()
    await format_folder(disk, OURS, "data", FOUNDERS)
    words = await refused(format_folder(disk, OURS, "data", FOUNDERS[:1]))
    assert "formatted already, as a founder of the group of 0000000000000001, 0000" in words
    assert "as a founder" in await refused(format_folder(disk, OURS, "data", None))
    joining = FakeDisk()
    await format_folder(joining, OURS, "data", None)
    assert "to join a group" in await refused(format_folder(joining, OURS, "data", FOUNDERS))
    other = Identity("cluster", "metaserver", 2)
    assert "belongs to server 1, not 2" in await refused(format_folder(disk, other, "data", None))


async def test_other_things_are_left_alone():
    disk = FakeDisk()
    disk.open("thesis.tex", create=True)
    assert "thesis.tex" in await refused(format_folder(disk, OURS, "data", FOUNDERS))
    assert "thesis.tex" in await refused(open_folder(disk, OURS, "data", OWN))
    assert disk.names("") == ["thesis.tex"]


async def test_nobody_starts_on_a_folder_that_is_not_formatted():
    words = await refused(open_folder(FakeDisk(), OURS, "data", OWN))
    assert "data is not formatted" in words
    assert "tidefs metaserver --format" in words
    assert "tidefs cluster replace" in words


async def test_a_crash_on_the_way_leaves_it_not_formatted():
    """At every sync: what was formatted is whole, what was not can be formatted again."""
    for survived in range(10):
        disk = FakeDisk()
        left = [survived]

        def crash_at(path, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise TideError(Code.DEVICE_ERROR, path)

        disk.on_sync = crash_at
        try:
            await format_folder(disk, OURS, "data", FOUNDERS)
        except TideError:
            after = disk.crash()
            assert "not formatted" in await refused(open_folder(after, OURS, "data", OWN))
            assert await format_folder(after, OURS, "data", FOUNDERS)
            disk = after
        else:
            assert survived, "nothing was synced"
            return
        assert (await open_folder(disk.crash(), OURS, "data", OWN)).places == FOUNDERS
    raise AssertionError("it syncs for ever")


async def test_a_hard_state_that_is_gone_is_not_made_up():
    disk = FakeDisk()
    await format_folder(disk, OURS, "data", FOUNDERS)
    disk.remove("hard_state")
    words = await refused(open_folder(disk, OURS, "data", OWN), Code.CORRUPT)
    assert "data/hard_state is missing" in words


@pytest.mark.parametrize("founders", ["7", '[{ server = "x", host = "", addresses = [] }]', "[[]]"])
async def test_a_damaged_list_is_refused(founders):
    disk = with_identity(OLD + f"founders = {founders}\n")
    words = await refused(open_folder(disk, OURS, "data", OWN), Code.CORRUPT)
    assert "data/identity: the list of founders" in words
