"""A store on the disk that forgets, for tests: recovered, used, and ended in every way."""

import random
from contextlib import asynccontextmanager

import pytest
import trio
from tidefs.chunkserver.store import Settings, Store, make_folders
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import KIB, MIB
from tidefs.tests.sim.crash_disk import CrashDisk
from tidefs.tests.sim.ports import SimulatedClock, SimulatedRandomness

SETTINGS = Settings(server=77, segment_bytes=5 * MIB)
BLOCK = 64 * KIB


class Bench:
    """A disk, and one store after the other on it."""

    def __init__(self, seed: int = 0, **options) -> None:
        self.disk = CrashDisk(SimulatedRandomness(f"disk {seed}"), **options)
        self.faults = SimulatedRandomness(f"faults {seed}")
        self.random = random.Random(seed)
        self.damage = []
        self.settings = SETTINGS

    async def format(self) -> None:
        await make_folders(self.disk, self.settings)

    @asynccontextmanager
    async def store(self, end: str = "stop"):
        """A recovered store, that ends by ``end``: stop, kill or crash."""
        async with trio.open_nursery() as nursery:
            store = Store(self.disk, SimulatedClock(), self.settings, self.damage.append)
            await nursery.start(store.run)
            yield store
            if end == "stop":
                store.stop()
            else:
                nursery.cancel_scope.cancel()
        if end == "kill":
            self.disk.kill()
        elif end == "crash":
            self.disk.crash(self.faults)


def write(store: Store, handle: int, offset: int, data: bytes, version: int = 1) -> int:
    """Write, where everything is in the page cache."""
    found = store.write_nowait(handle, version, offset, memoryview(data))
    assert found is not None
    return found


async def content(store: Store, handle: int, offset: int = 0, length: int = 4 * MIB) -> bytes:
    return bytes(await store.read(handle, offset, length))


def refused(call) -> Code:
    with pytest.raises(TideError) as caught:
        call()
    return caught.value.code


async def refused_later(awaitable) -> Code:
    with pytest.raises(TideError) as caught:
        await awaitable
    return caught.value.code
