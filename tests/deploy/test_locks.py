"""`tidefs locks`: holders and waiters, by the paths of their files."""

import json

import pytest
import trio
from tidefs.deploy.ask import asking
from tidefs.deploy.exits import Exit
from tidefs.deploy.locks import in_reports
from tidefs.fs.attributes import Kind
from tidefs.fs.calls import Mutation
from tidefs.fs.limits import LOCK_END, NAMES_LOOKED_AT_MAX
from tidefs.fs.messages.hello import ANY_CLUSTER
from tidefs.fs.messages.locks import Lock, LockKind, SetLock
from tidefs.fs.messages.meta import (
    Change,
    Create,
    Link,
    MakeDirectory,
    OpenSession,
    Rename,
    Unlink,
)

SLOTS = 32


class Session:
    """A client without a mount."""

    def __init__(self, asker, addresses, host):
        self._asker = asker
        self._addresses = addresses
        self._host = host
        self._sequences = dict.fromkeys(range(SLOTS), 0)
        self.id = 0

    async def open(self):
        nonce = self._host.encode().ljust(16, b"-")
        opened = await self._asker.ask(self._addresses, OpenSession(nonce, self._host, 42))
        self.id = opened.session
        return self

    async def do(self, change, slot=0):
        assert isinstance(change, Change)
        peer = await self._asker._reach(self._addresses, 10_000)
        self._sequences[slot] += 1
        mutation = Mutation(self.id, slot, self._sequences[slot])
        return await peer.call(change, mutation=mutation)

    async def files(self, parent, names):
        """Many at once."""

        async def some(slot):
            for name in names[slot::SLOTS]:
                await self.file(parent, name, slot)

        async with trio.open_nursery() as nursery:
            for slot in range(SLOTS):
                nursery.start_soon(some, slot)

    async def directory(self, parent, name):
        return (await self.do(MakeDirectory(parent, name, 0o755, 0, 0))).attributes.inode

    async def file(self, parent, name, slot=0):
        made = await self.do(Create(parent, name, Kind.FILE, 0o644, 0, 0, 0, True, True), slot)
        return made.attributes.inode

    async def lock(self, inode, kind, exclusive, start=0, end=LOCK_END, wait=True):
        request = SetLock(inode, kind, 5, exclusive, start, end, wait, 1234)
        return await self.do(request)


@pytest.fixture
def group(make_cluster):
    """Runs work with two sessions, and then something while they live."""
    cluster = make_cluster(metaservers=1, chunkservers=1)
    addresses = cluster.status()["servers"][0]["addresses"]

    def run(work):
        async def with_sessions(asker):
            one = await Session(asker, addresses, "alpha").open()
            two = await Session(asker, addresses, "beta").open()
            return await work(one, two)

        return asking(ANY_CLUSTER, with_sessions)

    cluster.run = run
    return cluster


def listed(tidefs_command, cluster, *arguments):
    done = tidefs_command("locks", cluster.folder, *arguments, "--json")
    return json.loads(done.stdout)["locks"]


async def set_up(one, two):
    """Locks of both sessions on three files, of which one has two names and one has none."""
    folder = await one.directory(await one.directory(1, b"a"), "\xfcber".encode())
    many = await one.directory(1, b"many")
    await one.files(many, [b"%d" % number for number in range(NAMES_LOOKED_AT_MAX + 1)])
    shared = await one.file(folder, b"shared")
    await one.do(Link(shared, 1, b"other name"))
    last = await one.file(many, b"last")
    unnamed = await one.file(1, b"unnamed")
    await one.lock(unnamed, LockKind.WHOLE, exclusive=True)
    await one.do(Unlink(1, b"unnamed"))
    await one.lock(shared, LockKind.RANGE, exclusive=False, start=10, end=20)
    await two.lock(shared, LockKind.RANGE, exclusive=True, start=0, end=100)
    await two.lock(last, LockKind.WHOLE, exclusive=False)
    await one.lock(last, LockKind.WHOLE, exclusive=True)
    return unnamed


def test_all_locks_and_those_of_one_file(group, tidefs_command):
    assert listed(tidefs_command, group) == []
    assert tidefs_command("locks", group.folder).stdout == "no locks\n"
    unnamed = group.run(set_up)

    locks = listed(tidefs_command, group)
    told = [(lock["paths"], lock["kind"], lock["mode"], lock["state"]) for lock in locks]
    shared = ["/a/\xfcber/shared", "/other name"]
    assert told == [
        (shared, "fcntl", "shared", "held"),
        (shared, "fcntl", "exclusive", "waiting"),
        (["/many/last"], "flock", "shared", "held"),
        (["/many/last"], "flock", "exclusive", "waiting"),
        ([], "flock", "exclusive", "held"),
    ]
    assert [lock["host"] for lock in locks] == ["alpha", "beta", "beta", "alpha", "alpha"]
    assert {lock["pid"] for lock in locks} == {1234}
    assert locks[0]["session"] == locks[3]["session"] != locks[1]["session"]
    assert [(lock["start"], lock["end"]) for lock in locks[:3]] == [(10, 20), (0, 100), (0, None)]
    assert [lock["token"] > 0 for lock in locks] == [True, False, True, False, True]
    assert locks[4]["inode"] == unnamed
    assert listed(tidefs_command, group, "other name") == [
        {**lock, "paths": ["/other name"]} for lock in locks[:2]
    ]

    lines = tidefs_command("locks", group.folder).stdout.splitlines()
    assert len(lines) == 6
    assert "/a/\xfcber/shared = /other name" in lines[1]
    assert "10-19" in lines[1]
    assert "waits, number 1" in lines[2]
    assert f"inode {unnamed}" in lines[5]


def test_addresses_will_do_and_a_path_that_is_not_there_is_said(group, tidefs_command):
    async def work(one, two):
        inode = await one.file(await one.directory(1, b"d"), b"f")
        await one.lock(inode, LockKind.RANGE, exclusive=True)
        await one.do(Rename(1, b"d", 1, b"e", 0))

    group.run(work)
    address = group.status()["servers"][0]["addresses"][-1].removeprefix("tcp:")
    done = tidefs_command("locks", address, "/e/f")
    assert "exclusive" in done.stdout
    assert "all" in done.stdout
    for path in ("/d/f", "e/f/g", "x" * 300):
        done = tidefs_command("locks", address, path, check=False)
        assert done.returncode == Exit.WRONG
        assert path in done.stderr
        assert "Traceback" not in done.stderr


def lock(inode, token, start=0, end=LOCK_END, kind=LockKind.RANGE, ticket=0):
    return Lock(inode, kind, True, start, end, 7, 8, 9, "host", token, ticket)


def test_who_waits_is_numbered_by_file_and_kind():
    locks = [
        lock(5, 11),
        lock(5, 0, ticket=1),
        lock(5, 0, ticket=2),
        lock(5, 0, kind=LockKind.APPEND, ticket=3),
        lock(6, 0, ticket=4),
    ]
    reports = in_reports(locks, {6: ["/a"]})
    assert [(one.inode, one.kind, one.place) for one in reports] == [
        (6, "fcntl", 1),
        (5, "fcntl", 0),
        (5, "fcntl", 1),
        (5, "fcntl", 2),
        (5, "append", 1),
    ]
