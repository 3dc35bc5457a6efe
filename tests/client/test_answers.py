"""Answers: steps, errors, who listens, who gives up."""

from contextlib import suppress

import pytest
import trio
import trio.testing
from tidefs.client.answers import Answer, settled, then
from tidefs.fs.errors import Code, TideError
from tidefs.tests.client.garbage import garbage

GONE = TideError(Code.NO_ENTRY, "gone")


def answer(withdrawn=None):
    return Answer(lambda: None if withdrawn is None else withdrawn.append(True))


def listened(to):
    heard = []
    to.when_told(heard.append)
    return heard


def raising(error):
    def step(_):
        raise error

    return step


async def later(value):
    await trio.lowlevel.checkpoint()
    if isinstance(value, Exception):
        raise value
    return value


def test_steps_run_in_order_in_the_call_that_tells():
    asked, ran = answer(), []

    def step(name):
        def run(value):
            ran.append(name)
            return [*value, name]

        return run

    same = then(then(asked, step("one")), step("two"))
    assert same is asked
    heard = listened(same)
    assert (ran, heard) == ([], [])
    asked.tell(["reply"])
    assert (ran, heard) == (["one", "two"], [["reply", "one", "two"]])


def test_an_error_goes_through_every_failed_and_on():
    asked, seen, ran = answer(), [], []
    then(asked, ran.append, lambda error: seen.append(("one", error)))
    then(asked, ran.append)
    then(asked, ran.append, lambda error: seen.append(("three", error)))
    heard = listened(asked)
    asked.tell(GONE)
    assert seen == [("one", GONE), ("three", GONE)]
    assert (ran, heard) == ([], [GONE])


def test_what_a_step_raises_is_for_the_failed_of_those_behind_it():
    asked, seen, ran = answer(), [], []
    then(asked, raising(GONE), lambda error: seen.append(("its own", error)))
    then(asked, ran.append, lambda error: seen.append(("next", error)))
    heard = listened(asked)
    asked.tell(1)
    assert (seen, ran, heard) == ([("next", GONE)], [], [GONE])


def test_a_bug_in_a_step_is_an_answer_and_not_for_failed():
    asked, seen, bug = answer(), [], ValueError("a bug")
    then(asked, raising(bug))
    then(asked, lambda value: value, seen.append)
    heard = listened(asked)
    asked.tell(1)
    assert (seen, heard) == ([], [bug])


def test_what_failed_raises_takes_the_place_of_the_error():
    asked, bug = answer(), ValueError("a bug")
    then(asked, lambda value: value, raising(bug))
    heard = listened(asked)
    asked.tell(GONE)
    assert heard == [bug]


@pytest.mark.parametrize("outcome", [5, GONE], ids=["value", "error"])
@pytest.mark.parametrize("is_listened", [True, False], ids=["listened", "awaited"])
async def test_steps_behind_one_that_takes_longer_wait_for_it(outcome, is_listened):
    asked, seen = answer(), []
    then(asked, lambda _: later(outcome))
    then(asked, lambda value: value + 1, seen.append)
    then(asked, lambda value: later(value * 2), seen.append)
    heard = listened(asked) if is_listened else [asked]
    asked.tell("reply")
    (coming,) = heard
    if outcome is GONE:
        with pytest.raises(TideError) as failed:
            await coming
        assert failed.value is GONE
        assert seen == [GONE, GONE]
    else:
        assert await coming == 12
        assert seen == []


async def test_a_step_may_ask_again():
    asked, second = answer(), answer()
    then(asked, lambda _: second)
    then(asked, lambda value: value + 1)
    heard = listened(asked)
    asked.tell("reply")
    assert heard == [second]
    second.tell(5)
    assert await heard[0] == 6


async def test_told_before_anybody_asks():
    asked = answer()
    asked.tell(1)
    then(asked, lambda value: value + 1)
    assert listened(asked) == [2]
    assert await asked == 2
    then(asked, raising(GONE))
    seen = []
    then(asked, lambda value: value, seen.append)
    assert seen == [GONE]
    assert listened(asked) == [GONE]
    with pytest.raises(TideError) as failed:
        await asked
    assert failed.value is GONE


async def test_a_task_waits_until_it_is_told():
    withdrawn = []
    asked, got = answer(withdrawn), []
    then(asked, lambda value: value + 1)

    async def wait():
        got.append(await asked)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        asked.tell(1)
    assert got == [2]
    assert withdrawn == []


async def test_a_task_is_raised_what_it_is_told():
    for outcome in (GONE, ValueError("a bug")):
        asked = answer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, asked, outcome)
            await trio.testing.wait_all_tasks_blocked()
            asked.tell(outcome)


async def expect(asked, outcome):
    with pytest.raises(type(outcome)) as failed:
        await asked
    assert failed.value is outcome


async def test_who_is_cancelled_withdraws_and_learns_nothing():
    withdrawn, ran = [], []
    asked = answer(withdrawn)
    then(asked, ran.append, ran.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settled, asked)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert withdrawn == [True]
    asked.tell("too late")
    asked.tell(GONE)
    assert ran == []


async def test_who_was_told_is_not_cancelled_any_more():
    """The steps were taken, and what they took must reach somebody."""
    withdrawn = []
    asked, got = answer(withdrawn), []

    async def wait():
        got.append(await asked)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        asked.tell(1)
        nursery.cancel_scope.cancel()
    assert (got, withdrawn) == ([1], [])


def test_who_has_withdrawn_hears_nothing():
    withdrawn = []
    asked, ran = answer(withdrawn), []
    then(asked, ran.append)
    heard = listened(asked)
    asked.withdraw()
    asked.withdraw()
    asked.tell(1)
    assert (withdrawn, ran, heard) == ([True], [], [])


async def test_then_of_what_is_no_answer():
    seen = []
    assert then(1, lambda value: value + 1, seen.append) == 2
    with pytest.raises(TideError):
        then(1, raising(GONE), seen.append)
    assert await then(later(1), lambda value: later(value + 1), seen.append) == 2
    assert seen == []
    with pytest.raises(TideError):
        await then(later(GONE), lambda value: value, seen.append)
    assert seen == [GONE]
    with pytest.raises(ValueError, match="a bug"):
        await then(later(ValueError("a bug")), lambda value: value, seen.append)
    assert seen == [GONE]
    assert await settled(1) == 1
    assert await settled(later(1)) == 1


async def test_nothing_is_left_for_the_garbage_collector():
    async def ask(outcome):
        asked = answer_that_knows_itself()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, asked)
            await trio.testing.wait_all_tasks_blocked()
            asked.tell(outcome)
        asked = answer_that_knows_itself()
        listened(asked)
        asked.tell(outcome)
        answer_that_knows_itself().withdraw()

    def answer_that_knows_itself():
        asked = Answer(lambda: asked.tell(GONE))
        return then(asked, str)

    async def wait(asked):
        with suppress(TideError):
            await asked

    with garbage() as left:
        for _ in range(10):
            await ask(1)
            await ask(TideError(Code.NO_ENTRY, "gone"))
    assert left(Answer, TideError) == []
