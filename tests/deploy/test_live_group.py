"""Three metaservers as real processes: started, lost, replaced, more and fewer of them."""

import contextlib
import json
import os
import shutil
import signal
import threading

import pytest
from tidefs.deploy import slots
from tidefs.deploy.cluster import open_cluster
from tidefs.deploy.exits import Exit
from tidefs.deploy.processes import wait_for_end

STOP_S = 20
"""How long an application may take to end what it does."""

METAS = ["meta-1", "meta-2", "meta-3"]


@pytest.fixture
def group(make_cluster):
    return make_cluster(metaservers=3)


@pytest.fixture
def members(group, tidefs_command):
    """``tidefs cluster status --json``: the members by name."""

    def ask(*options):
        done = tidefs_command("cluster", "status", group.folder, "--json", *options, check=False)
        return {one["name"] or one["id"]: one for one in json.loads(done.stdout)["members"]}

    return ask


@pytest.fixture
def leader(members, wait_until):
    """The name of who leads, as soon as somebody does."""

    def find():
        found = []

        def led():
            found[:] = [name for name, one in members().items() if one["role"] == "leader"]
            return found

        wait_until(led)
        return found[0]

    return find


def kill(pid):
    """kill -9, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_for_end([pid], 10_000)


def wipe(cluster, name):
    """Lose a metaserver with its disk."""
    kill(cluster.pids()[name])
    shutil.rmtree(cluster.folder / name / "data")


def agree(cluster, tidefs_command):
    """All members have the same state."""
    done = tidefs_command("cluster", "status", cluster.folder, "--verify", check=False)
    return done.returncode == 0 and "are the same after record" in done.stdout


def test_up_status_down(stage, tidefs_command, wait_until):
    folder = stage / "cluster"
    done = tidefs_command("up", folder, "--metaservers", 3, "--chunkservers", 1)
    (sentence,) = [line for line in done.stdout.splitlines() if "leads" in line]
    assert sentence.split()[0] in METAS
    wait_until(lambda: tidefs_command("status", folder, check=False).returncode == 0)
    report = json.loads(tidefs_command("status", folder, "--json").stdout)
    metaservers = [one for one in report["servers"] if one["role"] == "metaserver"]
    assert [one["name"] for one in metaservers] == METAS
    assert sorted(one["state"] for one in metaservers) == ["follower", "follower", "leader"]
    assert all(one["pid"] for one in metaservers)
    wait_until(lambda: tidefs_command("cluster", "status", folder, "--verify").returncode == 0)
    numbers = tidefs_command("status", folder, "--metrics").stdout
    assert numbers.count("tidefs_up{") == 3
    assert 'name="meta-2"} 1' in numbers

    port = open_cluster(folder).file.members[2].port
    by_address = tidefs_command("cluster", "status", f"127.0.0.1:{port}", "--json").stdout
    assert len(json.loads(by_address)["members"]) == 3, "one address leads to all"

    done = tidefs_command("up", folder, "--metaservers", 5, check=False)
    assert done.returncode == Exit.USAGE
    assert "tidefs cluster add" in done.stderr
    tidefs_command("down", folder)
    done = tidefs_command("cluster", "status", folder, check=False)
    assert done.returncode == Exit.UNREACHABLE
    assert "Traceback" not in done.stderr


def test_a_lost_disk(group, members, tidefs_command, wait_until):
    """It is not made anew by itself; the others go on; a command puts a new one there."""
    old = members()["meta-2"]["id"]
    wipe(group, "meta-2")
    done = tidefs_command("up", group.folder, check=False)
    assert done.returncode == Exit.PARTLY
    assert f"`tidefs cluster replace {group.folder} meta-2`" in done.stderr
    assert "leads (term" in done.stdout
    assert sorted(group.pids("metaserver")) == ["meta-1", "meta-3"]
    assert any("cluster replace" in problem for problem in group.status()["problems"])
    done = tidefs_command("cluster", "status", group.folder, check=False)
    assert done.returncode == Exit.WRONG
    assert "cluster replace" in done.stdout
    refused = tidefs_command("cluster", "remove", group.folder, "meta-1", "meta-3", check=False)
    assert refused.returncode == Exit.UNREACHABLE, refused.stderr
    assert "meta-2" in refused.stderr
    assert sorted(group.pids("metaserver")) == ["meta-1", "meta-3"], "nothing was stopped"

    done = tidefs_command("cluster", "replace", group.folder, "meta-2")
    assert "meta-2 is a member again" in done.stdout
    assert (group.folder / "removed-meta-2").is_dir()
    assert members()["meta-2"]["id"] != old
    wait_until(lambda: agree(group, tidefs_command))
    assert len(members()) == 3

    group.down()
    group.up()
    wait_until(lambda: agree(group, tidefs_command))


def test_a_folder_that_was_deleted_under_its_process(group, members, tidefs_command, wait_until):
    pid = group.pids()["meta-1"]
    shutil.rmtree(group.folder / "meta-1")
    tidefs_command("cluster", "replace", group.folder, "meta-1")
    wait_for_end([pid], 10_000)
    wait_until(lambda: agree(group, tidefs_command))
    assert members()["meta-1"]["pid"] != pid


def test_two_lost_disks_are_too_many(group, tidefs_command):
    wipe(group, "meta-1")
    wipe(group, "meta-3")
    done = tidefs_command("status", group.folder, check=False)
    assert done.returncode == Exit.UNREACHABLE
    assert "1 of 3 answer" in done.stdout
    done = tidefs_command("up", group.folder, check=False)
    assert done.returncode == Exit.FOREIGN
    assert "meta-1 cannot be started" in done.stderr
    assert "Traceback" not in done.stderr


def test_more_and_fewer(group, members, leader, tidefs_command, wait_until):
    """3 to 5, the leader and another one removed, leadership handed over."""
    refused = tidefs_command("cluster", "add", group.folder, "--count", 1, check=False)
    assert refused.returncode == Exit.USAGE
    assert "have 3 or 5" in refused.stderr
    assert not (group.folder / "meta-4").exists()

    done = tidefs_command("cluster", "add", group.folder)
    assert "meta-4, meta-5 are members now" in done.stdout
    assert "survives the loss of 2" in done.stdout
    assert len(members()) == 5
    wait_until(lambda: agree(group, tidefs_command))

    first, second = leader(), "meta-5" if leader() != "meta-5" else "meta-4"
    refused = tidefs_command("cluster", "remove", group.folder, first, check=False)
    assert refused.returncode == Exit.USAGE
    done = tidefs_command("cluster", "remove", group.folder, first, second)
    assert f"{first} is no member any more" in done.stdout
    left = sorted({*METAS, "meta-4", "meta-5"} - {first, second})
    assert sorted(group.pids("metaserver")) == left
    assert sorted(members()) == left
    assert (group.folder / f"removed-{first}").is_dir()
    wait_until(lambda: agree(group, tidefs_command))

    before = leader()
    other = next(name for name in left if name != before)
    assert f"{other} leads now" in tidefs_command("cluster", "transfer", group.folder, other).stdout
    assert leader() == other
    assert "leads now" in tidefs_command("cluster", "transfer", group.folder).stdout
    assert leader() != other


def test_an_interrupted_addition_is_completed(group, members, tidefs_command):
    """The command was killed when the new ones ran, and nobody had been asked yet."""
    new = slots.take_new(open_cluster(group.folder), 2)
    done = tidefs_command("up", group.folder)
    assert "started meta-4, meta-5" in done.stdout
    assert "finishes what was begun" in done.stderr
    assert any("not known to have joined" in text for text in group.status()["problems"])
    done = tidefs_command("cluster", "add", group.folder, "--count", 7)
    assert "completing what was begun: meta-4, meta-5" in done.stderr
    assert len(members()) == 5
    assert {one.server for one in new} <= {int(one["id"], 16) for one in members().values()}
    assert "finishes" not in tidefs_command("up", group.folder).stderr


def test_one_becomes_three(make_cluster, tidefs_command, wait_until):
    cluster = make_cluster()
    tidefs_command("cluster", "add", cluster.folder)
    wait_until(lambda: agree(cluster, tidefs_command))
    kill(cluster.pids()["meta-1"])
    assert "started meta-1\n" in cluster.up().stdout
    tidefs_command("cluster", "remove", cluster.folder, "meta-1", "meta-3")
    assert list(cluster.pids("metaserver")) == ["meta-2"]
    refused = tidefs_command("cluster", "replace", cluster.folder, "meta-2", check=False)
    assert refused.returncode == Exit.USAGE
    assert "the last metaserver" in refused.stderr
    assert list(cluster.pids("metaserver")) == ["meta-2"]


class Load:
    """Somebody who makes, renames and removes files, and counts what an application would see."""

    def __init__(self, point):
        self.point = point
        self.rounds = 0
        self.errors = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    @contextlib.contextmanager
    def running(self):
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join(STOP_S)
        assert not self._thread.is_alive(), "the load waits for the mount"

    def _work(self):
        while not self._stop.is_set() and not self.errors:
            try:
                self._round(self.point / f"round-{self.rounds}")
            except OSError as error:
                self.errors.append((self.rounds, error))
            self.rounds += 1

    def _round(self, folder):
        folder.mkdir()
        (folder / "a").write_text("x" * 100)
        (folder / "a").rename(folder / "b")
        (folder / "c").hardlink_to(folder / "b")
        assert (folder / "c").read_text() == "x" * 100
        (folder / "b").unlink()
        (folder / "c").unlink()
        folder.rmdir()


@pytest.mark.mount
def test_under_load_no_application_notices(group, leader, tidefs_command, wait_until):
    load = Load(group.mount())
    with load.running():
        wait_until(lambda: load.rounds > 5)
        kill(group.pids()[leader()])
        after = load.rounds
        wait_until(lambda: load.rounds > after + 5 or load.errors)
        group.up()
        wipe(group, "meta-2")
        tidefs_command("cluster", "replace", group.folder, "meta-2")
        tidefs_command("cluster", "add", group.folder)
        tidefs_command("cluster", "remove", group.folder, "meta-1", "meta-3")
        tidefs_command("cluster", "transfer", group.folder)
        after = load.rounds
        wait_until(lambda: load.rounds > after + 5 or load.errors)
    assert not load.errors
    assert list(load.point.iterdir()) == []
    wait_until(lambda: agree(group, tidefs_command))


@pytest.mark.mount
def test_a_mount_goes_on_without_one_metaserver(stage, tidefs_command):
    folder, point = stage / "cluster", stage / "mnt"
    point.mkdir()
    tidefs_command("up", folder, "--metaservers", 3, "--chunkservers", 1)
    tidefs_command("down", folder)
    shutil.rmtree(folder / "meta-3" / "data")
    done = tidefs_command("mount", folder, point)
    assert "going on without one metaserver" in done.stderr
    assert "cluster replace" in done.stderr
    (point / "file").write_text("x")
    tidefs_command("umount", point)
