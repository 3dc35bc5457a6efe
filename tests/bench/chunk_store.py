"""The chunk store alone, on a real folder: run it as ``python -m tidefs.tests.bench.chunk_store``.

Prints MB/s for 1 MiB writes and reads, and microseconds for 4 KiB writes, reads and fsyncs, beside
the same bytes through plain system calls.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable

import trio
from tidefs.chunkserver.store import Settings, Store, make_folders
from tidefs.fs.limits import CHUNK_BYTES, KIB, MIB
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk

CHUNKS = 4
SMALL = 4 * KIB
SYNCS = 1000


def report(what: str, seconds: float, count: int, total_bytes: int) -> None:
    rate = total_bytes / seconds / 1e6
    sys.stdout.write(f"{what:44} {seconds / count * 1e6:9.1f} us {rate:9.0f} MB/s\n")


def timed(what: str, count: int, size: int, do: Callable[[int], object]) -> None:
    began = time.perf_counter()
    for number in range(count):
        do(number)
    report(what, time.perf_counter() - began, count, count * size)


async def bench_store(folder: str) -> None:
    disk = RealDisk(folder)
    settings = Settings(server=1)
    await make_folders(disk, settings)
    async with trio.open_nursery() as nursery:
        store = Store(disk, RealClock(), settings, lambda error: None)
        await nursery.start(store.run)
        large = memoryview(os.urandom(MIB))
        small = memoryview(os.urandom(SMALL))
        per_chunk = CHUNK_BYTES // MIB
        for handle in range(CHUNKS):
            store.create(handle, 1)

        def write_large(number: int) -> None:
            store.write_nowait(number // per_chunk, 1, number % per_chunk * MIB, large)

        def read_large(number: int) -> None:
            nonlocal cold
            cold += not store.read_nowait(number // per_chunk, number % per_chunk * MIB, MIB)

        cold = 0

        def write_small(number: int) -> None:
            nonlocal cold
            cold += store.write_nowait(100, 1, number * SMALL, small) is None

        def read_small(number: int) -> None:
            nonlocal cold
            cold += not store.read_nowait(number % CHUNKS, number * 7919 % 16384 * SMALL, SMALL)

        timed("write 1 MiB, fresh", CHUNKS * per_chunk, MIB, write_large)
        began = time.perf_counter()
        for handle in range(CHUNKS):
            await store.sync(handle)
        report("sync of 64 MiB", time.perf_counter() - began, CHUNKS, CHUNKS * CHUNK_BYTES)
        timed("read 1 MiB", CHUNKS * per_chunk, MIB, read_large)
        timed("read 4 KiB at random", 10_000, SMALL, read_small)
        store.create(100, 1)
        timed("write 4 KiB, one behind the other", 10_000, SMALL, write_small)
        await store.sync(100)
        timed("write 4 KiB over synced bytes", 10_000, SMALL, write_small)
        began = time.perf_counter()
        for number in range(SYNCS):
            write_small((10_000 + number) % (CHUNK_BYTES // SMALL))
            await store.sync(100)
        report("write 4 KiB and sync", time.perf_counter() - began, SYNCS, SYNCS * SMALL)
        began = time.perf_counter()
        async with trio.open_nursery() as many:
            for worker in range(32):
                many.start_soon(write_and_sync, store, 200 + worker, small)
        report(
            "the same, 32 at once in a chunk each",
            time.perf_counter() - began,
            32 * SYNCS // 10,
            32 * SYNCS // 10 * SMALL,
        )
        sys.stdout.write(
            f"{cold} of these were not done, for the page cache did not have the bytes\n"
        )
        store.stop()


async def write_and_sync(store: Store, handle: int, data: memoryview) -> None:
    store.create(handle, 1)
    for number in range(SYNCS // 10):
        store.write_nowait(handle, 1, number * SMALL, data)
        await store.sync(handle)


def bench_plain(folder: str) -> None:
    """The floor: one file, system calls."""
    large, small = os.urandom(MIB), os.urandom(SMALL)
    descriptor = os.open(os.path.join(folder, "plain"), os.O_RDWR | os.O_CREAT, 0o600)
    timed("plain: pwrite 1 MiB", 256, MIB, lambda n: os.pwrite(descriptor, large, n * MIB))
    timed("plain: pread 1 MiB", 256, MIB, lambda n: os.pread(descriptor, MIB, n * MIB))
    timed("plain: pwrite 4 KiB", 10_000, SMALL, lambda n: os.pwrite(descriptor, small, n * SMALL))

    def write_and_sync_plain(number: int) -> None:
        os.pwrite(descriptor, small, (1 << 30) + number * SMALL)
        os.fdatasync(descriptor)

    timed("plain: pwrite 4 KiB and fdatasync", SYNCS, SMALL, write_and_sync_plain)
    os.close(descriptor)


def main() -> None:
    below = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=below) as folder:
        trio.run(bench_store, folder)
        bench_plain(folder)


if __name__ == "__main__":
    main()
