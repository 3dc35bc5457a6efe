"""Bytes, links and attributes in histories that are known to be right and known to be wrong."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidefs.tests.sim.attribute_objects import SetAttributes, Show, Shown
from tidefs.tests.sim.byte_objects import Append, Cut, Get, Put, Size, do, unit_by_unit
from tidefs.tests.sim.byte_witness import SharedFile
from tidefs.tests.sim.linearizability import Operation, Verdict, check
from tidefs.tests.sim.objects import (
    EXISTS,
    NO_ENTRY,
    OK,
    Create,
    Link,
    List,
    Rename,
    Stat,
    Unlink,
    tree,
)

UNITS = 4


def line(*operations):
    """One after the other: (what, answer)."""
    return [
        Operation("a", what, 10 * at, 10 * at + 5, answer)
        for at, (what, answer) in enumerate(operations)
    ]


def verdict(history, *, in_parts=False):
    units = UNITS if in_parts else 0
    return check(unit_by_unit(history, lambda file: units), tree())


def right(*operations, in_parts=False):
    return verdict(operations, in_parts=in_parts) is Verdict.OK


def wrong(*operations, in_parts=False):
    return verdict(operations, in_parts=in_parts) is Verdict.VIOLATION


# --- bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_parts", [False, True])
def test_bytes_one_after_the_other(in_parts):
    history = line(
        (Size("f"), 0),
        (Put("f", 2, 2, 1), OK),
        (Get("f", 0, 4), (0, 0, 1, 1)),
        (Put("f", 0, 3, 2), OK),
        (Get("f", 0, 4), (2, 2, 2, 1)),
        (Cut("f", 1), OK),
        (Size("f"), 1),
        (Get("f", 0, 4), (2,)),
        (Get("f", 2, 2), ()),
        (Cut("f", 3), OK),
        (Get("f", 0, 4), (2, 0, 0)),
        (Get("f", 1, 1), (0,)),
    )
    assert right(*history, in_parts=in_parts)
    for at, each in enumerate(history):
        if isinstance(each.what, Get | Size):
            for answer in ((9, 9, 9, 9), 4, "12 bytes", ("of two tags",)):
                other = [*history[:at], each._replace(answer=answer), *history[at + 1 :]]
                assert wrong(*other, in_parts=in_parts), answer


def test_appends_go_to_the_end():
    assert right(*line((Append("f", 1), OK), (Append("f", 2), OK), (Get("f", 0, 9), (1, 2))))
    assert wrong(*line((Append("f", 1), OK), (Append("f", 2), OK), (Get("f", 0, 9), (2,))))
    assert wrong(*line((Append("f", 1), OK), (Append("f", 2), OK), (Size("f"), 1)))


def test_a_write_of_many_units_is_seen_as_a_whole_or_in_parts():
    put = Operation("a", Put("f", 0, 2, 1), 1, 10, OK)
    half = Operation("b", Get("f", 0, 2), 2, 3, (1,))
    assert wrong(put, half)
    assert right(put, half, in_parts=True)
    late = half._replace(called=11, returned=12)
    assert wrong(put, late, in_parts=True)


def test_a_unit_that_was_seen_does_not_go_away():
    put = Operation("a", Put("f", 0, 2, 1), 1, 10, OK)
    new = Operation("b", Get("f", 1, 1), 2, 3, (1,))
    old = Operation("b", Get("f", 1, 1), 4, 5, ())
    assert wrong(put, new, old, in_parts=True)
    assert right(put, old, new._replace(called=6, returned=7), in_parts=True)


def test_a_write_whose_client_died_may_be_there_in_part():
    put = Operation("a", Put("f", 0, 2, 1), 1)
    for seen in ((1,), (0, 1), (1, 1), ()):
        assert right(put, Operation("b", Get("f", 0, 2), 2, 3, seen)), seen
        assert right(put, Operation("b", Get("f", 0, 2), 2, 3, seen), in_parts=True), seen
    for seen in ((2,), (0,), ("of two tags",)):
        assert wrong(put, Operation("b", Get("f", 0, 2), 2, 3, seen)), seen


operations = st.one_of(
    st.builds(Put, st.just("f"), st.integers(0, 1), st.integers(1, UNITS - 1), st.integers(1, 3)),
    st.builds(Cut, st.just("f"), st.integers(0, UNITS)),
    st.builds(Get, st.just("f"), st.integers(0, 1), st.integers(1, UNITS - 1)),
    st.just(Size("f")),
)


@given(st.lists(operations, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_what_is_right_as_a_whole_is_right_in_parts(asked, chance):
    """Each operation takes effect at a moment of its own; calls come before, returns after it."""
    state, history = (), []
    for at, what in enumerate(asked):
        state, answer = do(state, what)
        early, late = chance.uniform(0, 3), chance.uniform(0, 3)
        history.append(Operation("a", what, at - early, at + late, answer))
    assert right(*history)
    assert right(*history, in_parts=True)


def test_tags_of_what_was_read():
    file = SharedFile("f", 8, 4, appends=False)
    data = file.packed(7, 2) + file.packed(0, 1)
    assert file.tags(data) == (7, 7, 0)
    assert file.tags(b"") == ()
    assert file.units_in(len(data)) == 3
    assert file.units_in(9) == "9 bytes"
    torn = file.tags(file.packed(7, 1)[:4] + file.packed(8, 1)[:4] + file.packed(9, 1)[:5])
    assert torn == ("8 of 8 bytes, of [7, 8]", "5 of 8 bytes, of [9]")


# --- names and links ---------------------------------------------------------------------------


def test_links_one_after_the_other():
    assert right(
        *line(
            (Create("d/a", 1), OK),
            (Link(1, "e/b"), OK),
            (Link(1, "d/a"), EXISTS),
            (Stat("d/a"), (1, 2)),
            (Rename("d/a", "e/b"), OK),
            (List("d"), (("d/a", 1),)),
            (Rename("d/a", "e/b", noreplace=True), EXISTS),
            (Rename("d/a", "e/b", exchange=True), OK),
            (Unlink("d/a"), OK),
            (Stat("e/b"), (1, 1)),
            (Unlink("e/b"), OK),
            (Stat("e/b"), NO_ENTRY),
            (Link(1, "d/a"), NO_ENTRY),
        )
    )


@pytest.mark.parametrize("links", [1, 3])
def test_a_wrong_number_of_links(links):
    assert wrong(*line((Create("d/a", 1), OK), (Link(1, "e/b"), OK), (Stat("d/a"), (1, links))))


def test_a_file_that_lost_its_last_name_gets_no_other():
    assert wrong(*line((Create("d/a", 1), OK), (Unlink("d/a"), OK), (Link(1, "d/b"), OK)))


def test_two_names_of_one_file_stay_when_one_is_renamed_to_the_other():
    made = (Create("d/a", 1), OK), (Link(1, "d/b"), OK), (Rename("d/a", "d/b"), OK)
    assert wrong(*line(*made, (Stat("d/a"), NO_ENTRY)))


# --- attributes --------------------------------------------------------------------------------


def test_attributes_one_after_the_other():
    assert right(
        *line(
            (SetAttributes("x", 0o644, 1), OK),
            (SetAttributes("x", None, 2), OK),
            (Show("x"), Shown(0o644, 2)),
            (SetAttributes("x", 0o600, None), OK),
            (Show("x"), Shown(0o600, 2)),
        )
    )


def test_one_request_sets_both_at_once():
    before = line((SetAttributes("x", 0o644, 1), OK))
    both = Operation("a", SetAttributes("x", 0o600, 2), 11, 20, OK)
    assert right(*before, both, Operation("b", Show("x"), 12, 13, Shown(0o600, 2)))
    assert right(*before, both, Operation("b", Show("x"), 12, 13, Shown(0o644, 1)))
    assert wrong(*before, both, Operation("b", Show("x"), 12, 13, Shown(0o600, 1)))


def test_files_do_not_touch_each_other():
    history = line((Put("f", 0, 1, 1), OK), (Put("g", 0, 1, 2), OK), (Get("f", 0, 1), (1,)))
    random.Random(1).shuffle(history)
    assert right(*history)
