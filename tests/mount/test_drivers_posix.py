"""What only the protocol itself can serve: locks, holes, unnamed files, interrupts and the like."""

import contextlib
import errno
import fcntl
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from ctypes import c_int, c_long
from pathlib import Path

import pytest
import trio
from tidefs.client.fuse import kernel_dispatch
from tidefs.client.fuse.dying import is_dying
from tidefs.client.fuse.protocol import negotiation
from tidefs.client.options import DriverName
from tidefs.fs.errors import TideError, first_error
from tidefs.tests.mount.drivers import (
    Mount,
    errno_of,
    libc_errno,
    mounted,
    needs,
    needs_fuse,
    unmount,
)
from tidefs.tests.mount.memory_file_system import (
    KEEP_SIZE,
    PUNCH_HOLE,
    Caller,
    MemoryFileSystem,
)

pytestmark = [pytest.mark.mount, needs_fuse]

F_OFD_SETLK = 37
MNT_FORCE = 1
AT_SYMLINK_FOLLOW = 0x400
AT_FDCWD = -100


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def in_child(path: Path, script: str) -> str:
    """What a process of its own prints that has ``file`` open. (Who touches a mapping here waits
    for an answer of this very process, with its interpreter locked.)"""
    script = f"import fcntl, os\nfile = os.open({str(path)!r}, os.O_RDWR)\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr.strip().split("\n")[-1]


# --- locks


