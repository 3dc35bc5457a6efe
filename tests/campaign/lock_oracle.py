"""Random locks of processes on two mounts, beside the same ones on a local file: the kernel's own
file locks are the model."""

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from registry import campaign
from stage import CampaignError, say, stage

LOCKER = Path(__file__).parents[1] / "mount" / "locker.py"
LOCKERS = 4
STEPS = 4_000
PLACES = 12
"""Locks begin and end at few places, so that they touch, overlap and cover each other."""

HELD = "! EAGAIN"


class _Locker:
    """A process that has one file open on a mount and one on the local disk."""

    def __init__(self, tide: Path, local: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(LOCKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.paths = {"tide": tide, "local": local}
        self.both("open_(PATH, NAME)")

    def both(self, order: str) -> tuple[str, str]:
        """The answers for the file on the mount and the one on the disk; NAME stands for each."""
        tide, local = (self._ask(order, name) for name in ("tide", "local"))
        return tide, local

    def _ask(self, order: str, name: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        text = order.replace("NAME", repr(name)).replace("PATH", repr(str(self.paths[name])))
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@campaign
def locks(options: argparse.Namespace) -> None:
    """4,000 random locks of three kinds by processes on two mounts, as on a local disk."""
    with stage(3, 3, metaservers=3) as cluster, tempfile.TemporaryDirectory() as folder:
        points = [cluster.mount("one"), cluster.mount("two")]
        local = Path(folder) / "local"
        lockers = [_Locker(points[n % 2] / "locked", local) for n in range(LOCKERS)]
        try:
            refused = _walk(lockers, random.Random(options.seed))
        finally:
            for locker in lockers:
                locker.process.kill()
                locker.process.wait()
        cluster.check_status()
    say(f"{STEPS:,} steps of {LOCKERS} processes, {refused} refused, each as on the local disk")


def _walk(lockers: list[_Locker], dice: random.Random) -> int:
    refused = 0
    history: list[str] = []
    for _ in range(STEPS):
        number = dice.randrange(LOCKERS)
        order = _order(dice)
        history.append(f"process {number}: {order}")
        tide, local = lockers[number].both(order)
        if tide != local:
            recent = "\n".join(history[-30:])
            raise CampaignError(f"{tide} on the mount, {local} on the disk, after\n{recent}")
        refused += tide == HELD
    return refused


def _order(dice: random.Random) -> str:
    kind = dice.choice("rrwwu")
    start, end = sorted(dice.sample(range(PLACES), 2))
    length = 0 if dice.random() < 0.1 else (end - start) * 10
    match dice.randrange(12):
        case 0 | 1 | 2 | 3 | 4:
            return f"lock({kind!r}, {start * 10}, {length}, NAME)"
        case 5 | 6 | 7:
            return f"ofd({kind!r}, {start * 10}, {length}, NAME)"
        case 8 | 9:
            return f"flock({kind!r}, NAME)"
        case 10:
            return f"getlk('w', {start * 10}, {length}, NAME) is None"
        case _:
            # The kernel does not wait for the end of what is closed. Who asks for locks on that
            # mount does, so that the other mount, which is asked next, sees it as well.
            return "(close(NAME), open_(PATH, NAME), getlk('r', 990, 1, NAME))"
