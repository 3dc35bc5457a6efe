"""Term and vote on disk: what a crash leaves, what rot leaves, and which of them is forgiven."""

import itertools

import pytest
import trio
from tidefs.fs.codec import checksum
from tidefs.fs.errors import Code, TideError
from tidefs.metaserver.hard_state import PATH, SLOT_BYTES, SLOT_OFFSETS, HardStateFile
from tidefs.metaserver.raft.contract import HardState

from .drivers import FakeClock, Members, formatted, start_one
from .fake_disk import FakeDisk


async def load(disk: FakeDisk) -> HardState:
    file = await HardStateFile.open(disk)
    file.close()
    return file.state


async def stored(*states: HardState) -> FakeDisk:
    disk = FakeDisk()
    file = await HardStateFile.open(disk)
    for state in states:
        await file.store(state)
    return disk


def slots(disk: FakeDisk) -> list[bytes]:
    data = disk.files[PATH].data
    return [bytes(data[at : at + SLOT_BYTES]) for at in SLOT_OFFSETS]


def newest_of(before: list[bytes], after: list[bytes]) -> int:
    """Which slot the last store wrote."""
    (at,) = [at for at in (0, 1) if before[at] != after[at]]
    return at


async def test_a_new_one_knows_nothing():
    assert await load(FakeDisk()) == HardState(0, 0)


async def test_what_was_stored_survives_a_crash():
    disk = await stored(*(HardState(term, 1 << 62) for term in range(1, 6)))
    assert await load(disk.crash()) == HardState(5, 1 << 62)
    file = await HardStateFile.open(disk)
    await file.store(HardState(6, 0))
    assert await load(disk.crash()) == HardState(6, 0)


async def test_one_store_is_one_sync_and_needs_no_room():
    disk = await stored(HardState(1, 1))
    file = await HardStateFile.open(disk)
    disk.capacity_bytes = disk.used_bytes
    disk.syncs.clear()
    await file.store(HardState(2, 1))
    assert disk.syncs == [PATH]
    assert await load(disk.crash()) == HardState(2, 1)


@pytest.mark.parametrize("before", [(), (HardState(1, 1),), (HardState(1, 1), HardState(2, 3))])
async def test_a_crash_in_the_middle_of_a_write_leaves_the_old_one_or_the_new_one(before):
    """At every byte: what had arrived, and behind it what was there."""
    old_disk, new = await stored(*before), HardState(9, 7)
    new_disk = await stored(*before, new)
    old, after = slots(old_disk), slots(new_disk)
    at = newest_of(old, after)
    known = before[-1] if before else HardState(0, 0)
    for arrived in range(SLOT_BYTES + 1):
        disk = old_disk.crash()
        torn = after[at][:arrived] + old[at][arrived:]
        disk.files[PATH].data[SLOT_OFFSETS[at] : SLOT_OFFSETS[at] + SLOT_BYTES] = torn
        assert await load(disk) == (new if arrived == SLOT_BYTES else known), arrived
        file = await HardStateFile.open(disk)
        await file.store(HardState(10, 1))
        assert await load(disk.crash()) == HardState(10, 1)


@pytest.mark.parametrize("bit", range(0, SLOT_BYTES * 8, 5))
async def test_a_newer_slot_that_has_rotted_is_refused(bit):
    """It was promised to others: with the older one this server could vote a second time."""
    disk = await stored(HardState(3, 9), HardState(4, 2))
    before = slots(await stored(HardState(3, 9)))
    at = newest_of(before, slots(disk))
    disk.files[PATH].data[SLOT_OFFSETS[at] + bit // 8] ^= 1 << bit % 8
    with pytest.raises(TideError, match=r"hard_state.*tidefs cluster replace") as caught:
        await load(disk)
    assert caught.value.code is Code.CORRUPT


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_slot_that_reads_as_zeros_is_refused(lost):
    disk = await stored(HardState(3, 9), HardState(4, 2), HardState(5, 1))
    at = SLOT_OFFSETS[lost]
    disk.files[PATH].data[at : at + SLOT_BYTES] = bytes(SLOT_BYTES)
    with pytest.raises(TideError, match="whole once"):
        await load(disk)


async def test_slots_of_two_moments_are_refused():
    """One page of the file is that of an old copy."""
    disk = await stored(*(HardState(term, 1) for term in range(1, 8)))
    old = slots(await stored(*(HardState(term, 1) for term in range(1, 4))))
    for at in (0, 1):
        mixed = disk.crash()
        mixed.files[PATH].data[SLOT_OFFSETS[at] : SLOT_OFFSETS[at] + SLOT_BYTES] = old[at]
        with pytest.raises(TideError, match="do not belong together"):
            await load(mixed)


@pytest.mark.parametrize("length", [0, 5, SLOT_BYTES, 4096, 4096 + SLOT_BYTES - 1])
async def test_a_short_file_is_refused(length):
    disk = await stored(HardState(3, 9), HardState(4, 2))
    del disk.files[PATH].data[length:]
    with pytest.raises(TideError, match=PATH):
        await load(disk)


# --- the format before there were groups ---------------------------------------------------------


def old_file(term: int, vote: int) -> bytes:
    head = b"TIDEHS\x00\x01" + term.to_bytes(8, "little") + vote.to_bytes(8, "little")
    return head + checksum(head).to_bytes(8, "little")


def with_file(data: bytes) -> FakeDisk:
    disk = FakeDisk()
    disk.open(PATH, create=True).write(0, [data])
    return disk


async def test_the_old_format_is_read_and_replaced_at_once():
    disk = with_file(old_file(7, 9))
    crashed = []
    disk.on_sync = lambda path: crashed.append(disk.kill())
    file = await HardStateFile.open(disk)
    assert file.state == HardState(7, 9)
    await file.store(HardState(8, 9))
    assert await load(disk.crash()) == HardState(8, 9)
    for found in itertools.islice(crashed, 1):
        assert await load(found) == HardState(7, 9)


@pytest.mark.parametrize("at", range(32))
async def test_a_damaged_old_file_is_refused(at):
    data = bytearray(old_file(7, 9))
    data[at] ^= 1
    with pytest.raises(TideError, match=PATH) as caught:
        await load(with_file(bytes(data)))
    assert caught.value.code is Code.CORRUPT


# --- a hard state that is older than the log -----------------------------------------------------


async def forget(disk: FakeDisk) -> None:
    """It is put back as it was at the very start."""
    disk.files[PATH].data[:] = (await stored()).files[PATH].data


async def test_alone_in_its_group_a_member_goes_on_behind_its_log(nursery, caplog):
    disk = FakeDisk()
    for _ in range(3):
        async with trio.open_nursery() as life:
            driver = await start_one(disk, FakeClock())
            life.start_soon(driver.run)
            term = await driver.wait_leading()
            life.cancel_scope.cancel()
    disk = disk.crash()
    await forget(disk)
    driver = await start_one(disk, FakeClock())
    nursery.start_soon(driver.run)
    assert await driver.wait_leading() == term + 1
    assert "older than the log" in caplog.text


async def test_in_a_group_a_hard_state_that_is_older_than_the_log_is_refused(
    nursery, autojump_clock
):
    members = Members(nursery, 3)
    leader = await formatted(members)
    await members.settle()
    server = members.id_of(leader)
    members.stop(server)
    await forget(members.disks[server])
    with pytest.raises(TideError, match=r"could vote twice.*tidefs cluster replace") as caught:
        await members.start(server)
    assert caught.value.code is Code.CORRUPT
