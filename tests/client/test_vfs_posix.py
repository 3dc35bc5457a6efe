"""What POSIX says about modes, access lists, set-user-id, unnamed files and times, in the vfs."""

import os

import pytest
import trio
from tidefs.client.access_times import DAY_NS, Readings
from tidefs.client.fuse.driver import Caller, NewAttributes
from tidefs.client.options import AccessTimes
from tidefs.fs import acl
from tidefs.fs.acl import AclEntry, Tag
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import READINGS_BATCH_MS, READINGS_MAX
from tidefs.fs.messages.meta import NoteReadings, RenameFlags, SetAttributes
from tidefs.tests.client.conftest import settled

ME = Caller(1000, 1000, 1, 0o027)
CAPABILITY = b"security.capability"
LIST = acl.encode(
    (
        AclEntry(Tag.USER_OBJ, 7),
        AclEntry(Tag.USER, 5, 10),
        AclEntry(Tag.GROUP_OBJ, 4),
        AclEntry(Tag.MASK, 5),
        AclEntry(Tag.OTHER, 0),
    )
)


def names(cluster):
    return [type(call).__name__ for call in cluster.calls]


async def refused(answer):
    with pytest.raises(TideError) as caught:
        await settled(answer)
    return caught.value.code


async def make(mount, name=b"file", mode=0o666, parent=1):
    known, opened = await mount.create(parent, name, mode, os.O_RDWR | os.O_EXCL, ME)
    return known.attributes, opened.handle


def is_absent(mount, inode, name):
    """Whether it is known, without a question, that there is no such attribute."""
    with pytest.raises(TideError) as caught:
        mount.known_to_answer("getxattr", inode, name)
    return caught.value.code is Code.NO_ATTRIBUTE


# --- umask and access lists ------------------------------------------------------------------


