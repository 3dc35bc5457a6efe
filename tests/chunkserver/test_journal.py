"""The journal on the disk that forgets: what was synced is read back, and nothing else."""

from functools import partial

import pytest
import trio
from tidefs.chunkserver.journal import Journal
from tidefs.chunkserver.records import JOURNAL, Kind, number_body, read_number
from tidefs.fs.limits import MIB
from tidefs.tests.sim import determinism
from tidefs.tests.sim.crash_disk import CrashDisk
from tidefs.tests.sim.ports import SimulatedRandomness


def journal_on(disk: CrashDisk) -> Journal:
    return Journal(disk, 9, 5 * MIB)


async def new_disk(seed: int) -> CrashDisk:
    disk = CrashDisk(SimulatedRandomness(f"disk {seed}"), latency_s=0.01)
    disk.make_folder(JOURNAL)
    await disk.sync_folder("")
    await journal_on(disk).make()
    return disk


def numbers(history) -> list[int]:
    return [read_number(record.body) for record in history.records]


@pytest.mark.parametrize("seed", range(40))
def test_what_a_crash_tore_never_comes_back_behind_new_records(seed):
    """All records are of one length: an old one would fit exactly behind a new one."""

    async def main():
        disk = await new_disk(seed)
        journal = journal_on(disk)
        await journal.read()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            for number in range(20):
                journal.append(Kind.CREATE, 1, [number_body(number)])
            await journal.wait_synced(journal.last)
            for number in range(20, 100):
                journal.append(Kind.CREATE, 1, [number_body(number)])
            nursery.cancel_scope.cancel()
        disk.crash(SimulatedRandomness(f"crash {seed}"))
        journal = journal_on(disk)
        survived = numbers(await journal.read())
        assert survived == list(range(len(survived)))
        assert len(survived) >= 20
        journal.append(Kind.CREATE, 1, [number_body(7777)])
        disk.kill()
        assert numbers(await journal_on(disk).read()) == [*survived, 7777]
        disk.crash(SimulatedRandomness(f"again {seed}"))
        assert numbers(await journal_on(disk).read()) == [*survived, 7777]

    determinism.run(main, seed)


def test_all_that_wait_share_one_sync():
    async def main():
        disk = await new_disk(0)
        journal = journal_on(disk)
        await journal.read()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            async with trio.open_nursery() as waiters:
                for number in range(50):
                    record = journal.append(Kind.CREATE, number, [number_body(number)])
                    waiters.start_soon(partial(journal.wait_synced, record))
            assert journal.synced == journal.last
            nursery.cancel_scope.cancel()
        assert trio.current_time() < 0.1

    determinism.run(main, 0)


def test_dead_segments_are_removed_and_the_rest_is_read():
    async def main():
        disk = await new_disk(0)
        journal = journal_on(disk)
        await journal.read()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            for number in range(12):
                journal.append(Kind.WRITE, 1, [number_body(number), bytes(MIB)])
            assert len(disk.names(JOURNAL)) == 3
            assert not journal.trimmable(4)
            assert journal.trimmable(9)
            await journal.trim(9)
            assert len(disk.names(JOURNAL)) == 1
            nursery.cancel_scope.cancel()
        disk.kill()
        history = await journal_on(disk).read()
        assert [record.sequence for record in history.records] == [9, 10, 11, 12, 13]

    determinism.run(main, 0)
