"""Bytes through the vfs: read, write, close, fsync, truncate, and who sees what when."""

import os

import pytest
import trio
from tidefs.client.fuse.driver import Caller, NewAttributes
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import (
    CACHE_BLOCK_BYTES,
    CHUNK_BYTES,
    DIRTY_MAX_BYTES,
    INLINE_MAX_BYTES,
    KIB,
    MIB,
)
from tidefs.fs.messages import meta

ME = Caller(1000, 1000, 1, 0o022)
RW = os.O_RDWR


def names(cluster):
    return [type(call).__name__ for call in cluster.calls]


async def new_file(mount, name=b"file", flags=RW):
    known, opened = await mount.create(1, name, 0o644, flags | os.O_CREAT, ME)
    return known.attributes.inode, opened.handle


async def test_a_small_file_costs_one_create_and_one_commit(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        assert mount.known_to_answer("write", handle, 0, b"hello") == 5
        assert bytes(mount.known_to_answer("read", handle, 0, 100)) == b"hello"
        await mount.flush(handle)
        await mount.release(handle)
        assert names(cluster) == ["Create", "Commit"]
        assert cluster.content(inode) == b"hello"
        assert not cluster.chunks
        assert not mount.meta.held


async def test_a_second_flush_has_nothing_to_do(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        _, handle = await new_file(mount)
        mount.known_to_answer("write", handle, 0, b"hello")
        await mount.flush(handle)
        assert mount.known_to_answer("flush", handle) is None
        assert mount.known_to_answer("fsync", handle, False) is None


async def test_a_large_file_goes_to_chunks_behind_the_writer(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        data = os.urandom(3 * MIB + 12345)
        for offset in range(0, len(data), 128 * 1024):
            await mount.write(handle, offset, data[offset : offset + 128 * 1024])
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        assert sum(len(piece) for _, _, piece in cluster.writes) >= 3 * MIB, "it was pushed early"
        await mount.flush(handle)
        assert cluster.content(inode) == data
        assert len(cluster.chunks) == 1
        assert not mount.meta.reservations
        assert bytes(await mount.read(handle, 0, len(data))) == data


async def test_the_first_write_to_a_fresh_chunk_goes_alone(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        _, handle = await new_file(mount)
        for offset in range(0, 16 * MIB, MIB):
            mount.known_to_answer("write", handle, offset, bytes(MIB))
        await mount.flush(handle)
        assert mount.chunks.in_flight_max > 1
        # The fake chunkserver refuses a write to a chunk that nobody made.


async def test_a_file_that_outgrows_its_inode_carries_its_bytes_over(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"x" * 5000)
        await first.flush(handle)
        opened = await second.open(inode, RW)
        await second.write(opened.handle, 5000, b"y" * INLINE_MAX_BYTES)
        await second.write(opened.handle, 10, b"z")
        await second.flush(opened.handle)
        expected = b"x" * 10 + b"z" + b"x" * 4989 + b"y" * INLINE_MAX_BYTES
        assert cluster.content(inode) == expected
        assert cluster.chunks


async def test_holes_and_the_end_of_the_file(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        far = 2 * CHUNK_BYTES + 77
        await mount.write(handle, far, b"end")
        assert bytes(await mount.read(handle, far - 5, 100)) == bytes(5) + b"end"
        assert bytes(await mount.read(handle, far + 3, 100)) == b""
        await mount.flush(handle)
        assert bytes(await mount.read(handle, CHUNK_BYTES - 10, 20)) == bytes(20)
        assert (await mount.getattr(inode, handle)).attributes.size == far + 3
        assert len(cluster.chunks) == 1


async def test_close_to_open_between_two_mounts(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"old" * MIB)
        await first.flush(handle)
        reader = await second.open(inode, os.O_RDONLY)
        assert bytes(await second.read(reader.handle, 0, 6)) == b"oldold"
        again = await second.open(inode, os.O_RDONLY)
        assert again.keep_cache
        await first.write(handle, 0, b"new")
        await first.write(handle, 3 * MIB, b"longer")
        opened = await second.open(inode, os.O_RDONLY)
        assert opened.keep_cache
        assert bytes(await second.read(opened.handle, 0, 6)) == b"oldold"
        await first.flush(handle)
        second.kernel.told.clear()
        opened = await second.open(inode, os.O_RDONLY)
        assert not opened.keep_cache
        assert second.kernel.told == [(inode, True)], "the kernel knew an older size"
        assert bytes(await second.read(opened.handle, 0, 6)) == b"newold"
        assert bytes(await second.read(opened.handle, 3 * MIB, 10)) == b"longer"


async def test_an_own_commit_behind_anothers_does_not_hide_it(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"old" * MIB)
        await first.flush(handle)
        other = (await second.open(inode, RW)).handle
        await second.write(other, 0, b"new")
        await second.flush(other)
        await first.write(handle, 2 * MIB, b"own")
        await first.flush(handle)
        opened = await first.open(inode, RW)
        assert not opened.keep_cache
        assert bytes(await first.read(opened.handle, 0, 6)) == b"newold"


async def test_a_hole_that_another_filled(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, CHUNK_BYTES, b"end")
        await first.flush(handle)
        assert bytes(await first.read(handle, 0, 3)) == bytes(3)
        other = (await second.open(inode, RW)).handle
        await second.write(other, 0, b"new")
        await second.flush(other)
        opened = await first.open(inode, RW)
        assert bytes(await first.read(opened.handle, 0, 3)) == b"new"


async def test_a_write_wins_over_a_fetch_that_began_before_it(autojump_clock, cluster, on):
    """Even when the written bytes were flushed and evicted before the fetch arrives."""
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"old" * MIB)
        await first.flush(handle)
        opened = await second.open(inode, RW)
        file = second.vfs.files.peek(inode)
        cluster.weather.slowest_s = 0
        release = trio.Event()
        read = second.chunks.read

        async def slow(place, offset, length):
            found = await read(place, offset, length)
            await release.wait()
            return found

        second.chunks.read = slow
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.read, opened.handle, 0, 3)
            await trio.testing.wait_all_tasks_blocked()
            await second.write(opened.handle, 0, b"new")
            await second.flush(opened.handle)
            second.vfs.files.blocks.drop(inode, 0)
            file.valid.remove(0, CACHE_BLOCK_BYTES)
            second.chunks.read = read
            release.set()
        assert bytes(await second.read(opened.handle, 0, 3)) == b"new"


async def test_own_changes_keep_the_own_caches(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 100)
        await mount.flush(handle)
        await mount.release(handle)
        opened = await mount.open(inode, RW)
        assert opened.keep_cache
        assert bytes(mount.known_to_answer("read", opened.handle, 0, 100)) == b"a" * 100
        await mount.write(opened.handle, 0, b"b" * MIB)
        await mount.flush(opened.handle)
        cluster.calls.clear()
        assert (await mount.open(inode, RW)).keep_cache
        assert bytes(mount.known_to_answer("read", opened.handle, 0, 3)) == b"bbb"
        assert names(cluster) == ["Open"]


async def test_uncached_writes_are_seen_at_once(autojump_clock, cluster, on):
    async with on("uncached", "uncached", "nfs") as (first, second, third):
        inode, handle = await new_file(first)
        reader = await second.open(inode, os.O_RDONLY)
        assert reader.direct_io
        for size in (10, INLINE_MAX_BYTES + 10, 2 * MIB):
            data = os.urandom(size)
            assert await first.write(handle, 0, data) == size
            assert bytes(await second.read(reader.handle, 0, size + 10)) == data
            assert cluster.content(inode) == data
        opened = await third.open(inode, RW)
        await third.write(opened.handle, 0, b"nfs")
        await third.flush(opened.handle)
        assert bytes(await second.read(reader.handle, 0, 3)) == b"nfs"
        assert (await second.getattr(inode, None)).attributes.size == 2 * MIB


@pytest.mark.parametrize("size", [100, INLINE_MAX_BYTES + 100])
async def test_what_is_not_committed_is_seen_on_no_uncached_mount(
    autojump_clock, cluster, on, size
):
    """Else it would be seen here, and not on another mount afterwards."""
    async with on("uncached", "uncached") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * size)
        reader = (await second.open(inode, os.O_RDONLY)).handle
        exchange, asked, go_on = first.meta.exchange, trio.Event(), trio.Event()

        async def held_back(request, *arguments, **named):
            if isinstance(request, meta.Commit):
                asked.set()
                await go_on.wait()
            return await exchange(request, *arguments, **named)

        first.meta.exchange = held_back
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.write, handle, size, b"b" * size)
            await asked.wait()
            for mount, own in ((first, handle), (second, reader)):
                assert bytes(await mount.read(own, 0, 3 * size)) == b"a" * size
                assert (await mount.getattr(inode, own)).attributes.size == size
            go_on.set()
        for mount, own in ((first, handle), (second, reader)):
            assert bytes(await mount.read(own, 0, 3 * size)) == b"a" * size + b"b" * size
            assert (await mount.getattr(inode, own)).attributes.size == 2 * size


async def test_what_is_not_committed_is_waited_for_on_its_own_strict_mount(
    autojump_clock, cluster, on
):
    """It would be lost with the mount, and whoever had read it would have seen what never was."""
    async with on("strict") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 100)
        exchange, asked, go_on = mount.meta.exchange, trio.Event(), trio.Event()
        found = []

        async def held_back(request, *arguments, **named):
            if isinstance(request, meta.Commit):
                asked.set()
                await go_on.wait()
            return await exchange(request, *arguments, **named)

        async def read():
            found.append(bytes(await mount.read(handle, 0, 300)))

        mount.meta.exchange = held_back
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.write, handle, 100, b"b" * 100)
            await asked.wait()
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert not found
            assert (await mount.getattr(inode, handle)).attributes.size == 100
            go_on.set()
        assert found == [b"a" * 100 + b"b" * 100]
        assert (await mount.getattr(inode, handle)).attributes.size == 200


