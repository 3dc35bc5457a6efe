"""A leader that is cut off from its group, with real processes in network namespaces.

Each server and each client has a namespace and an address of its own on a bridge; a cut is a
pair of blackhole routes. Nothing outside of the namespaces is touched.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from registry import campaign
from stage import TIDEFS, CampaignError, run, say, wait_until

ROUNDS = 3
CUT_S = 6.0  # well below a session's lease: sessions live on
REGISTER = "user.value"
PORT = 7000


class Net:
    """Namespaces on one bridge, named by the part they play."""

    def __init__(self, parts: list[str]) -> None:
        self._prefix = f"tidefs-{os.getpid()}"
        self._numbers = {part: number for number, part in enumerate(parts, 1)}

    def address(self, part: str) -> str:
        """Its IP address; only known inside of the namespaces."""
        return f"10.77.0.{self._numbers[part]}"

    def inside(self, part: str, *command: str | Path) -> list[str]:
        """The command line that runs ``command`` there (its mounts are seen by everybody)."""
        namespace = f"/run/netns/{self._prefix}-{part}"
        return ["nsenter", f"--net={namespace}", *map(str, command)]

    def __enter__(self) -> "Net":
        run("ip", "netns", "add", f"{self._prefix}-hub")
        run(*self.inside("hub", "ip", "link", "add", "bridge", "type", "bridge"))
        run(*self.inside("hub", "ip", "link", "set", "bridge", "up"))
        for part, number in self._numbers.items():
            namespace = f"{self._prefix}-{part}"
            run("ip", "netns", "add", namespace)
            port = f"port{number}"
            run(
                *self.inside("hub", "ip", "link", "add", port, "type", "veth"),
                *("peer", "name", "eth0", "netns", namespace),
            )
            run(*self.inside("hub", "ip", "link", "set", port, "master", "bridge", "up"))
            run(
                *self.inside(part, "ip", "address", "add", f"{self.address(part)}/24", "dev"),
                "eth0",
            )
            run(*self.inside(part, "ip", "link", "set", "eth0", "up"))
            run(*self.inside(part, "ip", "link", "set", "lo", "up"))
        return self

    def __exit__(self, *_: object) -> None:
        for part in [*self._numbers, "hub"]:
            subprocess.run(["ip", "netns", "delete", f"{self._prefix}-{part}"], check=False)

    def cut(self, one: str, other: str) -> None:
        """Neither hears the other any more; connections stay open and silent."""
        for here, there in ((one, other), (other, one)):
            run(*self.inside(here, "ip", "route", "add", "blackhole", self.address(there)))

    def heal(self, one: str, other: str) -> None:
        """As before."""
        for here, there in ((one, other), (other, one)):
            run(*self.inside(here, "ip", "route", "delete", "blackhole", self.address(there)))


class Seen(NamedTuple):
    """One call on a mount that returned."""

    value: int
    began_s: float
    ended_s: float


class World:
    """Three metaservers, a chunkserver, and two clients with a mount each."""

    metaservers = ("m1", "m2", "m3")
    clients = ("alone", "along")

    def __init__(self, folder: Path, net: Net) -> None:
        self.folder = folder
        self.net = net
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def source(self) -> str:
        """SOURCE for the `tidefs` command."""
        return ",".join(f"{self.net.address(name)}:{PORT}" for name in self.metaservers)

    def point(self, client: str) -> Path:
        """A client's mount point."""
        return self.folder / client

    def start(self) -> None:
        """Format and start the servers, and mount."""
        for number, name in enumerate(self.metaservers, 1):
            config = self._write_config(name, number)
            run(*TIDEFS, "metaserver", "--config", config, "--format")
            self._start(name, "metaserver", config)
        self._start("c1", "chunkserver", self._write_chunkserver_config())
        wait_until(self.leader, "a metaserver leads")
        for client in self.clients:
            self.point(client).mkdir()
            mount = (*TIDEFS, "mount", self.source, self.point(client), "--mode", "uncached")
            run(*self.net.inside(client, *mount))

    def _write_config(self, name: str, number: int) -> Path:
        members = "".join(
            f'[[members]]\nserver = {other}\nhost = "{there}"\n'
            f'addresses = ["tcp:{self.net.address(there)}:{PORT}"]\n'
            for other, there in enumerate(self.metaservers, 1)
        )
        return self._write(
            name,
            f'cluster = "partition"\nserver = {number}\nhost = "{name}"\nreplicas = 1\n'
            f'data = "{self.folder}/{name}/data"\n'
            f'listen = ["tcp:{self.net.address(name)}:{PORT}"]\n{members}',
        )

    def _write_chunkserver_config(self) -> Path:
        addresses = [f"tcp:{self.net.address(name)}:{PORT}" for name in self.metaservers]
        return self._write(
            "c1",
            'cluster = "partition"\nserver = 100\nhost = "c1"\n'
            f'data = "{self.folder}/c1/data"\n'
            f'listen = ["tcp:{self.net.address("c1")}:{PORT}"]\n'
            f"metaservers = {json.dumps(addresses)}\n",
        )

    def _write(self, name: str, text: str) -> Path:
        (self.folder / name / "data").mkdir(parents=True)
        path = self.folder / name / "config.toml"
        path.write_text(text)
        return path

    def _start(self, name: str, role: str, config: Path) -> None:
        with (self.folder / name / "log").open("ab") as log:
            command = self.net.inside(name, *TIDEFS, role, "--config", config)
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def members(self) -> list[dict[str, object]]:
        """`tidefs cluster status --json`, as the client that is never alone sees it."""
        asked = (*TIDEFS, "cluster", "status", self.source, "--json")
        done = subprocess.run(
            self.net.inside("along", *asked), stdout=subprocess.PIPE, text=True, check=False
        )
        found: list[dict[str, object]] = json.loads(done.stdout or '{"members": []}')["members"]
        return found

    def leader(self) -> str:
        """The name of the one that leads in the highest term; empty when none is seen."""
        led = [member for member in self.members() if member["role"] == "leader"]
        if not led:
            return ""
        return str(self.metaservers[int(str(max(led, key=_term)["id"]), 16) - 1])

    def close(self) -> None:
        """Leave nothing behind."""
        for client in self.clients:
            subprocess.run(["umount", "-f", "-l", str(self.point(client))], check=False)
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait()


