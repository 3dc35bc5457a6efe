"""What a new leader does not know that its predecessor promised."""

import functools

import pytest
import trio
from tidefs.fs.config import Duration
from tidefs.fs.errors import Code
from tidefs.fs.messages import meta
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.promises import Claim, Recall
from tidefs.fs.rpc import Mutation

from .group_live import GroupClient, LiveGroup
from .live import Metaserver, until
from .promisee import Promisee
from .test_recalls import Task, kept_alive, kept_waiting, mode
from .test_service import refused


@pytest.fixture
async def server(tmp_path, nursery):
    return await Metaserver(tmp_path, nursery).start()


async def restart(server):
    await server.stop(crash=True)
    await server.start()


async def test_nothing_changes_before_who_was_promised_something_is_back(server, nursery):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await bob.create("file")
    await ann.promised(inode)
    await restart(server)
    await bob.resume()
    change = Task(nursery, bob.change, mode(inode, 0o600))
    assert (await bob.call(meta.GetAttributes(inode))).attributes.mode == 0o644
    await kept_waiting(change, server)
    await ann.resume()
    await change.over()
    assert ann.recalled == []
    await ann.promised(inode)
    await bob.change(mode(inode, 0o640))
    assert ann.recalled == [[inode]]


async def test_who_is_the_only_one_that_is_missing_may_change(server, nursery):
    ann, bob = await Promisee.begin(server), await Promisee.begin(server)
    inode = await bob.create("file")
    await restart(server)
    peer = await server.connect()
    by_ann = functools.partial(peer.call, mutation=Mutation(ann.session, 0, 1))
    change = Task(nursery, by_ann, mode(inode, 0o600))
    await kept_waiting(change, server)
    await bob.resume()
    await change.over()
    another = Task(nursery, bob.change, mode(inode, 0o640))
    await kept_waiting(another, server)
    await ann.resume()
    await another.over()


async def test_nothing_is_promised_that_somebody_may_have_alone(server):
    ann, bob = await Promisee.begin(server), await Promisee.begin(server)
    inode = await bob.create("file")
    assert await ann.claim(inode)
    await restart(server)
    await bob.resume()
    assert not (await bob.call(meta.GetAttributes(inode))).promised
    assert not (await bob.call(meta.ReadDirectory(1, 0, 10))).promised
    await ann.resume()
    await bob.promised(inode)


async def test_a_claim_waits_as_well(server, nursery):
    ann, bob = await Promisee.begin(server), await Promisee.begin(server)
    inode = await bob.create("file")
    await restart(server)
    await bob.resume()
    claim = Task(nursery, bob.call, Claim(inode))
    await kept_waiting(claim, server)
    await ann.resume()
    assert (await claim.over()).promised


async def test_who_never_comes_back_ends(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery, session_lease=Duration(400)).start()
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await ann.create("file")
    await restart(server)
    await bob.resume()
    async with kept_alive(bob):
        began = trio.current_time()
        await bob.change(mode(inode, 0o600))
    assert trio.current_time() - began > 0.1


async def test_who_leaves_is_not_waited_for(server):
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await ann.create("file")
    await restart(server)
    await bob.resume()
    await bob.call(meta.CloseSession(ann.session))
    await bob.change(mode(inode, 0o600))


async def test_who_has_just_opened_its_session_is_back_when_it_opens_it_again(server):
    """It never heard that it has one, so it does not resume it."""
    ann, bob = await Promisee.begin(server), await server.client()
    inode = await bob.create("file")
    await restart(server)
    session = ann.session
    await ann.open_session()
    assert ann.session == session
    await bob.resume()
    await bob.change(mode(inode, 0o600))


async def test_what_wants_no_promises_is_not_waited_for(server):
    ann, bob = await server.client(), await server.client()
    inode = await ann.create("file")
    await restart(server)
    await bob.resume()
    await bob.change(mode(inode, 0o600))


# --- a group -------------------------------------------------------------------------------------


class GroupPromisee(GroupClient):
    """Wants promises; it comes back only when it is called."""

    def __init__(self, group):
        super().__init__(group)
        self.recalled = []

    async def open_session(self):
        request = meta.OpenSession(self.nonce, "here", 1, promises=True)
        self.session = (await self.call(request)).session

    async def _connect(self):
        leader = await self.group.leader()
        peer = await leader.connect(self._handle)
        if self.session:
            await peer.call(meta.ResumeSession(self.session, [], []))
        self.peer = peer

    def _handle(self, incoming):
        if isinstance(incoming.request, Recall):
            self.recalled.append(incoming.request.inodes)
            incoming.reply(Done())


async def test_promises_survive_their_leader_by_being_waited_for(tmp_path, nursery):
    group = await LiveGroup(tmp_path, nursery, 3).start()
    bob, ann = await group.client(), GroupPromisee(group)
    await ann.open_session()
    inode = await bob.create("file")
    assert (await ann.call(meta.GetAttributes(inode))).promised
    await (await group.leader()).stop(crash=True)
    change = Task(nursery, bob.change, mode(inode, 0o600))
    leader = await group.leader()
    await until(lambda: bob.peer is not None and not bob.peer.closed)
    await kept_waiting(change, leader)
    assert (await ann.call(meta.GetAttributes(inode))).attributes.mode == 0o644
    await change.over()
    assert (await ann.call(meta.GetAttributes(inode))).promised
    await bob.change(mode(inode, 0o640))
    assert ann.recalled == [[inode]]
    await group.agree()


async def test_who_does_not_lead_promises_nothing(tmp_path, nursery):
    group = await LiveGroup(tmp_path, nursery, 3).start()
    ann = GroupPromisee(group)
    await ann.open_session()
    assert (await ann.call(meta.GetAttributes(1))).promised
    for member in group.others(await group.leader()):
        peer = await member.connect()
        await refused(Code.NOT_LEADER, peer.call(meta.ResumeSession(ann.session, [], [])))
        assert not (await peer.call(meta.GetAttributes(1))).promised
        peer.close("asked")


# --- claims that last -----------------------------------------------------------------------------


@pytest.mark.parametrize("leader_dies", [False, True])
async def test_a_claim_that_is_named_lasts(server, nursery, leader_dies):
    ann, bob = await Promisee.begin(server), await Promisee.begin(server)
    inode, other = await bob.create("file"), await bob.create("other")
    assert await ann.claim(inode)
    assert await ann.claim(other)
    ann.holds_back = True
    if leader_dies:
        await restart(server)
        await bob.resume()
    else:
        ann.peer.close("for a new one")
    reading = Task(nursery, bob.call, meta.GetAttributes(inode))
    await ann.resume(claims=[inode])
    if leader_dies:
        assert not (await reading.over()).promised, "asked before she was back"
        reading = Task(nursery, bob.call, meta.GetAttributes(inode))
    await until(lambda: ann.recalled)
    await kept_waiting(reading, server)
    assert ann.recalled == [[inode]], "told anew on the new connection, and of this one only"
    ann.answer_all()
    assert (await reading.over()).promised
    assert (await bob.call(meta.GetAttributes(other))).promised
    assert ann.recalled == [[inode]]


async def test_a_claim_that_was_given_up_does_not_come_back(server):
    ann, bob = await Promisee.begin(server), await Promisee.begin(server)
    inode = await bob.create("file")
    assert await ann.claim(inode)
    await bob.promised(inode)
    await refused(Code.SESSION_EXPIRED, ann.resume(claims=[inode]))
    await refused(Code.SESSION_EXPIRED, ann.resume())
