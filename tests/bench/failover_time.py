"""How long a mount stands still when the leader is killed: the distribution over many kills.

    python tests/bench/failover_time.py [--kills 50]

On a group of three, with a real mount. One program creates and looks up names on it without a
pause, another one kills the leader (kill -9) and starts it again. The time without service is the
longest gap between two answers that begins at the kill, as that program sees it.
"""

import argparse
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TIDEFS = [sys.executable, "-m", "tidefs.deploy"]
SETTLE_S = 1.5
LOOK_S = 2.5


class Prober(threading.Thread):
    """Makes and removes a file without a pause, and notes when each call returned."""

    def __init__(self, point: Path) -> None:
        super().__init__()
        self.answers: list[float] = []
        self.failure = ""
        self._path = point / "probe"
        self._stop_asked = threading.Event()

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                self.answers.append(time.monotonic())
                os.unlink(self._path)
                self.answers.append(time.monotonic())
        except OSError as error:
            self.failure = f"an application saw {error}"

    def stop(self) -> None:
        """Wait for its end."""
        self._stop_asked.set()
        self.join()

    def longest_gap(self, since: float, until: float) -> float:
        """Between two answers, of those gaps that end in that time."""
        answers = [at for at in list(self.answers) if at <= until]
        first = next((n for n, at in enumerate(answers) if at >= since), len(answers))
        near = answers[max(0, first - 1) :]
        return max((b - a for a, b in itertools.pairwise(near)), default=until - since)


def leader(folder: Path) -> tuple[str, int]:
    """Name and process id of the leader."""
    while True:
        asked = [*TIDEFS, "cluster", "status", str(folder), "--json"]
        done = subprocess.run(asked, check=False, capture_output=True)
        members = json.loads(done.stdout or b'{"members": []}')["members"]
        for member in members:
            if member["role"] == "leader":
                return member["name"], member["pid"]


def rest(seconds: float) -> None:
    """Let time pass."""
    threading.Event().wait(seconds)


def measure(folder: Path, point: Path, kills: int) -> list[float]:
    """The gaps, in seconds."""
    up = [*TIDEFS, "up", str(folder), "--metaservers", "3", "--chunkservers", "1"]
    subprocess.run([*up, "--replicas", "1"], check=True, capture_output=True)
    subprocess.run([*TIDEFS, "mount", str(folder), str(point)], check=True, capture_output=True)
    prober = Prober(point)
    gaps: list[float] = []
    try:
        prober.start()
        for number in range(1, kills + 1):
            _, pid = leader(folder)
            rest(SETTLE_S + random.random() / 10)
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            rest(LOOK_S)
            gap = prober.longest_gap(killed, time.monotonic())
            if prober.failure:
                raise SystemExit(prober.failure)
            gaps.append(gap)
            sys.stderr.write(f"kill {number}: {gap * 1000:.0f} ms\n")
            subprocess.run([*TIDEFS, "up", str(folder)], check=True, capture_output=True)
    finally:
        prober.stop()
        subprocess.run([*TIDEFS, "umount", str(point)], check=False, capture_output=True)
        subprocess.run([*TIDEFS, "down", str(folder)], check=False, capture_output=True)
    return gaps


def main() -> int:
    """See the module's docstring, which is the help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidefs-bench.") as name:
        point = Path(name) / "mnt"
        point.mkdir()
        gaps = sorted(measure(Path(name) / "cluster", point, options.kills))
    ms = [gap * 1000 for gap in gaps]
    sys.stdout.write(
        f"{len(ms)} kills of the leader: without service for {ms[0]:.0f} ms at best,"
        f" median {statistics.median(ms):.0f} ms, 90 % below {ms[int(len(ms) * 0.9)]:.0f} ms,"
        f" worst {ms[-1]:.0f} ms\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
