"""The log is cut, at either end or as a whole; the power fails, or the process dies, at every step.

Records that are cut off were promised once, so recovery must never take half of it for damage.
"""

import pytest
import trio
from tidefs.metaserver.oplog import Log
from tidefs.metaserver.raft.contract import Record

from .stepped_disk import SteppedDisk, died

SEGMENT_BYTES = 4 * 1024
LAST = 120


def records(first: int, count: int, term: int) -> list[Record]:
    return [
        Record(term, index, bytes([index % 256]) * 100) for index in range(first, first + count)
    ]


async def open_log(disk: SteppedDisk, **options) -> Log:
    return await Log.open(disk, "cluster", segment_bytes=SEGMENT_BYTES, **options)


async def read_all(log: Log) -> list[Record]:
    found: list[Record] = []
    while (first := log.first_index + len(found)) <= log.last_index:
        found += await log.read(first, log.last_index)
    return found


def at_every_step(work, check, *, crash: bool) -> None:
    """``check(log, done)`` is given what is recovered after ``work(log)`` was stopped."""

    async def attempt(die_at: int) -> bool:
        disk = SteppedDisk()
        log = await open_log(disk)
        for first in range(1, LAST, 10):
            await log.append(records(first, 10, 1))
        disk.steps, disk.die_at = 0, die_at
        done = False
        try:
            await work(log)
            done = True
        except BaseException as error:
            if not died(error):
                raise
        disk.fail(die_at, crash=crash)
        log = await open_log(disk)
        found = await read_all(log)
        await check(log, found, done)
        # It goes on.
        more = records(log.last_index + 1, 50, 9)
        await log.append(more)
        log.close()
        log = await open_log(disk)
        assert await read_all(log) == found + more
        log.close()
        return done

    async def main():
        die_at = 1
        while not await attempt(die_at):
            die_at += 1
        assert die_at > 3

    trio.run(main)


@pytest.mark.parametrize("crash", [True, False])
@pytest.mark.parametrize("index", [2, 15, 31, 32, 33, 90, 120])
def test_a_suffix_is_dropped_whole_or_not_at_all(index, crash):
    async def work(log):
        await log.truncate_suffix(index)

    async def check(log, found, done):
        assert found == records(1, len(found), 1)
        assert len(found) >= index - 1
        assert not done or len(found) == index - 1

    at_every_step(work, check, crash=crash)


@pytest.mark.parametrize("crash", [True, False])
@pytest.mark.parametrize("index", [15, 33, 60])
def test_what_takes_the_place_of_a_suffix_never_mixes_with_it(index, crash):
    new = records(index, 20, 2)

    async def work(log):
        await log.truncate_suffix(index)
        await log.append(new)

    async def check(log, found, done):
        replaced = found[index - 1 :] if any(one.term == 2 for one in found) else []
        if replaced:
            assert found[: index - 1] == records(1, index - 1, 1)
            assert replaced == new[: len(replaced)]
            assert log.last_term == 2
        else:
            assert found == records(1, len(found), 1)
            assert len(found) >= index - 1
        assert not done or replaced == new

    at_every_step(work, check, crash=crash)


@pytest.mark.parametrize("crash", [True, False])
def test_a_prefix_goes_segment_by_segment(crash):
    async def work(log):
        await log.truncate_prefix(100)

    async def check(log, found, done):
        assert log.last_index == LAST
        assert log.first_index <= 100
        assert not done or log.first_index > 1
        assert found == records(log.first_index, LAST + 1 - log.first_index, 1)
        assert log.terms.at(log.first_index - 1) == (1 if log.first_index > 1 else 0)

    at_every_step(work, check, crash=crash)


@pytest.mark.parametrize("crash", [True, False])
def test_a_log_that_begins_anew_is_the_old_ones_beginning_until_then(crash):
    """The snapshot says that it has to be done again."""

    async def work(log):
        await log.reset(200, 5)

    async def check(log, found, done):
        if log.first_index == 201:
            assert (log.last_index, log.last_term, found) == (200, 5, [])
        else:
            assert not done
            assert found == records(1, len(found), 1)

    at_every_step(work, check, crash=crash)
