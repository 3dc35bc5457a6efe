"""Who kills the leader now and then: how often, and what becomes of one that does not come back."""

import contextlib
import subprocess

import pytest
from tidefs.deploy import leader_kills
from tidefs.deploy.exits import Exit, Failure
from tidefs.deploy.leader_kills import KILL_EVERY_MS, LeaderKills


class Clock:
    """Stands still until it is told."""

    now_ms = 0

    def monotonic_ns(self):
        return self.now_ms * 1_000_000


class NoCluster:
    """Its leader is some process."""

    folder = "/nowhere"


@pytest.fixture
def victim():
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def kills(monkeypatch, victim):
    """LeaderKills of a cluster of one process; ``started`` are the names brought back."""
    made = LeaderKills(NoCluster(), Clock(), lambda text: None)
    made.started = []
    monkeypatch.setattr(made, "_leader", lambda: ("meta-1", victim.pid))
    monkeypatch.setattr(leader_kills, "locked", lambda folder, say: contextlib.nullcontext())

    class Opened:
        def start(self, say, only):
            made.started += only

    monkeypatch.setattr(leader_kills, "open_cluster", lambda folder: Opened())
    return made


def test_killed_and_brought_back(kills, victim):
    kills.kill_leader()
    assert victim.wait() == -9
    kills.wait()
    assert kills.started == ["meta-1"]
    assert kills.count == 1


def test_now_and_then(kills, victim):
    assert not kills.now_and_then()
    kills._clock.now_ms = KILL_EVERY_MS
    assert kills.now_and_then()
    assert not kills.now_and_then(), "not soon again"
    kills._clock.now_ms = 2 * KILL_EVERY_MS
    assert kills.now_and_then()
    kills.wait()
    assert kills.count == 2


def test_one_that_does_not_come_back_is_told_of(kills, monkeypatch):
    def fail(folder):
        raise Failure(Exit.WRONG, "meta-1 did not start")

    monkeypatch.setattr(leader_kills, "open_cluster", fail)
    kills.kill_leader()
    with pytest.raises(Failure, match="did not start"):
        kills.wait()
    with pytest.raises(Failure, match="did not start"):
        kills.kill_leader()
    assert kills.count == 1, "and nobody else is killed"
