"""Locks over real connections: granted by notice, and kept when the leader dies."""

import pytest
import trio
from tidefs.fs.config import Duration
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages import locks, meta, raft
from tidefs.fs.messages.locks import GetSessionLocks, ListLocks, LockKind, SetLock, Unlock, Withdraw
from tidefs.fs.rpc import Mutation

from .group_live import SENT_AGAIN, LiveGroup
from .live import Metaserver, eventually


@pytest.fixture
async def metaserver(tmp_path, nursery):
    return await Metaserver(tmp_path, nursery).start()


@pytest.fixture
async def group(tmp_path, nursery):
    return await LiveGroup(tmp_path, nursery, 3).start()


def exclusive(inode, *, wait=False, start=0, end=LOCK_END, kind=LockKind.RANGE):
    return SetLock(inode, kind, 1, True, start, end, wait, 42)


def given_back(inode, start=0, end=LOCK_END):
    return Unlock(inode, LockKind.RANGE, 1, start, end)


class Listener:
    """A session that hears what it was granted."""

    def __init__(self):
        self.told = {}

    def handle(self, incoming):
        assert isinstance(incoming.request, locks.LocksGranted)
        self.told.update(incoming.request.grants)

    async def resume(self, client, server):
        client.peer = await server.connect(self.handle)
        await client.peer.call(meta.ResumeSession(client.session, [], []))


# --- one metaserver


async def test_who_waits_is_told_on_its_sessions_connection(metaserver):
    one, two = await metaserver.client(), await metaserver.client()
    heard = Listener()
    await heard.resume(two, metaserver)
    inode = await one.create("file")
    token = (await one.change(exclusive(inode))).token
    waiting = await two.change(exclusive(inode, wait=True))
    assert waiting.token == 0
    assert (await two.call(GetSessionLocks(two.session))).waiting == [waiting.ticket]
    await one.change(given_back(inode))
    await eventually(lambda: _true(heard.told))
    assert heard.told[waiting.ticket] > token
    standing = await two.call(GetSessionLocks(two.session))
    assert standing == locks.SessionLocks([], [(inode, heard.told[waiting.ticket])])


async def _true(what):
    return bool(what)


async def test_waiting_costs_no_slot(metaserver):
    one, two = await metaserver.client(), await metaserver.client()
    inode = await one.create("file")
    await one.change(exclusive(inode))
    for _ in range(20):
        assert (await two.change(exclusive(inode, wait=True))).ticket
    assert await two.create("other")


async def test_what_would_block_leaves_no_entry(metaserver):
    one, two = await metaserver.client(), await metaserver.client()
    inode = await one.create("file")
    await one.change(exclusive(inode))
    before = (await one.call(raft.GetMember())).applied_index
    with pytest.raises(TideError) as caught:
        await two.change(exclusive(inode))
    assert caught.value.code is Code.WOULD_BLOCK
    assert (await one.call(raft.GetMember())).applied_index == before


async def test_a_delayed_repetition_of_what_would_block_does_not_lock(metaserver):
    """Exactly once holds for refusals as well: the client was told that it has no lock."""
    one, two = await metaserver.client(), await metaserver.client()
    inode = await one.create("file")
    await one.change(exclusive(inode))
    for release in (False, True):
        if release:
            await one.change(given_back(inode))
        with pytest.raises(TideError) as caught:
            await two.change(exclusive(inode), sequence=7)
        assert caught.value.code is Code.WOULD_BLOCK
    assert (await one.call(ListLocks(0, 0, 10))).locks == []


async def test_a_repeated_conversion_that_failed_fails_again(metaserver):
    one, two = await metaserver.client(), await metaserver.client()
    inode = await one.create("file")
    shared = SetLock(inode, LockKind.WHOLE, 1, False, 0, LOCK_END, False, 42)
    await one.change(shared)
    await two.change(shared)
    for release in (False, True):
        if release:
            await one.change(Unlock(inode, LockKind.WHOLE, 1, 0, LOCK_END))
        with pytest.raises(TideError) as caught:
            await two.change(exclusive(inode, kind=LockKind.WHOLE), sequence=9)
        assert caught.value.code is Code.WOULD_BLOCK
    assert (await one.call(ListLocks(0, 0, 10))).locks == []


async def test_a_repeated_lock_is_one(metaserver):
    one = await metaserver.client()
    inode = await one.create("file")
    first = await one.change(exclusive(inode), sequence=5)
    assert await one.change(exclusive(inode), sequence=5) == first
    await one.change(given_back(inode), sequence=6)
    with pytest.raises(TideError) as caught:
        await one.change(exclusive(inode), sequence=5)
    assert caught.value.code is Code.STALE_SEQUENCE
    assert (await one.call(ListLocks(0, 0, 10))).locks == []


async def test_locks_are_counted(metaserver):
    one, two = await metaserver.client(), await metaserver.client()
    inode = await one.create("file")
    await one.change(exclusive(inode))
    await two.change(exclusive(inode, wait=True))
    status = await one.call(meta.GetStatus())
    assert (status.locks_held, status.locks_waiting) == (1, 1)
    metrics = dict((await one.call(raft.GetMetrics())).values)
    assert (metrics["locks_held"], metrics["locks_waiting"]) == (1, 1)


