"""Crashes and kills in the middle of what the store does in several steps."""

import pytest
import trio
from tidefs.tests.chunkserver.store_bench import BLOCK, Bench, content, write
from tidefs.tests.sim import determinism
from tidefs.tests.sim.crash_disk import Died

SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_write_into_a_block_while_its_file_is_being_synced(seed):
    """The sync may catch it half; before SYNC nobody may vouch for the block, nor after for
    something that was only in the page cache."""

    async def main():
        bench = Bench(seed, latency_s=0.01)
        await bench.format()
        async with bench.store("crash") as store, trio.open_nursery() as nursery:
            store.create(5, 1)
            write(store, 5, 0, b"a" * 3 * BLOCK)
            synced = trio.Event()

            async def sync():
                await store.sync(5)
                synced.set()

            bench.disk.latency_s = 0.05  # of the chunk file; the journal is on stable storage first
            nursery.start_soon(sync)
            await trio.sleep(0.005)
            bench.disk.latency_s = 0.002
            write(store, 5, BLOCK + 100, b"b" * 1000)
            store.journal.request_sync()
            await trio.sleep(bench.random.choice([0.001, 0.01, 0.03, 0.046, 0.048, 0.06]))
            was_synced = synced.is_set()
            nursery.cancel_scope.cancel()
        async with bench.store() as store:
            if store.version(5) is None:
                assert not was_synced
                return
            found = await content(store, 5)
            if was_synced:
                plain = b"a" * 3 * BLOCK
                assert found[: BLOCK + 100] == plain[: BLOCK + 100]
                assert found[BLOCK + 1100 :] == plain[BLOCK + 1100 :]
                assert set(found[BLOCK + 100 : BLOCK + 1100]) <= set(b"ab")
        assert not bench.damage

    determinism.run(main, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_header_that_is_torn_in_place_is_found_in_the_journal(seed):
    async def main():
        bench = Bench(seed, latency_s=0.01)
        await bench.format()
        async with bench.store("crash") as store, trio.open_nursery() as nursery:
            store.create(5, 1)
            for block in range(300):
                write(store, 5, block * BLOCK, b"old")
            await store.sync(5)
            await store.upkeep.finish()  # what was before is forgotten, the journal's CREATE too
            for block in range(300):
                write(store, 5, block * BLOCK, b"new")
            await store.sync(5)
            nursery.start_soon(store.upkeep.flush, 0)
            await trio.sleep(bench.random.choice([0.005, 0.011, 0.015, 0.019, 0.021, 0.04]))
            nursery.cancel_scope.cancel()
        async with bench.store() as store:
            for block in range(300):
                assert await content(store, 5, block * BLOCK, 3) == b"new"
        assert not bench.damage

    determinism.run(main, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cut_is_done_wholly_or_not_at_all_and_never_again(seed):
    async def main():
        bench = Bench(seed, latency_s=0.01)
        await bench.format()
        async with bench.store("crash") as store, trio.open_nursery() as nursery:
            store.create(5, 1)
            write(store, 5, 0, b"a" * 3 * BLOCK)
            await store.sync(5)
            done = trio.Event()
            written = trio.Event()

            async def cut_and_write():
                await store.set_version(5, 1, 2, BLOCK + 10)
                done.set()
                write(store, 5, 2 * BLOCK, b"c" * 2 * BLOCK, version=2)
                await store.sync(5)
                written.set()

            nursery.start_soon(cut_and_write)
            await trio.sleep(bench.random.random() * 0.15)
            nursery.cancel_scope.cancel()
        async with bench.store() as store:
            found = await content(store, 5)
            if store.version(5) == 1:
                assert not done.is_set()
                assert found == b"a" * 3 * BLOCK
            else:
                assert found[: BLOCK + 10] == b"a" * (BLOCK + 10)
                assert b"a" not in found[BLOCK + 10 :]
            if written.is_set():
                assert found[2 * BLOCK :] == b"c" * 2 * BLOCK
        assert not bench.damage

    determinism.run(main, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_process_that_dies_in_the_middle_of_a_write(seed):
    """What was acknowledged is there, whatever file the last write went to."""

    async def main():
        bench = Bench(seed)
        await bench.format()
        model = bytearray(4 * BLOCK)
        pending = (0, b"")
        try:
            async with bench.store("kill") as store:
                store.create(5, 1)
                bench.disk.die_after_writes(1 + bench.random.randrange(30), bench.faults)
                for _ in range(40):
                    offset = bench.random.randrange(3 * BLOCK)
                    pending = (offset, bench.random.randbytes(bench.random.choice([10, 9000])))
                    write(store, 5, *pending)
                    model[offset : offset + len(pending[1])] = pending[1]
                    pending = (0, b"")
                    if bench.random.random() < 0.3:
                        await store.sync(5)
                    if bench.random.random() < 0.1:
                        await store.upkeep.flush(idle_ns=0)
        except* Died:
            bench.disk.kill()
        async with bench.store() as store:
            found = (await content(store, 5)).ljust(len(model), b"\0")
            start, data = pending
            for at in range(len(model)):
                if found[at] != model[at]:
                    assert start <= at < start + len(data), at
                    assert found[at] == data[at - start]
        assert not bench.damage

    determinism.run(main, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_takes_the_place_of_the_old_replica_wholly_or_not_at_all(seed):
    async def main():
        bench = Bench(seed, latency_s=0.01)
        await bench.format()
        async with bench.store("crash") as store, trio.open_nursery() as nursery:
            store.create(5, 1)
            write(store, 5, 0, b"a" * 3 * BLOCK)
            await store.sync(5)
            write(store, 5, 0, b"A" * BLOCK)
            await store.sync(5)
            done = trio.Event()

            async def copy():
                incoming = store.incoming(5, 2)
                incoming.add(memoryview(b"b" * BLOCK + bytes(BLOCK)))
                incoming.add(memoryview(b"b" * 100))
                await incoming.adopt()
                incoming.close()
                done.set()

            nursery.start_soon(copy)
            await trio.sleep(bench.random.random() * 0.08)
            nursery.cancel_scope.cancel()
        async with bench.store() as store:
            found = await content(store, 5)
            if store.version(5) == 1:
                assert not done.is_set()
                assert found == b"A" * BLOCK + b"a" * 2 * BLOCK
            else:
                assert found == b"b" * BLOCK + bytes(BLOCK) + b"b" * 100
            assert bench.disk.names("incoming") == []
        assert not bench.damage

    determinism.run(main, seed)
