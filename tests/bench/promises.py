"""What one write costs when many sessions were promised the file that it changes.

    python tests/bench/promises.py [--sessions 1000] [--rounds 5]

All sessions live in this process, each with a connection of its own, and answer their Recall at
once. Times are those of one SetAttributes of another session, from its request to its reply, so
this process' own work for a Recall is in them. CPU and memory are the leader's. One row of Markdown
for each round's median: nobody was promised the file, one session was, all were.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import trio
from group import Creator, group, open_creator
from tidefs.fs.handshake import Identity
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.hello import ANY_CLUSTER, CLIENT
from tidefs.fs.messages.meta import GetAttributes, KeepAlive, OpenSession, SetAttributes
from tidefs.fs.messages.promises import Recall
from tidefs.fs.messages.raft import GetMember, GetMetrics
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Incoming, Mutation, Peer, connect

KEEP_ALIVE_S = 3.0


class Cost(NamedTuple):
    """Of one write."""

    took_ms: float
    cpu_ms: float


class Promisee:
    """A session that believes what it is promised."""

    def __init__(self, peer: Peer, session: int) -> None:
        self.peer = peer
        self.session = session

    async def keep_alive(self) -> None:
        while True:
            await self.peer.call(KeepAlive(self.session))
            await trio.sleep(KEEP_ALIVE_S)


def give_up(incoming: Incoming) -> None:
    """Believe it no more."""
    assert isinstance(incoming.request, Recall)
    incoming.reply(Done())


async def open_promisee(ports: Ports, address: str, nursery: trio.Nursery) -> Promisee:
    hello = Identity(ANY_CLUSTER, CLIENT, 0).hello()
    peer = await connect(ports, address, hello, give_up, nursery)
    opened = await peer.call(OpenSession(ports.randomness.bytes(16), "bench", 1, promises=True))
    return Promisee(peer, opened.session)


def cpu_ms(pid: int) -> float:
    """What the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


class Bench:
    """One writer, and those who may be promised its file."""

    def __init__(self, writer: Creator, pid: int, inode: int, promisees: list[Promisee]) -> None:
        self._writer = writer
        self._pid = pid
        self._inode = inode
        self._promisees = promisees
        self._sequence = 1

    async def write(self) -> Cost:
        self._sequence += 1
        mutation = Mutation(self._writer.session, 1, self._sequence)
        request = SetAttributes(self._inode, mtime_now=True)
        used, began = cpu_ms(self._pid), time.perf_counter()
        await self._writer.peer.call(request, mutation=mutation)
        took = time.perf_counter() - began
        return Cost(took * 1000, cpu_ms(self._pid) - used)

    async def promise(self, count: int) -> None:
        """Have the file promised to so many."""
        for promisee in self._promisees[:count]:
            assert (await promisee.peer.call(GetAttributes(self._inode))).promised

    async def row(self, count: int, rounds: int) -> str:
        costs = []
        for _ in range(rounds):
            await self.promise(count)
            costs.append(await self.write())
        took, cpu = (statistics.median(column) for column in zip(*costs, strict=True))
        return f"| {count:,} | {took:,.1f} | {cpu:,.0f} |"


async def measure(address: str, sessions: int, rounds: int) -> None:
    """Print the table."""
    ports = Ports(RealClock(), RealRandomness(), None, RealNetwork())  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        writer = await open_creator(address, nursery, b"promises")
        inode = writer.directory
        pid = (await writer.peer.call(GetMember())).pid
        before = resident_kib(pid)
        promisees = [await open_promisee(ports, address, nursery) for _ in range(sessions)]
        for promisee in promisees:
            nursery.start_soon(promisee.keep_alive)
        connected = resident_kib(pid)
        bench = Bench(writer, pid, inode, promisees)
        sys.stdout.write(
            "| sessions promised | one write, ms | leader's CPU, ms |\n|---:|---:|---:|\n"
        )
        for count in (0, 1, sessions):
            sys.stdout.write(await bench.row(count, rounds) + "\n")
        told = dict((await writer.peer.call(GetMetrics())).values)
        sys.stdout.write(
            f"\nleader: {before:,} KiB resident, {connected - before:,} more with {sessions:,}"
            f" sessions, {resident_kib(pid) - connected:,} more at the end;"
            f" {told['recalls_sent_total']:,.0f} recalls sent,"
            f" the longest took {told['recall_longest_ms']:,.0f} ms\n"
        )
        nursery.cancel_scope.cancel()


def main() -> int:
    """See the module's docstring, which is the help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="tidefs-bench.") as name,
        group(Path(name) / "one", 1) as address,
    ):
        trio.run(measure, address, options.sessions, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
