"""Locks that are lost with their session: who may not believe in them, and what must not come late.

Fencing tokens: what a write carries, and who is refused for it.
"""

import os
from contextlib import suppress
from functools import partial

import pytest
import trio
from tidefs.client.fuse.driver import NewAttributes
from tidefs.client.vfs_locks import FENCE_XATTR
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import MIB
from tidefs.fs.messages import meta
from tidefs.tests.client.test_locks import ME, A, B, fcntl, flock, held, names, open_both, refused

RW = os.O_RDWR
SIZES = [10, 100_000]
"""In the inode, and in a chunk."""


async def test_whoever_held_a_lock_gets_eio_until_the_file_is_closed(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second, b"before")
        other, _ = await first.create(1, b"other", 0o644, RW | os.O_CREAT, ME)
        free = (await first.open(other.attributes.inode, RW)).handle
        await first.write(free, 0, b"free")
        await flock(first, one, A)
        await first.write(one, 0, b"late")
        first.meta.lose_session()
        for call in (
            partial(first.read, one, 0, 10),
            partial(first.write, one, 0, b"x"),
            partial(first.fsync, one, False),
            partial(first.flush, one, A),
            partial(flock, first, one, A),
            partial(flock, first, one, A, "u"),
            partial(first.fallocate, one, 0, 0, 100),
        ):
            assert await refused(call) is Code.DEVICE_ERROR
        assert bytes(await first.read(free, 0, 10)) == b"free", "it held no lock"
        again = (await first.open(inode, RW)).handle
        assert bytes(await first.read(again, 0, 10)) == b"before"
        await flock(second, two, A)
        await second.write(two, 0, b"second")
        await flock(second, two, A, "u")
        await flock(first, again, A)
        assert bytes(await first.read(again, 0, 10)) == b"second"
        await first.write(again, 0, b"third!")
        await first.release(one, A)
        await first.flush(free)
        await flock(first, again, A, "u")
        assert cluster.content(inode) == b"third!"
        assert cluster.content(other.attributes.inode) == b"free"


async def test_who_opens_the_file_again_waits_until_what_was_lost_is_gone(
    autojump_clock, cluster, on
):
    async with on("nfs", "nfs") as (first, second):
        inode, one, _ = await open_both(first, second, b"before")
        await flock(first, one, A)
        cluster.weather.slowest_s = 3
        await first.write(one, 0, b"late" * MIB)
        await trio.sleep(0.1)
        assert first.vfs.files.peek(inode).changes.pushing, "some of it is on its way"
        first.meta.lose_session()
        cluster.weather.slowest_s = 0.001
        again = (await first.open(inode, RW)).handle
        assert bytes(await first.read(again, 0, 10)) == b"before"
        await first.write(again, 0, b"AGAIN")
        await trio.sleep(10)
        await first.flush(again)
        assert cluster.content(inode) == b"AGAINe"


async def test_who_waits_in_a_session_that_ends_gets_eio(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second)
        await flock(first, one, A)
        async with trio.open_nursery() as nursery:

            async def wait():
                assert await refused(flock, second, two, A, wait=True) is Code.DEVICE_ERROR

            nursery.start_soon(wait)
            await trio.sleep(1)
            second.meta.lose_session()
        await flock(first, one, A, "u")
        await flock(second, two, A)
        assert [lock.session for lock in held(cluster, inode)] == [second.meta.session]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
async def test_a_late_write_does_not_get_in(autojump_clock, cluster, on, mode, size):
    """The first mount is paused beyond its lease, and wakes up within what it does under its
    lock."""
    async with on(mode, mode) as (first, second):
        inode, one, two = await open_both(first, second, b"0" * size)
        await flock(first, one, A)
        await first.write(one, 0, b"1" * size)
        first.meta.expire_session()
        await flock(second, two, A)
        await second.write(two, 0, b"2" * size)
        await flock(second, two, A, "u")
        for call in (
            partial(first.write, one, 0, b"3" * size),
            partial(flock, first, one, A, "u"),
            partial(first.flush, one),
        ):
            with suppress(TideError):  # when it is noticed first does not matter
                await call()
        await trio.sleep(20)
        assert cluster.content(inode) == b"2" * size
        assert await refused(first.read, one, 0, 1) is Code.DEVICE_ERROR


async def test_a_late_commit_of_what_was_sent_in_time_does_not_get_in(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second, bytes(MIB))
        await flock(first, one, A)
        await first.write(one, MIB, b"1" * MIB)
        await trio.sleep(1)
        assert not first.vfs.files.peek(inode).changes.dirty, "it was sent behind the writer"
        first.meta.expire_session()
        await flock(second, two, A)
        with suppress(TideError):
            await flock(first, one, A, "u")
        await trio.sleep(20)
        assert cluster.state.attributes(inode).size == MIB


async def test_the_token_alone_refuses_a_late_write(autojump_clock, cluster, on):
    """As long as nobody has told this client that its session is over."""
    async with on("uncached", "nfs") as (first, second):
        inode, one, two = await open_both(first, second, bytes(100_000))
        await flock(first, one, A)
        await first.write(one, 0, b"1" * 100_000)
        place = first.vfs.files.peek(inode).layout.writable(0).place
        fence = first.vfs.files.peek(inode).fence
        first.meta.expire_session()
        await flock(second, two, A)
        await second.write(two, 0, b"2" * 100_000)
        await flock(second, two, A, "u")
        newer = second.vfs.files.peek(inode).layout.writable(0).place
        assert newer.version > place.version, "after a loss all chunks are granted anew"
        assert await refused(first.chunks.write, place, 0, [b"3"], fence) is Code.STALE_VERSION
        assert await refused(first.chunks.write, newer, 0, [b"3"], fence) is Code.FENCED