async def test_a_read_ends_where_the_file_ended_when_it_was_answered(autojump_clock, cluster, on):
    """And not where it ends when the answer arrives, with zeros that nobody wrote."""
    async with on("uncached") as mount:
        _, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 10)
        exchange = mount.meta.exchange

        async def late(request, *arguments, **named):
            answer = await exchange(request, *arguments, **named)
            if isinstance(request, meta.GetContent):
                mount.meta.exchange = exchange
                await mount.write(handle, 10, b"b" * 10)
            return answer

        mount.meta.exchange = late
        assert bytes(await mount.read(handle, 0, 100)) == b"a" * 10
        assert bytes(await mount.read(handle, 0, 100)) == b"a" * 10 + b"b" * 10


@pytest.mark.parametrize("mode", ["uncached", "strict"])
@pytest.mark.parametrize("size", [10, INLINE_MAX_BYTES + 10])
async def test_a_write_of_a_session_that_is_over_is_not_sent_again(
    autojump_clock, cluster, on, mode, size
):
    """It may have been done, and others may have written since."""
    async with on(mode, "uncached") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * size)
        other = (await second.open(inode, RW)).handle
        exchange = first.meta.exchange

        async def late(request, *arguments, **named):
            answer = await exchange(request, *arguments, **named)
            if isinstance(request, meta.Commit):
                first.meta.exchange = exchange
                nursery.start_soon(second.write, other, 0, b"c" * size)
                await trio.testing.wait_all_tasks_blocked()
                first.meta.lose_session()
                raise TideError(Code.SESSION_EXPIRED, "the answer was lost")
            return answer

        first.meta.exchange = late
        async with trio.open_nursery() as nursery:
            with pytest.raises(TideError) as caught:
                await first.write(handle, 0, b"b" * size)
        assert caught.value.code is Code.DEVICE_ERROR
        assert cluster.content(inode) == b"c" * size
        await first.flush(handle)
        await first.write(handle, size, b"d")
        assert cluster.content(inode) == b"c" * size + b"d"


