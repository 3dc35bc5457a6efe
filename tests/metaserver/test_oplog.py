"""The operation log: appending, reading, cutting off at both ends."""

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.metaserver.oplog import Log
from tidefs.metaserver.raft.contract import Record

from .fake_disk import SMALL_SEGMENT_BYTES, FakeDisk


def records(first: int, count: int, *, term: int = 1, size: int = 100) -> list[Record]:
    return [
        Record(term, index, index.to_bytes(8, "big") + bytes(size))
        for index in range(first, first + count)
    ]


async def open_log(disk: FakeDisk, **options) -> Log:
    return await Log.open(disk, "cluster", segment_bytes=SMALL_SEGMENT_BYTES, **options)


async def read_all(log: Log) -> list[Record]:
    found: list[Record] = []
    while (first := log.first_index + len(found)) <= log.last_index:
        found += await log.read(first, log.last_index)
    return found


async def test_an_empty_folder_gives_an_empty_log():
    log = await open_log(FakeDisk())
    assert (log.first_index, log.last_index, log.last_term) == (1, 0, 0)


async def test_what_was_appended_is_read_again_also_after_a_crash():
    disk = FakeDisk()
    log = await open_log(disk)
    wanted = records(1, 5) + records(6, 200, term=2)
    await log.append(wanted[:5])
    await log.append(wanted[5:])
    assert len([name for name in disk.names("log") if name.endswith(".log")]) > 3
    assert await read_all(log) == wanted
    again = await open_log(disk.crash())
    assert await read_all(again) == wanted
    assert (again.last_term, again.terms.at(5), again.terms.at(6)) == (2, 1, 2)


async def test_a_read_gives_as_much_as_fits():
    log = await open_log(FakeDisk())
    await log.append(records(1, 20))
    found = await log.read(3, 20, bytes_max=500)
    assert [record.index for record in found][:2] == [3, 4]
    assert len(found) < 10
    assert len(await log.read(3, 20, bytes_max=1)) == 1


async def test_a_batch_needs_one_sync():
    disk = FakeDisk()
    log = await open_log(disk)
    disk.syncs.clear()
    await log.append(records(1, 20))
    assert len(disk.syncs) == 1


async def test_a_record_may_be_larger_than_a_segment():
    disk = FakeDisk()
    log = await open_log(disk)
    wanted = records(1, 3, size=3 * SMALL_SEGMENT_BYTES)
    await log.append(wanted)
    assert await read_all(await open_log(disk.crash())) == wanted


@pytest.mark.parametrize("index", [1, 2, 30, 31, 60, 100])
async def test_a_suffix_is_dropped_for_good(index):
    disk = FakeDisk()
    log = await open_log(disk)
    kept = records(1, 100)[: index - 1]
    await log.append(records(1, 100))
    await log.truncate_suffix(index)
    assert log.last_index == index - 1
    assert await read_all(await open_log(disk.crash())) == kept
    new = records(index, 3, term=4)
    await log.append(new)
    assert await read_all(log) == kept + new
    again = await open_log(disk.crash())
    assert await read_all(again) == kept + new
    assert again.last_term == 4


async def test_a_shorter_record_in_the_place_of_a_dropped_one_uncovers_nothing():
    """Behind the new record stood the dropped one's neighbour: it must not come back."""
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append(records(1, 10))
    await log.truncate_suffix(3)
    await log.append(records(3, 1))
    assert (await open_log(disk.crash())).last_index == 3


async def test_a_prefix_is_dropped_in_whole_segments():
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append(records(1, 200))
    await log.truncate_prefix(100)
    assert 50 < log.first_index <= 100
    wanted = records(log.first_index, 201 - log.first_index)
    assert await read_all(log) == wanted
    again = await open_log(disk.crash())
    assert again.first_index == log.first_index
    assert await read_all(again) == wanted
    await log.truncate_prefix(1_000)
    assert log.last_index == 200


async def test_an_empty_segment_goes_on_where_the_log_was():
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append(records(1, 40))
    await log.truncate_prefix(40)
    await log.truncate_suffix(log.first_index)
    again = await open_log(disk.crash())
    assert again.last_index == again.first_index - 1
    await again.append(records(again.first_index, 1))


async def test_the_next_segment_is_ready_before_it_is_needed():
    disk = FakeDisk()
    log = await open_log(disk)
    assert log.wants_preparation
    await log.prepare()
    assert not log.wants_preparation
    await log.append(records(1, 60))
    assert log.wants_preparation
    assert await read_all(await open_log(disk.crash())) == records(1, 60)


async def test_a_log_of_another_cluster_is_refused():
    disk = FakeDisk()
    await open_log(disk)
    with pytest.raises(TideError, match="belongs to cluster cluster") as caught:
        await Log.open(disk, "another", segment_bytes=SMALL_SEGMENT_BYTES)
    assert caught.value.code is Code.FOREIGN_FOLDER


async def test_a_newer_format_is_refused_with_what_to_do():
    disk = FakeDisk()
    await open_log(disk)
    (name,) = disk.names("log")
    disk.files[f"log/{name}"].data[8] = 9
    with pytest.raises(TideError, match=r"format 9.*use the version"):
        await open_log(disk)


@pytest.mark.parametrize("steps", range(12))
async def test_preparing_a_segment_beside_a_batch_that_needs_one_spoils_nothing(steps):
    disk = FakeDisk()
    log = await open_log(disk)

    async def prepare_late():
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        await log.prepare()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.prepare)
        nursery.start_soon(prepare_late)
        nursery.start_soon(prepare_late)
        await log.append(records(1, 100))
    assert await read_all(log) == records(1, 100)
    assert await read_all(await open_log(disk.crash())) == records(1, 100)
    await log.append(records(101, 100))
    assert await read_all(await open_log(disk.crash())) == records(1, 200)
