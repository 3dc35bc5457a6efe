"""The store's promises, one at a time, on the disk that forgets."""

import random

import pytest
import trio
from tidefs.chunkserver import shelf as shelf_module
from tidefs.chunkserver import upkeep as upkeep_module
from tidefs.chunkserver.layout import DATA_START, chunk_folder, chunk_path
from tidefs.chunkserver.records import JOURNAL
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import MIB
from tidefs.fs.ports.disk import DiskSpace
from tidefs.tests.chunkserver.store_bench import (
    BLOCK,
    SETTINGS,
    Bench,
    content,
    refused,
    refused_later,
    write,
)

# --- clean or not --------------------------------------------------------------------------------


async def test_a_crash_with_unsynced_writes_is_told_until_a_version_is_granted():
    bench = Bench()
    await bench.format()
    async with bench.store("crash") as store:
        for handle in (5, 6):
            store.create(handle, 1)
            write(store, handle, 0, b"x" * 100_000)
            await store.sync(handle)
        await store.upkeep.flush(idle_ns=0)
        await store.wait_synced(write(store, 5, 0, b"y"))
    for end in ("kill", "stop", "crash"):
        async with bench.store(end) as store:
            assert {report.handle: report.clean for report in store.reports()} == {
                5: False,
                6: True,
            }
    async with bench.store("kill") as store:
        await store.set_version(5, 1, 2, -1)
    async with bench.store() as store:
        assert [report.clean for report in store.reports()] == [True, True]


async def test_the_first_write_to_a_clean_chunk_waits_for_the_journal_and_later_ones_do_not():
    bench = Bench()
    await bench.format()
    async with bench.store() as store:
        store.create(5, 1)
        await store.wait_synced(write(store, 5, 0, b"x" * BLOCK))
        assert write(store, 5, BLOCK, b"x" * BLOCK) == 0
        await store.upkeep.flush(idle_ns=0)
        record = write(store, 5, 5 * BLOCK, b"y")
        assert record > store.journal.synced
        assert write(store, 5, 6 * BLOCK, b"y") == record
        await store.wait_synced(record)
        assert write(store, 5, 7 * BLOCK, b"z") == 0
        assert write(store, 5, 0, b"z") == 0
        assert await content(store, 5, 0, 2) == b"zx"


async def test_a_chunk_whose_first_write_was_acknowledged_is_there_after_a_power_failure():
    """Perhaps without its bytes, but a file refers to it by now: it must not be gone."""
    bench = Bench()
    await bench.format()
    async with bench.store("crash") as store:
        store.create(5, 1)
        record = write(store, 5, 0, b"x" * BLOCK)
        assert record > store.journal.synced
        await store.wait_synced(record)
    async with bench.store() as store:
        assert [report.handle for report in store.reports()] == [5]


async def test_a_sync_knows_whether_bytes_may_have_gone_since_they_were_written():
    """Also after the next grant, and after the restarts that follow it."""
    bench = Bench()
    await bench.format()
    async with bench.store("crash") as store:
        store.create(5, 1)
        await store.wait_synced(write(store, 5, 0, b"x" * BLOCK))
    async with bench.store("kill") as store:
        await store.sync(5)
        assert await refused_later(store.sync(5, 1)) is Code.OUT_OF_ORDER
        await store.set_version(5, 1, 3, -1)
        assert await refused_later(store.sync(5, 1)) is Code.OUT_OF_ORDER
        await store.sync(5, 3)
    for _ in range(2):
        async with bench.store("stop") as store:
            assert await refused_later(store.sync(5, 1)) is Code.OUT_OF_ORDER
            await store.sync(5, 2)


async def test_a_copy_lacks_what_its_source_may_have_lost():
    bench = Bench()
    await bench.format()
    async with bench.store("kill") as store:
        incoming = store.incoming(5, 9)
        incoming.add(memoryview(b"x" * BLOCK))
        incoming.lost = 7
        await incoming.adopt()
        assert store.lost(5) == 7
    async with bench.store() as store:
        assert store.lost(5) == 7
        assert await refused_later(store.sync(5, 7)) is Code.OUT_OF_ORDER
        await store.sync(5, 8)


# --- full disks, failing disks -------------------------------------------------------------------


async def test_a_write_that_finds_the_disk_full_changes_nothing():
    bench = Bench(capacity_bytes=24 * MIB)
    await bench.format()
    async with bench.store("kill") as store:
        store.create(5, 1)
        written = 0
        while True:
            piece = bytes([written % 251]) * 300_000
            try:
                write(store, 5, written, piece)
            except TideError:
                break
            written += len(piece)
        assert refused(lambda: write(store, 5, written, piece)) is Code.NO_SPACE
        assert written > 10 * MIB
        before = await content(store, 5, written - MIB)
        assert refused(lambda: write(store, 5, written - 100, piece)) is Code.NO_SPACE
        assert refused(lambda: write(store, 5, 50 * MIB, piece)) is Code.NO_SPACE
        assert await content(store, 5, written - MIB) == before
        await store.sync(5)
        assert store.space().free_bytes < 300_000
        bench.disk.capacity_bytes += 10 * MIB
        write(store, 5, written - 100, b"!")
        await store.sync(5)
    async with bench.store() as store:
        assert await content(store, 5, written - 101, 2) == before[-101:-100] + b"!"


