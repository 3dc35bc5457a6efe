"""Names and attributes through the vfs: answers, and how many round trips they cost."""

import os
from contextlib import suppress

import pytest
import trio
from tidefs.client.fuse.driver import Caller, NewAttributes
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.meta import RenameFlags

ME = Caller(1000, 1000, 1, 0o022)


def names(cluster):
    return [type(call).__name__ for call in cluster.calls]


async def refused(awaitable):
    with pytest.raises(TideError) as caught:
        await awaitable
    return caught.value.code


async def touch(mount, parent, name):
    known, opened = await mount.create(parent, name, 0o644, os.O_RDWR | os.O_EXCL, ME)
    await mount.flush(opened.handle)
    await mount.release(opened.handle)
    return known.attributes.inode


async def listed(mount, inode):
    handle = (await mount.opendir(inode)).handle
    found, cookie = [], 0
    while page := await mount.readdir(handle, cookie):
        found += [entry.name for entry, _ in page]
        cookie = page[-1][0].cookie
    await mount.releasedir(handle)
    return found


async def test_a_thousand_files_in_a_new_directory_cost_one_trip_each(autojump_clock, cluster, on):
    """The kernel looks a name up before it creates it: in a directory of ours, that is known."""
    async with on("nfs") as mount:
        folder = (await mount.mkdir(1, b"folder", 0o755, ME)).attributes.inode
        cluster.calls.clear()
        for at in range(1000):
            with pytest.raises(TideError) as caught:
                mount.known_to_answer("lookup", folder, b"%d" % at)
            assert caught.value.code is Code.NO_ENTRY
            inode = await touch(mount, folder, b"%d" % at)
            known = mount.known_to_answer("lookup", folder, b"%d" % at)
            assert known.attributes.inode == inode
        assert names(cluster) == ["Create"] * 1000