async def test_uncached_appends_do_not_overwrite_each_other(autojump_clock, cluster, on):
    async with on("uncached", "uncached") as (first, second):
        inode, handle = await new_file(first, flags=os.O_WRONLY | os.O_APPEND)
        other = (await second.open(inode, os.O_WRONLY | os.O_APPEND)).handle
        for at in range(5):
            await first.write(handle, 0, b"first%d" % at)
            await second.write(other, 0, b"other%d" % at)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(first.write, handle, 0, b"same!!")
        content = cluster.content(inode)
        assert content == b"".join(b"first%dother%d" % (at, at) for at in range(5)) + 5 * b"same!!"


@pytest.mark.parametrize("mode", ["nfs", "strict"])
@pytest.mark.parametrize("size", [10, INLINE_MAX_BYTES + 10])
async def test_a_truncation_that_changes_nothing_does_not_hide_what_another_changed(
    autojump_clock, cluster, on, mode, size
):
    async with on(mode, mode) as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * size)
        await first.flush(handle)
        other = (await second.open(inode, RW)).handle
        await second.write(other, 0, b"b" * size)
        await second.flush(other)
        await first.setattr(inode, NewAttributes(size=size), handle)
        opened = await first.open(inode, RW)
        assert bytes(await first.read(opened.handle, 0, 2 * size)) == b"b" * size