@needs("locks")
async def test_flock_excludes_and_ends_with_the_last_close(mount: Mount) -> None:
    def work(path: Path) -> None:
        with opened(path / "file") as one, opened(path / "file") as two:
            fcntl.flock(one, fcntl.LOCK_EX)
            assert errno_of(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EAGAIN
            fcntl.flock(one, fcntl.LOCK_SH)
            fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
            assert errno_of(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EAGAIN
            fcntl.flock(one, fcntl.LOCK_UN)
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            copy = os.dup(two)
            assert len(mount.file_system.locks.held) == 1
        assert len(mount.file_system.locks.held) == 1, "a copy is still open"
        os.close(copy)

    await mount.run(work)
    while mount.file_system.locks.held:
        await trio.lowlevel.checkpoint()


@needs("locks")
async def test_fcntl_ranges_exclude_and_end_with_any_close(mount: Mount) -> None:
    def work(path: Path) -> None:
        file = path / "file"
        with opened(file) as one:
            fcntl.lockf(one, fcntl.LOCK_EX, 10, 5)
            fcntl.lockf(one, fcntl.LOCK_SH, 0, 1 << 40)
            held = {(lock.lock.start, lock.lock.end) for lock in mount.file_system.locks.held}
            assert held == {(5, 15), (1 << 40, 1 << 63)}
            script = "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14); print('got')"
            assert "[Errno 11]" in in_child(file, script)
            assert in_child(file, script.replace("14", "15")) == "got"
            script = """
import struct
asked = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
print(struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, asked)))
"""
            told = in_child(file, script)
            assert told == str((fcntl.F_WRLCK, 0, 5, 10, os.getpid()))
            told = in_child(file, script.replace("0, 0, 0, 0)", "0, 15, 5, 0)"))
            assert told == str((fcntl.F_UNLCK, 0, 15, 5, 0))
            os.close(os.open(file, os.O_RDONLY))
            assert mount.file_system.locks.held == []

    await mount.run(work)


@needs("locks")
async def test_a_lock_of_an_open_file_description(mount: Mount) -> None:
    def work(path: Path) -> None:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
        with opened(path / "file") as one, opened(path / "file") as two:
            fcntl.fcntl(one, F_OFD_SETLK, asked)
            assert errno_of(fcntl.fcntl, two, F_OFD_SETLK, asked) == errno.EAGAIN
            free = struct.pack("hhqqi", fcntl.F_UNLCK, 0, 0, 0, 0)
            fcntl.fcntl(one, F_OFD_SETLK, free)
            fcntl.fcntl(two, F_OFD_SETLK, asked)

    await mount.run(work)


@needs("locks")
@pytest.mark.parametrize("kind", ["flock", "lockf"])
async def test_who_waits_for_a_lock_gets_it_and_a_signal_interrupts(
    mount: Mount, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_dispatch, "INTERRUPT_PATIENCE_MS", 3_600_000)  # not for locks
    script = f"""
import signal
def told(*_): raise SystemExit("interrupted")
signal.signal(signal.SIGALRM, told)
print("ready", flush=True)
fcntl.{kind}(file, fcntl.LOCK_EX)
print("got", flush=True)
"""
    locks = mount.file_system.locks

    def child(path: Path) -> "subprocess.Popen[str]":
        start = f"import fcntl, os\nfile = os.open({str(path / 'file')!r}, os.O_RDWR)\n"
        return subprocess.Popen(
            [sys.executable, "-c", start + script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    file = await mount.run(lambda path: os.open(path / "file", os.O_CREAT | os.O_RDWR))
    lock = getattr(fcntl, kind)
    await mount.run(lambda _: lock(file, fcntl.LOCK_EX))
    first, second = await mount.run(child), await mount.run(child)
    while locks.waiting < 2:
        await trio.lowlevel.checkpoint()
    first.send_signal(signal.SIGALRM)
    said, why = await mount.run(lambda _: first.communicate())
    assert (said, why) == ("ready\n", "interrupted\n")
    assert locks.waiting == 1
    await mount.run(lambda _: lock(file, fcntl.LOCK_UN))
    said, _ = await mount.run(lambda _: second.communicate())
    assert said == "ready\ngot\n"
    await mount.run(lambda _: os.close(file))


# --- signals


@needs("interrupts")
async def test_only_who_dies_of_a_signal_ends_what_the_servers_do_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung: list[bytes] = []

    class Hanging(MemoryFileSystem):
        def lookup(self, parent: int, name: bytes):  # type: ignore[no-untyped-def]
            if name != b"hangs":
                return super().lookup(parent, name)
            return self.never(name)

        async def never(self, name: bytes) -> None:
            hung.append(name)
            await trio.sleep_forever()

    script = "import os, signal; signal.signal(signal.SIGALRM, print); os.stat('hangs')"
    async with mounted(tmp_path / "mnt", Hanging(), DriverName.KERNEL) as mount:

        def child(path: Path) -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                [sys.executable, "-c", script], cwd=path, stderr=subprocess.DEVNULL
            )

        process = await mount.run(child)
        while not hung:
            await trio.lowlevel.checkpoint()
        monkeypatch.setattr(kernel_dispatch, "INTERRUPT_CHECK_MS", 1)
        monkeypatch.setattr(kernel_dispatch, "INTERRUPT_PATIENCE_MS", 0)
        looked: list[bool] = []

        def look(thread: int) -> bool:
            looked.append(is_dying(thread))
            return looked[-1]

        monkeypatch.setattr(kernel_dispatch, "is_dying", look)
        process.send_signal(signal.SIGALRM)
        while len(looked) < 20:
            await trio.lowlevel.checkpoint()
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        seen = len(looked) + 20
        while len(looked) < seen:
            await trio.lowlevel.checkpoint()
        assert not any(looked), "it lives on"
        process.send_signal(signal.SIGTERM)
        await trio.to_thread.run_sync(process.wait)
        assert mount.file_system.looked_up[99] == 0


# --- ranges


@needs("fallocate", "lseek")
async def test_holes(mount: Mount) -> None:
    def work(path: Path) -> None:
        with opened(path / "file") as file:
            os.write(file, b"x" * 32768)
            assert (
                libc_errno("fallocate", file, PUNCH_HOLE | KEEP_SIZE, c_long(8192), c_long(8192))
                == 0
            )
            assert os.lseek(file, 0, os.SEEK_HOLE) == 8192
            assert os.lseek(file, 9000, os.SEEK_DATA) == 16384
            assert os.lseek(file, 16384, os.SEEK_HOLE) == 32768
            assert errno_of(os.lseek, file, 40000, os.SEEK_DATA) == errno.ENXIO
            assert os.pread(file, 4096, 8192) == bytes(4096), "the kernel forgot what it had"
            os.posix_fallocate(file, 0, 65536)
            assert os.fstat(file).st_size == 65536
            assert libc_errno("fallocate", file, KEEP_SIZE, c_long(0), c_long(1 << 20)) == 0
            assert os.fstat(file).st_size == 65536
            zero_range = 0x10
            assert (
                libc_errno("fallocate", file, zero_range, c_long(0), c_long(10)) == errno.EOPNOTSUPP
            )

    await mount.run(work)


@needs("copy_file_range")
async def test_copy_file_range(mount: Mount) -> None:
    def work(path: Path) -> None:
        with opened(path / "one") as one, opened(path / "two") as two:
            os.write(one, bytes(range(256)) * 100)
            assert os.copy_file_range(one, two, 5000, 100, 10) == 5000
            assert os.pread(two, 6000, 0) == bytes(10) + (bytes(range(256)) * 100)[100:5100]

    await mount.run(work)
    assert "copy_file_range" in mount.file_system.calls


@needs("tmpfile")
async def test_a_file_without_a_name_gets_one(mount: Mount) -> None:
    def work(path: Path) -> None:
        file = os.open(path, os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(file, b"content")
        assert os.fstat(file).st_nlink == 0
        assert os.listdir(path) == []
        unnamed, name = f"/proc/self/fd/{file}".encode(), os.fsencode(path / "name")
        assert libc_errno("linkat", AT_FDCWD, unnamed, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0
        os.close(file)
        assert (path / "name").read_bytes() == b"content"
        assert stat.S_IMODE((path / "name").stat().st_mode) == 0o640
        os.close(os.open(path, os.O_TMPFILE | os.O_RDWR))

    await mount.run(work)
    assert len(mount.file_system.root.names) == 1


async def test_shared_mappings_are_written_back(mount: Mount) -> None:
    def work(path: Path) -> None:
        (path / "file").write_bytes(bytes(8192))
        script = """
import mmap
with mmap.mmap(file, 8192) as mapped:
    mapped[5000:5004] = b"here"
    mapped.flush()
    print(os.pread(file, 4, 5000))
"""
        assert in_child(path / "file", script) == "b'here'"

    await mount.run(work)
    node = mount.file_system.root.names[b"file"][1]
    assert node.data[5000:5004] == b"here"


@needs("append")
async def test_a_write_says_whether_it_appends(mount: Mount) -> None:
    def work(path: Path) -> None:
        with opened(path / "file", os.O_RDWR | os.O_APPEND) as file:
            os.write(file, b"1")
            fcntl.fcntl(file, fcntl.F_SETFL, 0)
            os.pwrite(file, b"2", 5)
        script = """
import mmap
with mmap.mmap(file, 6) as mapped:
    fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
    mapped[1:2] = b"3"
    mapped.flush()
"""
        assert in_child(path / "file", script) == ""

    await mount.run(work)
    assert mount.file_system.appended == [True, False, False]
    assert mount.file_system.root.names[b"file"][1].data == b"13\0\0\x002"


@needs("mappings of direct files")
async def test_direct_io(mount: Mount) -> None:
    mount.file_system.direct_io = True
    content = os.urandom(1 << 20)

    def work(path: Path) -> None:
        (path / "file").write_bytes(content)
        assert (path / "file").read_bytes() == content
        script = "import mmap; print(mmap.mmap(file, 4096)[:100].hex())"
        assert in_child(path / "file", script) == content[:100].hex()

    await mount.run(work)


# --- modes, times, access lists


async def test_modes_arrive_with_the_umask_to_be_taken_away(mount: Mount) -> None:
    def work(path: Path) -> None:
        script = "umask 027; mkdir a; mknod b p; echo x > c"
        subprocess.run(["sh", "-c", script], cwd=path, check=True)
        modes = {name: stat.S_IMODE((path / name).stat().st_mode) for name in "abc"}
        assert modes == {"a": 0o750, "b": 0o640, "c": 0o640}

    await mount.run(work)
    assert {caller.umask for caller in mount.file_system.callers} == {0o027}


@needs("now")
async def test_now_is_the_servers_affair(mount: Mount) -> None:
    def work(path: Path) -> None:
        (path / "file").touch()
        os.utime(path / "file")

    await mount.run(work)
    asked = mount.file_system.asked[-1]
    assert (asked.atime_now, asked.mtime_now) == (True, True)
    assert (asked.atime_ns, asked.mtime_ns) == (None, None)


@needs("privileges")
async def test_who_writes_takes_set_user_id_away(mount: Mount) -> None:
    def work(path: Path) -> None:
        file = path / "file"
        commands = {
            "write": "os.write(os.open('file', os.O_WRONLY), b'more')",
            "truncate": "os.truncate('file', 1)",
            "open": "os.open('file', os.O_WRONLY | os.O_TRUNC)",
        }
        for what, command in commands.items():
            file.write_text("x")
            os.chmod(file, 0o6777)
            with file.open("a") as again:
                again.write("by root, who may")
            assert stat.S_IMODE(file.stat().st_mode) == 0o6777, what
            as_somebody(path, command)
            assert stat.S_IMODE(file.stat().st_mode) == 0o777, what

    await mount.run(work)
    assert any(asked.kill_privileges for asked in mount.file_system.asked)


def as_somebody(path: Path, script: str) -> None:
    """Run a script in a folder, as an ordinary user (who may not read this interpreter)."""
    script = f"import os; os.setgroups([]); os.setgid(567); os.setuid(1234); {script}"
    subprocess.run([sys.executable, "-c", script], cwd=path, check=True)


def access_list(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@needs("access lists")
async def test_access_lists_are_enforced_by_the_kernel(mount: Mount) -> None:
    nobody = 0xFFFFFFFF
    user_obj, user, group_obj, mask, other = 1, 2, 4, 0x10, 0x20

    def reads(path: Path, uid: int) -> bool:
        done = subprocess.run(
            ["cat", "file"], cwd=path, user=uid, group=uid, capture_output=True, check=False
        )
        return done.returncode == 0

    def work(path: Path) -> None:
        file = path / "file"
        file.write_text("x")
        os.chmod(file, 0o640)
        assert not reads(path, 1234)
        value = access_list(
            (user_obj, 6, nobody),
            (user, 4, 1234),
            (group_obj, 4, nobody),
            (mask, 4, nobody),
            (other, 0, nobody),
        )
        os.setxattr(file, "system.posix_acl_access", value)
        assert os.getxattr(file, "system.posix_acl_access") == value
        assert reads(path, 1234)
        assert not reads(path, 1235)

    await mount.run(work)


@needs("access lists")
async def test_a_stranger_to_the_group_who_sets_an_access_list_loses_set_group_id(
    mount: Mount,
) -> None:
    def work(path: Path) -> None:
        file = path / "file"
        file.touch()
        os.chown(file, 1234, 999)
        os.chmod(file, 0o2755)
        value = access_list((1, 7, 0xFFFFFFFF), (4, 5, 0xFFFFFFFF), (0x20, 5, 0xFFFFFFFF))
        as_somebody(path, f"os.setxattr('file', 'system.posix_acl_access', {value!r})")
        assert stat.S_IMODE(file.stat().st_mode) == 0o755

    await mount.run(work)


@needs("xattr flags")
async def test_xattr_flags_reach_the_file_system(mount: Mount) -> None:
    def work(path: Path) -> None:
        (path / "file").touch()
        assert (
            errno_of(os.setxattr, path / "file", "user.a", b"", os.XATTR_REPLACE) == errno.ENODATA
        )
        os.setxattr(path / "file", "user.a", b"x" * 5000, os.XATTR_CREATE)
        assert errno_of(os.setxattr, path / "file", "user.a", b"", os.XATTR_CREATE) == errno.EEXIST
        buffer = bytearray(10)
        number = libc_errno(
            "getxattr",
            os.fsencode(path / "file"),
            b"user.a",
            (c_int * 2).from_buffer(buffer[:8]),
            c_long(8),
        )
        assert number == errno.ERANGE

    await mount.run(work)


# --- the rest


@needs("ioctl")
async def test_what_is_not_served_says_so(mount: Mount) -> None:
    def work(path: Path) -> None:
        with opened(path / "file") as file:
            fs_ioc_getflags = 0x80086601
            assert errno_of(fcntl.ioctl, file, fs_ioc_getflags, bytes(8)) == errno.ENOTTY
            assert errno_of(fcntl.ioctl, file, 0x1234, 0) == errno.ENOTTY
            poll = select.poll()
            poll.register(file, select.POLLIN)
            assert poll.poll(0) == [(file, select.POLLIN)]

    await mount.run(work)


async def test_files_are_opened_by_handle(tmp_path: Path, driver_name: DriverName) -> None:
    """As an NFS server does: "." and ".." are looked up by inode number."""
    async with mounted(tmp_path / "mnt", MemoryFileSystem(), driver_name) as mount:

        def work(path: Path) -> None:
            (path / "folder").mkdir()
            (path / "folder" / "file").write_text("found")
            handle = struct.pack("II", 128, 0) + bytes(128)
            buffer = (c_int * 34).from_buffer_copy(handle)
            where = os.fsencode(path / "folder" / "file")
            assert libc_errno("name_to_handle_at", AT_FDCWD, where, buffer, (c_int * 1)(), 0) == 0
            with opened_folder(path) as folder:
                import ctypes  # noqa: PLC0415

                libc = ctypes.CDLL(None, use_errno=True)
                file = libc.open_by_handle_at(folder, buffer, os.O_RDONLY)
                assert file >= 0, os.strerror(ctypes.get_errno())
                assert os.read(file, 100) == b"found"
                os.close(file)

        await mount.run(work)


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def test_who_was_told_to_forget_an_inode_has_forgotten_it(
    tmp_path: Path, driver_name: DriverName
) -> None:
    file_system = MemoryFileSystem(trust_ms=3_600_000)
    async with mounted(tmp_path / "mnt", file_system, driver_name) as mount:
        await mount.run(lambda path: (path / "file").write_bytes(b"old"))
        file = await mount.run(lambda path: os.open(path / "file", os.O_RDONLY))
        assert await mount.run(lambda _: os.pread(file, 10, 0)) == b"old"
        node = file_system.root.names[b"file"][1]
        node.data[:] = b"newer"
        assert await mount.run(lambda _: os.pread(file, 3, 0)) == b"old"
        await mount.caches.forget_inode(node.inode)
        assert await mount.run(lambda _: os.pread(file, 10, 0)) == b"newer"
        node.data[:] = b"longer still"
        mount.caches.invalidate_inode(node.inode, attributes_only=True)
        assert await mount.run(lambda _: os.fstat(file).st_size) == 12
        await mount.run(lambda _: os.close(file))


async def test_a_name_can_be_forgotten_while_a_request_in_its_directory_waits(
    tmp_path: Path, driver_name: DriverName
) -> None:
    """The notification blocks until the request is answered: who answers must not send it."""
    answer = trio.Event()
    asked = trio.Event()

    class Slow(MemoryFileSystem):
        def lookup(self, parent: int, name: bytes):  # type: ignore[no-untyped-def]
            return self.slow() if name == b"slow" else super().lookup(parent, name)

        def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller):  # type: ignore[no-untyped-def]
            return self.slow_mkdir(parent, name, mode, caller)

        async def slow(self):  # type: ignore[no-untyped-def]
            return super().lookup(1, b"slow")

        async def slow_mkdir(self, parent: int, name: bytes, mode: int, caller: Caller):  # type: ignore[no-untyped-def]
            asked.set()
            await answer.wait()
            return super().mkdir(parent, name, mode, caller)

    async with mounted(tmp_path / "mnt", Slow(trust_ms=3_600_000), driver_name) as mount:
        await mount.run(lambda path: (path / "file").touch())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.run, lambda path: (path / "slow").mkdir())
            await asked.wait()
            mount.caches.invalidate_entry(1, b"file")
            await mount.run(os.statvfs)
            answer.set()
        del mount.file_system.root.names[b"file"]
        while await mount.run(lambda path: (path / "file").exists()):
            pass


@needs("cut off")
async def test_it_ends_though_a_notice_waits_for_a_request(tmp_path: Path) -> None:
    asked = trio.Event()

    class Hanging(MemoryFileSystem):
        def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller):  # type: ignore[no-untyped-def]
            return self.hang()

        async def hang(self) -> None:
            asked.set()
            await trio.sleep_forever()

    async with mounted(tmp_path / "mnt", Hanging(trust_ms=3_600_000), DriverName.KERNEL) as mount:
        await mount.run(lambda path: (path / "file").touch())
        async with trio.open_nursery() as nursery:
            failed: list[int | None] = []

            async def make(name: str) -> None:
                failed.append(await mount.run(lambda path: errno_of((path / name).mkdir)))

            nursery.start_soon(make, "new")
            await asked.wait()
            for name in ("one", "two", "three"):
                nursery.start_soon(make, name)
            for _ in range(50):
                await mount.run(os.statvfs)
            # It stands behind all of them, and those that follow are not read before the end.
            mount.caches.invalidate_entry(1, b"file")
            for _ in range(50):
                await mount.run(os.statvfs)
            mount.driver.unmount()
        assert failed == [errno.ENOTCONN] * 4


@needs("cut off")
async def test_a_cut_connection_ends_it(tmp_path: Path) -> None:
    async with mounted(tmp_path / "mnt", MemoryFileSystem(), DriverName.KERNEL) as mount:
        file = await mount.run(lambda path: (path / "file").open("wb", buffering=0))
        cut = await mount.run(lambda path: libc_errno("umount2", os.fsencode(path), MNT_FORCE))
        assert cut == errno.EBUSY
        assert await mount.run(lambda path: errno_of(os.listdir, path)) == errno.ENOTCONN
        assert await mount.run(lambda _: errno_of(file.write, b"x")) == errno.ENOTCONN
        with contextlib.suppress(OSError):
            await mount.run(lambda _: file.close())


async def test_thousands_of_requests_from_several_threads(mount: Mount) -> None:
    def work(path: Path) -> None:
        def busy(number: int) -> None:
            for turn in range(100):
                name = path / f"{number}-{turn}"
                name.write_bytes(bytes([number]) * 5000)
                assert name.read_bytes() == bytes([number]) * 5000
                name.unlink()

        threads = [threading.Thread(target=busy, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert os.listdir(path) == []

    await mount.run(work)


async def test_large_writes_that_wait_keep_their_bytes(tmp_path: Path) -> None:
    """Their buffers must not be read into again meanwhile."""

    class SlowWrites(MemoryFileSystem):
        def write(self, handle, offset, data, **more):  # type: ignore[no-untyped-def]
            return self.later(handle, offset, data, more)

        async def later(self, handle, offset, data, more):  # type: ignore[no-untyped-def]
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            return super().write(handle, offset, data, **more)

    async with mounted(tmp_path / "mnt", SlowWrites(), DriverName.KERNEL) as mount:

        def work(path: Path) -> None:
            def busy(number: int) -> None:
                content = os.urandom(3 << 20)
                (path / f"{number}").write_bytes(content)
                assert (path / f"{number}").read_bytes() == content

            threads = [threading.Thread(target=busy, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        await mount.run(work)
        written = [node.data for _, node in mount.file_system.root.names.values()]
        assert len({bytes(data) for data in written}) == 6


@needs("cut off")
async def test_the_end_waits_for_what_must_be_carried_out(tmp_path: Path) -> None:
    """A last close may still have bytes to store: nobody else would do it."""
    go_on, asked = trio.Event(), trio.Event()
    done: list[str] = []

    class SlowRelease(MemoryFileSystem):
        def release(self, handle: int, owner: int | None = None):  # type: ignore[no-untyped-def]
            return self.later()

        async def later(self) -> None:
            asked.set()
            await go_on.wait()
            done.append("released")

    file_system = SlowRelease()
    async with mounted(tmp_path / "mnt", file_system, DriverName.KERNEL) as mount:
        await mount.run(lambda path: (path / "file").touch())
        await asked.wait()
        await mount.run(unmount)
        assert not done
        go_on.set()
    assert done == ["released"]


@needs("cut off")
async def test_a_kernel_that_is_too_old_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negotiation, "MINOR_MIN", 99)
    with pytest.RaisesGroup(TideError, allow_unwrapped=True, flatten_subgroups=True) as caught:
        async with mounted(tmp_path / "mnt", MemoryFileSystem(), DriverName.KERNEL):
            await trio.sleep_forever()
    assert "driver=pyfuse3" in str(first_error(caught.value))