async def test_after_a_loss_all_chunks_are_granted_anew_and_holes_stay(
    autojump_clock, cluster, on, small
):
    with small():
        async with on("nfs", "nfs") as (first, second):
            _, one, two = await open_both(first, second)
            for index in (0, 1, 4):
                await first.write(one, index * 256 * 1024, b"x" * 1000)
            await flock(first, one, A)
            await first.write(one, 0, b"y")
            await first.fsync(one, False)
            before = {handle: chunk.version for handle, chunk in cluster.chunks.items()}
            assert len(before) == 3
            first.meta.expire_session()
            await flock(second, two, A)
            after = {handle: chunk.version for handle, chunk in cluster.chunks.items()}
            assert after.keys() == before.keys()
            assert all(after[handle] > before[handle] for handle in before)
            cluster.calls.clear()
            await flock(second, two, A, "u")
            await flock(second, two, A)
            assert "GetLayout" not in names(cluster), "once is enough"


async def test_after_a_wait_the_loss_is_known_as_well(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, one, two = await open_both(first, second, bytes(100_000))
        await flock(first, one, A)
        await first.write(one, 0, b"1" * 100_000)
        await first.fsync(one, False)
        (chunk,) = cluster.chunks.values()
        version = chunk.version
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(flock, second, two, A, wait=True))
            await trio.sleep(1)
            first.meta.expire_session()
        assert chunk.version > version


async def test_two_who_hold_different_ranges_both_write(autojump_clock, cluster, on):
    """The token of the one is older than that of the other, and refused; but its lock is good."""
    async with on("uncached", "nfs") as (first, second):
        inode, one, two = await open_both(first, second, bytes(100_000))
        await fcntl(first, one, A, "w", 0, 50_000)
        await fcntl(second, two, A, "w", 50_000, 100_000)
        for turn in b"abc":
            await second.write(two, 50_000, bytes([turn]) * 50_000)
            await second.fsync(two, False)
            await first.write(one, 0, bytes([turn]) * 50_000)
            assert cluster.content(inode) == bytes([turn]) * 100_000
        assert names(cluster).count("GetSessionLocks") == 1


async def test_the_token_can_be_read(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, one, _ = await open_both(first, second)
        assert await refused(first.getxattr, inode, FENCE_XATTR) is Code.NO_ATTRIBUTE
        await fcntl(first, one, A, "w", 0, 1)
        early = int(await first.getxattr(inode, FENCE_XATTR))
        await fcntl(first, one, B, "w", 1, 2)
        late = int(await first.getxattr(inode, FENCE_XATTR))
        assert 0 < early < late
        assert late == max(lock.token for lock in held(cluster, inode))
        assert await refused(second.getxattr, inode, FENCE_XATTR) is Code.NO_ATTRIBUTE
        assert FENCE_XATTR not in await first.listxattr(inode)
        assert await refused(first.setxattr, inode, FENCE_XATTR, b"9", 0) is Code.NOT_PERMITTED
        assert await refused(first.removexattr, inode, FENCE_XATTR) is Code.NOT_PERMITTED
        await fcntl(first, one, B, "u", 1, 2)
        assert int(await first.getxattr(inode, FENCE_XATTR)) == early
        await first.flush(one, A)
        assert await refused(first.getxattr, inode, FENCE_XATTR) is Code.NO_ATTRIBUTE
        assert first.vfs.files.peek(inode).fence == 0


async def test_who_has_not_heard_for_a_lease_asks_before_believing_in_a_lock(
    autojump_clock, cluster, on
):
    async with on("nfs", "nfs") as (first, second):
        inode, one, two = await open_both(first, second, b"before")
        await flock(first, one, A)
        assert bytes(first.known_to_answer("read", one, 0, 10)) == b"before"
        first.meta.lease_until_ns = 0
        assert bytes(await first.read(one, 0, 10)) == b"before"
        first.known_to_answer("write", one, 0, b"during")
        first.meta.lease_until_ns = 0
        await first.write(one, 0, b"mine!!")
        first.meta.expire_session()
        first.meta.lease_until_ns = 0
        await flock(second, two, A)
        await second.write(two, 0, b"theirs")
        await flock(second, two, A, "u")

        async def find_out(session):
            first.meta.lose_session()
            raise TideError(Code.SESSION_EXPIRED, f"session {session}")

        first.meta.renew = find_out
        assert await refused(first.read, one, 0, 10) is Code.DEVICE_ERROR
        assert await refused(first.write, one, 0, b"x") is Code.DEVICE_ERROR
        await trio.sleep(1)
        assert cluster.content(inode) == b"theirs"


async def test_a_truncation_under_a_lost_lock_is_refused(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, one, _ = await open_both(first, second, b"before")
        await flock(first, one, A)
        first.meta.expire_session()
        with pytest.raises(TideError) as caught:
            await first.setattr(inode, NewAttributes(size=0), one)
        assert caught.value.errno == 5
        assert cluster.content(inode) == b"before"
        assert meta.SetAttributes in [type(call) for call in cluster.calls]
