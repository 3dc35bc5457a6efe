"""Which process spends how much CPU on one operation: a mounted cluster folder, measured.

    python tests/bench/cpu_per_operation.py CLUSTER MOUNTPOINT [--count 1000]

Prints a Markdown table: operations a second, and microseconds of CPU (user + system) per operation
for the client, the metaserver, and all chunkservers together. Ticks are 10 ms: take a count that
runs for a second or so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
ROLES = ("client", "metaserver", "chunkserver")


def processes(cluster: str) -> dict[str, list[int]]:
    """Process ids by role."""
    told = subprocess.run(
        [sys.executable, "-m", "tidefs.deploy", "status", cluster, "--json"],
        stdout=subprocess.PIPE,
        check=False,
    )
    status = json.loads(told.stdout)
    found: dict[str, list[int]] = {"client": [mount["pid"] for mount in status["mounts"]]}
    for server in status["servers"]:
        found.setdefault(server["role"], []).append(server["pid"])
    return found


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that the processes have used."""
    used = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def drop_caches() -> None:
    """What the kernel keeps of names, attributes and bytes."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def measure(what: str, count: int, pids: dict[str, list[int]], work: Callable[[int], None]) -> None:
    """Do the work ``count`` times; print its row."""
    before = {role: cpu_s(pids[role]) for role in ROLES}
    began = time.perf_counter()
    for number in range(count):
        work(number)
    took = time.perf_counter() - began
    spent = [(cpu_s(pids[role]) - before[role]) / count * 1e6 for role in ROLES]
    cells = " | ".join(f"{value:,.0f}" for value in spent)
    sys.stdout.write(f"| {what} | {count / took:,.0f} | {cells} |\n")
    sys.stdout.flush()


def main() -> None:
    """Measure a dozen operations."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("cluster")
    parser.add_argument("point")
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    pids = processes(options.cluster)
    count = options.count
    noise = os.urandom(MIB)
    sys.stdout.write("| operation | a second | client us | metaserver us | chunkservers us |\n")
    sys.stdout.write("|---|---:|---:|---:|---:|\n")
    with tempfile.TemporaryDirectory(dir=options.point) as top:

        def make(number: int) -> None:
            os.close(os.open(f"{top}/{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))

        def write(name: str, length: int) -> None:
            with open(f"{top}/{name}", "wb", 0) as handle:
                handle.write(noise[:length])

        measure("create and close", count, pids, make)
        drop_caches()
        measure("stat, cold", count, pids, lambda n: os.stat(f"{top}/{n}") and None)
        measure("chmod", count, pids, lambda n: os.chmod(f"{top}/{n}", 0o600))
        measure("rename", count, pids, lambda n: os.rename(f"{top}/{n}", f"{top}/x{n}"))
        measure("unlink", count, pids, lambda n: os.unlink(f"{top}/x{n}"))
        measure("write 4 KiB file", count, pids, lambda n: write(f"s{n}", 4096))
        measure("write 100 KiB file", count // 2, pids, lambda n: write(f"m{n}", 100 << 10))
        drop_caches()
        measure("read 4 KiB file, cold", count, pids, lambda n: read(f"{top}/s{n}"))
        with open(f"{top}/log", "wb", 0) as log:

            def append_synced(number: int) -> None:
                log.write(noise[:4096])
                os.fsync(log.fileno())

            measure("write and fsync 4 KiB", count, pids, append_synced)
        with open(f"{top}/big", "wb", 0) as big:
            measure("write 1 MiB", 256, pids, lambda n: big.write(noise) and None)
        drop_caches()
        with open(f"{top}/big", "rb", 0) as big:
            measure("read 1 MiB, cold", 256, pids, lambda n: big.read(MIB) and None)


def read(path: str) -> None:
    """All of a file."""
    with open(path, "rb") as handle:
        handle.read()


if __name__ == "__main__":
    main()
