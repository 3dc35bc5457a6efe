"""The checker of histories, on histories that are known to be right and known to be wrong."""

import random
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidefs.tests.sim.linearizability import NEVER, Operation, Verdict, check, explain
from tidefs.tests.sim.objects import (
    EXISTS,
    NO_ATTRIBUTE,
    NO_ENTRY,
    OK,
    Clear,
    Create,
    List,
    Look,
    Read,
    Rename,
    Unlink,
    Write,
    do,
    tree,
)


def verdict(*operations, steps_max=100_000):
    return check(operations, tree(), steps_max)


def line(text_of, *operations):
    """Operations one after the other: (what, answer)."""
    return [
        Operation(text_of, what, 10 * at, 10 * at + 5, answer)
        for at, (what, answer) in enumerate(operations)
    ]


# --- known to be right -------------------------------------------------------------------------


def test_nothing_happened():
    assert verdict() is Verdict.OK


def test_one_after_the_other():
    assert (
        verdict(
            *line(
                "a",
                (Read("r"), NO_ATTRIBUTE),
                (Write("r", 1), OK),
                (Read("r"), 1),
                (Write("r", 2, EXISTS), EXISTS),
                (Clear("r"), OK),
                (Write("r", 3, NO_ATTRIBUTE), NO_ATTRIBUTE),
                (Create("d/x", 7), OK),
                (Create("d/x", 8), EXISTS),
                (Rename("d/x", "e/y"), OK),
                (Look("d/x"), NO_ENTRY),
                (List("e"), (("e/y", 7),)),
                (Unlink("e/y"), OK),
                (Unlink("e/y"), NO_ENTRY),
            )
        )
        is Verdict.OK
    )


def test_during_a_write_a_read_may_see_either_value():
    write = Operation("a", Write("r", 1), 1, 10, OK)
    assert verdict(write, Operation("b", Read("r"), 2, 3, 1)) is Verdict.OK
    assert verdict(write, Operation("b", Read("r"), 2, 3, NO_ATTRIBUTE)) is Verdict.OK


def test_what_was_never_answered_may_happen_at_any_later_time_or_never():
    lost = Operation("a", Create("d/x", 1), 1)
    assert verdict(lost, *line("b", (Look("d/x"), NO_ENTRY))) is Verdict.OK
    late = Operation("b", Look("d/x"), 90, 91, 1)
    early = Operation("b", Look("d/x"), 80, 81, NO_ENTRY)
    assert verdict(lost, early, late) is Verdict.OK
    taken_back = Operation("b", Look("d/x"), 95, 96, NO_ENTRY)
    assert verdict(lost, late, taken_back) is Verdict.VIOLATION


def test_herlihy_and_wings_queue_example_in_registers():
    """Three overlapping writes, read in an order that only one arrangement explains."""
    writes = [Operation(f"w{value}", Write("r", value), value, 100, OK) for value in (1, 2, 3)]
    reads = [
        Operation("r", Read("r"), 10 * at, 10 * at + 1, value)
        for at, value in enumerate((2, 2, 3, 1), 1)
    ]
    assert verdict(*writes, *reads) is Verdict.OK
    again = Operation("r", Read("r"), 60, 61, 2)
    assert verdict(*writes, *reads, again) is Verdict.VIOLATION


# --- known to be wrong -------------------------------------------------------------------------