async def test_lookups_are_answered_from_the_cache_for_a_while(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode = await touch(first, 1, b"file")
        known = await second.lookup(1, b"file")
        assert known.attributes.inode == inode
        assert 0 < known.attributes_trust_ms <= 3000
        assert 0 < known.entry_trust_ms <= 3000
        second.known_to_answer("lookup", 1, b"file")
        second.known_to_answer("getattr", inode, None)
        assert await refused(second.lookup(1, b"other")) is Code.NO_ENTRY
        with pytest.raises(TideError):
            second.known_to_answer("lookup", 1, b"other")
        await trio.sleep(4)
        cluster.calls.clear()
        await second.lookup(1, b"file")
        assert names(cluster) == ["Lookup"]
        await trio.sleep(100)
        known = await second.lookup(1, b"file")
        assert known.attributes_trust_ms == 60_000, "what is old is trusted longer"


async def test_what_others_did_is_seen_when_the_directory_is_looked_at_again(
    autojump_clock, cluster, on
):
    async with on("nfs", "nfs") as (first, second):
        folder = (await first.mkdir(1, b"folder", 0o755, ME)).attributes.inode
        await touch(first, folder, b"a")
        await second.lookup(1, b"folder")
        await touch(second, folder, b"b")
        with pytest.raises(TideError):
            first.known_to_answer("lookup", folder, b"b")
        await trio.sleep(4)
        assert (await first.lookup(folder, b"b")).attributes.kind is Kind.FILE
        await touch(second, folder, b"c")
        await touch(first, folder, b"d")
        assert (await first.lookup(folder, b"c")).attributes.kind is Kind.FILE, (
            "the version of our own reply told of another's change"
        )


async def test_uncached_trusts_nothing(autojump_clock, cluster, on):
    async with on("uncached", "uncached") as (first, second):
        inode = await touch(first, 1, b"file")
        known = await second.lookup(1, b"file")
        assert known.attributes_trust_ms == known.entry_trust_ms == 0
        await first.setattr(inode, NewAttributes(mode=0o600), None)
        assert (await second.getattr(inode, None)).attributes.mode == 0o600
        await first.rename(1, b"file", 1, b"moved", 0)
        assert await refused(second.lookup(1, b"file")) is Code.NO_ENTRY
        assert (await second.lookup(1, b"moved")).attributes.inode == inode


async def test_a_rename_between_two_names_of_one_file_changes_nothing(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode = await touch(mount, 1, b"one")
        await mount.link(inode, 1, b"two")
        for flags in (0, RenameFlags.EXCHANGE):
            await mount.rename(1, b"one", 1, b"two", flags)
            for name in (b"one", b"two"):
                assert mount.known_to_answer("lookup", 1, name).attributes.links == 2
                assert (await mount.lookup(1, name)).attributes.inode == inode


async def test_rename(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = (await mount.mkdir(1, b"folder", 0o755, ME)).attributes.inode
        one = await touch(mount, 1, b"one")
        two = await touch(mount, folder, b"two")
        await mount.rename(1, b"one", folder, b"two", 0)
        assert mount.known_to_answer("lookup", folder, b"two").attributes.inode == one
        assert await refused(mount.lookup(1, b"one")) is Code.NO_ENTRY
        assert await refused(mount.open(two, os.O_RDONLY)) is Code.STALE_HANDLE
        three = await touch(mount, 1, b"three")
        code = await refused(mount.rename(1, b"three", folder, b"two", RenameFlags.NOREPLACE))
        assert code is Code.EXISTS
        await mount.rename(1, b"three", folder, b"two", RenameFlags.EXCHANGE)
        assert (await mount.lookup(folder, b"two")).attributes.inode == three
        assert (await mount.lookup(1, b"three")).attributes.inode == one
        assert sorted(await listed(mount, 1)) == [b"folder", b"three"]


async def test_a_moved_directory_has_another_parent(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        outer = (await mount.mkdir(1, b"outer", 0o755, ME)).attributes.inode
        inner = (await mount.mkdir(1, b"inner", 0o755, ME)).attributes.inode
        assert mount.known_to_answer("lookup", inner, b"..").attributes.inode == 1
        await mount.rename(1, b"inner", outer, b"inner", 0)
        assert (await mount.lookup(inner, b"..")).attributes.inode == outer


async def test_links(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode = await touch(mount, 1, b"file")
        assert (await mount.link(inode, 1, b"second")).attributes.links == 2
        await mount.unlink(1, b"file")
        assert mount.known_to_answer("getattr", inode, None).attributes.links == 1
        assert (await mount.lookup(1, b"second")).attributes.inode == inode


async def test_a_replaced_file_that_is_open_keeps_its_bytes(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        known, opened = await mount.create(1, b"old", 0o644, os.O_RDWR, ME)
        await mount.write(opened.handle, 0, b"old")
        await touch(mount, 1, b"new")
        await mount.rename(1, b"new", 1, b"old", 0)
        assert bytes(await mount.read(opened.handle, 0, 10)) == b"old"
        await mount.write(opened.handle, 3, b"er")
        await mount.flush(opened.handle)
        shown = (await mount.getattr(known.attributes.inode, opened.handle)).attributes
        assert (shown.links, shown.size) == (0, 5)
        await mount.release(opened.handle)
        assert cluster.state.orphans() == []


async def test_removing(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = (await mount.mkdir(1, b"folder", 0o755, ME)).attributes.inode
        await touch(mount, folder, b"file")
        assert await refused(mount.rmdir(1, b"folder")) is Code.NOT_EMPTY
        assert await refused(mount.unlink(1, b"folder")) is Code.IS_A_DIRECTORY
        await mount.unlink(folder, b"file")
        await mount.rmdir(1, b"folder")
        assert await refused(mount.lookup(1, b"folder")) is Code.NO_ENTRY
        await trio.sleep(100)
        assert await refused(mount.getattr(folder, None)) is Code.STALE_HANDLE


async def test_symbolic_links_and_special_files(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode = (await mount.symlink(1, b"link", b"target", ME)).attributes.inode
        assert mount.known_to_answer("readlink", inode) == b"target"
        mount.vfs.attributes.forget(inode)
        assert await mount.readlink(inode) == b"target"
        fifo = await mount.mknod(1, b"fifo", Kind.FIFO, 0o600, 0, ME)
        assert fifo.attributes.kind is Kind.FIFO
        disk = await mount.mknod(1, b"disk", Kind.BLOCK_DEVICE, 0o600, 0x801, ME)
        assert disk.attributes.device == 0x801
        assert await refused(mount.symlink(1, b"x", b"t" * 5000, ME)) is Code.NAME_TOO_LONG
        assert await refused(touch(mount, 1, b"n" * 256)) is Code.NAME_TOO_LONG


async def test_listing_in_pages(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = (await mount.mkdir(1, b"folder", 0o755, ME)).attributes.inode
        wanted = [b"%d" % at for at in range(2500)]
        for name in wanted:
            await touch(mount, folder, name)
        handle = (await mount.opendir(folder)).handle
        cluster.calls.clear()
        found, cookie = [], 0
        while page := await mount.readdir(handle, cookie):
            taken = page[: 1 + len(found) % 300]  # the kernel takes what fits
            found += [entry.name for entry, _ in taken]
            cookie = taken[-1][0].cookie
        assert found == wanted
        assert names(cluster).count("ReadDirectory") == 3
        assert (await mount.readdir(handle, 0))[0][0].name == b"0", "rewound"


async def test_a_listing_fills_the_caches(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        for at in range(10):
            await touch(first, 1, b"%d" % at)
        assert len(await listed(second, 1)) == 10
        cluster.calls.clear()
        for at in range(10):
            known = second.known_to_answer("lookup", 1, b"%d" % at)
            second.known_to_answer("getattr", known.attributes.inode, None)
        with pytest.raises(TideError):
            second.known_to_answer("lookup", 1, b"11")


async def test_extended_attributes(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        inode = await touch(first, 1, b"file")
        with pytest.raises(TideError) as caught:
            first.known_to_answer("getxattr", inode, b"security.capability")
        assert caught.value.code is Code.NO_ATTRIBUTE
        await first.setxattr(inode, b"user.a", b"1", 0)
        assert first.known_to_answer("getxattr", inode, b"user.a") == b"1"
        assert first.known_to_answer("listxattr", inode) == [b"user.a"]
        assert await second.listxattr(inode) == [b"user.a"]
        assert await second.getxattr(inode, b"user.a") == b"1"
        await second.getattr(inode, None)
        await second.getxattr(inode, b"user.a")
        second.known_to_answer("getxattr", inode, b"user.a")
        await first.removexattr(inode, b"user.a")
        with pytest.raises(TideError):
            first.known_to_answer("getxattr", inode, b"user.a")
        await trio.sleep(100)
        await second.getattr(inode, None)
        assert await refused(second.getxattr(inode, b"user.a")) is Code.NO_ATTRIBUTE


async def test_writing_does_not_ask_for_extended_attributes(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        known, opened = await mount.create(1, b"file", 0o644, os.O_RDWR, ME)
        for at in range(3):
            with pytest.raises(TideError):
                mount.known_to_answer("getxattr", known.attributes.inode, b"security.capability")
            await mount.write(opened.handle, at, b"x")
            await mount.flush(opened.handle)


async def test_a_reply_that_was_overtaken_is_not_believed(autojump_clock, cluster, on):
    cluster.weather.slowest_s = 1
    async with on("nfs") as mount:
        inode = await touch(mount, 1, b"file")
        for mode in range(0o600, 0o640):
            mount.vfs.attributes.distrust(inode)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mount.getattr, inode, None)
                nursery.start_soon(mount.setattr, inode, NewAttributes(mode=mode), None)
            assert mount.known_to_answer("getattr", inode, None).attributes.mode == mode


async def test_a_lookup_that_was_overtaken_by_an_unlink(autojump_clock, cluster, on):
    cluster.weather.slowest_s = 1
    async with on("nfs", "nfs") as (mount, other):
        for at in range(30):
            name = b"%d" % at
            await touch(other, 1, name)
            mount.vfs.names.forget(1)
            mount.vfs.attributes.distrust(1)

            async def look(name=name):
                with suppress(TideError):
                    await mount.lookup(1, name)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                nursery.start_soon(mount.unlink, 1, name)
            assert await refused(mount.lookup(1, name)) is Code.NO_ENTRY


async def test_statfs_and_fsyncdir(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        assert (await mount.statfs()).total_bytes == 1 << 40
        handle = (await mount.opendir(1)).handle
        assert mount.known_to_answer("fsyncdir", handle) is None


async def test_who_sees_one_change_of_another_mount_sees_all_before_it(autojump_clock, cluster, on):
    """As git does: objects first, then the name of a branch that leads to them."""
    async with on("nfs", "nfs") as (first, second):
        objects = (await first.mkdir(1, b"objects", 0o755, ME)).attributes.inode
        branches = (await first.mkdir(1, b"branches", 0o755, ME)).attributes.inode
        with pytest.raises(TideError):
            first.known_to_answer("lookup", objects, b"object")
        with pytest.raises(TideError):
            first.known_to_answer("lookup", branches, b"main")
        await touch(second, objects, b"object")
        await touch(second, branches, b"main")
        with pytest.raises(TideError):
            first.known_to_answer("lookup", objects, b"object")  # still believed
        assert await listed(first, branches) == [b"main"]
        assert (await first.lookup(objects, b"object")).attributes.kind is Kind.FILE
        cluster.calls.clear()
        with pytest.raises(TideError):
            await first.lookup(objects, b"other")
        with pytest.raises(TideError):
            await first.lookup(objects, b"other")
        assert names(cluster) == ["Lookup"], "believed again"


async def test_a_directory_that_nobody_changed_is_listed_from_memory(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        folder = (await first.mkdir(1, b"folder", 0o755, ME)).attributes.inode
        for at in range(300):
            await touch(first, folder, b"%d" % at)
        whole = await listed(first, folder)
        cluster.calls.clear()
        assert await listed(first, folder) == whole
        assert names(cluster) == ["GetAttributes"]
        await touch(second, folder, b"more")
        assert await listed(first, folder) == [*whole, b"more"]
        await trio.sleep(120)
        cluster.calls.clear()
        await listed(first, folder)
        assert "ReadDirectory" in names(cluster), "it renews all attributes at once"


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
async def test_a_directory_that_is_removed_elsewhere_while_it_is_open(
    autojump_clock, cluster, on, mode
):
    async with on(mode, "nfs") as (first, second):
        folder = (await first.mkdir(1, b"folder", 0o755, ME)).attributes.inode
        await first.getattr(folder, None)
        handle = (await first.opendir(folder)).handle
        await trio.sleep(100)
        await second.rmdir(1, b"folder")
        known = await first.getattr(folder, None)
        assert known.attributes.kind is Kind.DIRECTORY
        assert known.attributes.links == 0
        assert known.attributes_trust_ms == 0
        assert await first.readdir(handle, 0) == []
        first.vfs.releasedir(handle)
        assert await refused(first.getattr(folder, None)) is Code.STALE_HANDLE