async def test_an_explicit_time_wins_over_a_later_flush(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        for size in (100, 2 * MIB):
            await mount.write(handle, 0, bytes(size))
            known = await mount.setattr(inode, NewAttributes(mtime_ns=12345, atime_ns=1), handle)
            assert known.attributes.mtime_ns == 12345
            assert known.attributes.size == size
            await mount.flush(handle)
            assert cluster.state.attributes(inode).mtime_ns == 12345
            assert cluster.state.attributes(inode).size == size
        await mount.write(handle, 0, b"later")
        await mount.flush(handle)
        assert cluster.state.attributes(inode).mtime_ns > 12345


async def test_the_time_of_a_write_does_not_change_at_the_flush(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await trio.sleep(5)
        await mount.write(handle, 0, b"hello")
        shown = (await mount.getattr(inode, handle)).attributes
        await trio.sleep(1)
        await mount.flush(handle)
        assert cluster.state.attributes(inode).mtime_ns == shown.mtime_ns


@pytest.mark.parametrize("size", [100, 3 * MIB])
@pytest.mark.parametrize("flushed", [True, False])
async def test_truncation(autojump_clock, cluster, on, size, flushed):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * size)
        if flushed:
            await mount.flush(handle)
        half = size // 2
        known = await mount.setattr(inode, NewAttributes(size=half), handle)
        assert known.attributes.size == half
        await mount.setattr(inode, NewAttributes(size=size), handle)
        await mount.write(handle, size + 1, b"b")
        expected = b"a" * half + bytes(size + 1 - half) + b"b"
        assert bytes(await mount.read(handle, 0, size + 10)) == expected
        await mount.flush(handle)
        assert cluster.content(inode) == expected
        await mount.setattr(inode, NewAttributes(size=0), handle)
        await mount.write(handle, 3, b"c")
        await mount.flush(handle)
        assert cluster.content(inode) == bytes(3) + b"c"
        assert not mount.meta.reservations


async def test_open_with_truncation(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 3 * MIB)
        await mount.flush(handle)
        opened = await mount.open(inode, os.O_WRONLY | os.O_TRUNC)
        assert (await mount.getattr(inode, None)).attributes.size == 0
        await mount.write(opened.handle, 0, b"b")
        await mount.flush(opened.handle)
        assert cluster.content(inode) == b"b"


async def test_an_unlinked_file_works_until_it_is_closed(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 2 * MIB)
        await mount.unlink(1, b"file")
        assert (await mount.getattr(inode, handle)).attributes.links == 0
        await mount.write(handle, 2 * MIB, b"b")
        await mount.fsync(handle, False)
        assert bytes(await mount.read(handle, 2 * MIB - 1, 10)) == b"ab"
        await mount.flush(handle)
        await mount.release(handle)
        assert not mount.meta.held
        assert cluster.state.orphans() == []
        assert not cluster.chunks


async def test_fsync_syncs_what_was_pushed_before(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 3 * MIB)
        await mount.flush(handle)
        assert cluster.syncs == []
        await mount.fsync(handle, True)
        (chunk,) = cluster.chunks.values()
        assert chunk.synced == b"a" * 3 * MIB
        assert mount.known_to_answer("fsync", handle, True) is None
        await mount.write(handle, CHUNK_BYTES, b"b")
        cluster.calls.clear()
        cluster.syncs.clear()
        await mount.fsync(handle, True)
        assert len(cluster.syncs) == 1, "only what was written since"
        assert cluster.content(inode)[CHUNK_BYTES:] == b"b"


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
async def test_what_moves_out_of_the_inode_is_synced_first(autojump_clock, cluster, on, mode):
    """It was durable in the log, perhaps fsynced: a power failure must not take it now."""
    async with on(mode) as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"small")
        await mount.fsync(handle, False)
        await mount.write(handle, INLINE_MAX_BYTES, b"more")
        await mount.flush(handle)
        cluster.crash_machine()
        assert cluster.content(inode).startswith(b"small")


