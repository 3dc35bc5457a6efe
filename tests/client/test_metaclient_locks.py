"""The metaclient and locks: what belongs to one session, what is told of it, and its lease."""

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import SESSION_KEEPALIVE_MS
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.locks import (
    GetSessionLocks,
    LockAnswer,
    LockKind,
    LocksGranted,
    SessionLocks,
    SetLock,
    Unlock,
)
from tidefs.fs.messages.meta import GetAttributes, KeepAlive, Node, SetXattr
from tidefs.tests.client.fake_servers import CUT, SILENCE, FakeMeta, World, always, once, until
from tidefs.tests.client.test_metaclient import ATTRIBUTES, running

SET = SetXattr(5, b"user.a", b"v", 0)
LOCK = SetLock(5, LockKind.WHOLE, 1, True, 0, 1 << 63, True, 42)
UNLOCK = Unlock(5, LockKind.WHOLE, 1, 0, 1 << 63)
EXPIRED = TideError(Code.SESSION_EXPIRED, "100")
MS = 1_000_000


class Events:
    """Notes what it is told."""

    def __init__(self):
        self.links = 0
        self.over = []
        self.grants = []

    def linked(self):
        self.links += 1

    def expired(self, session):
        self.over.append(session)

    def claims(self):
        return []

    def granted(self, notice):
        self.grants.append(notice)


async def refused(call) -> Code:
    with pytest.raises(TideError) as caught:
        await call
    return caught.value.code


async def test_what_belongs_to_one_session_is_not_sent_in_the_next(autojump_clock):
    """Though it has certainly not happened: other requests go out again."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules += [always(SetXattr, Node(ATTRIBUTES)), once(SetXattr, EXPIRED)]
        async with running(world, meta) as client:
            events = Events()
            client.listen(events)
            assert await refused(client.call(SET, session=100)) is Code.SESSION_EXPIRED
            assert events.over == [100]
            assert [m.session for m in meta.mutations_of(SetXattr)] == [100]
            await client.call(SET)
            assert client.session == 101
            assert await refused(client.call(SET, session=100)) is Code.SESSION_EXPIRED
            await client.call(SET, session=101)
            assert [m.session for m in meta.mutations_of(SetXattr)] == [100, 101, 101]


async def test_a_question_about_one_session_is_not_asked_in_the_next(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules += [
            always(GetSessionLocks, SessionLocks([], [])),
            once(GetSessionLocks, EXPIRED),
        ]
        async with running(world, meta) as client:
            await client.wait_linked()
            ask = GetSessionLocks(100)
            assert await refused(client.call(ask, session=100)) is Code.SESSION_EXPIRED
            assert await refused(client.call(ask, session=100)) is Code.SESSION_EXPIRED
            assert len(meta.of(GetSessionLocks)) == 1
            await client.call(GetSessionLocks(101), session=101)


async def test_notices_and_new_links_are_told(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules.append(always(GetAttributes, Node(ATTRIBUTES)))
        async with running(world, meta) as client:
            events = Events()
            client.listen(events)
            await client.wait_linked()
            before = events.links
            notice = LocksGranted(100, [(7, 8)])
            for peer in meta._peers:
                peer.tell(notice)
            await until(lambda: events.grants)
            assert set(map(repr, events.grants)) == {repr(notice)}
            meta.cut()
            await client.call(GetAttributes(5))
            assert events.links == before + 1
            assert not events.over


async def test_the_lease_lasts_from_when_it_was_asked_for(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        clock = world.ports("client").clock
        meta = await FakeMeta(world).start()
        async with running(world, meta) as client:
            await client.wait_linked()
            assert 0 < client.lease_until_ns - clock.monotonic_ns() <= 12_000 * MS
            before = client.lease_until_ns
            await trio.sleep(SESSION_KEEPALIVE_MS / 1000 * 1.5)
            assert client.lease_until_ns > before + (SESSION_KEEPALIVE_MS - 100) * MS
            before = client.lease_until_ns
            await client.renew(100)
            assert client.lease_until_ns > before
            meta.rules.append(always(KeepAlive, EXPIRED))
            assert await refused(client.renew(100)) is Code.SESSION_EXPIRED
            assert await refused(client.renew(100)) is Code.SESSION_EXPIRED
            await until(lambda: client.session == 101)


async def test_a_soft_mount_knows_what_became_of_a_lock(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        answer = LockAnswer(9, 0, ATTRIBUTES, False)
        meta.rules += [always(SetLock, answer), once(SetLock, SILENCE, 2)]
        async with running(world, meta, timeout_ms=1_000) as client:
            assert await client.call(LOCK) == answer


async def test_nothing_overtakes_a_change_that_was_left_alone(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules += [
            always(SetXattr, Node(ATTRIBUTES)),
            once(SetXattr, CUT),
            once(SetXattr, SILENCE),
            always(Unlock, Done()),
        ]
        async with running(world, meta) as client:
            await client.wait_linked()
            await client.settled()
            with trio.move_on_after(1) as scope:
                await client.call(SET)
            assert scope.cancelled_caught
            await client.settled()
            await client.call(UNLOCK)
            kinds = [type(request) for request in meta.requests]
            assert kinds.count(SetXattr) == 3
            assert kinds.index(Unlock) > max(
                at for at, kind in enumerate(kinds) if kind is SetXattr
            )