WRONG = {
    "stale read": line("a", (Write("r", 1), OK), (Write("r", 2), OK), (Read("r"), 1)),
    "lost update": line("a", (Write("r", 1), OK), (Read("r"), NO_ATTRIBUTE)),
    "a value from nowhere": line("a", (Read("r"), 5)),
    "acknowledged, then undone": line(
        "a", (Create("d/x", 1), OK), (Look("d/x"), 1), (Look("d/x"), NO_ENTRY)
    ),
    "done twice: a create finds itself": line("a", (Create("d/x", 1), EXISTS), (Look("d/x"), 1)),
    "done twice: an exchange undoes itself": line(
        "a",
        (Create("d/x", 1), OK),
        (Create("d/y", 2), OK),
        (Rename("d/x", "d/y", exchange=True), OK),
        (Look("d/x"), 1),
    ),
    "done twice: an unlink misses what it removed": line(
        "a", (Create("d/x", 1), OK), (Unlink("d/x"), NO_ENTRY), (Look("d/x"), NO_ENTRY)
    ),
    "a rename that left the old name": line(
        "a", (Create("d/x", 1), OK), (Rename("d/x", "e/x"), OK), (Look("d/x"), 1)
    ),
    "a listing without what was made": line("a", (Create("d/x", 1), OK), (List("d"), ())),
    "two winners": [
        Operation("a", Create("d/x", 1), 1, 10, OK),
        Operation("b", Create("d/x", 2), 2, 9, OK),
    ],
    "two readers see two writes in two orders": [
        Operation("a", Write("r", 1), 1, 100, OK),
        Operation("b", Write("r", 2), 2, 101, OK),
        Operation("c", Read("r"), 10, 11, 1),
        Operation("c", Read("r"), 20, 21, 2),
        Operation("d", Read("r"), 12, 13, 2),
        Operation("d", Read("r"), 22, 23, 1),
        Operation("c", Read("r"), 30, 31, 2),
    ],
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_wrong(name):
    assert verdict(*WRONG[name]) is Verdict.VIOLATION
    assert "no order of these" in explain(WRONG[name], tree())


def test_a_witness_names_what_contradicts_and_little_else():
    noise = [Operation("n", Look("d/z"), 1_000 + i, 2_000 + i, NO_ENTRY) for i in range(9)]
    found = explain([*WRONG["stale read"], *noise], tree())
    assert "no order of these 3 operations" in found
    assert "Write(register='r', value=2, only=None) -> ok" in found
    assert "Read(register='r') -> 1" in found
    assert "d/z" not in found


def test_a_witness_ends_where_the_history_went_wrong():
    after = [Operation("z", Write("r", 50 + i), 500 + 2 * i, 501 + 2 * i, OK) for i in range(5)]
    found = explain([*WRONG["lost update"], *after], tree())
    assert "value=5" not in found


def test_when_the_budget_runs_out_nothing_is_claimed():
    """Many overlapping writes, and an answer that none of them explains."""
    crowd = [Operation(f"w{i}", Write("r", i), i, 1_000 + i, OK) for i in range(1, 30)]
    impossible = Operation("r", Read("r"), 500, 501, 77)
    assert verdict(*crowd, impossible, steps_max=5_000) is Verdict.UNKNOWN
    assert verdict(*crowd, steps_max=5_000) is Verdict.OK


def test_one_wrong_object_among_many_is_found_though_another_is_too_hard():
    crowd = [Operation(f"w{i}", Write("hard", i), i, 1_000 + i, OK) for i in range(1, 30)]
    impossible = Operation("r", Read("hard"), 500, 501, 77)
    history = [*crowd, impossible, *WRONG["stale read"]]
    assert verdict(*history, steps_max=5_000) is Verdict.VIOLATION


# --- histories by chance -------------------------------------------------------------------------

NAMES = ("d/x", "d/y", "e/x")
REGISTER = "r"


def some_operation(chance: random.Random, number: int):
    name, new_name = chance.choice(NAMES), chance.choice(NAMES)
    return chance.choice(
        (
            Create(name, number),
            Create(name, number),
            Unlink(name),
            Rename(name, new_name),
            Rename(name, new_name, noreplace=True),
            Rename(name, new_name, exchange=True),
            Look(name),
            List("d"),
            Write(REGISTER, number),
            Write(REGISTER, number, EXISTS),
            Write(REGISTER, number, NO_ATTRIBUTE),
            Clear(REGISTER),
            Read(REGISTER),
            Read(REGISTER),
        )
    )


class Begun:
    """An operation on its way through the reference: called, perhaps done, not yet returned."""

    def __init__(self, client: str, what: object, called: int) -> None:
        self.client, self.what, self.called = client, what, called
        self.done = False
        self.answer: object = NEVER


def played(chance: random.Random, count: int, clients: int) -> list[Operation]:
    """A right history: each operation is done at one moment between its call and its return.

    Some never return, done or not; their client goes on under another name.
    """
    states: dict[object, object] = {}
    running: dict[int, Begun] = {}
    history: list[Operation] = []
    moment = begun = 0
    while begun < count or running:
        moment += 1
        number = chance.randrange(clients)
        one = running.get(number)
        if one is None:
            if begun < count:
                begun += 1
                running[number] = Begun(f"c{number}", some_operation(chance, begun), moment)
        elif not one.done and chance.random() < 0.7:
            key = tree().object_of(one.what)
            states[key], one.answer = do(states.get(key, ()), one.what)
            one.done = True
        elif one.done and chance.random() < 0.8:
            history.append(Operation(one.client, one.what, one.called, moment, one.answer))
            del running[number]
        elif chance.random() < 0.1:
            history.append(Operation(one.client, one.what, one.called))
            del running[number]
    chance.shuffle(history)
    return history


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 60), st.integers(1, 6))
def test_what_a_reference_played_is_right(seed, count, clients):
    assert verdict(*played(random.Random(seed), count, clients)) is Verdict.OK


