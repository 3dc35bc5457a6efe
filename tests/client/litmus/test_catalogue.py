"""The litmus tests as data: each can fail, each outcome is told apart, each promise is quoted."""

import re

import pytest
from tidefs.client.litmus.catalogue import CATALOGUE
from tidefs.client.litmus.model import (
    ERROR_PREFIX,
    FAILED,
    UNFORESEEN,
    Result,
    Run,
    outcome_of,
)
from tidefs.client.litmus.promises import MODES, SENTENCES
from tidefs.client.litmus.steps import NAMES, KillLeader, Race, Step, Until
from tidefs.client.modes import MODES as BUILT
from tidefs.tests.tidy.packages import ROOT

TESTS = list(CATALOGUE.values())
OUTCOMES = [(test, outcome) for test in TESTS for outcome in test.outcomes]
JUDGED = [(test, mode) for test in TESTS for mode in MODES]


def named(value):
    return getattr(value, "name", value)


def result(test, mode, *outcomes):
    return Result(test, mode, mode, [Run(outcome, {}, []) for outcome in outcomes])


def steps_of(test):
    yield from test.before
    for part in test.program:
        yield from part.steps if isinstance(part, Race) else [part]


@pytest.mark.parametrize(("test", "outcome"), OUTCOMES, ids=named)
def test_each_outcome_is_recognised(test, outcome):
    assert outcome_of(test, outcome.example) == outcome.name


@pytest.mark.parametrize(("test", "mode"), JUDGED, ids=named)
def test_what_a_mode_does_not_allow_is_detected(test, mode):
    allowed = test.promises[mode].allowed
    for outcome in test.outcomes:
        name = outcome_of(test, outcome.example)
        among_others = result(test, mode, *sorted(allowed), name)
        assert among_others.forbidden == ([] if name in allowed else [outcome.name])


@pytest.mark.parametrize("test", TESTS, ids=named)
def test_a_failed_call_and_the_unforeseen_are_never_allowed(test):
    fine = dict(test.outcomes[0].example)
    for name in fine:
        failed = outcome_of(test, fine | {name: f"{ERROR_PREFIX}Input/output error"})
        strange = outcome_of(test, fine | {name: "torn bytes of nobody"})
        assert (failed, strange) == (FAILED, UNFORESEEN)
    assert outcome_of(test, fine | {"opens x": f"{ERROR_PREFIX}No such file"}) == FAILED
    for mode in MODES:
        assert result(test, mode, FAILED, UNFORESEEN).forbidden == [UNFORESEEN, FAILED]


@pytest.mark.parametrize("test", TESTS, ids=named)
def test_each_test_is_whole(test):
    names = [outcome.name for outcome in test.outcomes]
    assert len(set(names)) == len(names)
    assert set(test.promises) == set(MODES)
    for promise in test.promises.values():
        assert promise.allowed
        assert promise.allowed <= set(names)
        assert promise.because
    mounts = {part.who for part in steps_of(test) if not isinstance(part, KillLeader)}
    assert mounts == set(range(test.mounts))
    assert test.mounts <= len(NAMES)
    assert test.question.endswith("?")
    assert test.source
    assert bool(test.before) == bool(test.before_words)
    assert test.kills == any(isinstance(part, KillLeader) for part in test.program)
    assert (test.repeats > 1) == any(isinstance(part, Race) for part in test.program)


@pytest.mark.parametrize("test", TESTS, ids=named)
def test_what_is_judged_is_what_the_steps_see(test):
    seen = {part.seen for part in steps_of(test) if isinstance(part, Step)}
    for outcome in test.outcomes:
        assert set(outcome.example) <= seen


@pytest.mark.parametrize("test", TESTS, ids=named)
def test_only_the_last_step_measures(test):
    """What comes behind it would be done in some rounds long after the rest, in others not."""
    assert not any(isinstance(part, Until) for part in test.program[:-1])


def test_most_tests_tell_the_modes_apart():
    alike = [test.name for test in TESTS if len({p.allowed for p in test.promises.values()}) == 1]
    assert alike == [
        "own-write",
        "read-after-close",
        "publish-by-rename",
        "leader-dies",
        "message-passing-closed",
        "lost-update",
        "locked-update",
    ]


def test_every_mode_has_its_row():
    assert set(BUILT) <= set(MODES)


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
def test_promises_stand_in_the_documentation(mode):
    text = re.sub(r"\s+", " ", (ROOT / "docs" / "semantics.md").read_text())
    missing = [words for words in SENTENCES[mode].values() if words not in text]
    assert not missing, "docs/semantics.md and client/litmus/promises.py say different things"
