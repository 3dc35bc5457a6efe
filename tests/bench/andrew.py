"""The Andrew benchmark (Howard et al. 1988) in each mode, and on the local disk.

    python tests/bench/andrew.py [--rounds 3] [--source FOLDER]

Five phases on a copy of our own tree: its directories are made, its files copied, all of them are
looked at, all are read, all are compiled. Then looking and reading once more, when all is warm:
what the compiler made was looked at and read once before.
Makes a cluster of its own (one metaserver, one chunkserver); needs root. Prints a Markdown table:
seconds of each phase (the median of the rounds), round trips, and CPU of the servers.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tidefs.client.modes import MODES
from tidefs.tests.bench.served import cpu_ns, median
from tidefs.tests.campaign.stage import Stage, stage

OUR_TREE = Path(__file__).resolve().parents[2]
ROOMS = ("fs", "metaserver", "chunkserver", "client", "deploy", "tests", "docs")
LOCAL = "local disk"
PHASES = ("MakeDir", "Copy", "ScanDir", "ReadAll", "Make", "ScanDir again", "ReadAll again")


class Taken(NamedTuple):
    """What one phase took."""

    seconds: float
    server_cpu_s: float
    round_trips: Counter[str]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", type=Path, default=OUR_TREE, help="a tree to copy")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Taken]]] = {}
    with tempfile.TemporaryDirectory(prefix="tidefs-andrew.") as folder, stage(1, 1) as cluster:
        source = Path(folder) / "source"
        for room in ROOMS if options.source == OUR_TREE else ("",):
            shutil.copytree(
                options.source / room,
                source / room,
                ignore=shutil.ignore_patterns("__pycache__", ".*"),
            )
        for number in range(options.rounds):
            local = Path(folder) / f"local-{number}"
            found.setdefault(LOCAL, []).append(_run(source, local, lambda: (0, Counter())))
            for mode in MODES:
                point = cluster.mount(f"{mode}-{number}", "-o", f"mode={mode}")
                taken = _run(source, point / f"{mode}-{number}", lambda: _costs(cluster, point))  # noqa: B023
                found.setdefault(mode, []).append(taken)
                cluster.umount(point)
    _tables(found)


def _costs(cluster: Stage, point: Path) -> tuple[int, Counter[str]]:
    """CPU of all servers so far, in ns, and round trips of the mount."""
    pids = [pid for role in ("metaserver", "chunkserver") for pid in cluster.pids(role)]
    told = json.loads(os.getxattr(point, "user.tidefs.stats"))
    return sum(map(cpu_ns, pids)), Counter(told["round_trips"])


def _run(
    source: Path, target: Path, costs: Callable[[], tuple[int, Counter[str]]]
) -> dict[str, Taken]:
    def phase(work: Callable[[], object]) -> Taken:
        cpu, trips = costs()
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        cpu_after, trips_after = costs()
        return Taken(seconds, (cpu_after - cpu) / 1e9, trips_after - trips)

    scan, read = (lambda: _scan(target)), (lambda: _read(target))
    works = (
        *(lambda: _make_directories(source, target), lambda: _copy(source, target), scan, read),
        *(lambda: _make(target), scan, read),
    )
    taken = {}
    for name, work in zip(PHASES, works, strict=True):
        taken[name] = phase(work)
        if name == "Make":
            scan()
            read()
    return taken


def _make_directories(source: Path, target: Path) -> None:
    for folder, _, _ in os.walk(source):
        (target / Path(folder).relative_to(source)).mkdir()


def _copy(source: Path, target: Path) -> None:
    for path in _files(source):
        (target / path.relative_to(source)).write_bytes(path.read_bytes())


def _make(target: Path) -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-q", target], check=True)


def _scan(target: Path) -> None:
    for path in _files(target):
        path.stat()


def _read(target: Path) -> None:
    for path in _files(target):
        path.read_bytes()


def _files(top: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(top):
        for name in names:
            yield Path(folder, name)


def _tables(found: dict[str, list[dict[str, Taken]]]) -> None:
    write = sys.stdout.write
    write(f"| seconds | {' | '.join(found)} |\n|---|{'---:|' * len(found)}\n")
    for name in PHASES:
        cells = [median([one[name].seconds for one in rounds]) for rounds in found.values()]
        write(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |\n")
    totals = [
        median([sum(one[name].seconds for name in PHASES[:5]) for one in rounds])
        for rounds in found.values()
    ]
    write(f"| **the five phases** | {' | '.join(f'{total:.2f}' for total in totals)} |\n")
    servers = [
        median([sum(one[name].server_cpu_s for name in PHASES[:5]) for one in rounds])
        for rounds in found.values()
    ]
    write(f"| CPU of the servers | {' | '.join(f'{cpu:.2f}' for cpu in servers)} |\n\n")
    write("| round trips | " + " | ".join(MODES) + " |\n|---|" + "---|" * len(MODES) + "\n")
    for name in PHASES:
        cells_of_trips = [_trips(found[mode][-1][name].round_trips) for mode in MODES]
        write(f"| {name} | {' | '.join(cells_of_trips)} |\n")


def _trips(trips: Counter[str]) -> str:
    """The sum, and the kinds that are most of it."""
    kinds = ", ".join(f"{count:,} {name}" for name, count in trips.most_common(4))
    return f"{trips.total():,}" + (f" ({kinds})" if kinds else "")


if __name__ == "__main__":
    main()
