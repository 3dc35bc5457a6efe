"""The picture tells the truth: order, overlap, and nothing over something else."""

from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from tidefs.client.litmus.svg import drawn
from tidefs.client.litmus.timeline import (
    GAP,
    LABEL_CHARACTERS,
    LABEL_WIDTH,
    LINE,
    lay_out,
    width_of,
)
from tidefs.tests.client.litmus.results import FRESH, RACE, STALE, runs


def placed(run, mounts=4):
    """The picture, and each step of a mount with its bar."""
    timeline = lay_out(run, mounts)
    steps = [event for event in run.events if event.who is not None]
    return timeline, list(zip(steps, timeline.bars, strict=True))


@given(runs())
def test_what_was_over_before_is_above(run):
    """The order of beginnings and ends is that of time, so bars overlap when steps did."""
    _, steps = placed(run)
    for (one, bar), (other, beside) in combinations(steps, 2):
        if one.ended_us < other.began_us:
            assert bar.bottom < beside.top
        if one.began_us < other.began_us:
            assert bar.top < beside.top
        if one.began_us < other.ended_us and other.began_us < one.ended_us:
            assert bar.top < beside.bottom
            assert beside.top < bar.bottom


@given(runs())
def test_nothing_lies_over_something_else(run):
    timeline, steps = placed(run)
    for event, bar in steps:
        assert bar.x == timeline.lines[event.who].x
        assert bar.bottom - bar.top >= LINE * len(bar.texts)
        assert all(len(text.words + text.value) <= LABEL_CHARACTERS for text in bar.texts)
    by_x = sorted(line.x for line in timeline.lines if line.name != "servers")
    left = [x for x in by_x if x < timeline.lines[-1].x]
    for one, other in combinations(left, 2):
        assert other - one > LABEL_WIDTH, "the label of the right one is between them"
    for (one, bar), (other, beside) in combinations(steps, 2):
        if one.who == other.who and one.ended_us < other.began_us:
            assert beside.top - bar.bottom >= GAP


@given(runs())
def test_everything_is_inside(run):
    timeline, _ = placed(run)
    assert timeline.width == width_of(4)
    for bar in timeline.bars:
        assert LABEL_WIDTH <= bar.label_x <= timeline.width
        assert bar.label_left or bar.label_x + LABEL_WIDTH <= timeline.width
        assert 0 < bar.top < bar.bottom < timeline.height
    for question in timeline.questions:
        assert 0 < question.top < question.bottom < timeline.height
        assert question.to_x == timeline.lines[-1].x
    for top, bottom in timeline.bands:
        assert 0 < top < bottom < timeline.height
    ys = [moment.y for moment in timeline.moments]
    assert all(other - one >= LINE for one, other in pairwise(ys))


def test_who_asks_the_servers():
    timeline, steps = placed(STALE, 2)
    asked = {(question.x, question.top): question.trips for question in timeline.questions}
    for event, bar in steps:
        assert asked.get((bar.x, bar.top), 0) == sum(event.trips.values())
    assert [mark.words for mark in timeline.marks] == ["the leader is killed"]
    assert [bar.measured for bar in timeline.bars] == [False] * 6 + [True]
    assert timeline.bars[-1].texts[-1].words == "560 times in 3,000 ms"


def test_what_is_read_is_a_value_of_its_own():
    timeline = lay_out(STALE, 2)
    assert [text.value for text in timeline.bars[1].texts] == ["old", ""]
    assert [text.words for text in timeline.bars[1].texts] == ["reads x: ", "0.1 ms"]


def test_a_race_has_a_ground_and_its_questions_are_of_all_steps():
    timeline, steps = placed(RACE, 2)
    ((top, bottom),) = timeline.bands
    for _, bar in steps:
        assert top < bar.top < bar.bottom < bottom
    for question in timeline.questions:
        bars = [bar for bar in timeline.bars if bar.x == question.x]
        assert (question.top, question.bottom) == (bars[0].top, bars[-1].bottom)
        assert question.words == "2 trips"
    assert not lay_out(STALE, 2).bands


@pytest.mark.parametrize("mounts", [2, 3, 4])
def test_times_count_from_the_first_step(mounts):
    later = [event._replace(began_us=event.began_us + 5_000) for event in FRESH.events]
    timeline = lay_out(FRESH._replace(events=later), mounts)
    assert [moment.words for moment in timeline.moments] == ["0.0 ms"]


@given(runs())
def test_the_drawing_is_a_document(run):
    root = ElementTree.fromstring(drawn(lay_out(run, 4), 'who < what & "why"'))
    assert root.find("title").text == 'who < what & "why"'
    told = ["".join(text.itertext()) for text in root.iter("text")]
    assert {"A", "B", "C", "D", "servers"} <= set(told)
    for event in run.events:
        assert any(event.words.split()[-1] in text for text in told)
