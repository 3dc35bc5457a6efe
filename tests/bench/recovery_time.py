"""How long a metaserver takes to start behind a log of many entries, and the memory it needs.

    recovery_time.py [--entries 500000] [--folder WHERE]

A first process puts that many entries into the log through the real driver, with checkpoints as
ever, and is killed (SIGKILL). Others then start on what it left, each with a cold cache of its own:
after the kill, when the working copy is believed; and as after a restart of the machine, when the
newest checkpoint is copied and the log behind it replayed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.messages.meta import Create, MakeDirectory
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.metaserver.begin import start_driver
from tidefs.metaserver.config import MetaserverConfig
from tidefs.metaserver.driver import Driver
from tidefs.metaserver.entries import FormatCluster
from tidefs.metaserver.format import configuration_of
from tidefs.metaserver.recovery import recover
from tidefs.metaserver.store_lmdb import LmdbStores
from tidefs.metaserver.upkeep import Upkeep

CLUSTER = "bench"
FILES_PER_DIRECTORY = 1_000
IN_FLIGHT = 256
WORKING_COPY_MARKER = "working/opened"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def memory_mib() -> str:
    """Of this process: what is its own, and what it has mapped of files (LMDB)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(fields[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile"))
    return f"{own} MiB of its own, {mapped} MiB mapped"


async def start(folder: str, nursery: trio.Nursery) -> tuple[Driver, Upkeep, float, int]:
    """A leading driver with its upkeep, the seconds that recovery took, what is to be replayed."""
    disk = RealDisk(folder)
    ports = Ports(RealClock(), RealRandomness(), disk, RealNetwork())
    config = MetaserverConfig(cluster=CLUSTER, server=1, data=folder, listen=["unix:unused"])
    began = time.perf_counter()
    recovered = await recover(disk, LmdbStores(disk, folder, CLUSTER), CLUSTER)
    took_s = time.perf_counter() - began
    replayed = recovered.oplog.last_index - recovered.state.totals.applied_index
    founders = configuration_of([config.own_place])
    driver = await start_driver(config, ports, recovered, founders)
    upkeep = Upkeep(recovered, driver, ports.clock, config.checkpoint_entries)
    nursery.start_soon(driver.run)
    await driver.wait_leading()
    return driver, upkeep, took_s, replayed


async def fill(folder: str, entries: int) -> None:
    """Create files until the log has had so many entries, then say so and wait to be killed."""
    async with trio.open_nursery() as nursery:
        driver, upkeep, _, _ = await start(folder, nursery)
        nursery.start_soon(upkeep.run)
        await driver.perform(FormatCluster(CLUSTER, 1, 0o755, 0, 0))
        room = trio.Semaphore(IN_FLIGHT)
        parent = 1
        began = time.perf_counter()

        def answered(outcome: object, index: int) -> None:
            assert not isinstance(outcome, Exception), outcome
            room.release()

        for number in range(entries):
            if number % FILES_PER_DIRECTORY == 0:
                name = b"directory%07d" % number
                made = await driver.perform(MakeDirectory(1, name, 0o755, 0, 0))
                parent = made.attributes.inode  # type: ignore[attr-defined]
            await room.acquire()
            driver.propose(
                Create(parent, b"file%07d" % number, Kind.FILE, 0o644, 0, 0, 0, True, False),
                answered,
            )
        for _ in range(IN_FLIGHT):
            await room.acquire()
        took_s = time.perf_counter() - began
        say(f"{entries} entries in {took_s:.1f} s; the process that made them: {memory_mib()}")
        say("full")
        await trio.sleep_forever()


async def restart(folder: str) -> None:
    """Start, and say how long it took."""
    before = memory_mib()
    async with trio.open_nursery() as nursery:
        began, cpu_began = time.perf_counter(), time.process_time()
        driver, _, recovery_s, replayed = await start(folder, nursery)
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        oplog = driver.oplog
        say(
            f"leads after {took_s:.2f} s, {cpu_s:.2f} s of CPU ({recovery_s:.2f} s of them until"
            f" {replayed} entries were to be replayed);"
            f" log {oplog.first_index} to {oplog.last_index};"
            f" memory: {memory_mib()} (before: {before})"
        )
        nursery.cancel_scope.cancel()


def run_self(*arguments: str) -> None:
    subprocess.run([sys.executable, __file__, *arguments], check=True)


def measure(folder: Path, entries: int) -> None:
    """All of it."""
    command = [sys.executable, __file__, "--fill", str(folder), "--entries", str(entries)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "full":
                break
            say(line.rstrip())
        process.send_signal(signal.SIGKILL)
    say("after kill -9:")
    run_self("--restart", str(folder))
    say("after a restart of the machine:")
    os.unlink(folder / WORKING_COPY_MARKER)
    run_self("--restart", str(folder))
    say("the same without any checkpoint (all of the log that is left must not be missing):")
    if (folder / "log" / f"{1:020d}.log").exists():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        os.unlink(folder / WORKING_COPY_MARKER)
        run_self("--restart", str(folder))
    else:
        say("the log begins behind a checkpoint: not possible")


def main() -> None:
    parser = argparse.ArgumentParser(description="how long a metaserver takes to start")
    parser.add_argument("--entries", type=int, default=500_000)
    parser.add_argument("--folder", help="where a temporary folder may be made")
    parser.add_argument("--fill")
    parser.add_argument("--restart")
    arguments = parser.parse_args()
    if arguments.fill:
        trio.run(fill, arguments.fill, arguments.entries)
    elif arguments.restart:
        trio.run(restart, arguments.restart)
    else:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            measure(Path(folder), arguments.entries)


if __name__ == "__main__":
    main()