async def test_a_session_that_falls_silent_keeps_its_locks_until_it_expires(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery, session_lease=Duration(3_000)).start()
    one, two = await server.client(), await server.client()
    inode = await one.create("file")
    await one.change(exclusive(inode))
    ended = []

    async def keep_alive():
        while not ended:
            await two.call(meta.KeepAlive(two.session))
            await trio.sleep(0.05)

    nursery.start_soon(keep_alive)
    one.peer.close("gone")
    waiting = await two.change(exclusive(inode, wait=True))
    assert waiting.token == 0

    async def granted():
        before = (await two.call(meta.GetStatus())).sessions
        standing = await two.call(GetSessionLocks(two.session))
        after = (await two.call(meta.GetStatus())).sessions
        if before == after:
            assert bool(standing.tokens) == (after == 1), "exactly when the session is over"
        return standing.tokens

    await eventually(granted)
    ended.append(True)
    assert (await two.change(Withdraw(inode, waiting.ticket))).after_loss


# --- a group


async def test_locks_and_waits_outlive_their_leader(group):
    one, two = await group.client(), await group.client()
    inode = await one.create("file")
    token = (await one.change(exclusive(inode))).token
    ticket = (await two.change(exclusive(inode, wait=True))).ticket
    for _ in range(3):
        leader = await group.leader()
        await leader.stop(crash=True)
        assert (await one.call(GetSessionLocks(one.session))).tokens == [(inode, token)]
        assert (await two.call(GetSessionLocks(two.session))).waiting == [ticket]
        with pytest.raises(TideError) as caught:
            await two.change(exclusive(inode))
        assert caught.value.code is Code.WOULD_BLOCK
        await leader.start()
    await one.change(given_back(inode))
    standing = await two.call(GetSessionLocks(two.session))
    assert standing.waiting == []
    assert standing.tokens[0][1] > token
    await group.agree()


async def test_a_lock_is_taken_once_though_the_leader_dies(group):
    """Whether or not the dying leader had logged it: the same request, sent again, is one lock, one
    place in the queue, one unlock."""
    one, two = await group.client(), await group.client()
    inode = await one.create("file")
    tokens = []
    for round_number in range(6):
        owner, other = (one, two) if round_number % 2 else (two, one)
        leader = await group.leader()
        asking, waiting = exclusive(inode), exclusive(inode, wait=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cast, owner, asking)
            nursery.start_soon(leader.stop)
        held = await _again(owner, asking)
        tokens.append(held.token)
        assert (await _again(owner, asking)) == held
        await other.change(waiting)
        listed = (await one.call(ListLocks(inode, 0, 10))).locks
        assert [bool(lock.token) for lock in listed] == [True, False]
        await leader.start()
        await owner.change(given_back(inode))
        tokens.append((await other.call(GetSessionLocks(other.session))).tokens[0][1])
        await other.change(given_back(inode))
    assert tokens == sorted(set(tokens))
    await group.agree()


async def _cast(client, request):
    """Send the client's next change to whoever led, and do not care for the answer."""
    client.sequence += 1
    mutation = Mutation(client.session, 0, client.sequence)
    try:
        await client.peer.call(request, mutation=mutation, timeout_ms=1_000)
    except TideError as error:
        if error.code not in SENT_AGAIN:
            raise


async def _again(client, request):
    """The client's last change, sent once more."""
    return await client.call(request, Mutation(client.session, 0, client.sequence))


async def test_a_counter_under_a_lock_while_the_leader_is_killed(group):
    """What locks are for: nobody is in there together, nobody is forgotten."""
    clients = [await group.client() for _ in range(3)]
    inode = await clients[0].create("file")
    inside, counter, tokens = [], [0], []

    async def count(client):
        for _ in range(10):
            answer = await client.change(exclusive(inode, wait=True))
            token = answer.token
            while not token:
                standing = await client.call(GetSessionLocks(client.session))
                if answer.ticket not in standing.waiting:
                    ((_, token),) = standing.tokens
                await trio.sleep(0.005)
            inside.append(client)
            assert len(inside) == 1
            seen = counter[0]
            await trio.sleep(0.002)
            counter[0] = seen + 1
            tokens.append(token)
            inside.remove(client)
            await client.change(given_back(inode))

    async def kill():
        for _ in range(3):
            goal = counter[0] + 5
            await eventually(lambda goal=goal: _true(counter[0] >= min(goal, 25)))
            leader = await group.leader()
            await leader.stop(crash=True)
            await leader.start()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        for client in clients:
            nursery.start_soon(count, client)
    assert counter == [30]
    assert tokens == sorted(set(tokens)), "tokens rise from holder to holder"
    await group.agree()


async def test_a_snapshot_carries_them(tmp_path, nursery):
    group = LiveGroup(tmp_path, nursery, 3, checkpoint_entries=50)
    await group.start()
    one, two = await group.client(), await group.client()
    inode = await one.create("file")
    await one.change(exclusive(inode))
    await two.change(exclusive(inode, wait=True))
    newcomer = await group.newcomer(4)
    await group.ask_leader(raft.ChangeMembers([newcomer.place], [1]))
    await group.members[1].stop()
    found = (await two.call(ListLocks(0, 0, 10))).locks
    assert [(lock.session, bool(lock.token)) for lock in found] == [
        (one.session, True),
        (two.session, False),
    ]
    await group.agree()
