"""The log on a disk that fills up: refused as a whole, and as good as new when there is room."""

import os
import subprocess
from contextlib import contextmanager

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import MIB
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.metaserver.oplog import Log
from tidefs.metaserver.raft.contract import Record

from .fake_disk import SMALL_SEGMENT_BYTES, FakeDisk


def batch(first: int, count: int, size: int = 100) -> list[Record]:
    return [Record(1, index, bytes([1]) * size) for index in range(first, first + count)]


async def open_log(disk: FakeDisk) -> Log:
    return await Log.open(disk, "cluster", segment_bytes=SMALL_SEGMENT_BYTES)


async def test_a_batch_that_does_not_fit_leaves_nothing_behind():
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append(batch(1, 5))
    disk.capacity_bytes = disk.used_bytes + SMALL_SEGMENT_BYTES
    with pytest.raises(TideError) as caught:
        await log.append(batch(6, 100))  # fills this segment and the next, and finds no third
    assert caught.value.code is Code.NO_SPACE
    assert log.last_index == 5
    assert (await open_log(disk.crash())).last_index == 5
    await log.append(batch(6, 3))  # what still fits
    disk.capacity_bytes *= 10
    await log.append(batch(9, 100))
    assert (await open_log(disk.crash())).last_index == 108


async def test_the_prepared_segment_is_used_when_the_disk_is_full():
    disk = FakeDisk()
    log = await open_log(disk)
    await log.prepare()
    disk.capacity_bytes = disk.used_bytes
    await log.append(batch(1, 40))
    with pytest.raises(TideError):
        await log.prepare()
    assert (await open_log(disk.crash())).last_index == 40


async def test_a_suffix_that_cannot_be_dropped_stays_whole():
    """It is replaced by a copy, which needs room; in place, a crash could leave half of it."""
    disk = FakeDisk()
    log = await open_log(disk)
    await log.append(batch(1, 20))
    disk.capacity_bytes = disk.used_bytes
    with pytest.raises(TideError) as caught:
        await log.truncate_suffix(3)
    assert caught.value.code is Code.NO_SPACE
    assert log.last_index == 20
    assert (await open_log(disk.crash())).last_index == 20
    disk.capacity_bytes *= 10
    await log.truncate_suffix(3)
    await log.append(batch(3, 5))
    assert (await open_log(disk.crash())).last_index == 7


async def fill(log: Log) -> int:
    """Append until there is no room; the index that found none."""
    index = 1
    while True:
        try:
            await log.append(batch(index, 10, size=10_000))
        except TideError as error:
            if error.code is not Code.NO_SPACE:
                raise
            return index
        index += 10


@contextmanager
def small_disk(folder, size: str):
    """A file system of its own, mounted for a while."""
    folder.mkdir()
    found = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False
    )
    if found.returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_on_a_real_disk_that_is_full(tmp_path):
    with small_disk(tmp_path / "disk", "8m") as folder:
        disk = RealDisk(str(folder))
        log = await Log.open(disk, "cluster", segment_bytes=MIB)
        ballast = folder / "ballast"
        ballast.write_bytes(b"\1" * (6 * MIB + MIB // 2))
        index = await fill(log)
        assert log.last_index == index - 1
        os.unlink(ballast)
        await log.append(batch(index, 100, size=10_000))
        log.close()
        again = await Log.open(disk, "cluster", segment_bytes=MIB)
        assert again.last_index == index + 99
        assert [r.index for r in await again.read(index, index)] == [index]
        again.close()
