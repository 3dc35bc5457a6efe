"""The store against a model: random work, kills and crashes, and what must be there afterwards.

The model knows, for each chunk, the bytes as written (``now``), and as of the last sync (``safe``).
After a kill the chunk holds ``now``. After a crash each byte is that of ``safe`` or of a later
write. A chunk that was never synced may be gone after a crash.
"""

import random

import pytest
import trio
import trio.testing
from tidefs.chunkserver.store import Settings, Store, make_folders
from tidefs.fs.limits import CHECKSUM_BLOCK_BYTES, KIB, MIB
from tidefs.tests.sim import determinism
from tidefs.tests.sim.crash_disk import CrashDisk
from tidefs.tests.sim.ports import SimulatedClock, SimulatedRandomness

SPACE_BYTES = 5 * CHECKSUM_BLOCK_BYTES
SETTINGS = Settings(server=77, segment_bytes=5 * MIB)
"""Segments as short as can be, so that runs have several."""


class Model:
    """One chunk: what was written, and since the last sync which other values each byte had."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.now = bytearray(SPACE_BYTES)
        self.safe = bytearray(SPACE_BYTES)
        self.later: list[tuple[int, bytes]] = []
        self.synced_once = False

    def write(self, offset: int, data: bytes) -> None:
        self.now[offset : offset + len(data)] = data
        self.later.append((offset, data))

    def synced(self, before: "bytearray", count: int) -> None:
        """A sync that began when ``before`` was the content and ``count`` writes were pending."""
        self.safe = bytearray(before)
        del self.later[:count]
        self.synced_once = True

    def cut(self, offset: int) -> None:
        zeros = bytes(SPACE_BYTES - offset)
        self.now[offset:] = zeros
        self.safe = bytearray(self.now)
        self.later.clear()
        self.synced_once = True

    def check(self, found: bytes, *, crashed: bool) -> None:
        found = found.ljust(SPACE_BYTES, b"\0")
        if not crashed:
            assert found == self.now
            return
        wrong = [at for at in range(SPACE_BYTES) if found[at] != self.safe[at]]
        for at in wrong:
            values = {data[at - start] for start, data in self.later if 0 <= at - start < len(data)}
            assert found[at] in values, f"byte {at} is {found[at]}, was never {values}"


class Run:
    """One disk, one store at a time, and the model of each chunk."""

    def __init__(self, seed: int, *, cold_percent: int) -> None:
        self.random = random.Random(seed)
        self.disk = CrashDisk(SimulatedRandomness(f"disk {seed}"), cold_percent=cold_percent)
        self.faults = SimulatedRandomness(f"faults {seed}")
        self.models: dict[int, Model] = {}
        self.handles = 0
        self.versions = 1
        self.damage: list[object] = []
        self.busy: set[int] = set()

    async def life(self, steps: int, end: str) -> None:
        """Recover, check, work, and end by ``end``."""
        async with trio.open_nursery() as nursery:
            self.store = Store(self.disk, SimulatedClock(), SETTINGS, self.damage.append)
            await nursery.start(self.store.run)
            await self.check(crashed=self.crashed)
            self.busy.clear()
            for _ in range(steps):
                await self.step(nursery)
            if end == "stop":
                await trio.testing.wait_all_tasks_blocked()
                self.store.stop()
                return
            for _ in range(self.random.randrange(30)):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        if end == "kill":
            self.disk.kill()
        elif end == "crash":
            self.disk.crash(self.faults)

    crashed = False

    async def false_start(self, end: str) -> None:
        """A recovery that does not come to its end."""
        store = Store(self.disk, SimulatedClock(), SETTINGS, self.damage.append)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            for _ in range(self.random.randrange(200)):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        if end == "crash":
            self.disk.crash(self.faults)
            self.crashed = True
        else:
            self.disk.kill()

    async def check(self, *, crashed: bool) -> None:
        held = {report.handle: report for report in self.store.reports()}
        for handle, model in list(self.models.items()):
            if handle not in held:
                assert crashed, f"chunk {handle} is gone"
                assert not model.synced_once, f"chunk {handle} was synced and is gone"
                del self.models[handle]
                continue
            assert held[handle].version == model.version
            found = bytes(await self.store.read(handle, 0, SPACE_BYTES))
            model.check(found, crashed=crashed)
            if found.ljust(SPACE_BYTES, b"\0") != model.now:
                assert not held[handle].clean, "something is missing, and nobody is told"
            model.now = bytearray(found.ljust(SPACE_BYTES, b"\0"))
            model.safe = bytearray(model.now)
            model.later.clear()
            model.synced_once = True
        assert set(held) == set(self.models)
        assert not self.damage

    async def step(self, nursery: trio.Nursery) -> None:
        choice = self.random.random()
        idle = [handle for handle in self.models if handle not in self.busy]
        if choice < 0.08 or not self.models:
            self.handles += 1
            self.store.create(self.handles, self.versions)
            self.models[self.handles] = Model(self.versions)
        elif choice < 0.70:
            await self.write(self.random.choice(list(self.models)))
        elif choice < 0.84:
            handle = self.random.choice(list(self.models))
            if handle not in self.busy:
                self.busy.add(handle)
                nursery.start_soon(self.sync, handle)
        elif choice < 0.87 and idle:
            await self.grant(self.random.choice(idle))
        elif choice < 0.89 and idle:
            await self.delete(self.random.choice(idle))
        elif choice < 0.92:
            await self.store.upkeep.flush(idle_ns=self.random.choice([0, 10**12]))
        elif choice < 0.96:
            await self.read(self.random.choice(list(self.models)))
        else:
            for _ in range(self.random.randrange(6)):
                await trio.lowlevel.checkpoint()

    async def write(self, handle: int) -> None:
        model = self.models[handle]
        if handle in self.busy and model.version != self.store.version(handle):
            return
        length = self.random.choice([1, 100, 4096, 5000, 64 * KIB, 100_000, 2 * 64 * KIB])
        if self.random.random() < 0.3:
            offset = self.random.randrange(SPACE_BYTES // (64 * KIB)) * 64 * KIB
        else:
            offset = self.random.randrange(SPACE_BYTES)
        length = min(length, SPACE_BYTES - offset)
        data = self.random.randbytes(16) * (length // 16 + 1)
        data = data[:length]
        while True:
            wait = self.store.write_nowait(handle, model.version, offset, memoryview(data))
            if wait is not None:
                break
            await self.store.warm(handle, offset, length)
        model.write(offset, data)
        if wait:
            await self.store.wait_synced(wait)

    async def sync(self, handle: int) -> None:
        model = self.models[handle]
        before, count = bytearray(model.now), len(model.later)
        await self.store.sync(handle)
        model.synced(before, count)
        self.busy.discard(handle)

    async def grant(self, handle: int) -> None:
        model = self.models[handle]
        self.versions += 1
        cut = self.random.choice([-1, self.random.randrange(SPACE_BYTES), 64 * KIB])
        await self.store.set_version(handle, model.version, self.versions, cut)
        model.version = self.versions
        if cut >= 0:
            model.cut(cut)

    async def delete(self, handle: int) -> None:
        model = self.models.pop(handle)
        assert await self.store.delete([(handle, model.version)]) == [handle]

    async def read(self, handle: int) -> None:
        model = self.models[handle]
        offset = self.random.randrange(SPACE_BYTES)
        found = bytes(await self.store.read(handle, offset, 10_000))
        assert found == model.now[offset : offset + len(found)]
        assert not any(model.now[offset + len(found) : offset + 10_000])


async def campaign(seed: int, *, cold_percent: int = 0) -> None:
    run = Run(seed, cold_percent=cold_percent)
    await make_folders(run.disk, SETTINGS)
    for _ in range(4):
        end = run.random.choice(["stop", "kill", "crash", "crash"])
        await run.life(run.random.randrange(60), end)
        run.crashed = end == "crash"
        for _ in range(run.random.randrange(3)):
            await run.false_start(run.random.choice(["kill", "crash"]))
    await run.life(0, "stop")


@pytest.mark.parametrize("seed", range(16))
def test_nothing_synced_is_lost_and_nothing_at_all_by_a_kill(seed):
    determinism.run(lambda: campaign(seed), seed)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_when_reads_must_wait_for_the_disk(seed):
    determinism.run(lambda: campaign(1000 + seed, cold_percent=30), seed)
