"""`tidefs semantics`: litmus tests on a real cluster, and nothing left behind."""

import json
import os
import signal
import subprocess

import pytest
from click.testing import CliRunner
from tidefs.client import mount_point
from tidefs.client.mounts import mounts
from tidefs.deploy.cli import tidefs
from tidefs.deploy.exits import Exit
from tidefs.deploy.holds import holds
from tidefs.deploy.semantics_mounts import FOLDER_PREFIX
from tidefs.tests.conftest import TIDEFS

QUICK = ["own-write", "read-after-close", "last-close", "store-buffering", "locked-update"]


def only(*names):
    return [word for name in names for word in ("--only", name)]


def refused(exit_code, *arguments):
    """The one sentence of a command that must fail with that code."""
    result = CliRunner().invoke(tidefs, ["semantics", *map(str, arguments)])
    assert result.exit_code == exit_code, result.output
    (sentence,) = [line for line in result.output.splitlines() if line.startswith("tidefs: ")]
    return sentence


@pytest.fixture
def nothing_is_left(tmp_path, monkeypatch):
    """Mount points are made below a folder of the test; a check that all is taken away."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def check(cluster):
        assert not [mount for mount in mounts() if FOLDER_PREFIX in mount.point]
        assert not list(tmp_path.glob(f"{FOLDER_PREFIX}*"))
        assert not [one for one in holds(cluster.folder) if FOLDER_PREFIX in one.mount_point]
        point = cluster.mount("look")
        assert os.listdir(point) == []
        cluster.umount(point)

    return check


@pytest.mark.mount
def test_both_modes(make_cluster, tidefs_command, nothing_is_left):
    cluster = make_cluster()
    report = cluster.folder.parent / "report.html"
    chosen = [*only(*QUICK, "create-seen"), "--modes", "nfs,uncached", "--rounds", "1"]
    done = tidefs_command(
        "semantics", cluster.folder, *chosen, "--json", "--report", report, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {(one["test"], one["mode"]): one for one in json.loads(done.stdout)["results"]}
    assert len(found) == 2 * (len(QUICK) + 1)
    for one in found.values():
        assert one["observed"]
        assert set(one["observed"]) <= set(one["allowed"])
        assert one["round_trips"] is not None
    assert found["create-seen", "nfs"]["observed"] == {"not yet": 1}
    assert found["create-seen", "nfs"]["stale_us"] > 1_000_000
    assert found["create-seen", "uncached"]["stale_us"] == 0
    assert found["last-close", "nfs"]["observed"] == {"A's": 1}
    assert found["last-close", "uncached"]["observed"] == {"B's": 1}
    assert found["store-buffering", "nfs"]["round_trips"] == 0
    text = report.read_text()
    assert text.count("<svg") == len(found)
    assert str(cluster.folder) in text
    nothing_is_left(cluster)


@pytest.mark.mount
def test_what_one_mode_allows_is_forbidden_in_another(make_cluster, tidefs_command):
    """The old bytes that `nfs` shows are seen: an expectation that nothing breaks were none."""
    cluster = make_cluster()
    done = tidefs_command(
        "semantics",
        cluster.folder,
        *only("already-open", "store-buffering"),
        *("--modes", "nfs", "--rounds", "1", "--as-if", "strict"),
        check=False,
    )
    assert done.returncode == Exit.WRONG
    for name in ("already-open", "store-buffering"):
        assert f"FORBIDDEN: nfs, {name}: " in done.stdout
    assert "Promised by strict" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.mount
def test_the_leader_dies(stage, tidefs_command, make_cluster, nothing_is_left):
    cluster = make_cluster(metaservers=3)
    chosen = ["--modes", "nfs", "--rounds", "2", "--steps", "--kill-leader"]
    before = cluster.pids("metaserver")
    done = tidefs_command("semantics", cluster.folder, *only("leader-dies"), *chosen)
    assert "the leader is killed" in done.stdout
    assert "the leader was killed 2 times" in done.stderr
    after = cluster.pids("metaserver")
    assert after.keys() == before.keys(), "all run again"
    assert 1 <= sum(after[name] != before[name] for name in after) <= 2
    nothing_is_left(cluster)


@pytest.mark.mount
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("lines", [1, 2], ids=["while it mounts", "while it tries"])
def test_interrupted(lines, number, make_cluster, nothing_is_left):
    cluster = make_cluster()
    words = ["semantics", str(cluster.folder), "--rounds", "20", *only("own-write", "iriw")]
    with subprocess.Popen(
        [*TIDEFS, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stderr.readline().startswith("uncached: mounting")
        assert lines == 1 or "own-write" in running.stderr.readline()
        running.send_signal(number)
        said = running.stderr.read()
    assert running.returncode == Exit.INTERRUPTED
    assert "interrupted" in said
    assert "Traceback" not in said
    nothing_is_left(cluster)


@pytest.mark.mount
def test_a_cluster_that_does_not_run_runs_meanwhile(embedded, tidefs_command, nothing_is_left):
    embedded.umount(embedded.mount())
    tidefs_command("semantics", embedded.folder, *only("own-write"), "--rounds", "1")
    assert embedded.pids() == {}
    nothing_is_left(embedded)


def test_mistakes(tmp_path):
    assert "there is no cluster" in refused(Exit.FOREIGN, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    address = "127.0.0.1:1"
    assert "name the cluster's folder" in refused(Exit.USAGE, address, "--kill-leader")
    assert "'telepathic' is no mode" in refused(Exit.USAGE, address, "--modes", "nfs,telepathic")
    missing = tmp_path / "none" / "report.html"
    assert "make it first" in refused(Exit.LACKING, address, "--report", missing)
    result = CliRunner().invoke(tidefs, ["semantics", address, "--only", "telepathy"])
    assert result.exit_code == Exit.USAGE
    assert "read-after-close" in result.output, "it says what there is"


def test_a_machine_without_fuse(tmp_path, monkeypatch):
    monkeypatch.setattr(mount_point, "FUSE_DEVICE", str(tmp_path / "fuse"))
    assert "modprobe fuse" in refused(Exit.LACKING, "127.0.0.1:1")


@pytest.mark.mount
def test_servers_that_are_away(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    sentence = refused(Exit.UNREACHABLE, "127.0.0.1:1", *only("own-write"))
    assert "tcp:127.0.0.1:1" in sentence
    assert not list(tmp_path.iterdir())