async def test_the_umask_is_taken_away(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        made, handle = await make(mount)
        assert made.mode == 0o640
        await mount.release(handle)
        assert (await mount.mkdir(1, b"dir", 0o777, ME)).attributes.mode == 0o750
        fifo = await mount.mknod(1, b"fifo", Kind.FIFO, 0o666, 0, ME)
        assert fifo.attributes.mode == 0o640
        unnamed, opened = await mount.tmpfile(1, 0o666, os.O_RDWR, ME)
        assert unnamed.attributes.mode == 0o640
        await mount.release(opened.handle)


async def test_that_there_is_no_access_list_costs_no_question(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        _, handle = await make(first)
        await first.release(handle)
        inode = (await second.lookup(1, b"file")).attributes.inode
        cluster.calls.clear()
        for name in (acl.ACCESS, acl.DEFAULT, CAPABILITY):
            assert is_absent(second, inode, name)
        assert second.known_to_answer("listxattr", inode) == []
        assert cluster.calls == []


async def test_access_lists_are_inherited_and_believed(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = (await mount.mkdir(1, b"dir", 0o777, ME)).attributes.inode
        await mount.setxattr(folder, acl.DEFAULT, LIST, 0)
        made, handle = await make(mount, parent=folder)
        await mount.release(handle)
        assert made.mode == 0o640, "by the list, not by the umask"
        found = acl.decode(await mount.getxattr(made.inode, acl.ACCESS))
        assert acl.mode_bits(found) == 0o640
        await mount.setattr(made.inode, NewAttributes(mode=0o600), None)
        found = acl.decode(await mount.getxattr(made.inode, acl.ACCESS))
        assert acl.mode_bits(found) == 0o600, "chmod changed the list"
        assert await mount.listxattr(made.inode) == [acl.ACCESS]


async def test_a_list_that_the_server_does_not_keep(autojump_clock, cluster, on):
    plain = acl.encode(tuple(e for e in acl.decode(LIST) if e.tag not in (Tag.USER, Tag.MASK)))
    async with on("nfs") as mount:
        made, handle = await make(mount)
        await mount.release(handle)
        await mount.setxattr(made.inode, b"user.x", b"1", 0)
        await mount.setxattr(made.inode, acl.ACCESS, plain, 0)
        assert (await mount.getattr(made.inode, None)).attributes.mode == 0o740
        assert await refused(mount.getxattr(made.inode, acl.ACCESS)) is Code.NO_ATTRIBUTE
        assert await mount.getxattr(made.inode, b"user.x") == b"1"


async def test_who_is_not_in_the_group_loses_its_bit_with_a_list(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        made, handle = await make(mount, mode=0o6775)
        await mount.release(handle)
        await settled(mount.vfs.setxattr(made.inode, acl.ACCESS, LIST, 0, kill_set_group_id=True))
        assert (await mount.getattr(made.inode, None)).attributes.mode == 0o4750


# --- set-user-id -----------------------------------------------------------------------------


async def write(mount, handle, data=b"x", offset=0):
    return await settled(mount.vfs.write(handle, offset, data, kill_privileges=True))


async def test_a_write_to_an_ordinary_file_costs_no_question(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        made, handle = await make(mount)
        await mount.setxattr(made.inode, b"user.x", b"1", 0)
        cluster.calls.clear()
        for at in range(3):
            await write(mount, handle, offset=at)
        assert cluster.calls == []
        await mount.flush(handle)
        await write(mount, handle)
        assert names(cluster) == ["Commit"]
        await mount.release(handle)


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
async def test_a_write_takes_set_user_id_away_before_it_returns(autojump_clock, cluster, on, mode):
    async with on(mode) as mount:
        made, handle = await make(mount, mode=0o6775)
        assert await write(mount, handle, b"abc") == 3
        assert cluster.state.attributes(made.inode).mode == 0o750
        assert (made.inode, True) in mount.kernel.told
        assert bytes(await mount.read(handle, 0, 10)) == b"abc"
        await mount.release(handle)


async def test_a_write_of_who_may_keep_it_keeps_it(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        made, handle = await make(mount, mode=0o6775)
        await mount.write(handle, 0, b"abc")
        await mount.release(handle)
        assert cluster.state.attributes(made.inode).mode == 0o6750


@pytest.mark.parametrize("known", [False, True])
async def test_a_write_takes_capabilities_away(autojump_clock, cluster, on, known):
    async with on("nfs", "nfs") as (first, second):
        made, handle = await make(first)
        await first.release(handle)
        await first.setxattr(made.inode, CAPABILITY, b"all", 0)
        await second.lookup(1, b"file")
        handle = (await second.open(made.inode, os.O_RDWR)).handle
        if known:
            assert await second.getxattr(made.inode, CAPABILITY) == b"all"
        await write(second, handle)
        assert not cluster.state.attributes(made.inode).has_xattrs
        cluster.calls.clear()
        await write(second, handle)
        assert cluster.calls == []
        await second.release(handle)


@pytest.mark.parametrize("size", [0, 5])
async def test_truncation_at_open_takes_it_away(autojump_clock, cluster, on, size):
    async with on("nfs") as mount:
        made, handle = await make(mount, mode=0o4755)
        await mount.write(handle, 0, bytes(size))
        await mount.release(handle)
        flags = os.O_WRONLY | os.O_TRUNC
        opened = await settled(mount.vfs.open(made.inode, flags, kill_privileges=True))
        after = cluster.state.attributes(made.inode)
        assert (after.mode, after.size) == (0o750, 0)
        await mount.release(opened.handle)


async def test_a_change_of_nothing_takes_it_away(autojump_clock, cluster, on):
    """The kernel sends chown(2) with -1 and -1 so, and what comes before fallocate(2)."""
    async with on("nfs") as mount:
        made, handle = await make(mount, mode=0o4755)
        await mount.release(handle)
        known = await mount.setattr(made.inode, NewAttributes(), None)
        assert known.attributes.mode == 0o750


async def test_a_change_of_owner_takes_it_away_here_too(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        made, handle = await make(mount, mode=0o4755)
        await mount.release(handle)
        await mount.setxattr(made.inode, CAPABILITY, b"all", 0)
        await mount.setxattr(made.inode, b"user.x", b"1", 0)
        known = await mount.setattr(made.inode, NewAttributes(uid=7), None)
        assert known.attributes.mode == 0o750
        assert await refused(mount.getxattr(made.inode, CAPABILITY)) is Code.NO_ATTRIBUTE


# --- files without a name --------------------------------------------------------------------


async def test_an_unnamed_file_goes_when_it_is_closed(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        known, opened = await mount.tmpfile(1, 0o600, os.O_RDWR, ME)
        inode = known.attributes.inode
        assert known.attributes.links == 0
        await mount.write(opened.handle, 0, b"bytes" * 10_000)
        assert bytes(await mount.read(opened.handle, 0, 5)) == b"bytes"
        await mount.fsync(opened.handle, False)
        assert cluster.state.is_orphan(inode)
        await mount.flush(opened.handle)
        await mount.release(opened.handle)
        await trio.sleep(1)
        cluster.reap()
        with pytest.raises(TideError):
            cluster.state.attributes(inode)


async def test_an_unnamed_file_gets_a_name(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        known, opened = await first.tmpfile(1, 0o600, os.O_RDWR, ME)
        inode = known.attributes.inode
        await first.write(opened.handle, 0, b"bytes")
        linked = await first.link(inode, 1, b"name")
        assert linked.attributes.links == 1
        assert linked.attributes.size == 5, "what was written is not forgotten"
        await first.flush(opened.handle)
        await first.release(opened.handle)
        assert (await second.lookup(1, b"name")).attributes.size == 5
        cluster.reap()
        assert (await first.getattr(inode, None)).attributes.links == 1


async def test_an_unnamed_file_that_may_not_get_one(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        known, opened = await mount.tmpfile(1, 0o600, os.O_RDWR | os.O_EXCL, ME)
        assert await refused(mount.link(known.attributes.inode, 1, b"x")) is Code.NO_ENTRY
        await mount.release(opened.handle)


# --- names -----------------------------------------------------------------------------------


async def test_a_whiteout_is_known_at_once(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        _, handle = await make(mount, b"old")
        await mount.release(handle)
        await mount.rename(1, b"old", 1, b"new", RenameFlags.WHITEOUT)
        left = mount.known_to_answer("lookup", 1, b"old").attributes
        assert (left.kind, left.device) == (Kind.CHARACTER_DEVICE, 0)
        assert mount.known_to_answer("lookup", 1, b"new").attributes.kind is Kind.FILE


# --- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked_ns", "kept_ns"),
    [(10**30, (1 << 63) - 1), (-(10**30), -(1 << 63)), (-1, -1), (4_000_000_000 * 10**9,) * 2],
)
async def test_times_beyond_the_range_are_its_ends(autojump_clock, cluster, on, asked_ns, kept_ns):
    async with on("nfs") as mount:
        new = NewAttributes(atime_ns=asked_ns, mtime_ns=asked_ns)
        known = await mount.setattr(1, new, None)
        assert (known.attributes.atime_ns, known.attributes.mtime_ns) == (kept_ns, kept_ns)


def told(cluster):
    return [call for call in cluster.calls if isinstance(call, NoteReadings)]


async def read_again(mount, inode):
    handle = (await mount.open(inode, os.O_RDONLY)).handle
    await mount.read(handle, 0, 10)
    await mount.release(handle)
    return (await mount.getattr(inode, None)).attributes.atime_ns


async def test_readings_are_seen_here_at_once_and_told_later(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second), trio.open_nursery() as nursery:
        nursery.start_soon(second.vfs.run)
        made, handle = await make(first)
        await first.write(handle, 0, b"bytes")
        await first.flush(handle)
        await first.release(handle)
        await trio.sleep(1)
        before = cluster.state.attributes(made.inode)
        await second.lookup(1, b"file")
        atime_ns = await read_again(second, made.inode)
        assert atime_ns > before.ctime_ns
        assert cluster.state.attributes(made.inode) == before, "nobody waits for that"
        await trio.sleep(2 * READINGS_BATCH_MS / 1000)
        assert cluster.state.attributes(made.inode).atime_ns == atime_ns
        assert cluster.state.attributes(made.inode).ctime_ns == before.ctime_ns
        for _ in range(3):
            assert await read_again(second, made.inode) == atime_ns, "it says all already"
            await trio.sleep(2 * READINGS_BATCH_MS / 1000)
        assert len(told(cluster)) == 1
        await first.setattr(made.inode, NewAttributes(mode=0o600), None)
        assert await read_again(second, made.inode) > atime_ns
        nursery.cancel_scope.cancel()


async def test_what_was_read_last_is_told_at_the_end(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        made, handle = await make(mount)
        await mount.write(handle, 0, b"x")
        await mount.flush(handle)
        await trio.sleep(1)
        await mount.read(handle, 0, 1)
        await mount.release(handle)
        assert told(cluster) == []
    (told_at_the_end,) = told(cluster)
    assert [reading.inode for reading in told_at_the_end.readings] == [made.inode]
    assert cluster.state.attributes(made.inode).atime_ns == told_at_the_end.readings[0].atime_ns


async def test_a_time_that_was_set_stays(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        made, handle = await make(mount)
        await trio.sleep(1)
        await mount.read(handle, 0, 1)
        known = await mount.setattr(made.inode, NewAttributes(atime_ns=77), None)
        assert known.attributes.atime_ns == 77
        await mount.release(handle)
    assert cluster.state.attributes(made.inode).atime_ns == 77


async def test_noatime(autojump_clock, cluster, on):
    async with on("nfs", access_times=AccessTimes.NEVER) as mount:
        _, handle = await make(mount)
        await trio.sleep(1)
        await mount.read(handle, 0, 1)
        await mount.release(handle)
        await mount.readdir((await mount.opendir(1)).handle, 0)
    assert told(cluster) == []


async def test_a_file_opened_without_atime(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        made, handle = await make(mount)
        await mount.release(handle)
        await trio.sleep(1)
        handle = (await mount.open(made.inode, os.O_RDONLY | os.O_NOATIME)).handle
        await mount.read(handle, 0, 1)
        await mount.release(handle)
    assert told(cluster) == []


async def test_reading_directories_and_links(autojump_clock, cluster, on):
    async with on("nfs", "nfs", directory_access_times=False) as (first, second):
        link = (await first.symlink(1, b"link", b"target", ME)).attributes.inode
        await trio.sleep(1)
        await first.readdir((await first.opendir(1)).handle, 0)
        await first.readlink(link)
        await second.readdir((await second.opendir(1)).handle, 0)
    (call,) = told(cluster)
    assert [reading.inode for reading in call.readings] == [link]


async def test_reading_a_directory(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        await trio.sleep(1)
        await mount.mkdir(1, b"dir", 0o755, ME)
        await trio.sleep(1)
        await mount.readdir((await mount.opendir(1)).handle, 0)
        atime_ns = (await mount.getattr(1, None)).attributes.atime_ns
        assert atime_ns > cluster.state.attributes(1).mtime_ns


def known_file(inode=2, atime_ns=0, mtime_ns=0, ctime_ns=0, change=1, kind=Kind.FILE):
    times = atime_ns, mtime_ns, ctime_ns
    return Attributes(inode, kind, 0o644, 1, 0, 0, 0, 0, 0, *times, change, 1)


@pytest.mark.parametrize(
    ("atime_ns", "mtime_ns", "ctime_ns", "now_ns", "changes"),
    [
        (5, 5, 1, 9, True),
        (5, 6, 1, 9, True),
        (5, 1, 5, 9, True),
        (5, 4, 4, 9, False),
        (5, 4, 4, 5 + DAY_NS, True),
        (5, 4, 4, 4 + DAY_NS, False),
    ],
)
def test_relatime(atime_ns, mtime_ns, ctime_ns, now_ns, changes):
    readings = Readings(AccessTimes.RELATIVE)
    file = known_file(2, atime_ns, mtime_ns, ctime_ns)
    assert readings.note(file, now_ns) is changes
    assert readings.atime_ns(2) == (now_ns if changes else None)
    assert Readings(AccessTimes.ALWAYS).note(file, now_ns)
    assert not Readings(AccessTimes.NEVER).note(file, now_ns)


def test_batches():
    readings = Readings(AccessTimes.RELATIVE)
    files = {at: known_file(at, change=at) for at in range(1, READINGS_MAX + 10)}
    for file in files.values():
        readings.note(file, 100)
    del files[5]
    batches = []
    while batch := readings.take(READINGS_MAX, files.get):
        batches.append(batch)
    assert [len(batch) for batch in batches] == [READINGS_MAX, 8]
    assert sorted(reading.inode for batch in batches for reading in batch) == sorted(files)
    assert all(reading.change == reading.inode for reading in batches[0])


def test_what_is_asked_with_an_owner_is_one_request(cluster):
    assert SetAttributes(5, *NewAttributes(kill_privileges=True)).kill_privileges