async def refused(awaitable):
    with pytest.raises(TideError) as caught:
        await awaitable
    return caught.value.code


async def test_fsync_tells_once_what_a_power_failure_of_all_servers_took(
    autojump_clock, cluster, on
):
    """As NFSv3's write verifier does: what is not here any more cannot be sent again."""
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 3 * MIB)
        await mount.flush(handle)
        cluster.crash_machine()
        mount.vfs.files.peek(inode).drop_clean()
        assert await refused(mount.fsync(handle, False)) is Code.DEVICE_ERROR
        await mount.fsync(handle, False)
        await mount.write(handle, 0, b"b" * 3 * MIB)
        await mount.fsync(handle, False)
        assert cluster.content(inode) == b"b" * 3 * MIB


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
async def test_what_was_committed_and_is_still_cached_is_written_again(
    autojump_clock, cluster, on, mode
):
    async with on(mode) as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 3 * MIB)
        await mount.fsync(handle, False)
        await mount.write(handle, MIB, b"b" * MIB)
        await mount.flush(handle)
        mtime_ns = cluster.state.attributes(inode).mtime_ns
        cluster.crash_machine()
        await mount.fsync(handle, False)
        cluster.crash_machine()
        assert cluster.content(inode) == b"a" * MIB + b"b" * MIB + b"a" * MIB
        assert cluster.state.attributes(inode).mtime_ns == mtime_ns


async def test_what_was_only_pushed_when_the_servers_lost_power_is_pushed_again(
    autojump_clock, cluster, on
):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 3 * MIB)
        await trio.sleep(1)
        assert cluster.writes
        cluster.crash_machine()
        await mount.fsync(handle, False)
        assert cluster.content(inode) == b"a" * 3 * MIB
        cluster.crash_machine()
        assert cluster.content(inode) == b"a" * 3 * MIB


async def test_fsync_ends_when_what_all_servers_lost_was_truncated_away(
    autojump_clock, cluster, on
):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * MIB)
        await mount.fsync(handle, False)
        await mount.write(handle, MIB, b"b" * MIB)
        await mount.flush(handle)
        cluster.crash_machine()
        await mount.setattr(inode, NewAttributes(size=MIB), handle)
        with trio.fail_after(100):
            await mount.fsync(handle, False)
        assert cluster.content(inode) == b"a" * MIB


async def test_fsync_of_a_file_that_others_wrote(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * 3 * MIB)
        await first.flush(handle)
        opened = await second.open(inode, os.O_RDONLY)
        await second.fsync(opened.handle, False)
        assert len(cluster.syncs) == 1


async def test_writers_wait_when_much_is_dirty(autojump_clock, cluster, on):
    cluster.weather.slowest_s = 1
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        most = 0
        data = os.urandom(MIB)
        for at in range(100):
            await mount.write(handle, at * MIB, data)
            most = max(most, mount.vfs.files.account.bytes)
        assert most <= DIRTY_MAX_BYTES
        await mount.flush(handle)
        assert mount.vfs.files.account.bytes == 0
        assert mount.vfs.files.blocks.pinned_bytes == 0
        assert cluster.content(inode) == data * 100


async def test_scattered_writes_wait_as_well(autojump_clock, cluster, on):
    async with on("nfs", cache_bytes=16 * MIB) as mount:
        inode, handle = await new_file(mount)
        expected = bytearray(200 * 1_000_003 + 10)
        for at in range(200):
            offset = (at * 7919) % 200 * 1_000_003
            await mount.write(handle, offset, b"%010d" % at)
            expected[offset : offset + 10] = b"%010d" % at
        await mount.flush(handle)
        assert cluster.content(inode) == expected[: len(cluster.content(inode))]