def possible_by_trying_all(history: list[Operation]) -> bool:
    """The definition itself: some order of all that returned and some of the rest."""
    answered = [each for each in history if each.returned is not None]
    open_ones = [each for each in history if each.returned is None]
    for chosen in range(1 << len(open_ones)):
        some = answered + [each for i, each in enumerate(open_ones) if chosen >> i & 1]
        if any(_explains(order) for order in permutations(some)):
            return True
    return False


def _explains(order) -> bool:
    state = ()
    latest_call = -1
    for each in order:
        if each.returned is not None and each.returned < latest_call:
            return False  # it returned before one that stands before it was called
        latest_call = max(latest_call, each.called)
        state, answer = do(state, each.what)
        if each.answer is not NEVER and each.answer != answer:
            return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 5), st.integers(1, 4))
def test_with_answers_exchanged_the_definition_and_the_search_agree(seed, count, clients):
    """Right or wrong: answers of a right history change places, or come from nowhere."""
    chance = random.Random(seed)
    history = [each for each in played(chance, count, clients) if is_about_register(each)]
    for _ in range(chance.randrange(3)):
        if history:
            at = chance.randrange(len(history))
            if history[at].returned is not None:
                wrong = chance.choice([1, 2, 3, 4, OK, NO_ATTRIBUTE, EXISTS])
                history[at] = history[at]._replace(answer=wrong)
    found = verdict(*history)
    assert found is (Verdict.OK if possible_by_trying_all(history) else Verdict.VIOLATION)


def is_about_register(each: Operation) -> bool:
    return isinstance(each.what, Write | Read | Clear)


def certain(history, kinds, moment):
    return [
        each
        for each in history
        if isinstance(each.what, kinds) and each.returned is not None and each.returned < moment
    ]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(10, 60), st.integers(2, 5))
def test_a_read_of_what_was_overwritten_is_always_caught(seed, count, clients):
    """A read answers with a value over which another one was written, all of it before."""
    history = played(random.Random(seed), count, clients)
    for reading in [each for each in history if isinstance(each.what, Read) and each.returned]:
        before = [
            each for each in certain(history, Write, reading.called) if each.what.only is None
        ]
        for old in before:
            if any(old.returned < newer.called for newer in before):
                stale = reading._replace(answer=old.what.value)
                wrong = [each for each in history if each is not reading] + [stale]
                assert verdict(*wrong) is Verdict.VIOLATION


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(10, 60), st.integers(2, 5))
def test_an_effect_that_is_not_there_is_always_caught(seed, count, clients):
    """Of a create that was answered, nobody else could touch the name, and it is not there."""
    history = played(random.Random(seed), count, clients)
    end = max(each.returned or each.called for each in history)
    made = Operation("z", Create("f/only", 999), end + 1, end + 2, OK)
    looked = Operation("z", Look("f/only"), end + 3, end + 4, NO_ENTRY)
    assert verdict(*history, made, looked) is Verdict.VIOLATION
    assert verdict(*history, made, looked._replace(answer=999)) is Verdict.OK


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(10, 60), st.integers(2, 5))
def test_a_create_that_found_itself_is_always_caught(seed, count, clients):
    """The first answer of a change that was done twice is lost: it says EXISTS, and is there."""
    history = played(random.Random(seed), count, clients)
    seen = {each.answer for each in history if isinstance(each.what, Look)}
    for at, each in enumerate(history):
        if isinstance(each.what, Create) and each.answer == OK and each.what.tag in seen:
            wrong = [*history]
            wrong[at] = each._replace(answer=EXISTS)
            assert verdict(*wrong) is Verdict.VIOLATION