async def test_a_disk_that_somebody_else_fills_up_meanwhile(monkeypatch):
    """Its free space says nothing then: the write itself finds no room, and must not be half
    there."""
    bench = Bench(capacity_bytes=24 * MIB)
    await bench.format()
    monkeypatch.setattr(bench.disk, "space", lambda: DiskSpace(1 << 40, 100 * MIB))
    async with bench.store("kill") as store:
        store.create(5, 1)
        model = bytearray()
        sizes = random.Random(1)
        while len(model) < 100 * MIB:
            piece = sizes.randbytes(1000) * sizes.randrange(1, 2000)
            try:
                write(store, 5, len(model), piece)
            except TideError:
                break
            model += piece
        for offset in (len(model), len(model) - 70_000, len(model) + 100_000):
            assert refused(lambda at=offset: write(store, 5, at, piece)) is Code.NO_SPACE
        for start in range(0, len(model), 4 * MIB):
            assert await content(store, 5, start) == model[start : start + 4 * MIB]
        assert not any(await content(store, 5, len(model)))
        await store.sync(5)
    async with bench.store() as store:
        for start in range(0, len(model), 4 * MIB):
            found = await content(store, 5, start)
            assert found[: len(model) - start] == model[start : start + 4 * MIB]
            assert not any(found[len(model) - start :])
    assert not bench.damage


async def test_a_capacity_is_kept_and_given_back():
    bench = Bench()
    bench.settings = SETTINGS._replace(capacity_bytes=2 * MIB)
    await bench.format()
    async with bench.store() as store:
        store.create(5, 1)
        write(store, 5, 0, b"x" * MIB)
        assert refused(lambda: write(store, 5, MIB, b"x" * MIB)) is Code.NO_SPACE
        total_bytes, free_bytes = store.space()
        assert total_bytes == 2 * MIB
        assert MIB - 10_000 < free_bytes < MIB
        await store.delete([(5, 1)])
        assert store.space().free_bytes > 2 * MIB - 10_000


async def test_a_file_whose_sync_failed_is_not_believed_again():
    bench = Bench()
    await bench.format()
    async with bench.store("kill") as store:
        store.create(5, 1)
        write(store, 5, 0, b"x" * MIB)
        bench.disk.failing.add(chunk_path(5))
        assert await refused_later(store.sync(5)) is Code.DEVICE_ERROR
        bench.disk.failing.clear()
        assert await refused_later(store.sync(5)) is Code.DEVICE_ERROR
        assert refused(lambda: write(store, 5, 0, b"y")) is Code.DEVICE_ERROR
        assert await refused_later(store.set_version(5, 1, 2, -1)) is Code.DEVICE_ERROR


async def test_a_journal_whose_sync_failed_ends_the_store():
    bench = Bench()
    await bench.format()

    async def work():
        async with bench.store() as store:
            store.create(5, 1)
            write(store, 5, 0, b"x")
            bench.disk.failing.update(f"{JOURNAL}/{name}" for name in bench.disk.names(JOURNAL))
            assert await refused_later(store.sync(5)) is Code.DEVICE_ERROR
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await work()
    assert caught.group_contains(TideError, match="syncing")


# --- damage --------------------------------------------------------------------------------------


async def test_a_flipped_bit_is_never_served_and_a_whole_block_written_heals_it():
    bench = Bench()
    await bench.format()
    async with bench.store() as store:
        store.create(5, 1)
        write(store, 5, 0, b"x" * 3 * BLOCK)
        await store.sync(5)
        bench.disk.flip_bit(chunk_path(5), DATA_START + BLOCK + 7)
        assert await content(store, 5, 0, BLOCK) == b"x" * BLOCK
        assert await refused_later(store.read(5, BLOCK - 1, 2)) is Code.BAD_CHECKSUM
        assert [(found.handle, found.version, found.offset) for found in bench.damage] == [
            (5, 1, BLOCK)
        ]
        assert refused(lambda: write(store, 5, BLOCK, b"y")) is Code.BAD_CHECKSUM
        write(store, 5, BLOCK, b"y" * BLOCK)
        assert await content(store, 5, BLOCK - 1, 2) == b"xy"


async def test_a_file_that_was_shortened_is_damaged_and_not_full_of_zeros():
    bench = Bench()
    await bench.format()
    async with bench.store() as store:
        store.create(5, 1)
        write(store, 5, 0, b"x" * 3 * BLOCK)
    bench.disk.open(chunk_path(5)).truncate(DATA_START + BLOCK)
    async with bench.store() as store:
        assert await content(store, 5, 0, BLOCK) == b"x" * BLOCK
        assert await refused_later(store.read(5, BLOCK, 1)) is Code.BAD_CHECKSUM
        assert await refused_later(store.read(5, 2 * BLOCK, 1)) is Code.BAD_CHECKSUM


