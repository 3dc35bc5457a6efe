"""Who uses a cluster: it runs while somebody does, or until it is told to go down."""

import os

import msgspec
import pytest
from tidefs.deploy import holds as module
from tidefs.deploy.cluster import Cluster, Started
from tidefs.deploy.holds import Hold, began, held, holds, is_kept, keep, unkeep


@pytest.fixture
def acts(monkeypatch):
    """What was done to clusters, instead of doing it."""
    done = []

    def start(self, say):
        done.append("start")
        return Started([], {})

    def stop(self, say, *, kill=False):
        done.append("stop")
        return []

    monkeypatch.setattr(Cluster, "start", start)
    monkeypatch.setattr(Cluster, "stop", stop)
    return done


def use(folder):
    return held(folder, folder / "mnt", lambda text: None)


def other_user(folder, pid, moment):
    """A record of another process's use."""
    (folder / "mounts").mkdir(exist_ok=True)
    hold = Hold(pid=pid, began=moment, mount_point="/elsewhere")
    (folder / "mounts" / f"{pid}.json").write_bytes(msgspec.json.encode(hold))


def test_the_last_user_stops_it(tmp_path, acts):
    folder = tmp_path / "tide"
    with use(folder) as cluster:
        assert acts == ["start"]
        assert [hold.pid for hold in holds(cluster.folder)] == [os.getpid()]
    assert acts == ["start", "stop"]
    assert not holds(folder)


def test_not_while_another_uses_it(tmp_path, acts):
    with use(tmp_path):
        other_user(tmp_path, os.getppid(), began(os.getppid()))
    assert acts == ["start"]
    assert [hold.mount_point for hold in holds(tmp_path)] == ["/elsewhere"]


def test_one_that_was_killed_does_not_count(tmp_path, acts):
    with use(tmp_path):
        other_user(tmp_path, 4194304, 1)
        other_user(tmp_path, os.getppid(), began(os.getppid()) - 1)  # the number was used again
    assert acts == ["start", "stop"]


def test_one_that_was_told_to_stay_stays(tmp_path, acts):
    with use(tmp_path):
        keep(tmp_path)
    assert acts == ["start"]
    assert is_kept(tmp_path)
    unkeep(tmp_path)
    unkeep(tmp_path)
    assert not is_kept(tmp_path)


def test_it_is_stopped_also_when_its_use_failed(tmp_path, acts):
    def failing_use():
        with use(tmp_path):
            raise OSError("the mount failed")

    with pytest.raises(OSError, match="the mount failed"):
        failing_use()
    assert acts == ["start", "stop"]
    assert not holds(tmp_path)


def test_what_came_up_is_stopped_when_the_rest_did_not(tmp_path, acts, monkeypatch):
    def start(self, say):
        raise OSError("a port in use")

    monkeypatch.setattr(Cluster, "start", start)
    with pytest.raises(OSError, match="a port in use"), use(tmp_path):
        pass
    assert acts == ["stop"]


def test_records_of_the_dead_are_cleared_away(tmp_path, acts):
    with use(tmp_path):
        pass
    other_user(tmp_path, 4194304, 1)
    with use(tmp_path):
        assert len(list((tmp_path / module.HOLDS_FOLDER).iterdir())) == 1


def test_damaged_records_do_not_count(tmp_path, acts):
    (tmp_path / "mounts").mkdir()
    with use(tmp_path / "tide"):
        (tmp_path / "tide" / "mounts" / "7.json").write_text("half a rec")
        assert len(holds(tmp_path / "tide")) == 1


def test_began():
    assert began(os.getpid()) is not None
    assert began(4194304) is None
