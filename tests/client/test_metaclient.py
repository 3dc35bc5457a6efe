"""The metaclient: failover, exactly-once mutations, resumption, expiry, soft mounts, releases."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from tidefs.client.link import Who
from tidefs.client.metaclient import MetaClient
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import FIRST_LINK_TIMEOUT_MS
from tidefs.fs.messages.hello import CHUNKSERVER
from tidefs.fs.messages.meta import (
    CloseSession,
    Content,
    Create,
    CreateUnnamed,
    Entry,
    GetAttributes,
    KeepAlive,
    Node,
    Open,
    OpenSession,
    Release,
    Removed,
    ResumeSession,
    SetXattr,
    Unlink,
)
from tidefs.tests.client.fake_servers import (
    CUT,
    SILENCE,
    Fake,
    FakeMeta,
    World,
    always,
    once,
    until,
)

ATTRIBUTES = Attributes(5, Kind.FILE, 0o644, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1)
REMOVED = Removed(ATTRIBUTES, ATTRIBUTES)
ENTRY = Entry(ATTRIBUTES, ATTRIBUTES)
UNLINK = Unlink(1, b"name")
CREATE = Create(1, b"name", Kind.FILE, 0o644, 0, 0, 0, False, True)


@asynccontextmanager
async def running(
    world: World, *metas: FakeMeta, timeout_ms: int | None = None
) -> AsyncIterator[MetaClient]:
    client = MetaClient(
        world.ports("client"), [m.address for m in metas], Who("client", 42, timeout_ms)
    )
    world.nursery.start_soon(client.run)
    yield client
    await client.close()
    world.nursery.cancel_scope.cancel()


async def test_finds_the_leader_among_the_addresses(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        dead, follower, leader = (FakeMeta(world, host) for host in ("dead", "follower", "leader"))
        await follower.start()
        await leader.start()
        world.group.elect(leader)
        leader.rules.append(always(GetAttributes, Node(ATTRIBUTES)))
        async with running(world, dead, follower, leader) as client:
            assert (await client.call(GetAttributes(5))).attributes == ATTRIBUTES
            assert client.session == 100
            assert client.cluster
            assert leader.of(OpenSession)[0].pid == 42
        assert leader.of(CloseSession) == [CloseSession(100)]


async def test_a_lost_reply_is_asked_for_with_the_same_numbers(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules += [
            always(SetXattr, Node(ATTRIBUTES)),
            once(SetXattr, CUT, 2),
            once(SetXattr, SILENCE),
            once(SetXattr, TideError(Code.BUSY, "", delay_ms=3)),
            once(SetXattr, TideError(Code.UNAVAILABLE, "")),
        ]
        async with running(world, meta) as client:
            await client.call(SetXattr(5, b"user.a", b"v", 0), [b"pay", b"load"])
            mutations = meta.mutations_of(SetXattr)
            assert len(mutations) == 6
            assert len(set(mutations)) == 1
            payloads = dict(zip(map(id, meta.requests), meta.payloads, strict=True))
            assert {payloads[id(r)] for r in meta.of(SetXattr)} == {b"payload"}
            await client.call(SetXattr(5, b"user.a", b"v", 0))
            slot = mutations[0]
            assert meta.mutations_of(SetXattr)[-1] == slot._replace(sequence=slot.sequence + 1)


async def test_a_final_error_gives_the_slot_back(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.slots = 1
        meta.rules.append(always(Unlink, TideError(Code.NO_ENTRY, "name")))
        async with running(world, meta) as client:
            for _ in range(3):
                with pytest.raises(TideError) as failed:
                    await client.call(UNLINK)
                assert failed.value.code is Code.NO_ENTRY
            assert [m.sequence for m in meta.mutations_of(Unlink)] == [1, 2, 3]


async def test_no_more_mutations_in_flight_than_slots(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        held = []
        handle = meta.handle

        def hold(incoming):
            if isinstance(incoming.request, Unlink):
                meta.mutations.append(incoming.mutation)
                meta.requests.append(incoming.request)
                meta.payloads.append(b"")
                held.append(incoming)
            else:
                handle(incoming)

        meta.handle = hold
        async with running(world, meta) as client, trio.open_nursery() as callers:
            for _ in range(10):
                callers.start_soon(client.call, UNLINK)
            answered = 0
            while answered < 10:
                await trio.testing.wait_all_tasks_blocked()
                assert len(held) <= meta.slots
                assert len({incoming.mutation.slot for incoming in held}) == len(held)
                if held:
                    held.pop(0).reply(REMOVED)
                    answered += 1
                else:
                    await trio.sleep(0.001)
        mutations = meta.mutations_of(Unlink)
        assert len(set(mutations)) == 10
        for slot in range(meta.slots):
            sequences = [m.sequence for m in mutations if m.slot == slot]
            assert sequences == sorted(sequences)


async def test_failover_keeps_the_session_and_resumes_what_is_open(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        one, two = FakeMeta(world, "one"), FakeMeta(world, "two")
        await one.start()
        await two.start()
        two.rules.append(once(ResumeSession, TideError(Code.NOT_LEADER, "")))
        for meta in (one, two):
            meta.rules.append(always(Unlink, REMOVED))
        async with running(world, one, two) as client:
            await client.call(UNLINK)
            client.opened(5)
            client.opened(6)
            client.reserved(6, 3, 99)
            client.reserved(6, 4, 100)
            client.committed(6, 4, 100)
            two.alive = one.alive
            one.rules.append(once(Unlink, SILENCE))
            async with trio.open_nursery() as callers:
                callers.start_soon(client.call, UNLINK)
                await until(lambda: one.mutations_of(Unlink)[1:])
                one.stop()
                world.group.elect(two)
            assert two.of(ResumeSession)[-1] == ResumeSession(100, [5, 6], [(6, 3, 99)])
            assert two.of(OpenSession) == []
            assert two.mutations_of(Unlink) == [one.mutations_of(Unlink)[1]]
            names = [type(r).__name__ for r in two.requests]
            assert names.index("Unlink") > names.index("ResumeSession")


async def test_a_restarted_server_is_waited_for(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules.append(always(GetAttributes, Node(ATTRIBUTES)))
        async with running(world, meta) as client:
            await client.wait_linked()
            meta.stop()
            async with trio.open_nursery() as callers:
                callers.start_soon(client.call, GetAttributes(5))
                await trio.sleep(600)
                assert meta.of(GetAttributes) == []
                await meta.start()
            assert client.session == 100


async def test_keep_alives_notice_a_silent_server(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        one, two = FakeMeta(world, "one"), FakeMeta(world, "two")
        await one.start()
        await two.start()
        async with running(world, one, two) as client:
            await client.wait_linked()
            two.alive = one.alive
            await trio.sleep(60)
            assert 13 <= len(one.of(KeepAlive)) <= 16
            one.rules += [always(KeepAlive, SILENCE), always(ResumeSession, SILENCE)]
            world.group.elect(two)
            start = trio.current_time()
            await until(lambda: two.of(KeepAlive))
            assert trio.current_time() - start < 30


async def test_an_expired_session_is_replaced_and_what_is_open_is_told(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules.append(always(GetAttributes, Node(ATTRIBUTES)))
        async with running(world, meta) as client:
            await client.wait_linked()
            client.opened(5)
            client.reserved(5, 0, 9)
            meta.alive.clear()
            meta.cut()
            await client.call(GetAttributes(5))
            assert client.session == 101
            assert meta.of(ResumeSession)[-1] == ResumeSession(101, [5], [])


async def test_a_mutation_that_may_have_happened_ends_with_session_expired(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()

        def lose(request):
            if isinstance(request, Unlink):
                meta.alive.clear()
                return CUT
            return None

        meta.rules.append(lose)
        async with running(world, meta) as client:
            with pytest.raises(TideError) as failed:
                await client.call(UNLINK)
            assert failed.value.code is Code.SESSION_EXPIRED
            assert client.session == 101
            assert len(meta.of(Unlink)) == 1


async def test_a_mutation_that_was_refused_with_the_session_is_done_in_the_next(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules += [
            always(Unlink, REMOVED),
            once(Unlink, TideError(Code.SESSION_EXPIRED, "100")),
        ]
        async with running(world, meta) as client:
            await client.wait_linked()
            meta.alive.clear()
            await client.call(UNLINK)
            assert [m.session for m in meta.mutations_of(Unlink)] == [100, 101]


async def test_a_repeated_opening_of_a_session_has_the_same_nonce(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules.append(once(OpenSession, CUT, 3))
        async with running(world, meta) as client:
            await client.wait_linked()
            opened = meta.of(OpenSession)
            assert len(opened) == 4
            assert len({request.nonce for request in opened}) == 1
            assert len(opened[0].nonce) == 16


async def test_a_soft_mount_gives_up_and_the_slot_stays_busy_until_the_answer(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.slots = 1
        meta.rules += [always(Unlink, REMOVED), once(Unlink, SILENCE, 2)]
        async with running(world, meta, timeout_ms=3_000) as client:
            start = trio.current_time()
            with pytest.raises(TideError) as failed:
                await client.call(UNLINK)
            assert failed.value.code is Code.TIMED_OUT
            assert "soft" in str(failed.value)
            assert trio.current_time() - start == pytest.approx(3, abs=0.1)
            with pytest.raises(TideError) as failed:
                await client.call(UNLINK)  # the only slot is busy
            assert failed.value.code is Code.TIMED_OUT
            await until(lambda: len(meta.of(Unlink)) == 3)
            await trio.sleep(1)
            await client.call(UNLINK)
            assert [m.sequence for m in meta.mutations_of(Unlink)] == [1, 1, 1, 2]


async def test_a_cancelled_caller_leaves_its_mutation_to_be_answered(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.slots = 1
        meta.rules += [always(SetXattr, Node(ATTRIBUTES)), once(SetXattr, SILENCE)]
        buffer = bytearray(b"first")
        async with running(world, meta) as client:
            with trio.move_on_after(1):
                await client.call(SetXattr(5, b"user.a", b"", 0), [buffer])
            buffer[:] = b"other"
            await client.call(SetXattr(5, b"user.b", b"", 0))
            names = [request.name for request in meta.of(SetXattr)]
            assert names == [b"user.a", b"user.a", b"user.b"]
            assert [m.sequence for m in meta.mutations_of(SetXattr)] == [1, 1, 2]
            payloads = [p for r, p in zip(meta.requests, meta.payloads, strict=True)
                        if isinstance(r, SetXattr)]  # fmt: skip
            assert payloads == [b"first", b"first", b""]


async def test_a_caller_cancelled_before_anything_was_sent_leaves_nothing(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.slots = 1
        meta.rules.append(always(Unlink, REMOVED))
        async with running(world, meta) as client:
            await client.wait_linked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.call(UNLINK)
            await client.call(UNLINK)


async def test_releases_are_batched_and_repeated_until_acknowledged(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules.append(once(Release, CUT))
        async with running(world, meta) as client:
            await client.wait_linked()
            for inode in (5, 6, 7):
                client.opened(inode)
            for inode in (5, 6):
                client.released(inode)
            await until(lambda: len(meta.of(Release)) == 2)
            assert meta.of(ResumeSession)[-1].open_inodes == [5, 6, 7]
            assert meta.of(Release) == [Release([5, 6])] * 2
            await trio.sleep(1)
            meta.cut()
            await until(lambda: len(meta.of(ResumeSession)) == 2)
            assert meta.of(ResumeSession)[-1].open_inodes == [7]
            assert len(meta.of(Release)) == 2


@pytest.mark.parametrize("request_", [Open(5, 0), CREATE], ids=["open", "create"])
async def test_an_opening_that_a_release_crossed_is_repeated(autojump_clock, request_):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        async with running(world, meta) as client:
            await client.wait_linked()
            client.opened(5)
            client.released(5)
            meta.rules += [
                always(Open, Content(ATTRIBUTES, False)),
                always(Create, ENTRY),
                once(type(request_), SILENCE),
            ]
            await client.call(request_)
            client.opened(5)
            assert meta.of(Release) == [Release([5])]
            assert isinstance(meta.requests[-1], Open)
            assert len(meta.of(Open)) == (3 if isinstance(request_, Open) else 2)
            assert meta.requests.index(meta.of(Release)[0]) < len(meta.requests) - 1


async def test_a_create_whose_first_answer_was_lost_is_noted_as_open(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules += [
            always(Open, Content(ATTRIBUTES, False)),
            always(Create, ENTRY),
            once(Create, CUT),
        ]
        async with running(world, meta) as client:
            await client.call(CREATE)
            assert meta.requests[-1] == Open(5, 0)
            await client.call(CREATE)
            assert len(meta.of(Open)) == 1


async def test_an_unnamed_file_that_was_reaped_unseen_is_made_again(autojump_clock):
    """Its first answer was lost, and the next leader did not know that somebody had it open."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        meta.rules += [
            always(Open, Content(ATTRIBUTES, False)),
            always(CreateUnnamed, Node(ATTRIBUTES)),
            once(Open, TideError(Code.STALE_HANDLE, "inode 5")),
            once(CreateUnnamed, CUT),
        ]
        async with running(world, meta) as client:
            await client.call(CreateUnnamed(1, 0o600, 0, 0, 0, True))
            first, again, anew = meta.mutations_of(CreateUnnamed)
            assert first == again
            assert anew.sequence > again.sequence
            assert len(meta.of(Open)) == 1


