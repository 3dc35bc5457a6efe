"""Data through the vfs when replicas fail, layouts change, sessions are lost and disks are full."""

import os

import pytest
import trio
from tidefs.client.fuse.driver import Caller, NewAttributes
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CHUNK_BYTES, INLINE_MAX_BYTES, MIB
from tidefs.fs.messages import meta

ME = Caller(1000, 1000, 1, 0o022)
RW = os.O_RDWR


def failed(detail="before"):
    return TideError(Code.REPLICA_FAILED, detail)


async def new_file(mount, name=b"file"):
    known, opened = await mount.create(1, name, 0o644, RW | os.O_CREAT, ME)
    return known.attributes.inode, opened.handle


@pytest.mark.parametrize("detail", ["before the bytes arrived", "after the bytes arrived"])
async def test_failed_writes_are_repeated(autojump_clock, cluster, on, detail):
    data = os.urandom(9 * MIB)
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        cluster.weather.write_failures = [
            None,
            failed(detail),
            failed(detail),
            None,
            failed(detail),
        ]
        await mount.write(handle, 0, data)
        await mount.flush(handle)
        assert cluster.content(inode) == data
        assert not cluster.weather.write_failures


async def test_a_failure_brings_back_all_that_is_uncommitted(autojump_clock, cluster, on):
    """The chunk's replicas may be others after a new grant: earlier pushes must not count."""
    data = os.urandom(3 * MIB)
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        for at in range(2):
            await mount.write(handle, at * MIB, data[at * MIB : (at + 1) * MIB])
        await trio.sleep(1)
        assert len(cluster.writes) == 2
        cluster.chunks.clear()
        cluster.reserved.clear()
        cluster.granted.clear()
        await mount.write(handle, 2 * MIB, data[2 * MIB :])
        await mount.flush(handle)
        assert cluster.content(inode) == data


async def test_stale_grants_are_renewed(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * MIB)
        await mount.flush(handle)
        (chunk,) = cluster.chunks.values()
        chunk.version = cluster.next_version()
        cluster.granted.clear()
        await mount.write(handle, 0, b"b")
        await mount.flush(handle)
        assert cluster.content(inode)[:2] == b"ba"


async def test_a_crashed_chunkserver_loses_nothing_that_fsync_promised(autojump_clock, cluster, on):
    data = os.urandom(4 * MIB)
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, data[: 2 * MIB])
        await trio.sleep(1)
        assert cluster.writes, "some was pushed"
        await mount.fsync(handle, False)
        await mount.write(handle, 2 * MIB, data[2 * MIB :])
        await trio.sleep(1)
        cluster.crash_machine()
        await mount.fsync(handle, False)
        cluster.crash_machine()
        assert cluster.content(inode) == data


async def test_a_failed_sync_is_done_again_under_a_new_grant(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * MIB)
        await mount.flush(handle)
        cluster.weather.sync_failures = [failed(), failed()]
        cluster.granted.clear()
        await mount.fsync(handle, False)
        assert cluster.syncs
        (chunk,) = cluster.chunks.values()
        assert chunk.synced == cluster.content(inode)


async def test_reads_that_fail_are_tried_with_a_new_layout(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * MIB)
        await first.flush(handle)
        opened = await second.open(inode, os.O_RDONLY)
        cluster.weather.read_failures = [TideError(Code.STALE_VERSION), TideError(Code.NO_CHUNK)]
        assert bytes(await second.read(opened.handle, 0, 5)) == b"aaaaa"


async def test_bytes_that_are_gone_do_not_hang_for_ever(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * MIB)
        await first.flush(handle)
        cluster.chunks.clear()
        opened = await second.open(inode, os.O_RDONLY)
        with pytest.raises(TideError) as caught:
            await second.read(opened.handle, 0, 5)
        assert caught.value.code is Code.NO_CHUNK


