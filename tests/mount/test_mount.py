"""A mount as a process: ready, ended by a signal or umount, replaced when stale; what is said."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from tidefs.client import mount_point, mounts, notes, unmounting
from tidefs.client.fuse import choice
from tidefs.client.mount import MountRequest, run_mount
from tidefs.client.mount_point import free_point
from tidefs.client.options import parse_options
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.base import Request
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.messages.meta import (
    CloseSession,
    Commit,
    Create,
    Entry,
    GetAttributes,
    GetSpace,
    GetXattr,
    Lookup,
    Node,
    Space,
)
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Identity, serve
from tidefs.tests.client.fake_servers import CLUSTER, Answer, FakeMeta, Group, until

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(
        not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0,
        reason="needs /dev/fuse and root",
    ),
]

ROOT = Attributes(1, Kind.DIRECTORY, 0o755, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1)
FILE = Attributes(2, Kind.FILE, 0o644, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1)


class SmallMeta(FakeMeta):
    """Real sockets; an empty root, in which files can be made that are soon forgotten."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None, "localhost", view=Group())  # type: ignore[arg-type]
        self.view.elect(self)
        self.address = f"unix:{folder}/meta"

    async def run(self) -> None:
        ports = Ports(RealClock(), RealRandomness(), None, RealNetwork())  # type: ignore[arg-type]
        listener = await ports.network.listen(self.address)
        try:
            async with trio.open_nursery() as nursery:
                await serve(
                    ports,
                    listener,
                    Identity(CLUSTER, METASERVER, self.server),
                    self.handle,
                    nursery,
                )
        finally:
            listener.close()

    def default(self, request: Request[Any]) -> Answer | None:
        answers: dict[type[Request[Any]], Answer] = {
            GetAttributes: Node(ROOT),
            GetSpace: Space(1 << 30, 1 << 29, 1),
            Lookup: TideError(Code.NO_ENTRY, "empty"),
            GetXattr: TideError(Code.NO_ATTRIBUTE, "none"),
            Create: Entry(FILE, ROOT),
            Commit: Node(FILE),
        }
        return answers.get(type(request)) or super().default(request)


@pytest.fixture
def point(tmp_path: Path) -> Any:
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    while mounts.mount_at(str(folder)):
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
async def meta(tmp_path: Path, nursery: trio.Nursery) -> SmallMeta:
    meta = SmallMeta(tmp_path)
    nursery.start_soon(meta.run)
    while not (tmp_path / "meta").exists():  # noqa: ASYNC110
        await trio.sleep(0.01)
    return meta


@asynccontextmanager
async def mounted(meta: SmallMeta, point: Path, *options: str) -> AsyncIterator[trio.Event]:
    """What it gives is set when the mount has ended in good order."""
    request = MountRequest([meta.address], str(point), "a,b \xef", parse_options(options))
    ready, ended = trio.Event(), trio.Event()

    async def run() -> None:
        await run_mount(request, ready.set)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await ready.wait()
        yield ended
        await ended.wait()


def start_process(meta: SmallMeta, point: Path) -> "subprocess.Popen[bytes]":
    script = f"""if True:
        import trio
        from tidefs.client.mount import MountRequest, run_mount
        request = MountRequest([{meta.address!r}], {str(point)!r}, "x")
        trio.run(run_mount, request, lambda: print("ready", flush=True))
    """
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)


async def in_thread(work: Any, *arguments: Any) -> Any:
    return await trio.to_thread.run_sync(work, *arguments)


async def test_ready_means_usable_and_umount_ends_it(meta: SmallMeta, point: Path) -> None:
    async with mounted(meta, point) as ended:
        mount = mounts.mount_at(str(point))
        assert mount is not None
        assert mount.ours
        assert mount.source == "tidefs:a,b \xef"
        assert notes.note_of(mount).pid == os.getpid()  # type: ignore[union-attr]
        assert (await in_thread(os.stat, point)).st_ino == 1
        read_ahead = Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb")
        assert read_ahead.read_text() == "1024\n"  # noqa: ASYNC240
        with pytest.raises(TideError) as failed:
            await free_point(str(point))
        assert failed.value.code is Code.BUSY
        assert "tidefs umount" in str(failed.value)
        await in_thread(lambda: unmounting.detach(str(point), lazy=False))
        await ended.wait()
    assert notes.note_of(mount) is None
    assert meta.of(CloseSession)


async def test_a_signal_writes_everything_and_closes_the_session(
    meta: SmallMeta, point: Path
) -> None:
    async with mounted(meta, point) as ended:
        file = await in_thread(lambda: (point / "file").open("wb", buffering=0))
        await in_thread(file.write, b"dirty")
        assert meta.of(Commit) == []
        os.kill(os.getpid(), signal.SIGTERM)
        await ended.wait()
        with pytest.raises(OSError, match="not connected"):
            await in_thread(file.write, b"more")
        with pytest.raises(OSError, match="not connected"):
            file.close()
    assert mounts.mount_at(str(point)) is None
    names = [type(request).__name__ for request in meta.requests]
    assert names.index("Commit") < names.index("CloseSession")
    assert meta.payloads[names.index("Commit")] == b"dirty"


async def test_a_second_signal_gives_up(
    meta: SmallMeta, point: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meta.rules.append(lambda request: "silence" if isinstance(request, Commit) else None)
    async with mounted(meta, point) as ended:
        file = await in_thread(lambda: (point / "file").open("wb", buffering=0))
        await in_thread(file.write, b"dirty")
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: meta.of(Commit))
        os.kill(os.getpid(), signal.SIGTERM)
        await ended.wait()
    assert "5 bytes" in caplog.text
    with pytest.raises(OSError, match="not connected"):
        file.close()


