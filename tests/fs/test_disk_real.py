"""The disk port on a real folder."""

import errno
import os

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.ports import disk_real
from tidefs.fs.ports.disk_real import Pace, RealDisk


@pytest.fixture
def disk(tmp_path):
    return RealDisk(str(tmp_path))


async def test_what_is_written_is_read(disk):
    file = disk.open("log", create=True)
    file.write(0, [b"abc", bytearray(b"def"), memoryview(b"ghi"), b""])
    assert file.size() == 9
    assert await file.read(0, 9) == b"abcdefghi"
    assert await file.read(3, 100) == b"defghi"
    assert await file.read(100, 10) == b""
    assert file.read_nowait(0, 3) in (b"abc", None)
    file.truncate(4)
    assert await file.read(0, 9) == b"abcd"
    file.allocate(0, 100)
    assert await file.read(0, 200) == b"abcd" + bytes(96)
    await file.sync()
    await file.sync()
    file.close()
    file.close()


async def test_a_write_of_more_buffers_than_one_system_call_takes(disk):
    file = disk.open("many", create=True)
    buffers = [bytes([n % 251]) * 3 for n in range(5000)]
    file.write(7, buffers)
    assert await file.read(7, 15_000) == b"".join(buffers)


async def test_a_write_goes_on_where_the_kernel_stopped(disk, monkeypatch):
    real = os.pwritev
    monkeypatch.setattr(
        os, "pwritev", lambda fd, buffers, offset: real(fd, [buffers[0][:2]], offset)
    )
    file = disk.open("short", create=True)
    file.write(0, [b"abc", b"defgh"])
    assert await file.read(0, 10) == b"abcdefgh"


async def test_a_cold_read_comes_from_a_thread(disk):
    file = disk.open("cold", create=True)
    file.write(0, [bytes(range(256)) * 4096])
    await file.sync()
    os.posix_fadvise(file._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    assert await file.read(0, 1 << 20) == bytes(range(256)) * 4096


async def test_folders(disk, tmp_path):
    disk.make_folder("a/b")
    disk.make_folder("a/b")
    disk.open("a/b/one", create=True).close()
    disk.rename("a/b/one", "a/two")
    assert disk.names("a") == ["b", "two"]
    await disk.sync_folder("a")
    await disk.sync_folder("")
    assert disk.names("") == ["a"]
    disk.remove("a/two")
    assert not disk.exists("a/two")
    disk.remove("a")
    assert not (tmp_path / "a").exists()


async def test_errors_name_the_path_and_the_reason(disk, tmp_path):
    async def refused(code, function, *arguments):
        with pytest.raises(TideError) as caught:  # noqa: PT012
            result = function(*arguments)
            if result is not None:
                await result
        assert caught.value.code is code
        assert str(tmp_path) in caught.value.detail
        return caught.value.detail

    assert "No such file" in await refused(Code.NO_ENTRY, disk.open, "nothing")
    await refused(Code.NO_ENTRY, disk.names, "nothing")
    await refused(Code.NO_ENTRY, disk.remove, "nothing")
    await refused(Code.NO_ENTRY, disk.rename, "nothing", "something")
    await refused(Code.NO_ENTRY, disk.sync_folder, "nothing")
    disk.open("file", create=True).close()
    await refused(Code.NOT_A_DIRECTORY, disk.make_folder, "file")
    await refused(Code.NOT_A_DIRECTORY, disk.make_folder, "file/below")
    await refused(Code.NOT_A_DIRECTORY, disk.names, "file")


async def test_a_full_disk_is_no_space():
    disk = RealDisk("/dev")
    with pytest.raises(TideError) as caught:
        disk.open("full").write(0, [b"x"])
    assert caught.value.code is Code.NO_SPACE


async def test_a_failed_sync_stays_failed(disk, monkeypatch):
    file = disk.open("bad", create=True)
    file.write(0, [b"x"])

    def fails(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fails)
        with pytest.raises(TideError, match="syncing"):
            await file.sync()
    with pytest.raises(TideError) as caught:
        await file.sync()
    assert caught.value.code is Code.DEVICE_ERROR


async def test_a_file_is_closed_only_when_its_threads_are_done(disk, monkeypatch):
    file = disk.open("busy", create=True)
    descriptor = file._descriptor
    entered, leave = trio.Event(), trio.Event()

    async def slow(work):
        entered.set()
        await leave.wait()
        return work()

    monkeypatch.setattr(trio.to_thread, "run_sync", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.sync)
        await entered.wait()
        file.close()
        os.fstat(descriptor)
        leave.set()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_syncs_are_made_in_place_only_while_they_are_short():
    pace = Pace()
    assert not pace.inline(0)
    pace.took(80)
    assert pace.inline(0)
    assert not pace.inline(disk_real.INLINE_SYNC_MAX_BYTES + 1)
    for _ in range(disk_real.SYNCS_REMEMBERED):
        pace.took(5000)
    assert not pace.inline(0)
    for _ in range(disk_real.SYNCS_REMEMBERED):
        pace.took(80)
    assert pace.inline(0)


def test_space_and_boot_id(disk):
    space = disk.space()
    assert 0 < space.free_bytes <= space.total_bytes
    assert len(disk.boot_id()) == 36