async def test_a_soft_mount_gives_up(autojump_clock, cluster, on):
    async with on("nfs", patience_ms=2_000) as mount:
        _, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * MIB)
        cluster.weather.write_failures = [failed()] * 1000
        with pytest.raises(TideError) as caught:
            await mount.flush(handle)
        assert caught.value.code is Code.TIMED_OUT
        cluster.weather.write_failures = []


async def test_an_error_in_the_background_is_told_once(autojump_clock, cluster, on):
    full = TideError(Code.NO_SPACE, "chunkserver 1")
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        cluster.weather.write_failures = [full] * 3
        await mount.write(handle, 0, b"a" * 2 * MIB)
        await trio.sleep(1)
        with pytest.raises(TideError) as caught:
            await mount.fsync(handle, False)
        assert caught.value.code is Code.NO_SPACE
        cluster.weather.write_failures = []
        await mount.fsync(handle, False)
        assert cluster.content(inode) == b"a" * 2 * MIB, "what failed was kept and tried again"


async def test_an_error_in_the_background_reaches_the_next_write(autojump_clock, cluster, on):
    full = TideError(Code.NO_SPACE, "chunkserver 1")
    async with on("nfs") as mount:
        _, handle = await new_file(mount)
        cluster.weather.write_failures = [full] * 1000
        await mount.write(handle, 0, b"a" * 2 * MIB)
        await trio.sleep(1)
        with pytest.raises(TideError) as caught:
            await mount.write(handle, 2 * MIB, b"b")
        assert caught.value.code is Code.NO_SPACE
        with pytest.raises(TideError):
            await mount.flush(handle)
        await mount.release(handle)
        assert mount.vfs.files.account.bytes == 0, "reported, and given up with the last handle"
        assert not mount.meta.reservations
        cluster.weather.write_failures = []


async def test_a_full_disk_does_not_stop_the_writers_of_other_files(autojump_clock, cluster, on):
    full = TideError(Code.NO_SPACE, "chunkserver 1")
    async with on("nfs") as mount:
        handles = [(await new_file(mount, b"%d" % at))[1] for at in range(80)]
        cluster.weather.write_failures = [full] * 100_000
        for handle in handles:
            await mount.write(handle, 0, b"a" * MIB)
            with pytest.raises(TideError):
                await mount.flush(handle)
        for handle in handles:
            await mount.release(handle)
        assert mount.vfs.files.account.bytes == 0
        cluster.weather.write_failures = []


async def test_inline_conflict_two_mounts_patch_one_file(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"." * 10)
        await first.flush(handle)
        other = (await second.open(inode, RW)).handle
        await first.write(handle, 0, b"11")
        await second.write(other, 8, b"22")
        await first.flush(handle)
        await second.flush(other)
        assert cluster.content(inode) == b"11......22"


async def test_conflict_one_mount_makes_the_file_large_while_another_patches(
    autojump_clock, cluster, on
):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"." * 10)
        await first.flush(handle)
        other = (await second.open(inode, RW)).handle
        await second.write(other, 0, b"22")
        await first.write(handle, 10, b"1" * INLINE_MAX_BYTES)
        await first.flush(handle)
        await second.flush(other)
        assert cluster.content(inode) == b"22........" + b"1" * INLINE_MAX_BYTES


async def test_conflict_both_mounts_make_the_file_large(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"." * 10)
        await first.flush(handle)
        other = (await second.open(inode, RW)).handle
        await first.write(handle, 5, b"x")
        await first.write(handle, MIB, b"1" * MIB)
        await second.write(other, 3 * MIB, b"2" * MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.flush, handle)
            nursery.start_soon(second.flush, other)
        content = cluster.content(inode)
        assert content[:10] == b".....x...."
        assert content[MIB : 2 * MIB] == b"1" * MIB
        assert content[3 * MIB :] == b"2" * MIB


