"""Three processes as a group: formatted, elected, killed, started again."""

import itertools
import signal
import subprocess
import sys

import pytest
import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.messages import meta, raft
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Mutation, connect, no_requests

from .live import until

CONFIG = """
cluster = "cluster"
server = {server}
host = "here"
data = "{folder}/data-{server}"
listen = ["unix:{folder}/meta-{server}.sock"]
ready_file = "{folder}/ready-{server}"
replicas = 1
checkpoint_entries = 300
"""
MEMBER = """
[[members]]
server = {server}
host = "here"
addresses = ["unix:{folder}/meta-{server}.sock"]
"""
SERVERS = (1, 2, 3)


class Processes:
    """The members as processes; killed at the end."""

    nursery: trio.Nursery

    def __init__(self, folder):
        self.folder = folder
        self.ports = Ports(RealClock(), RealRandomness(), RealDisk(str(folder)), RealNetwork())
        self.running = {}
        for server in SERVERS:
            self.configure(server)

    def configure(self, server, members=SERVERS):
        text = CONFIG.format(folder=self.folder, server=server)
        text += "".join(MEMBER.format(folder=self.folder, server=one) for one in members)
        (self.folder / f"{server}.toml").write_text(text)

    def command(self, server, *more):
        config = self.folder / f"{server}.toml"
        return [sys.executable, "-m", "tidefs.deploy", "metaserver", "--config", config, *more]

    def run(self, server, *more):
        """To its end: exit code and all that it said."""
        done = subprocess.run(
            self.command(server, *more), capture_output=True, text=True, timeout=30, check=False
        )
        return done.returncode, done.stdout + done.stderr

    async def start(self, server):
        ready = self.folder / f"ready-{server}"
        ready.unlink(missing_ok=True)
        process = self.running[server] = self._spawn(server)

        def there():
            assert process.poll() is None, (self.folder / f"log-{server}").read_text()
            return ready.exists()

        await until(there)

    def _spawn(self, server):
        with (self.folder / f"log-{server}").open("ab") as log:
            return subprocess.Popen(self.command(server), stdout=log, stderr=log)

    def kill(self, server):
        process = self.running.pop(server)
        process.send_signal(signal.SIGKILL)
        process.wait()

    async def connect(self, server):
        address = f"unix:{self.folder}/meta-{server}.sock"
        hello = Identity("", "client", 0).hello()
        return await connect(self.ports, address, hello, no_requests, self.nursery)

    async def ask(self, server, request):
        peer = await self.connect(server)
        try:
            return await peer.call(request)
        finally:
            peer.close("asked")

    async def leader(self):
        """Who leads and serves."""
        with trio.fail_after(20):
            for server in itertools.cycle(list(self.running)):
                try:
                    await self.ask(server, meta.GetStatus())
                except TideError:
                    await trio.sleep(0.01)
                else:
                    return server
        raise AssertionError

    async def digests(self):
        return [await self.ask(server, raft.GetDigest()) for server in self.running]


@pytest.fixture
def group(tmp_path):
    made = Processes(tmp_path)
    yield made
    for process in made.running.values():
        process.kill()
        process.wait()


class Caller:
    """A session that goes on at whoever leads."""

    def __init__(self, group):
        self.group = group
        self.peer = None
        self.session = 0
        self.sequence = 0

    async def call(self, request, mutation=None):
        with trio.fail_after(30):
            while True:
                try:
                    if self.peer is None:
                        await self.connect()
                    return await self.peer.call(request, mutation=mutation, timeout_ms=2_000)
                except TideError as error:
                    if not error.retryable:
                        raise
                    if self.peer is not None:
                        self.peer.close("looking for the leader")
                    self.peer = None
                await trio.sleep(0.01)

    async def connect(self):
        peer = await self.group.connect(await self.group.leader())
        if self.session:
            await peer.call(meta.ResumeSession(self.session, [], []))
        else:
            self.session = (await peer.call(meta.OpenSession(b"n" * 16, "here", 1))).session
        self.peer = peer

    async def create(self, name):
        self.sequence += 1
        request = meta.Create(1, name.encode(), Kind.FILE, 0o644, 0, 0, 0, True, False)
        if not self.session:
            await self.connect()
        mutation = Mutation(self.session, 0, self.sequence)
        return (await self.call(request, mutation)).attributes.inode

    async def names(self):
        listing = await self.call(meta.ReadDirectory(1, 0, 1_000))
        return {entry.name.decode() for entry in listing.entries}


async def test_a_killed_leader_is_followed_by_another_that_has_everything(group, nursery):
    group.nursery = nursery
    for server in SERVERS:
        assert group.run(server, "--format") == (0, "formatted\n")
        await group.start(server)
    caller = Caller(group)
    created = set()
    leaders = []
    for life in range(4):
        for number in range(100):
            await caller.create(name := f"f{life}-{number}")
            created.add(name)
        leaders.append(leader := await group.leader())
        group.kill(leader)
        await caller.create(name := f"after-{life}")
        created.add(name)
        assert await caller.names() == created
        await group.start(leader)
    assert len(leaders) == 4

    async def agree():
        with trio.fail_after(20):
            while True:
                found = await group.digests()
                if len({one.applied_index for one in found}) == 1:
                    return found
                await trio.sleep(0.02)

    assert len({one.digest for one in await agree()}) == 1


async def test_a_leader_that_is_asked_to_end_hands_over(group, nursery):
    group.nursery = nursery
    for server in SERVERS:
        group.run(server, "--format")
        await group.start(server)
    caller = Caller(group)
    await caller.create("before")
    leader = await group.leader()
    term = (await group.ask(leader, raft.GetMember())).term
    process = group.running.pop(leader)
    process.terminate()
    await caller.create("after")
    assert await trio.to_thread.run_sync(process.wait) == 0
    log = (group.folder / f"log-{leader}").read_text()
    assert "handing over to" in log
    assert "Traceback" not in log
    found = await group.ask(await group.leader(), raft.GetMember())
    assert found.term == term + 1, "nobody stood in vain"


def test_a_folder_that_is_not_formatted_is_refused(group):
    code, text = group.run(1)
    assert code == 6
    assert "is not formatted" in text
    assert "tidefs cluster replace" in text


def test_formatting_twice_is_harmless_and_otherwise_refused(group):
    assert group.run(1, "--format")[0] == 0
    code, text = group.run(1, "--format")
    assert (code, text) == (0, "it was formatted before: nothing to do\n")
    code, text = group.run(1, "--format", "--join")
    assert code == 6
    assert "as a founder of the group of" in text
    group.configure(2, (1, 2))
    code, text = group.run(2, "--format")
    assert code == 7
    assert "even number" in text


def test_joining_is_only_for_formatting(group):
    code, text = group.run(1, "--join")
    assert code == 2
    assert "--format" in text
