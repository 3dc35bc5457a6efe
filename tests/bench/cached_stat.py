"""How many stats a second a mount answers from the client's cache, when the kernel caches nothing.

    python tests/bench/cached_stat.py [--rounds 5] [--files 1000]

Makes a cluster of its own and mounts it with distrusted_mount.py; needs root. Prints a Markdown
table: stats a second by so many processes in the median of the rounds, and the client's CPU for
each. The client has one CPU for itself, the processes share the others: left to themselves they
change places all the time, which costs more than the answers.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from tidefs.tests.bench.crowd import operations_per_s
from tidefs.tests.bench.group import leader_address
from tidefs.tests.bench.served import cpu_ns, median, served
from tidefs.tests.campaign.stage import stage

PROCESSES = (1, 2, 4)
SECONDS = 1.0


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=1000)
    options = parser.parse_args()
    program = Path(__file__).with_name("distrusted_mount.py")
    with stage(1, 1) as cluster:
        address = leader_address(cluster.cluster)
        with served(sys.executable, program, address, "POINT") as (point, pid):
            _apart(pid, first=True)
            names = [f"{point}/{number}" for number in range(options.files)]
            for name in names:
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
            sys.stdout.write("| processes | stat/s | client us |\n|---:|---:|---:|\n")
            for processes in PROCESSES:
                _row(processes, names, pid, options.rounds)


def _row(processes: int, names: list[str], pid: int, rounds: int) -> None:
    def stat(number: int) -> Iterator[None]:
        _apart(0, first=False)
        for name in cycle(names[number :: PROCESSES[-1]]):
            yield os.stat(name) and None

    rates, costs_us = [], []
    for _ in range(rounds):
        before = cpu_ns(pid)
        rate = operations_per_s(processes, SECONDS, stat)
        rates.append(rate)
        costs_us.append((cpu_ns(pid) - before) / 1000 / (rate * SECONDS))
    sys.stdout.write(f"| {processes} | {median(rates):,.0f} | {median(costs_us):.1f} |\n")


def _apart(pid: int, *, first: bool) -> None:
    """The first CPU for this process, or all others, if there are any."""
    one, *others = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(pid, [one] if first else others)


if __name__ == "__main__":
    main()