async def test_a_damaged_header_sets_the_file_aside():
    bench = Bench()
    await bench.format()
    async with bench.store() as store:
        store.create(5, 1)
        write(store, 5, 0, b"x" * 3 * BLOCK)
    bench.disk.flip_bit(chunk_path(5), 20)
    async with bench.store() as store:
        assert store.reports() == []
        assert bench.disk.names("damaged") == ["0000000000000005"]
        store.create(5, 2)


@pytest.mark.parametrize("seed", range(10))
async def test_a_file_that_was_only_begun_when_the_machine_crashed_is_no_damage(seed):
    """Its name and bytes may be on stable storage before its CREATE is."""
    bench = Bench(seed)
    await bench.format()
    async with bench.store("crash") as store:
        store.create(5, 1)
        write(store, 5, 0, b"x" * 3 * BLOCK)
        await bench.disk.sync_folder(chunk_folder(5))
    async with bench.store() as store:
        assert not bench.disk.exists("damaged")
        assert bench.disk.exists(chunk_path(5)) == bool(store.reports())


async def test_a_journal_with_damage_in_the_middle_refuses_to_start():
    bench = Bench()
    await bench.format()
    async with bench.store("kill") as store:
        store.create(5, 1)
        for number in range(5):
            write(store, 5, 0, bytes([number]) * 100)
            await store.sync(5)
    (name,) = bench.disk.names(JOURNAL)
    bench.disk.flip_bit(f"{JOURNAL}/{name}", 400)
    with pytest.raises(ExceptionGroup) as caught:
        async with bench.store():
            pass
    assert caught.group_contains(TideError, match=r"journal/\w+: record \d+ is damaged")


# --- bounds --------------------------------------------------------------------------------------


async def test_the_journal_stays_short_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(upkeep_module, "JOURNAL_WANTED_BYTES", 12 * MIB)
    monkeypatch.setattr(upkeep_module, "JOURNAL_MAX_BYTES", 24 * MIB)
    bench = Bench()
    await bench.format()
    async with bench.store("crash") as store:
        for handle in range(4):
            store.create(handle, 1)
            write(store, handle, 0, b"x" * MIB)
            await store.sync(handle)
        for number in range(120):
            handle = number % 4
            write(store, handle, 0, bytes([number]) * MIB)
            if number % 10 == 9:
                await store.sync(handle)
            await store.upkeep.relieved()
            assert store.journal.size_bytes < 30 * MIB
        for handle in range(4):
            await store.sync(handle)
    async with bench.store() as store:
        for handle in range(4):
            assert await content(store, handle) == bytes([116 + handle]) * MIB
        assert len(bench.disk.names(JOURNAL)) < 8


async def test_more_chunks_than_are_kept_in_use(monkeypatch):
    monkeypatch.setattr(shelf_module, "CHUNKS_IN_USE_MAX", 4)
    monkeypatch.setattr(shelf_module, "FILES_MAX", 3)
    bench = Bench(cold_percent=20)
    await bench.format()
    async with bench.store() as store:
        for handle in range(20):
            store.create(handle, 1)
            write(store, handle, 0, bytes([handle]) * 1000)
            if handle % 7 == 6:
                await store.upkeep.flush(idle_ns=0)
        for handle in range(20):
            assert await content(store, handle) == bytes([handle]) * 1000
            while (record := store.write_nowait(handle, 1, 500, memoryview(b"!"))) is None:
                await store.warm(handle, 500, 1)
            await store.wait_synced(record)
        assert len(store.shelf.chunks()) >= 4
    async with bench.store() as store:
        for handle in range(20):
            assert await content(store, handle, 500, 2) == b"!" + bytes([handle])
        assert len(store.shelf.chunks()) <= 5


async def test_a_deleted_chunk_can_come_again_and_starts_empty():
    bench = Bench()
    await bench.format()
    for end in ("kill", "crash", "stop"):
        async with bench.store(end) as store:
            store.create(5, 1)
            write(store, 5, 0, b"x" * 100_000)
            await store.sync(5)
            assert await store.delete([(5, 0), (9, 9)]) == []
            assert await store.delete([(5, 1)]) == [5]
            assert await refused_later(store.read(5, 0, 1)) is Code.NO_CHUNK
            store.create(5, 1)
            write(store, 5, 0, b"y")
            await store.sync(5)
        async with bench.store() as store:
            assert await content(store, 5) == b"y"
            await store.delete([(5, 1)])


async def test_writes_are_flushed_after_a_while_without_being_asked(autojump_clock):
    bench = Bench()
    await bench.format()
    async with bench.store("crash") as store:
        store.create(5, 1)
        write(store, 5, 0, b"x" * MIB)
        await trio.sleep(3 * upkeep_module.FLUSH_S)
    async with bench.store() as store:
        assert await content(store, 5) == b"x" * MIB
        assert store.reports()[0].clean