async def test_umount_names_who_is_in_the_way(meta: SmallMeta, point: Path) -> None:
    async with mounted(meta, point):
        sleeper = await in_thread(lambda: subprocess.Popen(["sleep", "60"], cwd=point))
        try:
            with pytest.raises(TideError) as failed:
                await in_thread(lambda: unmounting.unmount(str(point)))
            assert failed.value.code is Code.BUSY
            assert str(sleeper.pid) in str(failed.value)
        finally:
            sleeper.kill()
            sleeper.wait()
        await in_thread(lambda: unmounting.detach(str(point), lazy=False))


async def test_read_only(meta: SmallMeta, point: Path) -> None:
    async with mounted(meta, point, "ro"):
        with pytest.raises(OSError, match="Read-only"):
            await in_thread((point / "file").touch)
        await in_thread(lambda: unmounting.detach(str(point), lazy=False))


async def test_a_mount_point_of_a_killed_client_is_replaced(meta: SmallMeta, point: Path) -> None:
    client = start_process(meta, point)
    try:
        assert await in_thread(client.stdout.readline) == b"ready\n"  # type: ignore[union-attr]
    finally:
        client.kill()
        client.communicate()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(point)
    async with mounted(meta, point):
        assert await in_thread(os.stat, point)
        await in_thread(lambda: unmounting.detach(str(point), lazy=False))
    assert os.listdir(point) == []


async def test_umount_waits_for_the_process(meta: SmallMeta, point: Path) -> None:
    client = start_process(meta, point)
    try:
        assert await in_thread(client.stdout.readline) == b"ready\n"  # type: ignore[union-attr]
        await in_thread(lambda: unmounting.unmount(str(point)))
        assert client.poll() == 0
        assert len(meta.of(CloseSession)) == 1
    finally:
        client.kill()
        client.communicate()


async def test_servers_that_are_not_there_are_named(point: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tidefs.client.client.open_client.__kwdefaults__", {"timeout_ms": 100})
    request = MountRequest(["unix:/nowhere/meta"], str(point), "x")
    with pytest.raises(TideError) as failed:
        await run_mount(request, lambda: None)
    assert failed.value.code is Code.DISCONNECTED
    assert "/nowhere/meta" in str(failed.value)
    assert mounts.mount_at(str(point)) is None


@pytest.mark.parametrize("kind", ["missing", "file", "proc"])
async def test_a_place_that_is_no_mount_point(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.touch()
    with pytest.raises(TideError) as failed:
        await free_point("/proc" if kind == "proc" else str(place))
    expected = {"missing": Code.NO_ENTRY, "file": Code.NOT_A_DIRECTORY, "proc": Code.BUSY}
    assert failed.value.code is expected[kind]


async def test_a_machine_without_fuse(monkeypatch: pytest.MonkeyPatch, point: Path) -> None:
    monkeypatch.setattr(mount_point, "FUSE_DEVICE", "/dev/no-fuse")
    with pytest.raises(TideError) as failed:
        await run_mount(MountRequest(["unix:/x"], str(point), "x"), lambda: None)
    assert failed.value.code is Code.NOT_SUPPORTED
    assert "modprobe" in str(failed.value)


class TooOld:
    """The kernel driver, where the kernel does not speak its protocol."""

    def __init__(self, file_system: object, device: int, point: str) -> None:
        self.caches = None
        self._device = device

    async def serve_forever(self) -> None:
        os.close(self._device)
        raise TideError(Code.NOT_SUPPORTED, "the kernel speaks FUSE 7.1")


async def test_another_driver_is_taken_when_one_cannot_be_used(
    meta: SmallMeta,
    point: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(choice, "KernelDriver", TooOld)
    async with mounted(meta, point):
        mount = mounts.mount_at(str(point))
        assert mount is not None
        note = notes.note_of(mount)
        assert note is not None
        assert note.driver == "pyfuse3"
        await in_thread(lambda: unmounting.detach(str(point), lazy=False))
    assert "by the pyfuse3 driver: the kernel driver cannot be used: " in caplog.text
    assert "FUSE 7.1" in caplog.text
    assert mounts.mount_at(str(point)) is None


async def test_the_driver_that_was_asked_for_is_the_only_one(
    meta: SmallMeta, point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "KernelDriver", TooOld)
    request = MountRequest([meta.address], str(point), "x", parse_options(["driver=kernel"]))
    with pytest.raises(TideError) as failed:
        await run_mount(request, lambda: None)
    assert failed.value.code is Code.NOT_SUPPORTED
    assert "FUSE 7.1" in str(failed.value)
    assert mounts.mount_at(str(point)) is None


async def test_what_is_lost_at_the_end_is_left_in_the_note(
    meta: SmallMeta, point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an unmount reads it."""
    meta.rules.append(
        lambda request: TideError(Code.NO_SPACE, "full") if isinstance(request, Commit) else None
    )
    client = start_process(meta, point)
    with client:
        assert await in_thread(client.stdout.readline) == b"ready\n"  # type: ignore[union-attr]
        mount = mounts.mount_at(str(point))
        assert mount is not None
        watch = notes.watch(mount)
        assert watch is not None
        file = await in_thread(lambda: (point / "file").open("wb", buffering=0))
        await in_thread(file.write, b"dirty")
        client.terminate()
        await in_thread(client.wait)
        assert client.returncode
        outcome = watch.look().outcome
        watch.close()
    assert outcome is not None
    assert "5 bytes that were written here are lost" in outcome
    assert "full" in outcome
    with pytest.raises(OSError, match="not connected"):
        file.close()