async def test_conflict_a_small_change_after_carrying_over(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"." * 10)
        await first.flush(handle)
        other = (await second.open(inode, RW)).handle
        await first.write(handle, MIB, b"1" * 2 * MIB)
        await trio.sleep(1)
        assert cluster.writes, "pushed behind, and not committed"
        await second.write(other, 3, b"22")
        await second.flush(other)
        await first.flush(handle)
        assert cluster.content(inode)[:10] == b"...22....."


async def test_a_truncation_elsewhere_does_not_swallow_later_writes(autojump_clock, cluster, on):
    """Under an old grant the chunkserver takes bytes that nobody will ever see."""
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * 2 * MIB)
        await first.flush(handle)
        for size in (0, MIB):
            await second.setattr(inode, NewAttributes(size=size), None)
            await first.write(handle, 3 * MIB, b"b" * 10)
            await first.flush(handle)
            assert cluster.content(inode)[3 * MIB :] == b"b" * 10
            assert cluster.content(inode)[size : 3 * MIB] == bytes(3 * MIB - size)


async def test_a_lost_session_voids_reservations(autojump_clock, cluster, on):
    data = os.urandom(3 * MIB)
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, data)
        await trio.sleep(1)
        assert cluster.writes
        assert mount.meta.reservations
        mount.meta.lose_session()
        cluster.opens[mount.meta.session, inode] = 1
        await mount.flush(handle)
        assert cluster.content(inode) == data


async def test_a_commit_in_the_moment_the_session_is_lost(autojump_clock, cluster, on):
    expired = TideError(Code.SESSION_EXPIRED)
    for size in (100, 3 * MIB):
        async with on("nfs") as mount:
            inode, handle = await new_file(mount, b"%d" % size)
            await mount.write(handle, 0, b"a" * size)
            cluster.weather.call_failures[meta.Commit] = [expired]
            await mount.flush(handle)
            assert cluster.content(inode) == b"a" * size


async def test_a_failed_commit_keeps_the_bytes(autojump_clock, cluster, on):
    for size in (100, 3 * MIB):
        async with on("nfs") as mount:
            inode, handle = await new_file(mount, b"%d" % size)
            await mount.write(handle, 0, b"a" * size)
            cluster.weather.call_failures[meta.Commit] = [TideError(Code.NO_SPACE)]
            with pytest.raises(TideError):
                await mount.flush(handle)
            await mount.flush(handle)
            assert cluster.content(inode) == b"a" * size
            assert mount.vfs.files.account.bytes == 0


async def test_uncached_writes_report_and_drop(autojump_clock, cluster, on):
    async with on("uncached") as mount:
        inode, handle = await new_file(mount)
        cluster.weather.call_failures[meta.Commit] = [TideError(Code.NO_SPACE)]
        with pytest.raises(TideError):
            await mount.write(handle, 0, b"lost")
        await mount.write(handle, 4, b"kept")
        assert cluster.content(inode) == bytes(4) + b"kept"


async def test_memory_is_bounded(autojump_clock, cluster, on):
    async with on("nfs", cache_bytes=4 * MIB) as mount:
        inode, handle = await new_file(mount)
        data = os.urandom(20 * MIB)
        for offset in range(0, len(data), MIB):
            await mount.write(handle, offset, data[offset : offset + MIB])
            await mount.flush(handle)
        for offset in range(0, len(data), MIB):
            assert bytes(await mount.read(handle, offset, MIB)) == data[offset : offset + MIB]
            assert mount.vfs.files.blocks.used_bytes <= 6 * MIB
        assert cluster.content(inode) == data


