"""Three metaservers beside one, in one run: changes a second, and syncs of the log for each.

    python tests/bench/group.py [--seconds 3] [--rounds 3]

Callers create empty files over the RPC protocol, each in a slot of its own, one call at a time;
first one caller, then sixteen. Groups of one and of three take turns. Each figure is the median
of the rounds; a sync is an fdatasync of the leader's operation log, counted by the leader.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.handshake import Identity
from tidefs.fs.messages.hello import ANY_CLUSTER, CLIENT
from tidefs.fs.messages.meta import Create, MakeDirectory, OpenSession
from tidefs.fs.messages.raft import GetMetrics
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Mutation, Peer, connect, no_requests

TIDEFS = [sys.executable, "-m", "tidefs.deploy"]
CALLERS = (1, 16)
ROOT = 1
SYNCS = "log_syncs_total"


class Measured(NamedTuple):
    """One stretch of work."""

    per_second: float
    syncs_per_change: float


@contextlib.contextmanager
def group(folder: Path, metaservers: int) -> Iterator[str]:
    """A running cluster; the address of its leader."""
    up = [*TIDEFS, "up", str(folder), "--metaservers", str(metaservers)]
    subprocess.run([*up, "--chunkservers", "1", "--replicas", "1"], check=True, capture_output=True)
    try:
        yield leader_address(folder)
    finally:
        subprocess.run([*TIDEFS, "down", str(folder)], check=False, capture_output=True)


def leader_address(folder: Path) -> str:
    """Where the leader listens, from `tidefs cluster status`."""
    asked = [*TIDEFS, "cluster", "status", str(folder), "--json"]
    members = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)["members"]
    name = next(member["name"] for member in members if member["role"] == "leader")
    return f"unix:{folder}/run/{name}.sock"


class Creator:
    """One session on the leader, and the folder that its files go to."""

    def __init__(self, peer: Peer, session: int, directory: int) -> None:
        self.peer = peer
        self.session = session
        self.directory = directory
        self._sequences = [1] * 64
        self._made = 0
        self.suffix = b""
        """Of every name: long names make a long log."""

    async def create(self, slot: int) -> None:
        """One more empty file."""
        self._made += 1
        self._sequences[slot] += 1
        request = Create(
            parent=self.directory,
            name=b"file-%d" % self._made + self.suffix,
            kind=Kind.FILE,
            mode=0o644,
            uid=0,
            gid=0,
            device=0,
            exclusive=True,
            open=False,
        )
        mutation = Mutation(self.session, slot, self._sequences[slot])
        await self.peer.call(request, mutation=mutation)

    async def syncs(self) -> float:
        """How often the leader has synced its log so far."""
        metrics = await self.peer.call(GetMetrics())
        return dict(metrics.values)[SYNCS]

    async def work(self, callers: int, seconds: float) -> Measured:
        """So many callers, for so long."""
        before, made = await self.syncs(), self._made
        began = time.monotonic()
        with trio.move_on_after(seconds * 2):
            async with trio.open_nursery() as nursery:
                for slot in range(callers):
                    nursery.start_soon(self._repeat, slot, began + seconds)
        took_s, made = time.monotonic() - began, self._made - made
        return Measured(made / took_s, (await self.syncs() - before) / made)

    async def _repeat(self, slot: int, end: float) -> None:
        while time.monotonic() < end:
            await self.create(slot)

    async def work_until(self, callers: int, count: int) -> None:
        """Until so many files are there."""

        async def repeat(slot: int) -> None:
            while self._made < count:
                await self.create(slot)

        async with trio.open_nursery() as nursery:
            for slot in range(callers):
                nursery.start_soon(repeat, slot)


async def open_creator(address: str, nursery: trio.Nursery, name: bytes) -> Creator:
    """A connection, a session, a directory."""
    ports = Ports(RealClock(), RealRandomness(), None, RealNetwork())  # type: ignore[arg-type]
    hello = Identity(ANY_CLUSTER, CLIENT, 0).hello()
    peer = await connect(ports, address, hello, no_requests, nursery)
    nonce = ports.randomness.bytes(16)
    opened = await peer.call(OpenSession(nonce, "bench", 1))
    made = await peer.call(
        MakeDirectory(parent=ROOT, name=name, mode=0o755, uid=0, gid=0),
        mutation=Mutation(opened.session, 0, 1),
    )
    return Creator(peer, opened.session, made.attributes.inode)


async def measure(addresses: dict[int, str], rounds: int, seconds: float) -> None:
    """Take turns, and print the table."""
    found: dict[tuple[int, int], list[Measured]] = {}
    async with trio.open_nursery() as nursery:
        creators = {
            members: await open_creator(address, nursery, b"bench")
            for members, address in addresses.items()
        }
        for _ in range(rounds):
            for callers in CALLERS:
                for members, creator in creators.items():
                    measured = await creator.work(callers, seconds)
                    found.setdefault((members, callers), []).append(measured)
        nursery.cancel_scope.cancel()
    for callers in CALLERS:
        rates = {}
        for members in addresses:
            measured_here = found[members, callers]
            rates[members] = statistics.median(m.per_second for m in measured_here)
            syncs = statistics.median(m.syncs_per_change for m in measured_here)
            sys.stdout.write(
                f"{callers:3} callers, {members} members: {rates[members]:8,.0f} creates/s,"
                f" {syncs:.3f} syncs of the leader's log for each\n"
            )
        sys.stdout.write(
            f"{callers:3} callers: three members are {rates[3] / rates[1]:.2f} of one\n"
        )


def main() -> int:
    """See the module's docstring, which is the help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidefs-bench.") as name:
        folder = Path(name)
        with group(folder / "one", 1) as one, group(folder / "three", 3) as three:
            trio.run(measure, {1: one, 3: three}, options.rounds, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
