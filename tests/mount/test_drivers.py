"""Both drivers over a small file system in memory, through the real kernel."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest
import trio
from tidefs.client.fuse.driver import Caller
from tidefs.client.fuse.translation import blocks_of
from tidefs.client.options import DriverName
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.tests.mount.drivers import (
    PYFUSE3_CANNOT,
    Mount,
    errno_of,
    mounted,
    needs_fuse,
    renameat2,
)
from tidefs.tests.mount.memory_file_system import MemoryFileSystem, Node

pytestmark = [pytest.mark.mount, needs_fuse]


pytestmark = [pytest.mark.mount, needs_fuse]


def test_what_pyfuse3_cannot_serve_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "semantics.md").read_text()
    for feature, consequence in PYFUSE3_CANNOT.items():
        assert f"| {feature} | {consequence} |" in text


async def test_names_of_255_arbitrary_bytes(mount: Mount) -> None:
    name = bytes(b for b in range(1, 256) if b != ord("/")) + b"x"
    assert len(name) == 255

    def work(path: Path) -> None:
        full = os.path.join(os.fsencode(path), name)
        with open(full, "wb") as file:
            file.write(b"here")
        assert os.listdir(os.fsencode(path)) == [name]
        os.symlink(name, os.path.join(os.fsencode(path), b"link"))
        assert os.readlink(os.path.join(os.fsencode(path), b"link")) == name
        assert errno_of(os.open, full + b"y", os.O_CREAT) == errno.ENAMETOOLONG
        os.unlink(full)

    await mount.run(work)


async def test_data_comes_back_and_truncation(mount: Mount) -> None:
    content = os.urandom(3 << 20)

    def work(path: Path) -> None:
        file = path / "file"
        file.write_bytes(content)
        assert file.read_bytes() == content
        os.truncate(file, 1000)
        assert file.read_bytes() == content[:1000]
        with file.open("r+b") as opened:
            opened.truncate(5000)
            opened.seek(4990)
            opened.write(b"tail")
            os.fsync(opened.fileno())
            os.fdatasync(opened.fileno())
        assert file.read_bytes() == content[:1000] + bytes(3990) + b"tail" + bytes(6)
        folder = os.open(path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    await mount.run(work)
    calls = mount.file_system.calls
    assert "fsync False" in calls
    assert "fsync True" in calls
    assert "fsyncdir" in calls
    assert "flush" in calls


async def test_attributes_arrive_as_they_are(mount: Mount) -> None:
    def work(path: Path) -> None:
        file = path / "file"
        file.write_bytes(b"x" * 1000)
        os.utime(file, ns=(1_234_567_890_123_456_789, -1_000_000_007))
        found = file.stat()
        assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_890_123_456_789, -1_000_000_007)
        os.chmod(file, 0o6751)
        os.chown(file, 12, 34)
        found = file.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (
            0o6751 & 0o1777,
            12,
            34,
        )
        assert stat.S_ISREG(found.st_mode)
        assert found.st_blocks == 2
        assert found.st_blksize == 128 * 1024
        assert path.stat().st_ino == 1
        filled = os.statvfs(path)
        assert filled.f_frsize * filled.f_blocks == 1 << 40
        assert filled.f_frsize * filled.f_bavail == 1 << 39
        assert filled.f_files - filled.f_ffree == 17
        assert filled.f_namemax == 255

    await mount.run(work)


def test_blocks_are_at_most_what_the_size_needs() -> None:
    node = Node(1, Kind.FILE, 0, Caller(0, 0, 0, 0))
    assert blocks_of(node.attributes()) == 0
    node.data = bytearray(513)
    assert blocks_of(node.attributes()) == 2


async def test_rename_flags(mount: Mount) -> None:
    def work(path: Path) -> None:
        a, b = path / "a", path / "b"
        a.write_text("a")
        b.write_text("b")
        assert renameat2(a, b, 1) == errno.EEXIST
        assert renameat2(a, b, 2) == 0
        assert (a.read_text(), b.read_text()) == ("b", "a")
        assert renameat2(a, path / "c", 2) == errno.ENOENT
        assert renameat2(a, path / "c", 1) == 0
        assert renameat2(path / "c", b, 0) == 0
        assert os.listdir(path) == ["b"]
        assert b.read_text() == "b"
        assert renameat2(b, a, 4) == errno.EINVAL

    await mount.run(work)


async def test_hard_links_and_special_files(mount: Mount) -> None:
    def work(path: Path) -> None:
        (path / "one").write_text("x")
        os.link(path / "one", path / "two")
        assert (path / "one").stat().st_nlink == 2
        assert (path / "one").stat().st_ino == (path / "two").stat().st_ino
        os.unlink(path / "one")
        assert (path / "two").stat().st_nlink == 1
        os.mkfifo(path / "fifo", 0o640)
        assert stat.S_ISFIFO((path / "fifo").stat().st_mode)
        os.mknod(path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        assert (path / "device").stat().st_rdev == os.makedev(1, 3)
        (path / "device").write_bytes(b"gone")
        os.mknod(path / "socket", stat.S_IFSOCK | 0o600)
        assert stat.S_ISSOCK((path / "socket").stat().st_mode)
        os.mknod(path / "block", stat.S_IFBLK | 0o600, os.makedev(300, 70000))
        assert (path / "block").stat().st_rdev == os.makedev(300, 70000)

    await mount.run(work)


async def test_xattrs(mount: Mount) -> None:
    def work(path: Path) -> None:
        file = path / "file"
        file.write_text("x")
        os.setxattr(file, "user.a", b"1\0\xff")
        os.setxattr(file, "user.b", b"", os.XATTR_CREATE)
        assert errno_of(os.setxattr, file, "user.a", b"", os.XATTR_CREATE) == errno.EEXIST
        assert errno_of(os.setxattr, file, "user.c", b"", os.XATTR_REPLACE) == errno.ENODATA
        assert os.listxattr(file) == ["user.a", "user.b"]
        assert os.getxattr(file, "user.a") == b"1\0\xff"
        assert os.getxattr(file, "user.b") == b""
        os.removexattr(file, "user.a")
        assert errno_of(os.removexattr, file, "user.a") == errno.ENODATA
        assert errno_of(os.getxattr, file, "user.a") == errno.ENODATA

    await mount.run(work)


async def test_errors_are_translated_and_a_bug_is_only_eio(
    mount: Mount, caplog: pytest.LogCaptureFixture
) -> None:
    def work(path: Path) -> None:
        for name in ("NO_SPACE", "STALE_HANDLE", "READ_ONLY", "TIMED_OUT", "INTERNAL"):
            expected = TideError(Code[name]).errno
            assert errno_of(os.stat, path / f"error-{name}") == expected
        assert errno_of(os.stat, path / "boom") == errno.EIO
        assert errno_of(os.stat, path / "nothing") == errno.ENOENT
        (path / "folder").mkdir()
        (path / "folder" / "x").touch()
        assert errno_of(os.rmdir, path / "folder") == errno.ENOTEMPTY

    await mount.run(work)
    assert "ZeroDivisionError" in caplog.text


async def test_listing_5000_entries_with_parallel_changes(mount: Mount) -> None:
    root = mount.file_system.root
    for number in range(5000):
        mount.file_system.mknod(1, b"stays-%d" % number, Kind.FILE, 0o644, 0, Caller(0, 0, 0, 0))
    (await_stop, stop) = (threading.Event(), threading.Event())

    def change(path: Path) -> None:
        number = 0
        while not stop.is_set():
            (path / f"comes-{number}").touch()
            await_stop.set()
            (path / f"comes-{number}").unlink()
            number += 1

    def work(path: Path) -> None:
        await_stop.wait()
        try:
            for _ in range(3):
                names = [name for name in os.listdir(path) if name.startswith("stays")]
                assert len(names) == 5000
                assert len(set(names)) == 5000
                entries = {entry.name: entry for entry in os.scandir(path)}
                assert entries["stays-4999"].is_file()
                inode = root.names[b"stays-77"][1].inode
                assert entries["stays-77"].inode() == inode
        finally:
            stop.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.run, change)
        nursery.start_soon(mount.run, work)


async def test_dot_and_dotdot_have_the_right_inodes(mount: Mount) -> None:
    def work(path: Path) -> str:
        (path / "folder" / "inner").mkdir(parents=True)
        return subprocess.run(
            ["ls", "-ai1", path / "folder" / "inner"], capture_output=True, text=True, check=True
        ).stdout

    inner = (await mount.run(work)).split()
    found = dict(zip(inner[1::2], inner[::2], strict=True))
    folder = mount.file_system.root.names[b"folder"][1]
    assert found == {".": str(folder.names[b"inner"][1].inode), "..": str(folder.inode)}


async def test_who_asks_is_told(mount: Mount) -> None:
    def work(path: Path) -> None:
        path.chmod(0o777)
        script = "umask 027; echo x > mine"
        subprocess.run(["sh", "-c", script], cwd=path, user=1234, group=567, check=True)

    await mount.run(work)
    caller = mount.file_system.callers[-1]
    assert (caller.uid, caller.gid, caller.umask) == (1234, 567, 0o027)
    node = mount.file_system.root.names[b"mine"][1]
    assert (node.uid, node.gid, node.mode) == (1234, 567, 0o640)


async def test_permissions_are_the_kernels_business(mount: Mount) -> None:
    def work(path: Path) -> str:
        (path / "secret").write_text("x")
        os.chmod(path / "secret", 0o600)
        return subprocess.run(
            ["cat", "secret"], cwd=path, user=1234, group=567, capture_output=True, check=False
        ).stderr.decode()

    assert "Permission denied" in await mount.run(work)


async def test_an_open_file_outlives_its_name(mount: Mount) -> None:
    def work(path: Path) -> None:
        with (path / "file").open("w+b") as file:
            os.unlink(path / "file")
            file.write(b"still here")
            file.flush()
            assert os.fstat(file.fileno()).st_nlink == 0
            file.seek(0)
            assert file.read() == b"still here"

    await mount.run(work)


async def test_the_kernel_forgets_what_it_is_told_to(
    tmp_path: Path, driver_name: DriverName
) -> None:
    file_system = MemoryFileSystem(trust_ms=3_600_000)
    async with mounted(tmp_path / "mnt", file_system, driver_name) as mount:
        await mount.run(lambda path: (path / "file").write_bytes(b"old"))
        # (A read would make the kernel ask for the attributes anyway, for the access time.)
        assert await mount.run(lambda path: (path / "file").stat().st_size) == 3
        node = mount.file_system.root.names[b"file"][1]
        node.data[:] = b"newer"
        assert await mount.run(lambda path: (path / "file").stat().st_size) == 3
        mount.caches.invalidate_inode(node.inode, attributes_only=False)
        while await mount.run(lambda path: (path / "file").stat().st_size) != 5:
            pass
        assert await mount.run(lambda path: (path / "file").read_bytes()) == b"newer"
        del mount.file_system.root.names[b"file"]
        assert await mount.run(lambda path: (path / "file").exists())
        mount.caches.invalidate_entry(1, b"file")
        mount.caches.invalidate_entry(1, b"never known")
        while await mount.run(lambda path: (path / "file").exists()):
            pass


async def test_unmount_while_it_is_used(tmp_path: Path, driver_name: DriverName) -> None:
    async with mounted(tmp_path / "mnt", MemoryFileSystem(), driver_name) as mount:
        file = await mount.run(lambda path: (path / "file").open("wb", buffering=0))
        mount.driver.unmount()
        while await trio.to_thread.run_sync(os.path.ismount, mount.path):
            pass
        assert await trio.to_thread.run_sync(errno_of, file.write, b"x") == errno.ENOTCONN
        with contextlib.suppress(OSError):
            await trio.to_thread.run_sync(file.close)
        (mount.path / "not-mounted").touch()
        shutil.rmtree(mount.path)
        mount.path.mkdir()


async def test_lookups_and_forgets_are_even(mount: Mount) -> None:
    file_system = mount.file_system

    def work(path: Path) -> int:
        (path / "file").write_text("x")
        for _ in range(10):
            (path / "file").stat()
        os.link(path / "file", path / "other")
        os.rename(path / "other", path / "third")
        for _ in range(3):
            assert sorted(entry.name for entry in os.scandir(path)) == ["file", "third"]
        inode = (path / "file").stat().st_ino
        os.unlink(path / "file")
        os.unlink(path / "third")
        return inode

    inode = await mount.run(work)
    # Each listing counts a lookup for each name in it, if it told the attributes.
    counts = {file_system.looked_up[inode] + listed for listed in (0, 2, 4, 6)}
    while file_system.forgotten[inode] not in counts:
        assert file_system.forgotten[inode] < max(counts)
        await trio.lowlevel.checkpoint()
    assert file_system.released == 1