async def test_the_wrong_cluster_or_role_is_said_at_once(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        wrong = await Fake(world, "chunk", CHUNKSERVER, 5).start()
        client = MetaClient(world.ports("client"), [wrong.address], Who("client", 42))
        nursery.start_soon(client.run)
        with pytest.raises(TideError) as failed:
            await client.wait_linked()
        assert failed.value.code is Code.WRONG_ROLE
        assert wrong.address in str(failed.value)
        with pytest.raises(TideError):
            await client.call(GetAttributes(1))
        nursery.cancel_scope.cancel()


async def test_no_server_at_the_beginning_is_said_for_each_address(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world, "follower").start()
        meta.rules.append(always(OpenSession, TideError(Code.NOT_LEADER, "not I")))
        addresses = ["tcp:nowhere:1", meta.address]
        client = MetaClient(world.ports("client"), addresses, Who("client", 42))
        nursery.start_soon(client.run)
        start = trio.current_time()
        with pytest.raises(TideError) as failed:
            await client.wait_linked()
        assert trio.current_time() - start <= FIRST_LINK_TIMEOUT_MS / 1000 + 0.1
        assert failed.value.code is Code.DISCONNECTED
        assert "tcp:nowhere:1" in str(failed.value)
        assert "not the leader" in str(failed.value)
        nursery.cancel_scope.cancel()


async def test_closing_releases_those_who_wait(autojump_clock):
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await FakeMeta(world).start()
        client = MetaClient(world.ports("client"), [meta.address], Who("client", 42))
        nursery.start_soon(client.run)
        await client.wait_linked()
        meta.stop()
        failures = []

        async def wait(request):
            try:
                await client.call(request)
            except TideError as error:
                failures.append(error.code)

        nursery.start_soon(wait, UNLINK)
        nursery.start_soon(wait, GetAttributes(5))
        await trio.sleep(1)
        await client.close()
        await trio.sleep(1)
        assert failures == [Code.DEVICE_ERROR] * 2
        nursery.cancel_scope.cancel()
