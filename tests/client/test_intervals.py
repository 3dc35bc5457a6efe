"""Interval sets against sets of numbers."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from tidefs.client.intervals import IntervalSet

ranges = st.tuples(st.integers(0, 40), st.integers(0, 40))
operations = st.lists(st.tuples(st.booleans(), ranges), max_size=12)


def as_numbers(pairs):
    return {number for start, end in pairs for number in range(start, end)}


@given(operations, ranges)
def test_against_a_set_of_numbers(steps, asked):
    found, model = IntervalSet(), set()
    for add, (start, end) in steps:
        piece = set(range(start, end))
        if add:
            assert found.add(start, end) == len(piece - model)
            model |= piece
        else:
            assert found.remove(start, end) == len(piece & model)
            model -= piece
    assert as_numbers(found) == model
    assert found.bytes == len(model)
    assert bool(found) == bool(model)
    assert found.end == max(model, default=-1) + 1
    assert found == IntervalSet(found), "merged, and in order"
    assert all(start < end for start, end in found)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))
    start, end = asked
    piece = set(range(start, end))
    assert found.covers(start, end) == (piece <= model)
    assert found.intersects(start, end) == bool(piece & model)
    assert as_numbers(found.within(start, end)) == piece & model
    assert as_numbers(found.gaps(start, end)) == piece - model
    assert found.count(start, end) == len(piece & model)
    around = found.around(start)
    assert (around is not None) == (start in model)
    if around is not None:
        assert around in list(found)
        assert around[0] <= start < around[1]


def test_in_words():
    found = IntervalSet([(5, 7), (0, 3)])
    assert repr(found) == "IntervalSet([(0, 3), (5, 7)])"
    found.add(3, 5)
    assert list(found) == [(0, 7)]
    assert len(found) == 1
    found.clear()
    assert not found
    assert found.bytes == 0
