"""Clusters of real processes: up, status, down, and what kills and mistakes do to them."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from tidefs.deploy.cluster import open_cluster
from tidefs.deploy.exits import Exit
from tidefs.deploy.processes import wait_for_end

NAMES = ["meta-1", "chunk-1", "chunk-2", "chunk-3"]


@pytest.fixture
def cluster(make_cluster):
    return make_cluster(chunkservers=3, replicas=3)


def kill(pid):
    """kill -9, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_for_end([pid], 10_000)


def test_up_status_down(cluster, tidefs_command, wait_until):
    wait_until(lambda: cluster.status()["healthy"])
    done = tidefs_command("status", cluster.folder)
    assert "healthy" in done.stdout
    report = cluster.status()
    assert [server["name"] for server in report["servers"]] == NAMES
    for server in report["servers"]:
        assert server["state"] == ("leader" if server["role"] == "metaserver" else "up")
        assert len(server["id"]) == 16
        assert server["addresses"]
        os.kill(server["pid"], 0)
    assert report["replicas"] == 3
    assert report["free_bytes"] > 0

    pids = cluster.pids()
    assert "stopped" in cluster.down().stdout
    assert not any(os.path.exists(f"/proc/{pid}/cwd") for pid in pids.values())
    assert cluster.pids() == {}
    assert "nothing was running" in cluster.down().stdout
    done = tidefs_command("status", cluster.folder, check=False)
    assert done.returncode == Exit.UNREACHABLE
    assert "chunk-2 does not run: `tidefs up" in done.stdout


def test_up_again_starts_what_is_not_running(cluster, tidefs_command):
    before = cluster.pids()
    kill(before["chunk-2"])
    done = tidefs_command("status", cluster.folder, check=False)
    assert done.returncode == Exit.WRONG
    assert "chunk-2 does not run" in done.stdout
    assert "started chunk-2\n" in cluster.up().stdout
    after = cluster.pids()
    assert after.pop("chunk-2") != before.pop("chunk-2")
    assert after == before
    assert "everything was running already" in cluster.up().stdout


def test_everything_killed_comes_up_again(cluster, wait_until):
    for pid in cluster.pids().values():
        kill(pid)
    cluster.up()
    wait_until(lambda: cluster.status()["healthy"])


def test_a_killed_metaserver(cluster, tidefs_command, wait_until):
    kill(cluster.pids()["meta-1"])
    done = tidefs_command("status", cluster.folder, "--json", check=False)
    assert done.returncode == Exit.UNREACHABLE
    report = json.loads(done.stdout)
    assert not report["reachable"]
    states = {server["name"]: server["state"] for server in report["servers"]}
    assert states["meta-1"] == "down"
    assert report["servers"][1]["pid"]
    cluster.up()
    wait_until(lambda: cluster.status()["healthy"])


@pytest.mark.parametrize("address", ["tcp:127.0.0.1:{port}", "127.0.0.1:{port}", "unix:{sock}"])
def test_addresses_are_sources_too(cluster, tidefs_command, address, wait_until):
    found = open_cluster(cluster.folder)
    sock = found.socket_folder() / "meta-1.sock"
    source = address.format(port=found.file.members[0].port, sock=sock)
    wait_until(lambda: tidefs_command("status", source, check=False).returncode == 0)


def test_a_chunkserver_is_no_metaserver(cluster, tidefs_command):
    port = open_cluster(cluster.folder).file.members[1].port
    done = tidefs_command("status", f"127.0.0.1:{port}", check=False)
    assert done.returncode != 0
    assert "a metaserver was looked for, a chunkserver answered" in done.stdout


def test_another_shape_is_refused(cluster, tidefs_command):
    done = tidefs_command("up", cluster.folder, "--chunkservers", "5", check=False)
    assert done.returncode == Exit.USAGE
    assert "made with 3" in done.stderr


def test_a_port_in_use(cluster, tidefs_command):
    cluster.down()
    port = open_cluster(cluster.folder).file.members[0].port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        done = tidefs_command("up", cluster.folder, check=False)
    assert done.returncode == Exit.BUSY
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("role", ["metaserver", "chunkserver"])
def test_one_server_in_the_foreground_and_its_port_in_use(role, cluster, tidefs_command):
    found = open_cluster(cluster.folder)
    member = found.file.of(role)[0]
    home = found.home(member)
    second = home / "second.toml"
    text = (home / "config.toml").read_text()
    text = text.replace(f'"{home}/data"', f'"{home}/other"').replace("/ready", "/ready2")
    second.write_text(text.replace(f'"unix:{found.socket_folder() / member.name}.sock", ', ""))
    if role == "metaserver":
        tidefs_command("metaserver", "--config", second, "--format")
    done = subprocess.run(
        [sys.executable, "-m", "tidefs.deploy", role, "--config", second],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == Exit.CONFIG
    assert str(member.port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("role", ["metaserver", "chunkserver"])
def test_two_servers_on_one_folder(role, cluster):
    """The second must not touch the first one's data."""
    found = open_cluster(cluster.folder)
    member = found.file.of(role)[0]
    home = found.home(member)
    second = home / "second.toml"
    text = (home / "config.toml").read_text().replace("/ready", "/ready2")
    lines = [line for line in text.splitlines() if not line.startswith("listen")]
    second.write_text("\n".join([*lines, f'listen = ["unix:{home}/s"]']))
    done = subprocess.run(
        [sys.executable, "-m", "tidefs.deploy", role, "--config", second],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr


def test_a_server_that_cannot_start_is_named(cluster, tidefs_command):
    cluster.down()
    data = open_cluster(cluster.folder).folder / "chunk-3" / "data"
    data.rename(data.with_name("kept"))
    data.write_text("a file in the way")
    done = tidefs_command("up", cluster.folder, check=False)
    assert done.returncode == Exit.FOREIGN, "as the server says"
    assert "chunk-3 did not start" in done.stderr
    assert "Traceback" not in done.stderr
    data.unlink()
    data.with_name("kept").rename(data)
    assert "started chunk-3\n" in cluster.up().stdout


def test_ups_at_once_start_one_cluster(stage, tidefs_command):
    folder = stage / "cluster"
    done = []

    def up():
        done.append(tidefs_command("up", folder, "--chunkservers", "1", check=False))

    threads = [threading.Thread(target=up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    started = [one.stdout for one in done if "started meta-1, chunk-1" in one.stdout]
    assert len(started) == 1


def test_a_moved_cluster_starts_at_its_new_place(cluster, wait_until):
    cluster.down()
    new = cluster.folder.with_name("moved")
    cluster.folder.rename(new)
    cluster.folder = new
    cluster.up()
    wait_until(lambda: cluster.status()["healthy"])