async def test_a_chunk_boundary(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        start = CHUNK_BYTES - 3 * MIB
        data = os.urandom(6 * MIB)
        await mount.write(handle, start, data)
        await mount.flush(handle)
        assert len(cluster.chunks) == 2
        await mount.release(handle)
        mount.vfs.files.forget(inode)
        opened = await mount.open(inode, RW)
        assert bytes(await mount.read(opened.handle, start, 6 * MIB)) == data


async def test_a_chunk_that_vanished_under_write_behind_is_no_error(autojump_clock, cluster, on):
    """GetLayout answers LAYOUT_CHANGED when a truncation elsewhere overtook it."""
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        cluster.weather.call_failures[meta.GetLayout] = [TideError(Code.LAYOUT_CHANGED)]
        await mount.write(handle, 0, b"a" * MIB)
        await trio.sleep(1)
        assert not cluster.weather.call_failures[meta.GetLayout]
        await mount.write(handle, MIB, b"b")
        await mount.flush(handle)
        assert cluster.content(inode) == b"a" * MIB + b"b"


async def test_what_is_unlinked_is_not_pushed_at_close(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        _, handle = await new_file(mount)
        await mount.unlink(1, b"file")
        await mount.write(handle, 0, b"a" * 100_000)
        assert mount.known_to_answer("flush", handle) is None
        await mount.release(handle)
        assert not cluster.writes
        assert mount.vfs.files.account.bytes == mount.vfs.files.blocks.used_bytes == 0


async def test_a_failed_truncation_at_open_leaves_nothing_open(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a")
        await mount.flush(handle)
        await mount.release(handle)
        cluster.weather.call_failures[meta.SetAttributes] = [TideError(Code.NO_SPACE)]
        with pytest.raises(TideError):
            await mount.open(inode, os.O_WRONLY | os.O_TRUNC)
        assert not mount.meta.held


async def test_bytes_that_were_pushed_and_truncated_do_not_come_back(autojump_clock, cluster, on):
    """The chunk is reserved and not committed: the server does not know that it holds anything."""
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * 3 * MIB)
        await trio.sleep(1)
        assert cluster.writes
        await mount.setattr(inode, NewAttributes(size=0), handle)
        await mount.write(handle, 2 * MIB, b"b")
        await mount.flush(handle)
        assert cluster.content(inode) == bytes(2 * MIB) + b"b"


async def test_inline_bytes_that_were_carried_over_and_truncated_elsewhere(
    autojump_clock, cluster, on
):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * 100)
        await first.flush(handle)
        await first.write(handle, MIB, b"b" * 2 * MIB)
        await trio.sleep(1)
        assert cluster.writes, "the hundred bytes were pushed, and not committed"
        await second.setattr(inode, NewAttributes(size=50), None)
        await first.flush(handle)
        assert cluster.content(inode) == b"a" * 50 + bytes(MIB - 50) + b"b" * 2 * MIB


async def test_a_truncation_on_a_full_disk(autojump_clock, cluster, on):
    full = TideError(Code.NO_SPACE)
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"a" * MIB)
        await trio.sleep(1)
        cluster.weather.write_failures = [full] * 1000
        await mount.write(handle, MIB, b"a" * MIB)
        await mount.setattr(inode, NewAttributes(size=0), handle)
        cluster.weather.write_failures = []
        await mount.write(handle, 0, b"b")
        await mount.flush(handle)
        assert cluster.content(inode) == b"b"


async def test_carried_bytes_do_not_fall_into_a_chunk_of_another(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b".....")
        await first.setattr(inode, NewAttributes(size=INLINE_MAX_BYTES + 1), handle)
        other = (await second.open(inode, RW)).handle
        await first.read(handle, 0, INLINE_MAX_BYTES)
        await first.write(handle, 0, b"1")
        await second.write(other, 1, b"2")
        await second.flush(other)
        await first.flush(handle)
        assert cluster.content(inode)[:5] == b"12..."


async def test_a_read_under_an_own_grant_after_a_truncation_elsewhere(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * MIB)
        await first.flush(handle)
        await second.setattr(inode, NewAttributes(size=0), None)
        first.vfs.files.peek(inode).drop_clean()
        with trio.fail_after(5):
            assert bytes(await first.read(handle, 0, 5)) == b""


