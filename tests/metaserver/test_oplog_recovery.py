"""What a damaged log does: a torn tail is cut, damage to what was acknowledged is refused."""

import logging

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.metaserver.oplog import Log
from tidefs.metaserver.oplog_records import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, pack_record
from tidefs.metaserver.raft.contract import Record

from .fake_disk import SMALL_SEGMENT_BYTES, FakeDisk

SIZE = 50
RECORD_BYTES = RECORD_HEADER_BYTES + SIZE
FIRST_PATH = "log/00000000000000000001.log"


def record(index: int, *, term: int = 1) -> Record:
    return Record(term, index, bytes([index]) * SIZE)


async def open_log(disk: FakeDisk, **options) -> Log:
    return await Log.open(disk, "cluster", segment_bytes=SMALL_SEGMENT_BYTES, **options)


async def log_of(count: int) -> FakeDisk:
    """Records one after the other, each synced before the next."""
    disk = FakeDisk()
    log = await open_log(disk)
    for index in range(1, count + 1):
        await log.append([record(index)])
    return disk.crash()


def start_of(index: int) -> int:
    return SEGMENT_HEADER_BYTES + (index - 1) * RECORD_BYTES


@pytest.mark.parametrize("kept_bytes", range(RECORD_BYTES))
async def test_a_torn_tail_is_cut_at_every_offset(kept_bytes, caplog):
    disk = await log_of(3)
    data = disk.files[FIRST_PATH].data
    torn = start_of(3) + kept_bytes
    data[torn : start_of(4)] = bytes(start_of(4) - torn)
    with caplog.at_level(logging.WARNING):
        log = await open_log(disk)
    assert log.last_index == 2
    assert ("record 3 was never acknowledged" in caplog.text) == (kept_bytes > 0)
    await log.append([record(3, term=2)])
    again = await open_log(disk.crash())
    assert [r.term for r in await again.read(1, 3)] == [1, 1, 2]


@pytest.mark.parametrize("kept_bytes", [0, 1, 20, RECORD_BYTES - 1])
async def test_a_file_that_ends_in_the_middle_of_a_record_is_cut_too(kept_bytes):
    disk = await log_of(3)
    del disk.files[FIRST_PATH].data[start_of(3) + kept_bytes :]
    log = await open_log(disk)
    assert log.last_index == 2
    await log.append([record(3)])


@pytest.mark.parametrize("at", range(RECORD_BYTES))
async def test_a_flipped_bit_in_a_synced_record_is_refused(at):
    disk = await log_of(4)
    disk.files[FIRST_PATH].data[start_of(2) + at] ^= 1 << at % 8
    before = bytes(disk.files[FIRST_PATH].data)
    with pytest.raises(TideError) as caught:
        await open_log(disk)
    assert caught.value.code is Code.CORRUPT
    assert FIRST_PATH in caught.value.detail
    assert f"offset {start_of(2)}" in caught.value.detail
    assert "record 2" in caught.value.detail
    assert bytes(disk.files[FIRST_PATH].data) == before, "nothing is changed"


async def test_a_synced_record_that_reads_as_zeros_is_refused():
    disk = await log_of(4)
    disk.files[FIRST_PATH].data[start_of(2) : start_of(3)] = bytes(RECORD_BYTES)
    with pytest.raises(TideError, match="record 2 cannot be read"):
        await open_log(disk)


async def test_a_batch_of_which_only_the_end_reached_the_disk_is_cut():
    """Records 2 to 4 were written together: none was acknowledged, whatever is left of them."""
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append([record(1)])
    await log.append([record(2), record(3), record(4)])
    disk = disk.crash()
    disk.files[FIRST_PATH].data[start_of(2) : start_of(3)] = bytes(RECORD_BYTES)
    log = await open_log(disk)
    assert log.last_index == 1
    await log.append([record(2)])
    assert (await open_log(disk.crash())).last_index == 2, "records 3 and 4 must not come back"


async def test_what_the_state_has_applied_was_acknowledged():
    disk = await log_of(3)
    disk.files[FIRST_PATH].data[start_of(3) + 60] ^= 1
    with pytest.raises(TideError, match="the state has applied the log up to 3"):
        await open_log(disk, applied_index=3)
    assert (await open_log(disk, applied_index=2)).last_index == 2


async def test_damage_in_an_earlier_segment_is_refused():
    disk = await log_of(100)
    names = [name for name in disk.names("log") if name != "prepared"]
    first = int(names[1].partition(".")[0])
    data = disk.files[f"log/{names[0]}"].data
    data[start_of(first - 1) + 70] ^= 4  # the last record of the first segment
    with pytest.raises(TideError) as caught:
        await open_log(disk)
    assert caught.value.code is Code.CORRUPT
    assert names[0] in caught.value.detail
    assert f"record {first - 1}" in caught.value.detail


async def test_a_missing_segment_is_refused():
    disk = await log_of(150)
    names = disk.names("log")
    disk.remove(f"log/{names[1]}")
    with pytest.raises(TideError, match=f"record {int(names[1].partition('.')[0])} cannot"):
        await open_log(disk)


@pytest.mark.parametrize("at", [0, 8, 20, 50, 60])
async def test_a_damaged_segment_header_is_refused(at):
    disk = await log_of(3)
    disk.files[FIRST_PATH].data[at] ^= 16
    with pytest.raises(TideError, match=FIRST_PATH):
        await open_log(disk)


async def test_a_copy_of_a_log_inside_a_record_is_not_mistaken_for_records():
    """Somebody stores a file of a log in the file system; then that entry is torn."""
    inside = b"".join(pack_record(record(9), 8, 12345, 500))
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append([record(1)])
    await log.append([Record(1, 2, inside * 3)])
    disk = disk.crash()
    disk.files[FIRST_PATH].data[start_of(2) + 5] ^= 1
    assert (await open_log(disk)).last_index == 1


async def test_bytes_that_change_on_the_disk_later_are_refused_at_reading():
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append([record(1), record(2)])
    disk.files[FIRST_PATH].data[start_of(2) + 60] ^= 1
    with pytest.raises(TideError, match="record 2 cannot be read"):
        await log.read(1, 2)