def _term(member: dict[str, object]) -> int:
    return int(str(member["term"]))


class Client(threading.Thread):
    """Repeats one call on a mount and notes when it returned what."""

    def __init__(self, work: Callable[[int], int], stop: threading.Event) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self.failure = ""
        self._work = work
        self._stop_asked = stop

    def run(self) -> None:
        for number in itertools.count(1):
            if self._stop_asked.wait(0.02):
                return
            began_s = time.monotonic()
            try:
                value = self._work(number)
            except OSError as error:
                self.failure = f"{error}"
                return
            self.seen.append(Seen(value, began_s, time.monotonic()))


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Everything started; everything removed at the end, whatever happened."""
    folder = Path(tempfile.mkdtemp(prefix="tidefs-partition."))
    with Net([*World.metaservers, "c1", *World.clients]) as net:
        made = World(folder, net)
        try:
            made.start()
            yield made
        finally:
            made.close()
    shutil.rmtree(folder, ignore_errors=True)


@campaign
def cut_off(_options: argparse.Namespace) -> None:
    """The leader is cut off from the others but not from one client, which gets no stale answer
    and no acknowledgement that is undone; afterwards all members agree."""
    with world() as cluster:
        for number in range(1, ROUNDS + 1):
            _one_cut(cluster, number)
        say(
            run(
                *cluster.net.inside("along", *TIDEFS, "cluster", "status", cluster.source),
                "--verify",
            )
        )


def _one_cut(cluster: World, number: int) -> None:
    alone, along = (cluster.point(client) / f"round-{number}" for client in cluster.clients)
    along.mkdir()
    register = along / "register"
    register.touch()
    os.setxattr(register, REGISTER, b"0")

    def write(value: int) -> int:
        os.setxattr(register, REGISTER, str(value).encode())
        return value

    def read(_: int) -> int:
        return int(os.getxattr(alone / "register", REGISTER))

    def make(value: int) -> int:
        os.mkdir(alone / f"made-{value}")
        return value

    stop = threading.Event()
    writer, reader, maker = (Client(work, stop) for work in (write, read, make))
    for client in (writer, reader, maker):
        client.start()
    try:
        wait_until(lambda: min(len(c.seen) for c in (writer, reader, maker)) > 20, "all work")
        leader = cluster.leader()
        others = [name for name in cluster.metaservers if name != leader]
        cuts = [(leader, "along"), *((leader, name) for name in others)]
        cuts += [("alone", name) for name in others]
        cut_s = time.monotonic()
        for one, other in cuts:
            cluster.net.cut(one, other)
        wait_until(lambda: time.monotonic() > cut_s + CUT_S, "the cut lasts")
        healed_s = time.monotonic()
        for one, other in cuts:
            cluster.net.heal(one, other)
        before = len(reader.seen), len(maker.seen)
        wait_until(
            lambda: len(reader.seen) > before[0] + 20 and len(maker.seen) > before[1] + 20,
            "the client that was alone goes on",
        )
    finally:
        stop.set()
        for client in (writer, reader, maker):
            client.join()
    for client in (writer, reader, maker):
        if client.failure:
            raise CampaignError(f"round {number}: an application saw {client.failure}")
    _judge(number, writer.seen, reader.seen)
    made = {int(name.partition("-")[2]) for name in os.listdir(along) if name.startswith("made-")}
    undone = [seen.value for seen in maker.seen if seen.value not in made]
    if undone:
        raise CampaignError(f"round {number}: acknowledged and undone: {undone}")
    during = [s for s in writer.seen if cut_s + 2 < s.ended_s < healed_s]
    if not during:
        raise CampaignError(f"round {number}: the majority did not go on without {leader}")
    silent = [s for s in reader.seen if cut_s < s.ended_s < healed_s]
    say(
        f"round {number}: {leader} was cut off for {CUT_S:.0f} s; {len(reader.seen)} reads, none"
        f" stale ({len(silent)} of them during the cut, the last after"
        f" {max((s.ended_s - cut_s for s in silent), default=0.0):.2f} s);"
        f" {len(maker.seen)} changes acknowledged, none undone; meanwhile the others took"
        f" {len(during)} changes"
    )


def _judge(number: int, writes: list[Seen], reads: list[Seen]) -> None:
    """A read that began after a write was acknowledged must not see less."""
    ends = sorted((seen.ended_s, seen.value) for seen in writes)
    for seen in reads:
        known = max((value for ended_s, value in ends if ended_s < seen.began_s), default=0)
        if seen.value < known:
            raise CampaignError(
                f"round {number}: a read that began at {seen.began_s:.3f} gave {seen.value}, but"
                f" {known} had been acknowledged before"
            )
