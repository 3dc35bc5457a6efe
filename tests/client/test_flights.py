"""Requests without a task: the rules of the metaclient hold for them, too."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import trio
import trio.testing
from tidefs.client.answers import Answer, then
from tidefs.client.link import Who
from tidefs.client.metaclient import MetaClient
from tidefs.client.requests import MAYBE_DONE, REPEATED
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CALL_TIMEOUT_MS
from tidefs.fs.messages.locks import LocksGranted
from tidefs.fs.messages.meta import (
    Content,
    GetAttributes,
    Node,
    Open,
    Removed,
    ResumeSession,
    SetXattr,
    Unlink,
)
from tidefs.tests.client.fake_servers import (
    CUT,
    SILENCE,
    World,
    always,
    once,
    until,
)
from tidefs.tests.client.garbage import garbage
from tidefs.tests.client.holding import (
    GET,
    NODE,
    OPEN,
    Heard,
    Holding,
    Settled,
    linked,
    still_waits,
)
from tidefs.tests.client.test_metaclient import CREATE, REMOVED, UNLINK

REFUSED = sorted(REPEATED - {Code.SESSION_EXPIRED})


async def test_a_reply_is_understood_without_a_task(autojump_clock):
    async with linked() as (meta, client):
        before = trio.lowlevel.current_statistics().tasks_living
        ran, heard = [], Heard()
        coming = then(client.start(GET), lambda reply: ran.append(reply) or "shown")
        heard.of(coming)
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert await heard.wait() == "shown"
        assert ran == [NODE]
        meta.rules.append(always(GetAttributes, (NODE, b"payload")))
        reply, payload = await client.start_exchange(GET)
        assert (reply, bytes(payload)) == (NODE, b"payload")
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_final_error_is_told_and_gives_the_slot_back(autojump_clock):
    async with linked() as (meta, client):
        meta.rules.append(always(Unlink, TideError(Code.NO_ENTRY, "name")))
        heard = Heard()
        for count in range(1, meta.slots + 3):
            heard.of(client.start(UNLINK))
            assert (await heard.wait(count)).code is Code.NO_ENTRY
        assert len(set(meta.mutations_of(Unlink))) == meta.slots + 2


@pytest.mark.parametrize("request_", [UNLINK, GET], ids=["change", "question"])
@pytest.mark.parametrize("trouble", [*REFUSED, CUT, SILENCE])
async def test_what_fails_at_the_first_try_is_sent_again_and_answered_once(
    autojump_clock, trouble, request_
):
    async with linked() as (meta, client):
        trouble = trouble if isinstance(trouble, str) else TideError(trouble, "", delay_ms=3)
        meta.rules.append(once(type(request_), trouble))
        heard = Heard()
        heard.of(client.start(request_))
        await heard.wait()
        assert type(heard.all[0]) is (Removed if request_ is UNLINK else Node)
        first, again = meta.mutations_of(type(request_))
        assert first == again
        assert client.session == 100
        for _ in range(meta.slots):  # all are free again
            assert type(client.start(UNLINK)) is Answer
        await trio.sleep(CALL_TIMEOUT_MS / 1000)
        assert len(heard.all) == 1


async def test_an_answer_that_comes_too_late_is_not_told_twice(autojump_clock):
    async with linked() as (meta, client):
        meta.holds = (Unlink,)
        heard = Heard()
        heard.of(client.start(UNLINK))
        await until(lambda: len(meta.held) == 2)
        for incoming in meta.held:
            incoming.reply(REMOVED)
        await heard.wait()
        await trio.sleep(1)
        assert len(heard.all) == 1


async def test_who_was_refused_with_the_session_goes_out_in_the_next(autojump_clock):
    async with linked() as (meta, client):
        meta.rules.append(once(Unlink, TideError(Code.SESSION_EXPIRED, "100")))
        meta.alive.clear()
        heard = Heard()
        heard.of(client.start(UNLINK))
        assert await heard.wait() == REMOVED
        assert [m.session for m in meta.mutations_of(Unlink)] == [100, 101]


@pytest.mark.parametrize("code", sorted(MAYBE_DONE))
async def test_what_may_have_happened_in_a_session_that_ended_is_not_done_again(
    autojump_clock, code
):
    async with linked() as (meta, client):
        meta.alive.clear()
        meta.rules.append(once(Unlink, TideError(Code.SESSION_EXPIRED, "100")))
        meta.rules.append(once(Unlink, TideError(code, "")))
        heard = Heard()
        heard.of(client.start(UNLINK))
        assert (await heard.wait()).code is Code.SESSION_EXPIRED
        assert {m.session for m in meta.mutations_of(Unlink)} == {100}


async def test_what_was_refused_as_too_much_has_not_happened(autojump_clock):
    async with linked() as (meta, client):
        meta.rules.append(once(Unlink, TideError(Code.BUSY, "", delay_ms=20_000)))
        heard = Heard()
        heard.of(client.start(UNLINK))
        await until(lambda: meta.of(Unlink))
        meta.alive.clear()
        assert await heard.wait() == REMOVED
        assert [m.session for m in meta.mutations_of(Unlink)] == [100, 101]


async def test_everything_under_way_survives_a_lost_connection(autojump_clock):
    async with linked() as (meta, client):
        meta.holds = (Unlink, GetAttributes, Open)
        heard = Heard()
        for request in (UNLINK, GET, OPEN, UNLINK):
            heard.of(client.start(request))
        await until(lambda: len(meta.held) == 4)
        meta.holds = ()
        meta.cut()
        await heard.wait(4)
        assert set(map(type, heard.all)) == {Removed, Node, Content}
        assert len(set(meta.mutations_of(Unlink))) == 2
        assert len(meta.mutations_of(Unlink)) == 4


async def test_the_end_of_the_client_tells_all(autojump_clock):
    async with linked() as (meta, client):
        meta.holds = (Unlink, GetAttributes, Open, type(CREATE))
        heard, ended = Heard(), []
        for request in (UNLINK, GET, OPEN, CREATE):
            heard.of(client.start(request))

        async def wait(request):
            with suppress(TideError):
                await client.start(request)
            ended.append(request)

        async with trio.open_nursery() as callers:
            for _ in range(3):  # the last one finds no slot
                callers.start_soon(wait, UNLINK)
            await until(lambda: len(meta.held) == 6)
            await client.close()
        await heard.wait(4)
        assert {error.code for error in heard.all} == {Code.DEVICE_ERROR}
        assert len(ended) == 3
        assert still_waits(client.start(GET))
        with pytest.raises(TideError):
            await client.start(GET)


@pytest.mark.parametrize("is_sent_again", [False, True])
async def test_who_gave_up_before_the_end_does_not_keep_it(autojump_clock, is_sent_again):
    async with linked() as (meta, client):
        meta.holds = (Unlink,)
        heard = Heard()
        coming = heard.of(client.start(UNLINK))
        coming.withdraw()
        if is_sent_again:
            await until(lambda: meta.held)
            meta.held[0].fail(TideError(Code.UNAVAILABLE, ""))
            await until(lambda: len(meta.held) == 2)
        async with trio.open_nursery() as callers:
            callers.start_soon(client.settled)
            await client.close()
        assert heard.all == []


async def test_the_client_is_cancelled_from_outside():
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await Holding(world).start()
        client = MetaClient(world.ports("client"), [meta.address], Who("client", 42))
        scope = trio.CancelScope()
        gone = trio.Event()

        async def run():
            with scope:
                await client.run()
            gone.set()

        nursery.start_soon(run)
        await client.wait_linked()
        meta.holds = (Unlink, GetAttributes)
        heard = Heard()
        for request in (UNLINK, GET):
            heard.of(client.start(request))
        with trio.CancelScope() as caller:
            nursery.start_soon(cancel_when_gone, gone, caller)
            scope.cancel()
            await client.call(UNLINK)  # nobody will answer it, and nobody can carry it on
        assert [error.code for error in heard.all] == [Code.DEVICE_ERROR] * 2
        nursery.cancel_scope.cancel()


async def cancel_when_gone(gone, scope):
    await gone.wait()
    scope.cancel()


async def test_with_all_slots_taken_a_change_waits_and_a_question_does_not(autojump_clock):
    async with linked() as (meta, client):
        meta.holds = (Unlink,)
        heard, got = Heard(), []
        for _ in range(meta.slots):
            heard.of(client.start(UNLINK))
        coming = client.start(UNLINK)
        assert type(coming) is not Answer

        async def wait():
            got.append(await coming)

        async with trio.open_nursery() as callers:
            callers.start_soon(wait)
            assert await client.start(GET) == NODE
            await until(lambda: len(meta.held) == meta.slots)
            meta.held.pop().reply(REMOVED)
            await until(lambda: len(meta.held) == meta.slots)
            for incoming in meta.held:
                incoming.reply(REMOVED)
        assert len(heard.all) == meta.slots
        assert len(set(meta.mutations_of(Unlink))) == meta.slots + 1


async def test_who_waits_for_a_slot_gets_one_before_those_who_come_later(autojump_clock):
    """Who is answered asks for more in the same pass, when nobody who waits has run yet."""
    async with linked() as (meta, client):
        left, got = 1000, []

        def ask(_=None):
            nonlocal left
            left -= 1
            if left and not got:
                coming = client.start(SetXattr(5, b"user.a", b"v", 0))
                if type(coming) is Answer:
                    coming.when_told(ask)
                else:
                    callers.start_soon(wait, coming)

        async def wait(coming):
            got.append(await coming)

        async with trio.open_nursery() as callers:
            for _ in range(meta.slots):
                ask()
            callers.start_soon(wait, client.start(UNLINK))
        assert left > 900
        assert REMOVED in got


async def test_a_soft_mount_ends_in_time(autojump_clock):
    async with linked(timeout_ms=3_000) as (meta, client):
        meta.rules.append(once(GetAttributes, SILENCE, 5))
        meta.rules.append(once(Unlink, SILENCE, 5))
        for request in (GET, UNLINK):
            start = trio.current_time()
            with pytest.raises(TideError) as failed:
                await client.start(request)
            assert failed.value.code is Code.TIMED_OUT
            assert "soft" in str(failed.value)
            assert trio.current_time() - start == pytest.approx(3, abs=0.1)


# --- who gives up


async def test_a_change_that_was_given_up_keeps_its_slot_until_it_is_answered(autojump_clock):
    async with linked() as (meta, client):
        meta.holds = (Unlink,)
        heard = Heard()
        waiting = [heard.of(client.start(UNLINK)) for _ in range(meta.slots)]
        waiting[1].withdraw()
        assert type(client.start_exchange(GET)) is Answer
        await until(lambda: len(meta.held) == meta.slots)
        assert still_waits(client.start(UNLINK))
        settled = Settled(client)
        async with trio.open_nursery() as callers:
            callers.start_soon(settled.wait)
            await trio.testing.wait_all_tasks_blocked()
            meta.held[0].reply(REMOVED)
            await heard.wait()
            assert not settled.done, "that was another one"
            meta.held[1].reply(REMOVED)
        assert len(heard.all) == 1
        assert type(client.start(UNLINK)) is Answer
        assert type(client.start(UNLINK)) is Answer


async def test_a_change_of_a_cancelled_task_is_answered_nevertheless(autojump_clock):
    async with linked() as (meta, client):
        meta.rules.append(once(Unlink, TideError(Code.UNAVAILABLE, "")))
        learnt = []
        async with trio.open_nursery() as callers:

            async def wait():
                await then(client.start(UNLINK), learnt.append, learnt.append)

            callers.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            callers.cancel_scope.cancel()
        await client.settled()
        first, again = meta.mutations_of(Unlink)
        assert first == again
        assert learnt == []


@pytest.mark.parametrize("when", ["at once", "when it is sent again", "when it is answered"])
async def test_who_waits_until_all_is_settled_waits_for_what_was_just_given_up(
    autojump_clock, when
):
    async with linked() as (meta, client):
        meta.holds = (Unlink,)
        heard = Heard()
        coming = heard.of(client.start(UNLINK))
        if when != "at once":
            await until(lambda: meta.held)
            meta.held[0].fail(TideError(Code.UNAVAILABLE, ""))
            await until(lambda: len(meta.held) == 2)
        if when == "when it is answered":
            meta.held[-1].reply(REMOVED)
            await heard.wait()
        coming.withdraw()
        settled = Settled(client)
        with trio.move_on_after(1):
            await settled.wait()  # from this very moment on
        assert settled.done == (when == "when it is answered")
        for incoming in meta.held:
            incoming.reply(REMOVED)
        meta.holds = ()
        await client.settled()


# --- order, bugs, garbage


class Events:
    def __init__(self, order):
        self._order = order

    def linked(self):
        self._order.append("linked")

    def expired(self, session):
        self._order.append("expired")

    def granted(self, notice):
        self._order.append("notice")


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_reply_and_a_notice_are_understood_in_the_order_they_were_sent(
    autojump_clock, is_first
):
    async with linked() as (meta, client):
        order = []
        client.listen(Events(order))
        meta.holds = (GetAttributes, Unlink)
        for request in (GET, UNLINK):
            then(client.start(request), lambda reply: order.append(type(reply).__name__))
        await until(lambda: len(meta.held) == 2)
        question, change = meta.held
        if is_first:
            question.reply(NODE)
        question.peer.tell(LocksGranted(100, []), more=True)  # all in one pass
        change.reply(REMOVED)
        question.reply(NODE)
        await until(lambda: len(order) == 3)
        wanted = ["Node", "notice", "Removed"] if is_first else ["notice", "Removed", "Node"]
        assert order == wanted


@contextmanager
def broken(client: MetaClient, method: str) -> Iterator[None]:
    async def fail(*_):
        raise ValueError("a bug")

    setattr(client, method, fail)
    try:
        yield
    finally:
        delattr(client, method)


async def test_a_bug_is_told_and_the_connection_lives_on(autojump_clock, caplog):
    async with linked() as (meta, client):
        heard = Heard()
        bug = ValueError("a bug")

        def fail(_):
            raise bug

        for request in (UNLINK, GET, OPEN):
            heard.of(then(client.start(request), fail))
        await heard.wait(3)
        assert heard.all == [bug] * 3
        client.start(GET).when_told(fail)  # who listens has a bug
        client.start(UNLINK).when_told(fail)
        assert await client.start(GET) == NODE
        assert "a bug" in caplog.text
        for _ in range(meta.slots):
            heard.of(client.start(UNLINK))
        await heard.wait(3 + meta.slots)
        assert meta.of(ResumeSession) == []


async def test_a_bug_while_it_is_sent_again_is_told_and_the_client_lives_on(autojump_clock):
    async with linked() as (meta, client):
        heard = Heard()
        meta.rules.append(once(GetAttributes, TideError(Code.UNAVAILABLE, "")))
        with broken(client, "carry_on"):
            heard.of(client.start(GET))
            assert isinstance(await heard.wait(), ValueError)
        assert await client.start(GET) == NODE


async def test_answered_flights_leave_nothing_for_the_garbage_collector(autojump_clock):
    async with linked() as (meta, client):
        meta.rules.append(always(SetXattr, TideError(Code.NO_ENTRY, "gone")))
        heard = Heard()
        requests = [GET, OPEN, UNLINK, SetXattr(5, b"user.a", b"v", 0)]
        await client.call(GET)
        with garbage() as left:
            for _ in range(10):
                for request in requests:
                    heard.of(then(client.start(request), str, str))
                    with suppress(TideError):
                        await then(client.start(request), str, str)
            heard.all.clear()
        assert left(object) == []
