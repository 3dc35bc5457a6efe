"""The steps, done for real: on a local disk every outcome is one of sequential consistency."""

import os
import threading

import pytest
from tidefs.client.litmus.catalogue import CATALOGUE
from tidefs.client.litmus.lanes import Lane, at_once
from tidefs.client.litmus.model import FAILED, Result
from tidefs.client.litmus.run import LEADER_DIES, head_start_ms
from tidefs.client.litmus.runner import Mounts, Runner
from tidefs.client.litmus.stats import between
from tidefs.client.litmus.steps import A, B, KillLeader, Look, Open, Race, Read, Step, Until
from tidefs.fs.ports.clock import RealClock

LOCAL_DISKS_MAY = {"rewrite-in-place": {"split"}}
"""POSIX has a write(2) be atomic for who reads at the same time; many local disks do not."""


class Deaths:
    """A leader that does not exist."""

    def __init__(self, *, often=False):
        self.often = often
        self.count = 0

    def kill_leader(self):
        self.count += 1

    def now_and_then(self):
        self.count += self.often
        return self.often


@pytest.fixture
def on_local_disk(tmp_path):
    """Four mounts that are one folder."""
    (tmp_path / "here").mkdir()
    runners = []

    def make(faults=None):
        runner = Runner(Mounts([tmp_path] * 4, "here"), RealClock(), faults or Deaths())
        runners.append(runner)
        return runner

    yield make
    for runner in runners:
        runner.close()


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_local_disk_is_sequential(name, on_local_disk):
    test, runner = CATALOGUE[name], on_local_disk()
    runs = [runner.run(test, number, measure=True) for number in range(4)]
    result = Result(test, "local", "strict", runs)
    assert set(result.forbidden) <= LOCAL_DISKS_MAY.get(name, set()), runs
    if isinstance(test.program[-1], Until):
        assert result.stalest.stale_us == 0
        assert result.stalest.fresh


def test_steps_are_noted_in_their_order(on_local_disk):
    run = on_local_disk().run(CATALOGUE["read-after-close"], 0, measure=False)
    assert [event.words for event in run.events] == [
        "opens, reads x",
        "opens x to write",
        "writes new to x",
        "closes x",
        "opens x",
        "reads x",
        "closes x",
    ]
    assert run.seen == {"before": "old", "r": "new"}
    times = [at for event in run.events for at in (event.began_us, event.ended_us)]
    assert times == sorted(times)
    assert run.trips is None, "a local disk has no servers, and counts no round trips"


def test_what_is_not_measured_takes_no_time(on_local_disk):
    run = on_local_disk().run(CATALOGUE["create-seen"], 0, measure=False)
    assert run.stale_us is None
    assert not any(event.looks for event in run.events)


def test_a_failed_call_is_an_outcome(on_local_disk):
    test = CATALOGUE["own-write"]._replace(program=(Step(A, Open("missing")),))
    run = on_local_disk().run(test, 0, measure=False)
    assert run.outcome == FAILED
    assert "No such file" in run.events[0].seen


def test_how_long_something_old_is_shown(on_local_disk, tmp_path, monkeypatch):
    """A name that appears late: somebody else makes it, when it has been looked for three times."""
    looks = []

    def stat(path, *arguments, **options):
        if path == "late":
            looks.append(path)
            if len(looks) == 4:
                (tmp_path / "here" / "create-seen-1" / "late").touch()
        return found(path, *arguments, **options)

    found = os.stat
    monkeypatch.setattr(os, "stat", stat)
    program = (Step(A, Look("other")), Step(B, Look("late"), "r"), Until(B, Look("late"), "there"))
    test = CATALOGUE["create-seen"]._replace(program=program)
    run = on_local_disk().run(test, 0, measure=True)
    *_, late, until = run.events
    assert late.seen == "absent"
    assert until.seen == "there"
    assert run.fresh
    assert until.ended_us > run.events[0].ended_us + run.stale_us > until.began_us


def test_a_race_is_one(on_local_disk):
    """Both wait for each other in the middle of their steps: done in turn that would not end."""
    meeting = threading.Barrier(2, timeout=20)
    lanes = [Lane(name) for name in "AB"]
    places = at_once([(lane, meeting.wait) for lane in lanes])
    assert sorted(places) == [0, 1]
    for lane in lanes:
        lane.close()
    run = on_local_disk().run(CATALOGUE["store-buffering"], 0, measure=False)
    assert sum(event.raced for event in run.events) == 4


def test_nobody_begins_before_all_are_ready(monkeypatch):
    log = []

    class Barrier(threading.Barrier):
        def wait(self, timeout=None):
            log.append("ready")
            return super().wait(timeout)

    monkeypatch.setattr(threading, "Barrier", Barrier)
    lanes = [Lane(name) for name in "ABC"]
    at_once([(lane, lambda: log.append("begins")) for lane in lanes])
    assert log == ["ready"] * 3 + ["begins"] * 3
    for lane in lanes:
        lane.close()


def test_each_mount_is_late_in_its_turn():
    starts = [[head_start_ms(who, 2, number) for who in (A, B)] for number in range(6)]
    assert starts == [[0, 0], [0, 0], [1, 0], [0, 1], [2, 0], [0, 2]]


def test_who_is_killed_is_noted(on_local_disk):
    faults = Deaths(often=True)
    test = CATALOGUE["create-seen"]
    run = on_local_disk(faults).run(test, 0, measure=False)
    assert [event.who for event in run.events].count(None) == faults.count == len(test.program)
    only = Deaths()
    program = (Step(A, Open("x")), KillLeader(), Race((Step(A, Read("x"), "r"),)))
    test = CATALOGUE["own-write"]._replace(program=program)
    run = on_local_disk(only).run(test, 0, measure=False)
    assert [event.words for event in run.events] == ["opens x", LEADER_DIES, "reads x"]
    assert only.count == 1


def test_round_trips_are_differences():
    before = {"Lookup": 2, "KeepAlive": 1}
    after = {"Lookup": 2, "KeepAlive": 3, "Open": 1}
    assert between(before, after) == {"Open": 1}
    assert between(None, after) is None
    assert between(before, None) is None
