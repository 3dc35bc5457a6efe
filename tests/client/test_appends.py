"""O_APPEND: every write at the end, also when several mounts append; what it costs alone."""

import os
from collections import Counter
from functools import partial

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import APPEND_TURN_MS, KIB
from tidefs.fs.messages import locks, meta
from tidefs.tests.client.test_locks import ME, names, refused

APPEND = os.O_RDWR | os.O_APPEND


async def open_on(*mounts):
    """One file, open for appending on each mount."""
    known, opened = await mounts[0].create(1, b"log", 0o644, APPEND | os.O_CREAT, ME)
    inode = known.attributes.inode
    return inode, [opened] + [await mount.open(inode, APPEND) for mount in mounts[1:]]


def record(writer, number, length):
    return (b"<%d.%d" % (writer, number)).ljust(length - 1, b".") + b">"


def records_of(content, length):
    assert len(content) % length == 0
    pieces = [content[start : start + length] for start in range(0, len(content), length)]
    assert all(piece[:1] + piece[-1:] == b"<>" for piece in pieces), "one tore another one"
    return [tuple(map(int, piece[1:-1].rstrip(b".").split(b"."))) for piece in pieces]


@pytest.mark.parametrize("length", [20, 3_000])
@pytest.mark.parametrize(
    "modes",
    [
        *(("nfs", "nfs"), ("uncached", "uncached"), ("nfs", "uncached")),
        *(("strict", "strict"), ("strict", "nfs"), ("uncached", "strict")),
    ],
)
@pytest.mark.parametrize("seed", range(3))
async def test_no_append_of_several_mounts_is_lost(
    autojump_clock, new_cluster, mount_on, modes, length, seed
):
    """Short ones stay within the inode, long ones leave it on the way."""
    cluster = new_cluster(seed)
    async with mount_on(cluster, *modes) as mounts:
        inode, handles = await open_on(*mounts)

        async def append(writer):
            mount, handle = mounts[writer % 2], handles[writer % 2].handle
            for number in range(15):
                assert await mount.write(handle, 0, record(writer, number, length)) == length
                await trio.sleep(cluster.weather.random.random() * 0.05)

        async with trio.open_nursery() as nursery:
            for writer in range(4):
                nursery.start_soon(append, writer)
        for mount, opened in zip(mounts, handles, strict=True):
            await mount.flush(opened.handle)
            await mount.release(opened.handle)
        found = records_of(cluster.content(inode), length)
        assert Counter(found) == Counter((w, n) for w in range(4) for n in range(15))
        for writer in range(4):
            mine = [n for w, n in found if w == writer]
            assert mine == sorted(mine), "in the order in which they were written"


