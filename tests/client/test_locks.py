"""Locks through the vfs of two mounts: who gets them, who waits, what closing gives back, and what
is seen under a lock."""

import os
from functools import partial

import pytest
import trio
from tidefs.client.fuse.driver import Caller, LockRange
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import LOCK_ASK_AGAIN_MS, LOCK_END
from tidefs.fs.messages import locks, meta

ME = Caller(1000, 1000, 1, 0o022)
RW = os.O_RDWR
A, B, C = 0x8000_0000_0000_000A, 0xB, 0xC


def names(cluster):
    return [type(call).__name__ for call in cluster.calls]


async def open_both(first, second, content=b""):
    """One file, open on both mounts: its inode and the two handles."""
    known, opened = await first.create(1, b"file", 0o644, RW | os.O_CREAT, ME)
    inode = known.attributes.inode
    if content:
        await first.write(opened.handle, 0, content)
        await first.flush(opened.handle)
    return inode, opened.handle, (await second.open(inode, RW)).handle


async def fcntl(mount, handle, owner, kind="w", start=0, end=LOCK_END, *, wait=False):
    if kind == "u":
        await mount.unlock(handle, owner, start, end, flock=False)
        return
    lock = LockRange(kind == "w", start, end, 4711)
    await mount.setlk(handle, owner, lock, wait=wait, flock=False)


async def flock(mount, handle, owner, kind="w", *, wait=False):
    if kind == "u":
        await mount.unlock(handle, owner, 0, LOCK_END, flock=True)
        return
    lock = LockRange(kind == "w", 0, LOCK_END, 4711)
    await mount.setlk(handle, owner, lock, wait=wait, flock=True)


async def refused(call, *arguments, **named) -> Code:
    with pytest.raises(TideError) as caught:
        await call(*arguments, **named)
    return caught.value.code


def held(cluster, inode):
    return list(cluster.state.tables.locks.held(inode, locks.LockKind.RANGE)) + list(
        cluster.state.tables.locks.held(inode, locks.LockKind.WHOLE)
    )


# --- who gets what


@pytest.mark.parametrize("lock", [fcntl, flock])
async def test_locks_exclude_between_mounts(autojump_clock, cluster, on, lock):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second)
        await lock(first, one, A)
        assert await refused(lock, second, two, A) is Code.WOULD_BLOCK
        assert await refused(lock, second, two, A, "r") is Code.WOULD_BLOCK
        assert await refused(lock, first, one, B) is Code.WOULD_BLOCK, "on one mount as well"
        await lock(first, one, A, "u")
        await lock(second, two, A, "r")
        await lock(first, one, A, "r")
        assert await refused(lock, first, one, A) is Code.WOULD_BLOCK
        await lock(second, two, A, "u")
        await lock(first, one, A)
        await lock(first, one, A, "u")
        assert not held(cluster, inode)


RANGES = [  # what one mount holds, what the other one wants, whether it must wait
    (("w", 0, 10), ("w", 10, 20), False),
    (("w", 0, 10), ("w", 9, 20), True),
    (("w", 5, 6), ("w", 0, LOCK_END), True),
    (("w", 0, LOCK_END), ("w", 1 << 40, (1 << 40) + 1), True),
    (("r", 0, 10), ("r", 5, 15), False),
    (("r", 0, 10), ("w", 5, 15), True),
    (("w", 0, 10), ("r", 5, 15), True),
    (("w", 10, 20), ("w", 0, 10), False),
    (("w", (1 << 63) - 2, LOCK_END), ("w", (1 << 63) - 1, LOCK_END), True),
]


@pytest.mark.parametrize(("has", "wants", "conflict"), RANGES)
async def test_ranges_conflict_where_they_overlap(
    autojump_clock, cluster, on, has, wants, conflict
):
    async with on("nfs", "nfs") as (first, second):
        _, one, two = await open_both(first, second)
        await fcntl(first, one, A, *has)
        kind, start, end = wants
        found = await second.getlk(two, A, LockRange(kind == "w", start, end, 1))
        if conflict:
            assert await refused(fcntl, second, two, A, *wants) is Code.WOULD_BLOCK
            assert found == LockRange(has[0] == "w", has[1], has[2], found.pid)
        else:
            await fcntl(second, two, A, *wants)
            assert found is None
        assert await first.getlk(one, A, LockRange(True, 0, LOCK_END, 1)) is None or not conflict


async def test_a_conversion_of_flock_begins_with_giving_up(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second)
        await flock(first, one, A, "r")
        await flock(second, two, A, "r")
        assert await refused(flock, first, one, A, "w") is Code.WOULD_BLOCK
        assert not first.vfs.locks.held
        assert [lock.session for lock in held(cluster, inode)] == [second.meta.session]
        await flock(second, two, A, "w")


