"""A chunkserver as a process: how it starts, refuses, ends, and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import trio
from tidefs.deploy.exits import Exit
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.messages.chunk import ReadChunk, WriteChunk
from tidefs.fs.messages.hello import CLIENT
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import connect, no_requests


class Process:
    """A configuration, and the process that runs on it."""

    def __init__(self, folder):
        self.folder = folder
        self.values = {
            "cluster": "test",
            "server": 9,
            "host": "here",
            "data": str(folder / "data"),
            "listen": [f"unix:{folder}/sock", "tcp:127.0.0.1:0"],
            "metaservers": [f"unix:{folder}/nobody"],
            "ready_file": str(folder / "ready"),
        }
        self.process = None

    def spawn(self):
        config = self.folder / "config.toml"
        config.write_text(
            "\n".join(f"{key} = {json.dumps(value)}" for key, value in self.values.items())
        )
        (self.folder / "ready").unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "tidefs.deploy", "chunkserver", "--config", config]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        return self.process

    async def start(self):
        process = self.spawn()
        while not (self.folder / "ready").exists():
            assert process.poll() is None, process.stderr.read()
            await trio.sleep(0.01)
        return json.loads((self.folder / "ready").read_text())

    def end(self, number):
        self.process.send_signal(number)
        _, told = self.process.communicate()
        return self.process.returncode, told

    def refuses(self) -> tuple[int, str]:
        _, told = self.spawn().communicate()
        return self.process.returncode, told


@pytest.fixture
def chunkserver(tmp_path):
    found = Process(tmp_path)
    yield found
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.communicate()


async def exchange(chunkserver, request, payload=()):
    ports = Ports(RealClock(), RealRandomness(), RealDisk(str(chunkserver.folder)), RealNetwork())
    async with trio.open_nursery() as nursery:
        hello = Identity("test", CLIENT, 0).hello()
        address = chunkserver.values["listen"][0]
        peer = await connect(ports, address, hello, no_requests, nursery)
        try:
            return await peer.exchange(request, payload=payload)
        finally:
            nursery.cancel_scope.cancel()


async def test_it_tells_where_it_listens_and_ends_cleanly(chunkserver):
    ready = await chunkserver.start()
    assert ready["pid"] == chunkserver.process.pid
    assert [address.partition(":")[0] for address in ready["addresses"]] == ["unix", "tcp"]
    code, told = chunkserver.end(signal.SIGTERM)
    assert code == Exit.OK
    assert "everything is on stable storage" in told


async def test_a_kill_leaves_everything_that_was_written(chunkserver):
    await chunkserver.start()
    data = os.urandom(300_000)
    await exchange(chunkserver, WriteChunk(7, 1, 5, True, 0, []), [data])
    chunkserver.end(signal.SIGKILL)
    await chunkserver.start()
    _, found = await exchange(chunkserver, ReadChunk(7, 1, 0, 400_000))
    assert bytes(found) == bytes(5) + data
    code, told = chunkserver.end(signal.SIGTERM)
    assert code == Exit.OK
    assert "chunks that were in use when the server ended: 1" in told


async def test_two_on_one_folder(chunkserver, tmp_path):
    await chunkserver.start()
    second = Process(tmp_path)
    code, told = await trio.to_thread.run_sync(second.refuses)
    assert code == Exit.BUSY
    assert "is in use by another chunkserver" in told


async def test_a_port_that_is_taken(chunkserver, tmp_path):
    ready = await chunkserver.start()
    (tmp_path / "second").mkdir()
    second = Process(tmp_path / "second")
    second.values["listen"] = [ready["addresses"][1]]
    code, told = await trio.to_thread.run_sync(second.refuses)
    assert code == Exit.CONFIG
    assert ready["addresses"][1].rpartition(":")[2] in told
    assert len(told.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("clutser", "x", "there is no key 'clutser'"),
        ("listen", "unix:/x", "'listen'"),
        ("listen", [], "listen must name an address"),
        ("metaservers", [], "metaservers must name"),
        ("server", 0, "server must be between"),
        ("capacity", "much", "'much' is not a size"),
        ("log_level", "loud", "log_level must be one of"),
    ],
)
def test_a_configuration_with_a_mistake(chunkserver, key, value, words):
    chunkserver.values[key] = value
    code, told = chunkserver.refuses()
    assert code == Exit.CONFIG
    assert "config.toml" in told
    assert words in told
    assert not (chunkserver.folder / "data").exists()


def test_a_folder_that_holds_something_else(chunkserver):
    data = chunkserver.folder / "data"
    data.mkdir()
    (data / "thesis.tex").touch()
    code, told = chunkserver.refuses()
    assert code == Exit.FOREIGN
    assert "holds thesis.tex" in told
    assert sorted(path.name for path in data.iterdir()) == ["lock", "thesis.tex"]


async def test_a_folder_of_another_server(chunkserver):
    await chunkserver.start()
    chunkserver.end(signal.SIGTERM)
    chunkserver.values["server"] = 10
    code, told = await trio.to_thread.run_sync(chunkserver.refuses)
    assert code == Exit.FOREIGN
    assert "belongs to server 9, not 10" in told


async def test_a_folder_without_its_journal(chunkserver):
    await chunkserver.start()
    chunkserver.end(signal.SIGTERM)
    for path in (chunkserver.folder / "data/journal").iterdir():
        path.unlink()
    code, told = await trio.to_thread.run_sync(chunkserver.refuses)
    assert code == Exit.FOREIGN
    assert "the journal is gone" in told


async def test_a_client_of_another_cluster(chunkserver):
    await chunkserver.start()
    ports = Ports(RealClock(), RealRandomness(), RealDisk("/"), RealNetwork())
    async with trio.open_nursery() as nursery:
        hello = Identity("other", CLIENT, 0).hello()
        connecting = partial(connect, ports, chunkserver.values["listen"][0], hello)
        with pytest.raises(TideError) as caught:
            await connecting(no_requests, nursery)
        nursery.cancel_scope.cancel()
    assert caught.value.code is Code.WRONG_CLUSTER