async def test_alone_many_appends_cost_one_turn(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, (opened,) = await open_on(mount)
        assert opened.direct_io, "the kernel does not know where the file ends"
        cluster.calls.clear()
        await mount.write(opened.handle, 0, b"a")
        for _ in range(99):
            mount.known_to_answer("write", opened.handle, 0, b"a")
        await mount.flush(opened.handle)
        await trio.sleep(1)
        assert [type(call) for call in cluster.calls] == [locks.SetLock, meta.Commit, locks.Unlock]
        assert cluster.content(inode) == b"a" * 100


async def test_who_is_alone_keeps_its_turn_for_a_moment_only(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, (one, two) = await open_on(first, second)
        await first.write(one.handle, 0, b"a")
        began = trio.current_time()
        await second.write(two.handle, 0, b"b")
        assert trio.current_time() - began < APPEND_TURN_MS / 1000 + 0.2
        assert not first.vfs.appender.has_turn(first.vfs.open_files.get(one.handle).file)


async def test_who_had_to_wait_gives_it_back_at_once(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, (one, two) = await open_on(first, second)
        await first.write(one.handle, 0, b"a")
        await second.write(two.handle, 0, b"b")
        assert cluster.content(inode) == b"ab"
        assert not list(cluster.state.tables.locks.held(inode, locks.LockKind.APPEND))


async def test_a_turn_outlives_the_last_close_for_a_moment(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, (opened,) = await open_on(mount)
        cluster.weather.slowest_s = 0.001
        for letter in b"abcdefgh":
            await mount.write(opened.handle, 0, bytes([letter]))
            await mount.flush(opened.handle)
            await mount.release(opened.handle)
            opened = await mount.open(inode, APPEND)
        assert names(cluster).count("SetLock") == 1
        await mount.release(opened.handle)
        await trio.sleep(0.1)
        assert not list(cluster.state.tables.locks.held(inode, locks.LockKind.APPEND))
        assert cluster.content(inode) == b"abcdefgh"
        assert mount.vfs.files.peek(inode).openings == 0


async def test_a_turn_is_given_back_also_when_the_servers_disks_were_full(
    autojump_clock, cluster, on
):
    async with on("nfs", "nfs") as (first, second):
        inode, (one, two) = await open_on(first, second)
        full = TideError(Code.NO_SPACE, "")
        cluster.weather.call_failures[locks.Unlock] = [full, full]
        await first.write(one.handle, 0, b"a")
        await second.write(two.handle, 0, b"b")
        assert not cluster.weather.call_failures[locks.Unlock]
        assert cluster.content(inode) == b"ab"
        await trio.sleep(1)
        assert not list(cluster.state.tables.locks.held(inode, locks.LockKind.APPEND))


async def test_the_last_close_of_an_unlinked_file_ends_the_turn(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, (opened,) = await open_on(mount)
        await mount.write(opened.handle, 0, b"a")
        await mount.unlink(1, b"log")
        await mount.release(opened.handle)
        assert mount.vfs.files.peek(inode) is None
        await trio.sleep(0.1)


async def test_the_driver_says_what_appends(autojump_clock, cluster, on):
    """fcntl(2) may set and take away O_APPEND; pages of a mapping have their place."""
    async with on("nfs", "nfs") as (first, second):
        inode, (one, _) = await open_on(first, second)
        await first.write(one.handle, 0, b"abc")
        await first.write(one.handle, 1, b"X", append=False)
        await first.flush(one.handle)
        assert cluster.content(inode) == b"aXc"
        plain = await second.open(inode, os.O_RDWR)
        assert not plain.direct_io
        await second.write(plain.handle, 0, b"end", append=True)
        await second.flush(plain.handle)
        assert cluster.content(inode) == b"aXcend"
        assert (inode, False) in second.kernel.told, "its pages are elsewhere than it thinks"
        await second.release(plain.handle)
        await first.write(one.handle, 6, b"!")
        await first.flush(one.handle)
        assert cluster.content(inode) == b"aXcend!"


async def test_a_driver_that_does_not_say_may_write_pages_back(autojump_clock, cluster, on):
    """A page of a mapping may come through the handle that appends, and has its place."""
    async with on("nfs") as mount:
        inode, (opened,) = await open_on(mount)
        await mount.write(opened.handle, 0, b"abc")
        mapped = await mount.open(inode, os.O_RDWR)
        await mount.write(opened.handle, 0, b"X")
        await mount.release(mapped.handle)
        await mount.write(opened.handle, 0, b"Y")
        await mount.flush(opened.handle)
        assert cluster.content(inode) == b"XbcY"


async def test_an_append_behind_what_was_written_here(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, (opened,) = await open_on(mount)
        plain = await mount.open(inode, os.O_WRONLY)
        await mount.write(plain.handle, 5, b"later")
        await mount.write(opened.handle, 0, b"end")
        await mount.flush(plain.handle)
        assert cluster.content(inode) == bytes(5) + b"laterend"


async def test_a_truncation_elsewhere_is_seen_by_the_next_turn(autojump_clock, cluster, on):
    async with on("uncached", "nfs") as (first, second):
        inode, (one, _) = await open_on(first, second)
        await first.write(one.handle, 0, b"old")
        await second.open(inode, os.O_RDWR | os.O_TRUNC)
        await first.write(one.handle, 0, b"new")
        assert cluster.content(inode) == b"new"


@pytest.mark.parametrize("start", [b"", b"x" * 20 * KIB])
async def test_what_was_appended_in_a_session_that_is_lost_is_told(
    autojump_clock, cluster, on, start
):
    async with on("nfs", "nfs") as (first, second):
        inode, (one, two) = await open_on(first, second)
        if start:
            await first.write(one.handle, 0, start)
            await first.fsync(one.handle, False)
        await first.write(one.handle, 0, b"lost")
        first.meta.expire_session()
        await second.write(two.handle, 0, b"theirs")
        assert await refused(first.fsync, one.handle, False) is Code.DEVICE_ERROR
        await first.write(one.handle, 0, b"again")
        await first.fsync(one.handle, False)
        assert cluster.content(inode) == start + b"theirs" + b"again"


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
@pytest.mark.parametrize("seed", range(10))
async def test_appends_while_sessions_come_and_go(
    autojump_clock, new_cluster, mount_on, mode, seed
):
    """What a writer was not told to be lost is there, once; nothing is torn."""
    cluster = new_cluster(seed)
    length = 100
    surely, perhaps = set(), set()
    async with mount_on(cluster, mode, mode) as mounts:
        inode, handles = await open_on(*mounts)

        async def append(which):
            mount, handle = mounts[which], handles[which].handle
            for number in range(40):
                mine = which, number
                try:
                    await mount.write(handle, 0, record(*mine, length))
                    await mount.fsync(handle, False)
                except TideError:
                    perhaps.add(mine)
                else:
                    surely.add(mine)

        async def lose():
            for _ in range(15):
                await trio.sleep(cluster.weather.random.random() * 0.1)
                lost = mounts[cluster.weather.random.randrange(2)].meta
                if cluster.weather.random.randrange(2):
                    lost.expire_session()
                else:
                    lost.lose_session()

        async with trio.open_nursery() as nursery:
            for which in range(2):
                nursery.start_soon(append, which)
            nursery.start_soon(lose)
        found = Counter(records_of(cluster.content(inode), length))
        assert surely <= set(found) <= surely | perhaps
        assert set(found.values()) == {1}
        assert len(surely) > 20


async def test_what_cannot_be_stored_does_not_keep_the_turn(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode, (one, two) = await open_on(first, second)
        cluster.weather.call_failures[meta.Commit] = [TideError(Code.NO_SPACE, "full")]
        await first.write(one.handle, 0, b"lost")
        await second.write(two.handle, 0, b"theirs")
        assert await refused(first.fsync, one.handle, False) is Code.NO_SPACE
        await first.write(one.handle, 0, b"mine")
        await first.fsync(one.handle, False)
        assert cluster.content(inode) == b"theirsmine"


async def test_an_interrupted_append_is_whole_or_not_at_all(autojump_clock, cluster, on):
    async with on("uncached", "uncached") as (first, second):
        inode, (one, two) = await open_on(first, second)
        for patience_ms in range(1, 60, 3):
            with trio.move_on_after(patience_ms / 1000):
                await first.write(one.handle, 0, record(1, patience_ms, 50))
            await second.write(two.handle, 0, record(2, patience_ms, 50))
        found = Counter(records_of(cluster.content(inode), 50))
        assert set(found.values()) == {1}
        assert len([1 for writer, _ in found if writer == 2]) == 20


async def test_turns_are_fair(autojump_clock, cluster, on):
    """Who appends without a pause does not keep others out."""
    async with on("nfs", "nfs") as (first, second):
        _, (one, two) = await open_on(first, second)
        done = {0: 0, 1: 0}

        async def append(which, mount, handle):
            while True:
                await mount.write(handle, 0, b"x")
                done[which] += 1
                await trio.sleep(0.001)

        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(append, 0, first, one.handle))
                nursery.start_soon(partial(append, 1, second, two.handle))
        assert min(done.values()) > 100
