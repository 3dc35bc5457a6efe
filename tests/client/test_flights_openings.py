"""Openings without a task: what is open stays open, and what nobody wants is closed."""

import pytest
import trio
import trio.testing
from tidefs.client.answers import Answer, then
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.meta import (
    CreateUnnamed,
    Open,
    Release,
    ResumeSession,
)
from tidefs.tests.client.fake_servers import (
    CUT,
    once,
    until,
)
from tidefs.tests.client.holding import CONTENT, NODE, OPEN, UNNAMED, Heard, linked
from tidefs.tests.client.test_metaclient import CREATE, ENTRY, UNLINK

OPENINGS = pytest.mark.parametrize(
    "request_", [OPEN, CREATE, UNNAMED], ids=["open", "create", "unnamed"]
)


def answered(meta):
    for incoming in meta.held:
        kind = type(incoming.request)
        incoming.reply({Open: CONTENT, type(CREATE): ENTRY, CreateUnnamed: NODE}[kind])
    meta.held.clear()


async def crossed_by_release(meta, client, request):
    """An opening under way whose inode is released, and whose answer comes behind that."""
    client.opened(5)
    client.released(5)
    meta.holds = (type(request), Open)
    coming = client.start(request)
    assert type(coming) is Answer
    await until(lambda: meta.held and meta.of(Release))
    answered(meta)
    return coming


@OPENINGS
async def test_an_opening_that_a_release_crossed_is_repeated(autojump_clock, request_):
    async with linked() as (meta, client):
        heard = Heard()
        coming = heard.of(await crossed_by_release(meta, client, request_))
        await until(lambda: meta.held)
        assert heard.all == []
        assert meta.held[0].request == OPEN
        then(coming, lambda reply: client.opened(5) or reply)
        meta.held.pop().reply(CONTENT)
        await heard.wait()
        await trio.sleep(5)
        assert len(meta.of(Release)) == 1
        meta.holds = ()
        for _ in range(meta.slots):
            assert type(client.start(UNLINK)) is Answer


@pytest.mark.parametrize("request_", [OPEN, CREATE], ids=["open", "create"])
async def test_what_was_opened_stays_open(autojump_clock, request_):
    async with linked() as (meta, client):
        await then(client.start(request_), lambda _: client.opened(5))
        await trio.sleep(5)
        assert meta.of(Release) == []
        meta.cut()
        await until(lambda: meta.of(ResumeSession))
        assert meta.of(ResumeSession)[-1].open_inodes == [5]


@OPENINGS
async def test_no_opening_is_under_way_for_ever(autojump_clock, request_):
    """As long as one is, all releases are remembered."""
    async with linked() as (meta, client):
        await client.start(request_)
        coming = await crossed_by_release(meta, client, request_)
        await until(lambda: meta.held)
        answered(meta)
        await coming
        meta.holds = ()
        meta.rules.append(once(type(request_), TideError(Code.UNAVAILABLE, "")))
        await client.start(request_)
        meta.rules.append(once(type(request_), TideError(Code.NO_SPACE, "")))
        with pytest.raises(TideError):
            await client.start(request_)
        assert client._opens._opening == 0


async def test_a_create_whose_first_answer_was_lost_is_noted_as_open(autojump_clock):
    async with linked() as (meta, client):
        meta.rules.append(once(type(CREATE), CUT))
        assert await client.start(CREATE) == ENTRY
        assert meta.requests[-1] == OPEN


async def released(meta):
    """The server was told, at last, that nobody has it open, and of nothing else."""
    await until(lambda: meta.of(Release))
    assert meta.of(Release)[-1] == Release([5])
    order = [r for r in meta.requests if isinstance(r, Open | Release | CreateUnnamed)
             or type(r) is type(CREATE)]  # fmt: skip
    assert isinstance(order[-1], Release)


@OPENINGS
async def test_what_was_opened_for_nobody_is_closed(autojump_clock, request_):
    async with linked() as (meta, client):
        meta.holds = (type(request_),)
        coming = client.start(request_)
        await until(lambda: meta.held)
        coming.withdraw()
        answered(meta)
        await released(meta)


@OPENINGS
@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
async def test_what_was_opened_for_nobody_at_the_second_try_is_closed(
    autojump_clock, request_, is_late
):
    async with linked() as (meta, client):
        meta.holds = (type(request_),)
        coming = client.start(request_)
        await until(lambda: meta.held)
        if not is_late:
            coming.withdraw()
        meta.held.pop().fail(TideError(Code.UNAVAILABLE, ""))
        if is_late:
            await until(lambda: meta.held)
            coming.withdraw()
        if is_late or request_ is not OPEN:
            await until(lambda: meta.held)
            answered(meta)
            meta.holds = ()
        await released(meta)


@OPENINGS
async def test_who_gives_up_while_it_is_opened_again_has_it_closed(autojump_clock, request_):
    async with linked() as (meta, client):
        coming = await crossed_by_release(meta, client, request_)
        await until(lambda: meta.held)
        assert meta.held[-1].request == OPEN
        coming.withdraw()
        answered(meta)
        await until(lambda: len(meta.of(Release)) == 2)
        await released(meta)


@OPENINGS
async def test_what_a_cancelled_task_opened_is_closed(autojump_clock, request_):
    async with linked() as (meta, client):
        meta.holds = (type(request_),)
        async with trio.open_nursery() as callers:
            callers.start_soon(client.call, request_)
            await until(lambda: meta.held)
            callers.cancel_scope.cancel()
        await until(lambda: request_ is OPEN or len(meta.held) == 2)
        answered(meta)
        await released(meta)


@pytest.mark.parametrize("is_first", [True, False])
async def test_who_opens_it_too_keeps_it_open(autojump_clock, is_first):
    async with linked() as (meta, client):
        meta.holds = (Open,)
        coming = client.start(OPEN)
        heard = Heard()
        heard.of(then(client.start(OPEN), lambda _: client.opened(5)))
        await until(lambda: len(meta.held) == 2)
        coming.withdraw()
        if not is_first:
            meta.held.reverse()
        answered(meta)
        await heard.wait()
        await trio.sleep(5)
        assert meta.of(Release) == []


async def test_given_up_while_it_is_opened_again_leaves_nothing_to_be_settled(autojump_clock):
    async with linked() as (meta, client):
        coming = await crossed_by_release(meta, client, CREATE)
        await until(lambda: any(isinstance(i.request, Open) for i in meta.held))
        coming.withdraw()
        await client.settled()
        await until(lambda: len(meta.of(Release)) == 2)
