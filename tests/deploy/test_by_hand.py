"""Metaservers with configuration files of a person, as on several machines."""

import json
import subprocess
import sys

import pytest
from tidefs.deploy.cluster import free_ports
from tidefs.deploy.exits import Exit

CLUSTER = "b9f1c2d3e4a50617"


class Server:
    """One metaserver, on a port of its own."""

    def __init__(self, folder, server, port):
        self.folder = folder / f"server-{server}"
        self.folder.mkdir()
        self.id = f"{server:016x}"
        self.server = server
        self.address = f"tcp:127.0.0.1:{port}"
        self.process = None

    def write(self, founders):
        lines = [
            f'cluster = "{CLUSTER}"',
            f"server = {self.server}",
            'host = "here"',
            f'data = "{self.folder}/data"',
            f'listen = ["{self.address}"]',
            f'ready_file = "{self.folder}/ready"',
            "replicas = 1",
        ]
        for one in founders:
            lines += ["", "[[members]]", f"server = {one.server}", 'host = "here"']
            lines += [f'addresses = ["{one.address}"]']
        (self.folder / "config.toml").write_text("\n".join(lines) + "\n")
        return self.folder / "config.toml"

    def start(self):
        config = self.folder / "config.toml"
        (self.folder / "ready").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tidefs.deploy", "metaserver", "--config", config],
                stdout=log,
                stderr=log,
            )

    def is_ready(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return (self.folder / "ready").exists()

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def servers(tmp_path):
    """Five metaservers that nobody has formatted."""
    ports = free_ports(5)
    made = [Server(tmp_path, 0x1111 * number, port) for number, port in enumerate(ports, 1)]
    yield made
    for one in made:
        one.kill()


def test_a_group_of_three_and_a_new_machine(servers, tidefs_command, wait_until):
    founders, joiners = servers[:3], servers[3:]
    for one in founders:
        config = one.write(founders)
        assert "formatted" in tidefs_command("metaserver", "--config", config, "--format").stdout
        one.start()
    for one in joiners:
        config = one.write([])
        tidefs_command("metaserver", "--config", config, "--format", "--join")
        one.start()
    wait_until(lambda: all(one.is_ready() for one in servers))
    source = founders[0].address.removeprefix("tcp:")

    def cluster(command, *arguments, check=True):
        return tidefs_command("cluster", command, source, *arguments, check=check)

    wait_until(lambda: cluster("status", check=False).returncode == 0)
    waiting = tidefs_command("cluster", "status", joiners[0].address, "--json", check=False)
    assert json.loads(waiting.stdout)["members"][0]["role"] == "joining"

    refused = cluster("add", "--address", joiners[0].address, check=False)
    assert refused.returncode == Exit.USAGE
    assert "have 3 or 5" in refused.stderr

    lost = founders[2]
    lost.kill()
    done = cluster("replace", lost.id, "--address", joiners[0].address)
    assert f"server {joiners[0].id} has taken the place of {lost.id}" in done.stdout
    ids = {one["id"] for one in json.loads(cluster("status", "--json").stdout)["members"]}
    assert ids == {founders[0].id, founders[1].id, joiners[0].id}

    lost.start()  # it comes back, though it is no member any more
    wait_until(lost.is_ready)
    refused = cluster(
        "add", "--address", lost.address, "--address", joiners[1].address, check=False
    )
    assert refused.returncode == Exit.USAGE
    assert "is not waiting to join a group" in refused.stderr
    assert len(json.loads(cluster("status", "--json", check=False).stdout)["members"]) == 3

    cluster("transfer", joiners[0].id)
    wait_until(lambda: cluster("status", "--verify", check=False).returncode == 0)
