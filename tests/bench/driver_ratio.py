"""Our driver beside pyfuse3, on one cluster, in one run.

    python tests/bench/driver_ratio.py [--rounds 5] [--count 2000]

Makes a cluster of its own (one metaserver, one chunkserver), mounts it by each driver, and measures
them in turn; needs root. Prints a Markdown table: the median of the rounds for each driver, and the
median of the ratios, which is above 1 where ours is better. CPU is that of the client process. Four
processes work at once where it is not said otherwise: of one alone, most of the CPU goes into
waking and being woken, which no driver can help.
"""

import argparse
import mmap
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tidefs.tests.bench.crowd import in_shares, operations_per_s
from tidefs.tests.bench.served import MIB, cpu_ns, median
from tidefs.tests.campaign.stage import stage

DRIVERS = ("kernel", "pyfuse3")
ENTRIES = 10_000
PROCESSES = 4
READ_BYTES = 4096
READ_S = 1.0
FILE_MIB = 32


class Place(NamedTuple):
    """A mount, and the process that serves it."""

    point: Path
    pid: int


class Case(NamedTuple):
    """What is measured. ``less_is_better``: it is a cost."""

    name: str
    unit: str
    less_is_better: bool
    aim: float


CASES = (
    Case("create and close", "client us", True, 2.0),
    Case("create and close", "a second", False, 1.0),
    Case("stat, not cached by the kernel", "client us", True, 2.0),
    Case("stat, not cached by the kernel", "a second", False, 1.0),
    Case("the same, one process", "client us", True, 1.0),
    Case("readdir with attributes, 10,000, one process", "entries/s", False, 3.0),
    Case("readdir with attributes, 10,000, one process", "client us", True, 3.0),
    Case("the same again, known to the kernel", "entries/s", False, 2.0),
    Case("4 KiB random reads, O_DIRECT", "reads/s", False, 2.0),
)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    with stage(1, 1) as cluster:
        first = cluster.mount("first")  # neither of the two knows more of these than the other
        _prepare(first)
        cluster.umount(first)
        places = {}
        for driver in DRIVERS:
            point = cluster.mount(driver, "-o", f"driver={driver}")
            places[driver] = Place(point, cluster.client_pid(point))
        found: dict[str, list[list[float]]] = {driver: [] for driver in DRIVERS}
        for number in range(options.rounds):
            for driver, place in places.items():
                found[driver].append(_measure(place, number, options.count))
    _table(found)


def _prepare(point: Path) -> None:
    """A file that fits into the client's memory, and a large directory."""
    (point / "file").write_bytes(os.urandom(FILE_MIB * MIB))
    (point / "many").mkdir()
    for number in range(ENTRIES):
        os.close(os.open(point / "many" / f"entry-{number}", os.O_CREAT | os.O_WRONLY))


def _measure(place: Place, number: int, count: int) -> list[float]:
    """One figure for each of CASES."""
    top = place.point / f"{place.point.name}-{number}"
    top.mkdir()
    paths = [f"{top}/{index}" for index in range(count)]
    create_us, create_s = _cpu_us(place, count, lambda: _share(paths, _create))
    _forget_names()
    _stat(paths)  # so that the client knows them all, and trusts what it knows
    _forget_names()
    stat_us, stat_s = _cpu_us(place, count, lambda: _share(paths, _stat))
    _forget_names()
    alone_us, _ = _cpu_us(place, count, lambda: _stat(paths))
    for _ in range(2):
        _forget_names()
        list_us, list_s = _cpu_us(place, ENTRIES, lambda: _list(place.point / "many"))
    _, again_s = _cpu_us(place, ENTRIES, lambda: _list(place.point / "many"))
    reads_per_s = _read_directly(place.point / "file")
    return [
        *(create_us, count / create_s, stat_us, count / stat_s, alone_us),
        *(ENTRIES / list_s, list_us, ENTRIES / again_s, reads_per_s),
    ]


def _cpu_us(place: Place, count: int, work: Callable[[], object]) -> tuple[float, float]:
    """Microseconds of the client's CPU for each of ``count``, and seconds in all."""
    before = cpu_ns(place.pid)
    began = time.perf_counter()
    work()
    took_s = time.perf_counter() - began
    return (cpu_ns(place.pid) - before) / count / 1000, took_s


def _forget_names() -> None:
    """The kernel's names and attributes."""
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


def _share(paths: list[str], work: Callable[[list[str]], None]) -> None:
    in_shares(PROCESSES, lambda number: work(paths[number::PROCESSES]))


def _stat(paths: list[str]) -> None:
    for path in paths:
        os.stat(path)


def _create(paths: list[str]) -> None:
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def _list(folder: Path) -> None:
    with os.scandir(folder) as entries:
        count = sum(entry.stat(follow_symlinks=False).st_size >= 0 for entry in entries)
    if count != ENTRIES:
        raise SystemExit(f"{folder} has {count} entries")


def _read_directly(path: Path) -> float:
    """Reads a second, after the client has it all in its memory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, MIB)
    for offset in range(0, FILE_MIB * MIB, MIB):
        os.preadv(descriptor, [buffer], offset)

    def read(number: int) -> Iterator[None]:
        dice = random.Random(number)
        room = [memoryview(buffer)[:READ_BYTES]]
        blocks = FILE_MIB * MIB // READ_BYTES
        while True:
            yield os.preadv(descriptor, room, dice.randrange(blocks) * READ_BYTES) and None

    try:
        return operations_per_s(PROCESSES, READ_S, read)
    finally:
        os.close(descriptor)


def _table(found: dict[str, list[list[float]]]) -> None:
    sys.stdout.write(f"| case | unit | {' | '.join(DRIVERS)} | ratio | aim |\n")
    sys.stdout.write("|---|---|---:|---:|---:|---:|\n")
    for index, case in enumerate(CASES):
        ours, theirs = ([figures[index] for figures in found[driver]] for driver in DRIVERS)
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        if case.less_is_better:
            ratios = [1 / ratio for ratio in ratios]
        sys.stdout.write(
            f"| {case.name} | {case.unit} | {median(ours):,.0f} | {median(theirs):,.0f} |"
            f" {median(ratios):.2f} | {case.aim:g} |\n"
        )


if __name__ == "__main__":
    main()
