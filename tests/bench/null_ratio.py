"""Our driver beside a C program that does the least: sequential bytes that are all in memory.

    python tests/bench/null_ratio.py [--size-mib 512] [--rounds 5]

Compiles null_fs.c (needs cc and root), mounts it and our drivers with one file in memory, and reads
and writes it in turn, 1 MiB at a time. Prints a Markdown table: MiB/s in the median of the rounds,
and the ratio to C.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

from tidefs.tests.bench.served import MIB, median, read_mib_per_s, served, write_mib_per_s

HERE = Path(__file__).parent


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size_bytes = options.size_mib * MIB
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        program = Path(folder) / "null_fs"
        subprocess.run(["cc", "-O2", "-o", program, HERE / "null_fs.c"], check=True)
        python = (sys.executable, HERE / "data_file_system.py", "POINT", str(size_bytes))
        points = {
            "C": stack.enter_context(served(program, "POINT", str(size_bytes)))[0],
            "kernel": stack.enter_context(served(*python, "kernel"))[0],
            "pyfuse3": stack.enter_context(served(*python, "pyfuse3"))[0],
        }
        _table(points, size_bytes, options.rounds)


def _table(points: dict[str, Path], size_bytes: int, rounds: int) -> None:
    reads: dict[str, list[float]] = {name: [] for name in points}
    writes: dict[str, list[float]] = {name: [] for name in points}
    for _ in range(rounds):
        for name, point in points.items():
            reads[name].append(read_mib_per_s(point / "data"))
            writes[name].append(write_mib_per_s(point / "data", size_bytes))
    sys.stdout.write("| served by | read MiB/s | ratio | write MiB/s | ratio |\n")
    sys.stdout.write("|---|---:|---:|---:|---:|\n")
    for name in points:
        read, write = median(reads[name]), median(writes[name])
        read_ratio, write_ratio = read / median(reads["C"]), write / median(writes["C"])
        sys.stdout.write(
            f"| {name} | {read:,.0f} | {read_ratio:.2f} | {write:,.0f} | {write_ratio:.2f} |\n"
        )


if __name__ == "__main__":
    main()