async def test_too_many_locks_are_refused_and_the_table_stays_true(
    autojump_clock, cluster, on, monkeypatch
):
    async with on("nfs", "nfs") as (first, second):
        inode, one, _ = await open_both(first, second)
        monkeypatch.setattr("tidefs.metaserver.operations.lock.LOCKS_PER_INODE_MAX", 1)
        await fcntl(first, one, A, "w", 0, 100)
        assert await refused(fcntl, first, one, A, "u", 10, 20) is Code.NO_LOCKS
        assert first.vfs.locks.held.token(inode, locks.LockKind.RANGE)
        await fcntl(first, one, A, "u")
        assert not first.vfs.locks.held
        assert not held(cluster, inode)


async def test_getlk_tells_pids_of_this_machine_only(autojump_clock, cluster, on):
    async with on("nfs", "nfs", "nfs", host="host") as (first, second, _):
        _, one, two = await open_both(first, second)
        await fcntl(first, one, A)
        assert (await second.getlk(two, A, LockRange(True, 0, 1, 1))).pid == 4711
        second.vfs.host = "elsewhere"
        assert (await second.getlk(two, A, LockRange(True, 0, 1, 1))).pid == 0


async def test_flock_and_fcntl_do_not_see_each_other(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, one, two = await open_both(first, second)
        await fcntl(first, one, A)
        await flock(second, two, A)


async def test_part_of_a_range_is_given_back(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, one, two = await open_both(first, second)
        await fcntl(first, one, A, "w", 0, 100)
        await fcntl(first, one, A, "u", 40, 60)
        await fcntl(second, two, A, "w", 40, 60)
        assert await refused(fcntl, second, two, A, "w", 39, 40) is Code.WOULD_BLOCK
        assert await refused(fcntl, second, two, A, "w", 60, 61) is Code.WOULD_BLOCK


async def test_what_is_not_held_costs_no_question(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, one, _ = await open_both(first, second)
        before = len(cluster.calls)
        assert first.vfs.unlock(one, A, 0, LOCK_END, flock=False) is None
        assert first.vfs.flush(one, A) is None
        assert first.vfs.release(one, A) is None
        assert len(cluster.calls) == before


# --- waiting


async def test_who_waits_gets_it_in_order(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, one, two = await open_both(first, second)
        await flock(first, one, A)
        order = []

        async def wait(mount, handle, owner):
            await flock(mount, handle, owner, wait=True)
            order.append(owner)
            await flock(mount, handle, owner, "u")

        async with trio.open_nursery() as nursery:
            for owner in range(1, 7):
                mount, handle = ((first, one), (second, two))[owner % 2]
                nursery.start_soon(wait, mount, handle, owner)
                await trio.sleep(0.1)
            assert not order
            began = trio.current_time()
            await flock(first, one, A, "u")
        assert order == [1, 2, 3, 4, 5, 6]
        assert trio.current_time() - began < LOCK_ASK_AGAIN_MS / 1000, "they were told"


async def test_a_notice_that_is_lost_is_made_up_for(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, one, two = await open_both(first, second)
        second.meta.deaf = True
        await flock(first, one, A)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(flock, second, two, A, wait=True))
            await trio.sleep(1)
            await flock(first, one, A, "u")
        assert await refused(flock, first, one, A) is Code.WOULD_BLOCK


async def test_after_a_new_connection_it_is_asked_at_once(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, one, two = await open_both(first, second)
        second.meta.deaf = True
        await flock(first, one, A)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(flock, second, two, A, wait=True))
            await trio.sleep(0.5)
            await flock(first, one, A, "u")
            began = trio.current_time()
            second.meta.events.linked()
        assert trio.current_time() - began < 0.2


async def test_a_deadlock_across_mounts_is_told_to_one(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, one, two = await open_both(first, second)
        await fcntl(first, one, A, "w", 0, 1)
        await fcntl(second, two, A, "w", 1, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(fcntl, first, one, A, "w", 1, 2, wait=True))
            await trio.sleep(0.1)
            assert await refused(fcntl, second, two, A, "w", 0, 1, wait=True) is Code.DEADLOCK
            await fcntl(second, two, A, "u", 1, 2)


@pytest.mark.parametrize("patience_s", [0.001 * n for n in range(1, 60, 4)])
async def test_who_is_interrupted_does_not_hold_it(autojump_clock, cluster, on, patience_s):
    """Whatever was under way by then."""
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second)
        await flock(first, one, A)

        async def give_back():
            await trio.sleep(0.02)
            await flock(first, one, A, "u")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_back)
            with trio.move_on_after(patience_s) as scope:
                await flock(second, two, A, wait=True)
        if not scope.cancelled_caught:
            await flock(second, two, A, "u")
        await trio.sleep(1)
        assert not held(cluster, inode)
        assert not cluster.state.tables.locks.waiting(inode, locks.LockKind.WHOLE)
        assert not second.vfs.locks.held


@pytest.mark.parametrize("patience_s", [0.001 * n for n in range(1, 40, 3)])
async def test_who_is_interrupted_keeps_what_it_had(autojump_clock, cluster, on, patience_s):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second)
        await fcntl(second, two, A, "r", 0, 10)
        await fcntl(second, two, A, "w", 20, 30)
        await fcntl(first, one, A, "r", 0, 10)

        async def give_back():
            await trio.sleep(0.02)
            await fcntl(first, one, A, "u", 0, 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_back)
            with trio.move_on_after(patience_s) as scope:
                await fcntl(second, two, A, "w", 0, 25, wait=True)
        await trio.sleep(1)
        mine = [set(), set()]
        for lock in held(cluster, inode):
            mine[lock.exclusive].update(range(lock.start, lock.end))
        if scope.cancelled_caught:
            assert mine == [{*range(10)}, {*range(20, 30)}]
        else:
            assert mine == [set(), {*range(30)}]


async def test_the_interrupt_does_not_wait_for_servers_that_are_away(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, _, two = await open_both(first, second)
        cluster.weather.slowest_s = 100
        began = trio.current_time()
        with trio.move_on_after(0.1):
            await flock(second, two, A, wait=True)
        assert trio.current_time() - began < 2.2
        cluster.weather.slowest_s = 0.01
        await trio.sleep(1000)
        assert not held(cluster, inode)


# --- closing


async def test_a_close_gives_back_the_fcntl_locks_of_who_closes(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second)
        await fcntl(first, one, A, "w", 0, 10)
        await fcntl(first, one, B, "w", 10, 20)  # a child of the same open file
        await flock(first, one, C)
        again = (await first.open(inode, RW)).handle
        await first.flush(again, A)  # of another open file: all of the process' locks go
        assert [lock.owner for lock in held(cluster, inode)] == [B, C]
        await fcntl(second, two, A, "w", 0, 10)
        await first.flush(one, B)
        assert [lock.owner for lock in held(cluster, inode)] == [A, C]
        await first.release(one, C)
        assert [lock.owner for lock in held(cluster, inode)] == [A]


async def test_open_file_description_locks_end_with_the_open_file(autojump_clock, cluster, on):
    """The kernel gives them an owner that no close(2) names."""
    async with on("nfs", "nfs") as (first, second):
        inode, one, _ = await open_both(first, second)
        await fcntl(first, one, B, "w", 0, 10)
        await first.flush(one, A)
        assert held(cluster, inode)
        await first.release(one, None)
        assert not held(cluster, inode)


# --- what is seen under a lock


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
@pytest.mark.parametrize("size", [10, 100_000])
async def test_under_a_lock_the_last_holders_writes_are_seen(
    autojump_clock, cluster, on, mode, size
):
    async with on(mode, mode) as (first, second):
        inode, one, two = await open_both(first, second, b"0" * size)
        for mount, handle in [(first, one), (second, two)]:
            assert bytes(await mount.read(handle, 0, size)) == b"0" * size
        for turn in range(1, 7):
            mount, handle = ((first, one), (second, two))[turn % 2]
            await flock(mount, handle, A, wait=True)
            assert bytes(await mount.read(handle, 0, size)) == b"%d" % (turn - 1) * size
            await mount.write(handle, 0, b"%d" % turn * size)
            told = mount.kernel.told
            assert turn < 2 or (inode, "now") in told or mode == "uncached"
            told.clear()
            await flock(mount, handle, A, "u")
            assert cluster.content(inode) == b"%d" % turn * size


async def test_a_downgrade_writes_first(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second)
        await fcntl(first, one, A)
        await first.write(one, 0, b"new")
        await fcntl(first, one, A, "r")
        assert cluster.content(inode) == b"new"
        await fcntl(second, two, A, "r")
        assert bytes(await second.read(two, 0, 10)) == b"new"


async def test_what_cannot_be_written_does_not_come_late(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second)
        await flock(first, one, A)
        await first.write(one, 0, b"mine")
        cluster.weather.call_failures[meta.Commit] = [TideError(Code.NO_SPACE, "full")]
        assert await refused(flock, first, one, A, "u") is Code.NO_SPACE
        await flock(second, two, A)
        assert await refused(first.fsync, one, False) is Code.NO_SPACE, "who looks at an unlock?"
        await first.fsync(one, False)
        assert cluster.content(inode) == b""
