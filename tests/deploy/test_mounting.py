"""`tidefs mount` and `umount`: the cluster behind a folder comes and goes with its mounts."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from tidefs.deploy.exits import Exit
from tidefs.deploy.holds import holds
from tidefs.deploy.processes import wait_for_end

pytestmark = pytest.mark.mount

both_drivers = pytest.mark.parametrize("driver", ["kernel", "pyfuse3"])


@both_drivers
def test_a_folder_is_mounted_and_is_all_there_the_next_time(driver, embedded, tidefs_command):
    point = embedded.mount("mnt", "-o", f"driver={driver}")
    assert os.path.ismount(point)
    assert embedded.status()["mounts"][0]["driver"] == driver
    assert f", {driver} driver)" in tidefs_command("status", embedded.folder).stdout
    (point / "hello").write_text("world")
    assert sorted(embedded.pids()) == ["chunk-1", "meta-1"]
    embedded.umount(point)
    assert not os.path.ismount(point)
    assert os.listdir(point) == []
    assert embedded.pids() == {}, "it ends with its last mount"
    embedded.mount()
    assert (point / "hello").read_text() == "world"


def test_what_it_says(embedded, tidefs_command):
    point = embedded.folder.parent / "mnt"
    point.mkdir()
    done = tidefs_command("mount", embedded.folder, point)
    assert f"made a new file system in {embedded.folder}" in done.stderr
    assert f"mounted {embedded.folder} on {point}" in done.stdout
    assert f"tidefs umount {point}" in done.stdout


def test_the_last_of_two_mounts_ends_it(embedded):
    one, two = embedded.mount("one"), embedded.mount("two")
    (one / "file").write_text("x")
    assert (two / "file").read_text() == "x"
    embedded.umount(one)
    assert len(embedded.pids()) == 2
    assert (two / "file").read_text() == "x"
    embedded.umount(two)
    assert embedded.pids() == {}


def test_mounts_at_once(embedded, tidefs_command):
    points = [embedded.folder.parent / f"m{number}" for number in range(3)]
    done = []

    def mount(point):
        point.mkdir()
        done.append(tidefs_command("mount", embedded.folder, point, check=False))

    threads = [threading.Thread(target=mount, args=[point]) for point in points]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    assert len(embedded.pids()) == 2
    (points[0] / "file").write_text("x")
    assert [(point / "file").read_text() for point in points] == ["x"] * 3


def test_one_that_up_started_stays(make_cluster):
    cluster = make_cluster()
    point = cluster.mount()
    cluster.umount(point)
    assert len(cluster.pids()) == 2


def test_down_is_refused_while_it_is_mounted(embedded, tidefs_command):
    point = embedded.mount()
    done = tidefs_command("down", embedded.folder, check=False)
    assert done.returncode == Exit.BUSY
    assert str(point) in done.stderr


def test_files_wait_while_the_servers_are_down(make_cluster):
    cluster = make_cluster()
    point = cluster.mount()
    (point / "before").write_text("x")
    cluster.down("--force")
    written = threading.Thread(target=(point / "after").write_text, args=["y"], daemon=True)
    written.start()
    cluster.up()
    written.join(60)
    assert not written.is_alive()
    assert (point / "after").read_text() == "y"


def test_a_busy_mount_point(embedded, tidefs_command):
    point = embedded.mount()
    done = tidefs_command("mount", embedded.folder, point, check=False)
    assert done.returncode == Exit.BUSY
    assert str(embedded.folder) in done.stderr
    assert "tidefs umount" in done.stderr
    assert os.path.ismount(point)


def test_a_mount_point_of_somebody_else(embedded, tidefs_command):
    done = tidefs_command("mount", embedded.folder, "/proc", check=False)
    assert done.returncode == Exit.BUSY
    assert "proc" in done.stderr
    assert not embedded.folder.exists(), "nothing was made"


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_mount_point_that_is_none(kind, embedded, tidefs_command):
    point = embedded.folder.parent / "point"
    if kind == "file":
        point.write_text("")
    done = tidefs_command("mount", embedded.folder, point, check=False)
    assert done.returncode == Exit.LACKING
    assert str(point) in done.stderr
    assert not embedded.folder.exists()


@pytest.mark.parametrize("where", [".", "tide"])
def test_a_mount_may_not_hide_its_own_folder(where, stage, tidefs_command):
    (stage / "tide").mkdir()
    done = tidefs_command("mount", stage / "tide", stage / where, check=False)
    assert done.returncode == Exit.USAGE
    assert "hide" in done.stderr
    assert not list((stage / "tide").iterdir())


def test_a_foreign_folder(stage, tidefs_command):
    (stage / "mine").mkdir()
    (stage / "mine" / "thesis.tex").write_text("all of it")
    (stage / "mnt").mkdir()
    done = tidefs_command("mount", stage / "mine", stage / "mnt", check=False)
    assert done.returncode == Exit.FOREIGN
    assert "thesis.tex" in done.stderr
    assert os.listdir(stage / "mine") == ["thesis.tex"]


def test_nobody_at_that_address(stage, tidefs_command):
    (stage / "mnt").mkdir()
    done = tidefs_command("mount", "127.0.0.1:1", stage / "mnt", check=False)
    assert done.returncode == Exit.UNREACHABLE
    assert "127.0.0.1:1" in done.stderr
    assert not os.path.ismount(stage / "mnt")


@pytest.mark.parametrize(
    "options", [["-o", "frobnicate"], ["-o", "timeout=soon"], ["-o", "hard,soft"]]
)
def test_unknown_options(options, embedded, tidefs_command):
    point = embedded.folder.parent / "mnt"
    point.mkdir()
    done = tidefs_command("mount", embedded.folder, point, *options, check=False)
    assert done.returncode in (Exit.USAGE, Exit.CONFIG)
    assert "Traceback" not in done.stderr
    assert not embedded.folder.exists()


def test_umount_of_what_is_not_mounted(stage, tidefs_command):
    done = tidefs_command("umount", stage, check=False)
    assert done.returncode == Exit.WRONG
    assert "not mounted" in done.stderr


def test_umount_of_somebody_elses(tidefs_command):
    done = tidefs_command("umount", "/proc", check=False)
    assert done.returncode != 0
    assert "proc" in done.stderr
    assert os.path.ismount("/proc")


@both_drivers
def test_umount_while_a_file_is_open(driver, embedded, tidefs_command):
    point = embedded.mount("mnt", "-o", f"driver={driver}")
    with (point / "open").open("w"):
        done = tidefs_command("umount", point, check=False)
        assert done.returncode == Exit.BUSY
        assert str(os.getpid()) in done.stderr
    embedded.umount(point)


@both_drivers
def test_a_killed_client_is_replaced_by_the_next_mount(driver, embedded):
    point = embedded.mount("mnt", "-o", f"driver={driver}")
    (point / "closed").write_text("x")
    (hold,) = holds(embedded.folder)
    os.kill(hold.pid, signal.SIGKILL)
    wait_for_end([hold.pid], 10_000)
    with pytest.raises(OSError, match="not connected"):
        os.listdir(point)
    embedded.mount("mnt", "-o", f"driver={driver}")
    assert (point / "closed").read_text() == "x"


def test_everything_killed_at_once_is_mounted_again(embedded):
    point = embedded.mount()
    with (point / "synced").open("w") as file:
        file.write("x" * 100_000)
        file.flush()
        os.fsync(file.fileno())
    (hold,) = holds(embedded.folder)
    pids = [*embedded.pids().values(), hold.pid]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        wait_for_end([pid], 10_000)
    embedded.mount()
    assert (point / "synced").read_text() == "x" * 100_000


def test_one_server_of_three_killed(make_cluster, wait_until):
    cluster = make_cluster(chunkservers=3, replicas=3)
    point = cluster.mount()
    (point / "before").write_bytes(b"b" * 1_000_000)
    pid = cluster.pids()["chunk-1"]
    os.kill(pid, signal.SIGKILL)
    wait_for_end([pid], 10_000)
    assert (point / "before").read_bytes() == b"b" * 1_000_000
    (point / "after").write_bytes(b"a" * 1_000_000)
    assert (point / "after").read_bytes() == b"a" * 1_000_000
    assert any("chunk-1 does not run" in problem for problem in cluster.status()["problems"])
    cluster.up()
    wait_until(lambda: cluster.status()["healthy"])


def test_umount_after_a_killed_client_ends_the_cluster(embedded):
    point = embedded.mount()
    (hold,) = holds(embedded.folder)
    os.kill(hold.pid, signal.SIGKILL)
    wait_for_end([hold.pid], 10_000)
    embedded.umount(point)
    assert not os.path.ismount(point)
    assert embedded.pids() == {}


def test_without_libfuse_the_kernel_driver_is_all_that_is_needed(embedded, stage):
    """And pyfuse3, when it is asked for, is said to be missing."""
    point = stage / "mnt"
    point.mkdir()
    (stage / "pyfuse3.py").write_text("raise ImportError('no libfuse here')")
    surroundings = {**os.environ, "PYTHONPATH": str(stage)}
    command = [sys.executable, "-m", "tidefs.deploy", "mount", embedded.folder, point]
    subprocess.run(command, env=surroundings, check=True, capture_output=True)
    embedded.umount(point)
    refused = subprocess.run(
        [*command, "-o", "driver=pyfuse3"],
        env=surroundings,
        check=False,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == Exit.LACKING
    assert "no libfuse here" in refused.stderr
    assert "pip install pyfuse3" in refused.stderr


class Listener:
    """What sd_notify(3) talks to."""

    def __init__(self, path):
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(60)

    def wait_for(self, line):
        heard = ""
        while line not in heard:
            heard = self._socket.recv(4096).decode()

    def close(self):
        self._socket.close()


@both_drivers
def test_in_the_foreground_until_it_is_told_to_end(driver, embedded, stage):
    point = stage / "mnt"
    point.mkdir()
    listener = Listener(stage / "notify")
    words = ["mount", embedded.folder, point, "--foreground", "-o", f"driver={driver}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tidefs.deploy", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "NOTIFY_SOCKET": listener.path},
    )
    try:
        listener.wait_for("READY=1")
        (point / "file").write_text("x")
        process.send_signal(signal.SIGTERM)
        listener.wait_for("STOPPING=1")
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "Traceback" not in said
        assert f"by the {driver} driver" in said
    finally:
        process.kill()
        process.communicate()
        listener.close()
    assert not os.path.ismount(point)
    assert embedded.pids() == {}


def kill_while_writing(cluster, point):
    """The servers are away, and whoever has written 5,000,000 bytes dies before it closes."""
    script = "import signal, sys; f = open(sys.argv[1], 'wb', 0); f.write(b'x' * 5_000_000)"
    script += "; print('written', flush=True); signal.pause()"
    writer = subprocess.Popen(
        [sys.executable, "-c", script, point / "file"], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout.readline() == "written\n"
        cluster.down("--force")
        writer.kill()


def test_umount_says_what_it_waits_for(make_cluster):
    cluster = make_cluster()
    point = cluster.mount("mnt", "-o", "driver=kernel")
    kill_while_writing(cluster, point)
    asking = subprocess.Popen(
        [sys.executable, "-m", "tidefs.deploy", "umount", point],
        stderr=subprocess.PIPE,
        text=True,
    )
    with asking:
        said = asking.stderr.readline()
        assert "4.8 MiB to be written" in said
        assert "meta-1.sock" in said
        cluster.up()
        assert asking.wait(60) == 0
    assert cluster.mount() == point
    assert (point / "file").read_bytes() == b"x" * 5_000_000


def test_umount_fails_when_something_is_lost(make_cluster, tidefs_command):
    cluster = make_cluster()
    point = cluster.mount("mnt", "-o", "soft,timeout=500ms,driver=kernel")
    kill_while_writing(cluster, point)
    done = tidefs_command("umount", point, check=False)
    assert done.returncode == Exit.WRONG
    assert "lost" in done.stderr
    assert not os.path.ismount(point)


def test_the_addresses_of_a_cluster_can_be_mounted(make_cluster, tidefs_command, stage):
    cluster = make_cluster()
    address = cluster.status()["servers"][0]["addresses"][1].removeprefix("tcp:")
    point = stage / "by-address"
    point.mkdir()
    tidefs_command("mount", address, point)
    (point / "file").write_text("x")
    tidefs_command("umount", point)
    assert not os.path.ismount(point)
    assert (cluster.mount() / "file").read_text() == "x"
