"""Campaigns about locks: while leaders are killed, and of a client that is paused."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import late_write
from registry import campaign
from stage import CampaignError, Stage, say, stage, wait_until

WORKER = Path(__file__).with_name("worker.py")
COUNT = 2_000
KILLS = 3


@campaign
def counter(options: argparse.Namespace) -> None:
    """Two mounts count under flock, then under fcntl, while the leader is killed three times."""
    with stage(3, 3, metaservers=3) as cluster:
        points = [cluster.mount("one"), cluster.mount("two")]
        for kind in ("flock", "fcntl"):
            _count(cluster, points, kind)
        cluster.check_status()


def _count(cluster: Stage, points: list[Path], kind: str) -> None:
    paths = [point / f"counter-{kind}" for point in points]
    paths[0].write_bytes(bytes(8))
    workers = [_start("counter", kind, path, COUNT) for path in paths]
    terms = []
    try:
        for number in range(KILLS):
            due = 2 * COUNT * (number + 1) // (KILLS + 1)
            wait_until(
                _counted(paths[0], due, workers), f"{due} are counted under {kind}", timeout_s=600
            )
            leader = cluster.leader()
            cluster.kill(int(str(leader["pid"])))
            terms.append(f"{leader['name']} in term {leader['term']} at {_number(paths[1]):,}")
            cluster.up()
        for worker in workers:
            _, complaint = worker.communicate(timeout=600)
            if worker.returncode != 0:
                raise CampaignError(f"counting under {kind}: {complaint}")
    finally:
        _end(workers)
    found = [_number(path) for path in paths]
    if found != [2 * COUNT] * 2:
        raise CampaignError(f"{kind}: the mounts see {found}, not {2 * COUNT}")
    say(f"{kind}: 2 x {COUNT:,} counted exactly; killed: {', '.join(terms)}")


def _number(path: Path) -> int:
    return int.from_bytes(path.read_bytes(), "little")


def _counted(path: Path, due: int, workers: "list[subprocess.Popen[str]]") -> Callable[[], bool]:
    def look() -> bool:
        if any(worker.poll() for worker in workers):
            raise CampaignError(f"a counter ended: {[worker.poll() for worker in workers]}")
        return _number(path) >= due

    return look


def _start(*words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(WORKER), *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(workers: "list[subprocess.Popen[str]]") -> None:
    for worker in workers:
        worker.kill()
        worker.wait()


class _Holder:
    """A process with one open file, told what to do."""

    def __init__(self, path: Path) -> None:
        self.process = _start("holder", path)

    def tell(self, words: str) -> None:
        """Give an order, and do not wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """What came of the oldest order that was not asked for."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, words: str) -> str:
        """Give an order; its answer."""
        self.tell(words)
        return self.answer()

    def must(self, words: str) -> None:
        """Give an order that must go well."""
        answer = self.do(words)
        if answer != "ok":
            raise CampaignError(f"{words}: {answer}")


SIZE_BYTES = 1 << 20


@campaign
def paused(options: argparse.Namespace) -> None:
    """A client is stopped past its lease: it loses its lock, and its late writes are refused."""
    with stage(3, 3, metaservers=3) as cluster:
        points = [cluster.mount("one"), cluster.mount("two")]
        (points[0] / "shared").write_bytes(b"." * SIZE_BYTES)
        holders = [_Holder(point / "shared") for point in points]
        try:
            _pause(cluster, points, holders)
        finally:
            _end([holder.process for holder in holders])
        cluster.check_status()


def _pause(cluster: Stage, points: list[Path], holders: list[_Holder]) -> None:
    one, two = holders
    one.must("flock")
    one.must(f"write a {SIZE_BYTES}")
    one.must("sync")
    one.must(f"write x {SIZE_BYTES}")  # not synced: still in the memory of who is stopped now
    old = int(one.do("token"))
    client = cluster.client_pid(points[0])
    os.kill(client, signal.SIGSTOP)
    try:
        say(f"the client of mount one is stopped; it holds the lock with token {old}")
        one.tell("write y 10")
        two.must("flock")
        new = int(two.do("token"))
        if new <= old:
            raise CampaignError(f"the new lock has token {new}, the old one {old}")
        say(f"its session expired; mount two has the lock, with token {new}")
        two.must(f"write b {SIZE_BYTES}")
        two.must("sync")
    finally:
        os.kill(client, signal.SIGCONT)
    refused = [one.answer(), *(one.do(words) for words in ("sync", "read 10", "flock"))]
    if set(refused) != {"Input/output error"}:
        raise CampaignError(f"who lost its lock was answered {refused}")
    say("mount one goes on: the write that waited, fsync, read and flock fail with EIO")
    refusal = late_write.refusal(cluster.cluster, points[1] / "shared", old)
    say(f"a late write with the old token to the chunkserver: {refusal}")
    for point in points:
        if (point / "shared").read_bytes() != b"b" * SIZE_BYTES:
            raise CampaignError(f"{point}/shared is not what the last holder wrote")
    say("both mounts read what the holder of the lock wrote, and nothing else")
    again = _Holder(points[0] / "shared")
    try:
        two.must("unlock")
        again.must("flock")
        if int(again.do("token")) <= new:
            raise CampaignError("a later lock has no higher token")
    finally:
        _end([again.process])
    say("a new open of the file on mount one locks it again, with a higher token")