async def test_what_is_dirty_for_long_is_flushed(autojump_clock, cluster, on):
    async with on("nfs") as mount, trio.open_nursery() as nursery:
        nursery.start_soon(mount.vfs.run)
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"hello")
        await trio.sleep(30)
        assert cluster.content(inode) == b"hello"
        nursery.cancel_scope.cancel()


async def test_sequential_reading_fetches_ahead(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        data = os.urandom(20 * MIB)
        for offset in range(0, len(data), MIB):
            await first.write(handle, offset, data[offset : offset + MIB])
        await first.flush(handle)
        opened = await second.open(inode, os.O_RDONLY)
        waited = 0
        for offset in range(0, len(data), 128 * 1024):
            answer = second.vfs.read(opened.handle, offset, 128 * 1024)
            if hasattr(answer, "__await__"):
                waited += 1
                answer = await answer
            assert bytes(answer) == data[offset : offset + 128 * 1024]
            await trio.sleep(0.02)
        assert waited < 10


async def test_two_handles_see_each_others_writes(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        other = (await mount.open(inode, RW)).handle
        await mount.write(handle, 0, b"hello")
        assert bytes(mount.known_to_answer("read", other, 0, 10)) == b"hello"
        await mount.write(other, 5, b" world")
        await mount.flush(handle)
        assert cluster.content(inode) == b"hello world"


async def test_writes_while_a_flush_is_under_way_are_not_lost(autojump_clock, cluster, on):
    cluster.weather.slowest_s = 0.1
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        expected = bytearray(os.urandom(4 * MIB))
        await mount.write(handle, 0, bytes(expected))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.flush, handle)
            for at in range(100):
                await trio.sleep(0.003)
                expected[at * 1000 : at * 1000 + 3000] = b"%03d" % at * 1000
                await mount.write(handle, at * 1000, b"%03d" % at * 1000)
        assert bytes(await mount.read(handle, 0, 4 * MIB)) == expected
        await mount.flush(handle)
        assert cluster.content(inode) == expected


async def test_stale_handles(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        with pytest.raises(TideError) as caught:
            await mount.read(77, 0, 1)
        assert caught.value.code is Code.STALE_HANDLE
        with pytest.raises(TideError) as caught:
            await mount.open(4711, 0)
        assert caught.value.code is Code.STALE_HANDLE


async def test_the_largest_file(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        _, handle = await new_file(mount)
        with pytest.raises(TideError) as caught:
            await mount.write(handle, 1 << 60, b"x")
        assert caught.value.code is Code.FILE_TOO_LARGE


async def test_a_release_flushes_what_a_mapping_wrote_after_the_close(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.flush(handle)
        await mount.write(handle, 0, b"mapped")
        await mount.release(handle)
        assert cluster.content(inode) == b"mapped"
        assert isinstance(cluster.calls[-1], meta.Commit)


async def test_a_commit_further_on_does_not_cut_off_what_is_still_on_its_way(
    autojump_clock, cluster, on, small
):
    """Of several pushes at a time, one into the next chunk may be the first to arrive."""
    piece, chunk = 64 * KIB, 256 * KIB
    with small():
        async with on("nfs") as mount:
            inode, handle = await new_file(mount)
            send, late = mount.chunks.write, trio.Event()

            async def write(place, offset, buffers, fence=0):
                if place.index == 0 and offset >= 2 * piece:
                    await late.wait()
                await send(place, offset, buffers)

            mount.chunks.write = write
            data = os.urandom(2 * chunk)
            for offset in range(0, len(data), piece):
                await mount.write(handle, offset, data[offset : offset + piece])
                await trio.sleep(0.1)
            commits = [call for call in cluster.calls if isinstance(call, meta.Commit)]
            assert max(commit.size for commit in commits) > chunk
            late.set()
            await mount.flush(handle)
            assert cluster.content(inode) == data
            assert len(cluster.writes) == len(data) // piece, "nothing was pushed twice"
