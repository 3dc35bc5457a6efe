"""`tidefs stats` and `tidefs why`: what a mount tells of itself."""

import json
import os
import signal
import subprocess
import sys

import pytest
from tidefs.deploy.exits import Exit
from tidefs.deploy.stats import line, lines
from tidefs.deploy.why import lines as why_lines

STATS = {
    "mode": "nfs",
    "operations": {"lookup": 1000, "read": 10},
    "waited": {"lookup": 5},
    "round_trips": {"Lookup": 5, "GetAttributes": 2},
    "recalls": 1,
    "dirty_bytes": 4096,
    "open_files": 3,
}


def test_numbers_for_a_person():
    text = "\n".join(lines(STATS))
    assert "mode nfs; 3 files are open, 4,096 bytes not yet on the servers, 1 recalls" in text
    assert "lookup            1,000  99.5 %" in text
    assert "read              10     100.0 %" in text
    assert text.index("Lookup  ") < text.index("GetAttributes")


def test_what_was_done_between_two_looks():
    later = {**STATS, "operations": {"lookup": 1100}, "waited": {"lookup": 30}, "recalls": 4}
    assert line(STATS, later).split() == ["90", "72.2", "%", "0", "3", "4,096"]


def test_a_belief_for_a_person():
    told = {
        "inode": 7,
        "mode": "nfs",
        "attributes": {
            "ground": "until a time",
            "trusted": True,
            "for_ms": 2500,
            "exclusive": False,
            "seen_ms_ago": 100,
            "change": 5,
            "data_version": 2,
        },
        "bytes": {"cached": 4096, "dirty": 0, "version": 2, "openings": 1},
        "locked": False,
    }
    text = "\n".join(why_lines("file", told))
    assert "believed until a time: for 2.5 s more without news (seen 0.1 s ago; change 5" in text
    assert "4,096 in memory, all on the servers; open here 1 time" in text
    assert "open(2), which asks the server" in text
    told["attributes"]["trusted"] = False
    told["bytes"].update(cached=0, dirty=10, openings=0)
    text = "\n".join(why_lines("file", told))
    assert "not believed: asked again when needed" in text
    assert "none in memory, 10 not yet on the servers; not open here" in text


@pytest.mark.mount
@pytest.mark.parametrize("driver", ["kernel", "pyfuse3"])
def test_a_mount_tells(driver, embedded, tidefs_command):
    point = embedded.mount("mnt", "-o", f"driver={driver}")
    before = _stats(tidefs_command, point)
    for number in range(5):
        (point / f"file-{number}").write_bytes(b"x" * 100_000)
    now = _stats(tidefs_command, point / "file-1")
    assert now["mode"] == "nfs"
    assert _done(before, now, "operations", "create") == 5
    assert _done(before, now, "round_trips", "Create") == 5
    assert _done(before, now, "round_trips", "WriteChunk") >= 5
    assert 0 < now["waited"].get("create", 5) <= now["operations"]["create"]
    assert "Create" in tidefs_command("stats", point).stdout
    told = json.loads(tidefs_command("why", point / "file-0", "--json").stdout)
    assert told["bytes"]["cached"] == 100_000
    assert told["attributes"]["trusted"]
    assert "mode nfs" in tidefs_command("why", point / "file-0").stdout
    assert os.getxattr(point / "file-0", "user.tidefs.mode") == b"nfs"
    assert os.listxattr(point / "file-0") == []
    with pytest.raises(PermissionError):
        os.setxattr(point / "file-0", "user.tidefs.stats", b"{}")


@pytest.mark.mount
def test_it_goes_on_telling(embedded):
    point = embedded.mount()
    command = [sys.executable, "-m", "tidefs.deploy", "stats", str(point), "--watch", "50ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert "ROUND TRIPS" in watching.stdout.readline()
        for number in range(3):
            (point / f"file-{number}").touch()
            watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == Exit.INTERRUPTED


def test_what_is_no_mount(tmp_path, tidefs_command):
    for command in ("stats", "why"):
        done = tidefs_command(command, tmp_path, check=False)
        assert done.returncode == Exit.WRONG
        assert f"{tmp_path} is not in a TideFS mount" in done.stderr
        gone = tidefs_command(command, tmp_path / "none", check=False)
        assert gone.returncode == Exit.WRONG
        assert "No such file" in gone.stderr
    done = tidefs_command("stats", tmp_path, "--watch", "soon", check=False)
    assert done.returncode == Exit.USAGE
    assert "--watch" in done.stderr


def _stats(tidefs_command, path):
    return json.loads(tidefs_command("stats", path, "--json").stdout)


def _done(before, now, kind, name):
    return now[kind].get(name, 0) - before[kind].get(name, 0)