@pytest.mark.parametrize("garbage_stays", [False, True])
async def test_what_went_to_a_chunk_that_is_no_more_goes_to_its_successor(
    autojump_clock, cluster, on, garbage_stays
):
    cluster.garbage_stays = garbage_stays
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * MIB)
        await first.flush(handle)
        await first.write(handle, 0, b"b" * MIB)
        await trio.sleep(1)
        assert len(cluster.writes) == 2, "pushed again, and not committed"
        await second.setattr(inode, NewAttributes(size=0), None)
        first.vfs.attributes.distrust(inode)
        await first.getattr(inode, None)
        await first.write(handle, MIB, b"c" * MIB)
        await trio.sleep(1)
        await first.flush(handle)
        assert cluster.content(inode) == b"b" * MIB + b"c" * MIB


async def test_a_push_in_flight_to_a_chunk_that_is_no_more(autojump_clock, cluster, on):
    cluster.garbage_stays = True
    async with on("nfs", "nfs") as (first, second):
        inode, handle = await new_file(first)
        await first.write(handle, 0, b"a" * MIB)
        await first.flush(handle)
        write, release = first.chunks.write, trio.Event()

        async def slow(place, offset, buffers, fence=0):
            await write(place, offset, buffers)
            await release.wait()

        first.chunks.write = slow
        await first.write(handle, 0, b"b" * MIB)
        await trio.sleep(1)
        first.chunks.write = write
        await second.setattr(inode, NewAttributes(size=0), None)
        first.vfs.attributes.distrust(inode)
        await first.getattr(inode, None)
        await first.write(handle, MIB, b"c" * MIB)
        await trio.sleep(1)
        release.set()
        await first.flush(handle)
        assert cluster.content(inode) == b"b" * MIB + b"c" * MIB


@pytest.mark.parametrize("size", [0, 2])
async def test_a_truncation_that_fails_changes_nothing(autojump_clock, cluster, on, size):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 0, b"hello")
        cluster.weather.call_failures[meta.SetAttributes] = [TideError(Code.NO_SPACE)]
        with pytest.raises(TideError):
            await mount.setattr(inode, NewAttributes(size=size), handle)
        assert bytes(await mount.read(handle, 0, 10)) == b"hello"
        await mount.flush(handle)
        assert cluster.content(inode) == b"hello"


async def test_the_other_writes_to_a_fresh_chunk_do_not_go_where_the_first_one_failed(
    autojump_clock, cluster, on
):
    """A server that is not in the newer grant, and holds nothing, would make the chunk again."""
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        write, places = mount.chunks.write, []

        async def watched(place, offset, buffers, fence=0):
            places.append((place.version, offset))
            if len(places) == 1:
                await trio.sleep(1)
                (reserved,) = set(cluster.reserved.values())
                cluster.granted[reserved] = cluster.next_version()
                raise failed("the first server")
            await write(place, offset, buffers)

        mount.chunks.write = watched
        for at in range(4):
            await mount.write(handle, at * MIB, b"%d" % at * MIB)
        await mount.flush(handle)
        assert len({version for version, _ in places[1:]}) == 1
        assert places[0][0] < places[1][0]
        assert cluster.content(inode) == b"".join(b"%d" % at * MIB for at in range(4))


async def test_bytes_that_were_given_up_are_not_missed_by_fsync(autojump_clock, cluster, on):
    async with on("uncached") as mount:
        inode, handle = await new_file(mount)
        cluster.weather.call_failures[meta.Commit] = [TideError(Code.NO_SPACE)]
        with pytest.raises(TideError):
            await mount.write(handle, 0, b"a" * MIB)
        assert cluster.writes
        cluster.weather.sync_failures = [failed()]
        await mount.fsync(handle, False)
        await mount.write(handle, 0, b"b")
        await mount.fsync(handle, False)
        assert cluster.content(inode) == b"b"
