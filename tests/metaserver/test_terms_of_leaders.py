"""What a leader may do only while it leads, and how its term ends."""

import pytest
import trio
import trio.testing
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.messages import chunk, meta, raft
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import connect, no_requests
from tidefs.metaserver.config import MetaserverConfig
from tidefs.metaserver.leader import Leader
from tidefs.metaserver.recalls import RecallFigures
from tidefs.metaserver.term import Term

from .fake_disk import FakeDisk
from .group_live import LiveGroup
from .live import CLUSTER, Metaserver, eventually, until


class FakeDriver:
    """Leads ``leading`` (0: no term), with a lease or without."""

    def __init__(self, state):
        self.state = state
        self.term = self.leading = 7
        self.lease = True
        self.changed = trio.Event()
        self.on_effects = None

    def lease_holds(self):
        return self.lease

    async def perform(self, request):
        if not self.leading:
            raise TideError(Code.NOT_LEADER, "no")
        raise TideError(Code.NO_SPACE, "none in this test")

    async def wait_not_leading(self, term):
        while self.leading == term:
            await self.changed.wait()

    def depose(self):
        self.leading = 0
        self.lease = False
        self.changed.set()


class FakePeer:
    def __init__(self):
        self.posted = []

    def post(self, request, *, timeout_ms, done):
        self.posted.append(request)


class FakeView:
    def __init__(self):
        self.recalls = RecallFigures()


def ports():
    return Ports(RealClock(), RealRandomness(), FakeDisk(), RealNetwork())


CONFIG = MetaserverConfig(cluster=CLUSTER, server=1, data="d", listen=["unix:x"])


def test_nothing_is_deleted_without_a_lease_or_in_another_term(cluster):
    driver, peer = FakeDriver(cluster.state), FakePeer()
    leader = Leader(CONFIG, ports(), driver, cluster.state, 7)
    leader.links.set(5, peer)
    leader.delete_on(5, [(1, 1)])
    assert [type(request) for request in peer.posted] == [chunk.DeleteChunks]
    driver.lease = False
    leader.delete_on(5, [(2, 1)])
    driver.lease, driver.term = True, 8
    leader.delete_on(5, [(3, 1)])
    assert len(peer.posted) == 1


async def test_what_is_under_way_ends_with_the_term(cluster):
    driver = FakeDriver(cluster.state)
    term = Term(CONFIG, ports(), driver, FakeView(), 7)
    begun = trio.Event()
    asleep = trio.sleep_forever
    refused = []

    async def request():
        try:
            await term.during(asleep())
        except TideError as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(term.run, lambda led: begun.set())
        await begun.wait()
        nursery.start_soon(request)
        await trio.testing.wait_all_tasks_blocked()
        driver.depose()
    assert refused == [Code.NOT_LEADER]
    await request()
    assert refused == [Code.NOT_LEADER] * 2, "nor does it begin anything later"


async def test_who_is_deposed_at_the_very_beginning_never_serves(cluster):
    driver = FakeDriver(cluster.state)
    driver.depose()
    driver.leading = 7
    driver.perform = lambda request: _not_leader()
    term = Term(CONFIG, ports(), driver, FakeView(), 7)
    led = []
    with trio.fail_after(5):
        await term.run(led.append)
    assert not led


async def _not_leader():
    raise TideError(Code.NOT_LEADER, "no")


async def test_other_failures_end_the_process(cluster):
    driver = FakeDriver(cluster.state)

    async def broken(request):
        raise TideError(Code.DEVICE_ERROR, "the disk")

    driver.perform = broken
    term = Term(CONFIG, ports(), driver, FakeView(), 7)
    with pytest.raises(BaseExceptionGroup) as caught:
        await term.run(lambda led: None)
    assert caught.group_contains(TideError, match="the disk")


# --- with real members -------------------------------------------------------------------------


async def test_chunkservers_are_told_the_term_and_each_start_has_a_higher_one(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery).start()
    terms = []
    for _ in range(2):
        hello = Identity(CLUSTER, "chunkserver", 9).hello()
        peer = await connect(server.ports(), server.address, hello, no_requests, nursery)
        place = ServerPlace(9, "here", ["unix:/nowhere"])
        terms.append((await peer.call(chunk.Register(place, 1, 100, 100))).term)
        assert terms[-1] == (await peer.call(raft.GetMember())).term
        await server.stop(crash=True)
        await server.start()
    assert 0 < terms[0] < terms[1]


async def test_a_session_resumes_in_several_messages(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery).start()
    client = await server.client()
    orphans = []
    for number in range(3):
        orphans.append(await client.create(f"f{number}", opened=True))
        await client.change(meta.Unlink(1, f"f{number}".encode()))
    await server.stop()
    await server.start()
    client.peer = await server.connect()
    for number, inode in enumerate(orphans[:2]):
        request = meta.ResumeSession(client.session, [inode], [], number == 0)
        await client.peer.call(request)

    async def gone():
        try:
            await client.call(meta.GetAttributes(orphans[2]))
        except TideError as error:
            return error.code is Code.STALE_HANDLE
        return False

    await eventually(gone)
    for inode in orphans[:2]:
        await client.call(meta.GetAttributes(inode))


async def test_connections_end_with_the_term_but_not_those_of_members(tmp_path, nursery):
    group = await LiveGroup(tmp_path, nursery, 3).start()
    leader = await group.leader()
    client = await leader.connect()
    follower = group.others(leader)[0]
    bystander = await follower.connect()
    await leader.ask(raft.TransferLeadership(follower.server))
    await until(lambda: client.closed)
    assert not bystander.closed
    assert (await bystander.call(raft.GetMember())).role == "leader"
    await group.agree()


async def test_sessions_survive_and_what_was_answered_is_not_done_again(tmp_path, nursery):
    group = await LiveGroup(tmp_path, nursery, 3).start()
    client = await group.client()
    first = await client.create("file")
    await (await group.leader()).stop(crash=True)
    client.sequence -= 1
    assert await client.create("file") == first, "the same (session, slot, sequence)"
    assert await client.names() == {"file"}
