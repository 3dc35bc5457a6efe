"""What is read is described so that no mixture passes for something whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidefs.client.litmus.contents import block, counted, described, record, words_of
from tidefs.client.litmus.model import UNFORESEEN, outcome_of
from tidefs.client.litmus.of_bytes import MAPPED, REWRITE_IN_PLACE
from tidefs.client.litmus.of_races import IRIW

SIZE = 64
OLD, NEW = block("old", SIZE), block("new", SIZE)


@given(st.lists(st.sampled_from(["old", "new"]), min_size=1, max_size=9))
def test_words_of_blocks(words):
    said = described(b"".join(block(word, SIZE) for word in words), SIZE)
    assert words_of(said) == set(words)
    if len(set(words)) == 1:
        assert said == words[0]


@given(st.integers(1, SIZE - 1))
def test_a_block_of_two_words(cut):
    """Whole words by turns are a mixture of writes; half a word is what nobody wrote."""
    said = described(NEW[:cut] + OLD[cut:], SIZE)
    if cut == SIZE - 1:
        assert said == "new", "both end in the same byte"
    elif cut % 4 in (0, 3):
        assert said == "new/old"
    else:
        assert not words_of(said) <= {"old", "new"}


def test_three_words_in_a_block_are_none():
    third = block("zzz", SIZE)
    assert described(NEW[:16] + OLD[:16] + third[:32], SIZE) == "torn"


def test_what_is_short_or_empty():
    assert described(b"", SIZE) == "nothing"
    assert described(NEW[:-1], SIZE) == described(NEW[: SIZE // 2], SIZE) == "torn"
    assert described(NEW[: SIZE // 2] + bytes(SIZE // 2), SIZE) == "torn"
    assert described(NEW + OLD + OLD, SIZE) == "new old x2"
    assert described(bytes(SIZE), SIZE) == "zeros"
    assert described(NEW + bytes(SIZE), SIZE) == "new zeros"


def test_a_mixture_within_a_block_is_one():
    for said in ("new x7 old/new", "new/old", "new old/new x2"):
        assert outcome_of(REWRITE_IN_PLACE, {"r": said}) == "split"


def test_records_are_counted_once():
    records = [record(who, number) for who in "AB" for number in range(3)]
    assert counted(b"".join(records)) == "6 records"
    assert counted(b"".join([*records, records[0]])) == "6 records"
    assert counted(b"") == "0 records"


@given(st.integers(1, 63))
def test_a_torn_record_is_seen(cut):
    one, other = record("A", 1), record("B", 17)
    assert counted(one[:cut] + other) == "torn"
    assert counted(one[:cut]) == "torn"


@pytest.mark.parametrize(
    ("test", "seen"),
    [
        (REWRITE_IN_PLACE, {"r": "new x7 zeros"}),
        (REWRITE_IN_PLACE, {"r": "new x7 nld/old"}),
        (REWRITE_IN_PLACE, {"r": "nothing"}),
        (REWRITE_IN_PLACE, {"r": "torn"}),
        (MAPPED, {"r1": "new", "r2": "old", "r3": "new"}),
        (MAPPED, {"r1": "old", "r2": "new", "r3": "old"}),
        (IRIW, {"r1": "new", "r2": "old", "r3": "new", "r4": "zeros"}),
        (IRIW, {"r1": "new"}),
    ],
)
def test_what_makes_no_sense_has_no_name(test, seen):
    assert outcome_of(test, seen) == UNFORESEEN
