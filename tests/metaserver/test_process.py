"""A metaserver as a process of its own: started, killed, started again, refused."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.limits import MIB
from tidefs.fs.messages import meta
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Mutation, connect, no_requests

from .live import eventually, until
from .test_oplog_full_disk import small_disk

CONFIG = """
cluster = "cluster"
server = 7
data = "{folder}/data"
listen = ["unix:{folder}/meta.sock"]
ready_file = "{folder}/ready"
replicas = 1
checkpoint_entries = 300
"""


def start(folder, config=CONFIG):
    """As a process; its folder is formatted when there is none."""
    (folder / "ready").unlink(missing_ok=True)
    (folder / "config.toml").write_text(config.format(folder=folder))
    command = [sys.executable, "-m", "tidefs.deploy", "metaserver"]
    command += ["--config", folder / "config.toml"]
    with (folder / "log").open("ab") as log:
        if not (folder / "data").exists():
            subprocess.run([*command, "--format"], stdout=log, stderr=log, check=False)
        return subprocess.Popen(command, stdout=log, stderr=log)


@contextmanager
def running(folder, **options):
    process = start(folder, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def ready(folder, process):
    def there():
        assert process.poll() is None, (folder / "log").read_text()
        return (folder / "ready").exists()

    await until(there)


def ended(process):
    """Its exit code."""
    return process.wait(timeout=20)


class Caller:
    """One session at a time over a real connection."""

    def __init__(self, folder, nursery):
        self.folder = folder
        self.nursery = nursery
        self.ports = Ports(RealClock(), RealRandomness(), RealDisk(str(folder)), RealNetwork())
        self.session = 0
        self.sequence = 0

    async def connect(self):
        address = f"unix:{self.folder}/meta.sock"
        hello = Identity("", "client", 0).hello()
        self.peer = await connect(self.ports, address, hello, no_requests, self.nursery)
        if self.session:
            await self.peer.call(meta.ResumeSession(self.session, [], []))
        else:
            opened = await self.peer.call(meta.OpenSession(os.urandom(16), "here", 1))
            self.session = opened.session

    async def change(self, request, payload=()):
        self.sequence += 1
        mutation = Mutation(self.session, 0, self.sequence)
        return await self.peer.call(request, payload=payload, mutation=mutation)

    async def create(self, name):
        request = meta.Create(1, name.encode(), Kind.FILE, 0o644, 0, 0, 0, True, False)
        return (await self.change(request)).attributes.inode

    async def names(self):
        found, cookie = set(), 0
        while True:
            listing = await self.peer.call(meta.ReadDirectory(1, cookie, 1_000))
            found |= {entry.name.decode() for entry in listing.entries}
            if listing.end:
                return found
            cookie = listing.entries[-1].cookie


async def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path, nursery):
    caller = Caller(tmp_path, nursery)
    acknowledged = set()
    for life in range(4):
        with running(tmp_path) as process:
            await ready(tmp_path, process)
            await caller.connect()
            assert acknowledged <= await caller.names()
            async with trio.open_nursery() as tasks:
                tasks.start_soon(_create_until_killed, caller, f"life{life}", acknowledged)
                await until(lambda life=life: len(acknowledged) > 200 * (life + 1))
                process.send_signal(signal.SIGKILL)
        caller.sequence += 1  # what was in flight may have happened
    with running(tmp_path) as process:
        await ready(tmp_path, process)
        await caller.connect()
        found = await caller.names()
        assert acknowledged <= found
        assert len(found) <= len(acknowledged) + 4, "at most the one in flight more, each time"
    text = (tmp_path / "log").read_text()
    assert "checkpoint at" in text


async def _create_until_killed(caller, prefix, acknowledged):
    number = 0
    while True:
        name = f"{prefix}-{number}"
        try:
            await caller.create(name)
        except TideError as error:
            if error.code is Code.DISCONNECTED:
                return
            raise
        acknowledged.add(name)
        number += 1


async def test_it_ends_cleanly_when_asked_to(tmp_path, nursery):
    with running(tmp_path) as process:
        await ready(tmp_path, process)
        told = json.loads((tmp_path / "ready").read_text())
        assert told == {"pid": process.pid, "addresses": [f"unix:{tmp_path}/meta.sock"]}
        caller = Caller(tmp_path, nursery)
        await caller.connect()
        await caller.create("file")
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 0
    assert "listening on" in (tmp_path / "log").read_text()
    with running(tmp_path) as process:
        await ready(tmp_path, process)
        await caller.connect()
        assert await caller.names() == {"file"}


async def test_a_damaged_log_is_refused_with_file_and_index(tmp_path, nursery):
    with running(tmp_path) as process:
        await ready(tmp_path, process)
        caller = Caller(tmp_path, nursery)
        await caller.connect()
        for number in range(20):
            await caller.create(f"f{number}")
    path = tmp_path / "data" / "log" / f"{1:020d}.log"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    process = start(tmp_path)
    assert ended(process) == 6
    text = (tmp_path / "log").read_text()
    assert path.name in text
    assert "cannot be read, and it was acknowledged" in text


async def test_two_processes_do_not_share_a_folder(tmp_path):
    with running(tmp_path) as process:
        await ready(tmp_path, process)
        second = start(tmp_path)
        assert ended(second) == 4
        assert "in use by another metaserver" in (tmp_path / "log").read_text()
        assert process.poll() is None


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        (CONFIG + "replikas = 3", 7, "there is no key 'replikas'"),
        (CONFIG.replace("server = 7", 'server = "x"'), 7, "'server'"),
        (CONFIG.replace("server = 7", "server = 0"), 7, "server must be between"),
        (CONFIG.replace("replicas = 1", "replicas = 100"), 7, "replicas must be 1 to"),
        (CONFIG.replace("unix:", "tcp:1.2.3.4.5:"), 7, ""),
    ],
)
def test_a_bad_configuration_is_refused_in_words(tmp_path, config, code, words):
    process = start(tmp_path, config)
    assert ended(process) == code, (tmp_path / "log").read_text()
    assert words in (tmp_path / "log").read_text()


def test_somebody_elses_folder_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("x")
    process = start(tmp_path)
    assert ended(process) == 6
    assert "thesis.tex" in (tmp_path / "log").read_text()
    assert sorted(os.listdir(tmp_path / "data")) == ["lock", "thesis.tex"]


async def test_a_full_disk_refuses_changes_and_recovers(tmp_path, nursery):
    with small_disk(tmp_path / "disk", "100m") as folder:
        try:
            await _fill_and_recover(folder, nursery)
        finally:
            nursery.cancel_scope.cancel()


async def _fill_and_recover(folder, nursery):
    with running(folder) as process:
        await ready(folder, process)
        caller = Caller(folder, nursery)
        await caller.connect()
        inode = await caller.create("kept")
        ballast = folder / "ballast"
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        ballast.write_bytes(b"\1" * (free - 4 * MIB))
        error = await _refusal(caller)
        assert error.code is Code.NO_SPACE
        assert str(folder) in error.detail
        assert await caller.names() >= {"kept"}
        status = await caller.peer.call(meta.GetStatus())
        assert any("is full" in problem for problem in status.problems)
        await caller.change(meta.Unlink(1, b"kept"))
        assert inode
        ballast.unlink()
        await eventually(lambda: _accepted(caller))
        await caller.create("again")


async def _refusal(caller):
    """The error, as soon as the server has looked at the disk again."""
    with trio.fail_after(10):
        for number in range(10_000):
            try:
                await caller.create(f"more{number}")
            except TideError as error:
                return error
    raise AssertionError("nothing was refused")


async def _accepted(caller):
    try:
        await caller.create("probe")
    except TideError:
        return False
    return True
