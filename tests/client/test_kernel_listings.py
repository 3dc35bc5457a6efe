"""When the kernel may keep its listing of a directory, and how many round trips that costs."""

import os
import random
from collections import Counter

import pytest
import trio
import trio.testing
from tidefs.client.fuse.driver import Caller, NewAttributes
from tidefs.client.kernel_listings import KernelListings
from tidefs.fs.errors import TideError
from tidefs.fs.messages.meta import ReadDirectory

ME = Caller(1000, 1000, 1, 0o022)
FOREVER_NS = 1 << 62
ENTRIES = 300
PAGES_OF_ENTRIES = 1100
"""The server is asked for more than one page of them."""


def asked(cluster):
    """What the servers were asked since the last look."""
    calls = [type(call).__name__ for call in cluster.calls]
    cluster.calls.clear()
    return calls


async def touch(mount, parent, name):
    known, opened = await mount.create(parent, name, 0o644, os.O_RDWR | os.O_EXCL, ME)
    await mount.release(opened.handle)
    return known.attributes.inode


async def new_folder(mount, entries=ENTRIES):
    """A directory that has not changed for so long that it is trusted for a minute."""
    folder = (await mount.mkdir(1, b"folder", 0o755, ME)).attributes.inode
    for at in range(entries):
        await touch(mount, folder, b"%d" % at)
    await trio.sleep(1000)
    mount.cluster.calls.clear()
    return folder


async def read(mount, handle, cookie=0):
    """The names behind a cookie, to the end."""
    found = []
    while page := await mount.readdir(handle, cookie):
        found += [entry.name for entry, _ in page]
        cookie = page[-1][0].cookie
    return found


async def listed(mount, inode):
    """One listing as ``ls`` makes it: whether the kernel may keep its own, and the names."""
    opened = await mount.opendir(inode)
    names = await read(mount, opened.handle)
    await mount.releasedir(opened.handle)
    return opened.keep_listing and opened.cache_listing, names


async def kept(mount, inode):
    return (await listed(mount, inode))[0]


async def test_a_first_listing_asks_nothing_when_it_is_opened(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = await new_folder(mount)
        opened = mount.known_to_answer("opendir", folder)
        assert (opened.keep_listing, opened.cache_listing) == (False, True)
        assert len(await read(mount, opened.handle)) == ENTRIES
        assert asked(cluster) == ["ReadDirectory"]


async def test_an_unchanged_listing_is_kept_for_one_question(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = await new_folder(mount)
        await listed(mount, folder)
        asked(cluster)
        opened = await mount.opendir(folder)
        assert opened.keep_listing
        assert asked(cluster) == ["GetAttributes"]
        # The kernel may have lost it all the same.
        assert len(await read(mount, opened.handle)) == ENTRIES
        assert asked(cluster) == []
        assert len(await read(mount, opened.handle)) == ENTRIES
        assert asked(cluster) == ["GetAttributes"], "rewound: what was made meanwhile must be seen"


async def test_the_answer_to_opendir_is_not_believed_for_long(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first, 0)
        await listed(first, folder)
        opened = await first.opendir(folder)
        assert opened.keep_listing
        await touch(second, folder, b"more")
        await trio.sleep(100)
        assert await read(first, opened.handle) == [b"more"]


async def test_what_another_mount_changed_is_not_kept(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first)
        await listed(first, folder)
        await touch(second, folder, b"more")
        asked(cluster)
        keeps, names = await listed(first, folder)
        assert not keeps
        assert names[-1] == b"more"
        assert asked(cluster) == ["GetAttributes", "ReadDirectory"]
        assert await kept(first, folder)


async def test_what_this_mount_changed_is_not_kept(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = await new_folder(mount)
        await listed(mount, folder)
        await mount.unlink(folder, b"7")
        opened = mount.known_to_answer("opendir", folder)
        assert not opened.keep_listing
        assert b"7" not in await read(mount, opened.handle)


async def test_a_change_of_this_mount_while_it_asks(autojump_clock, cluster, on):
    cluster.weather.slowest_s = 1
    async with on("nfs") as mount:
        folder = await new_folder(mount, 60)
        done = []

        async def open_it():
            opened = await mount.opendir(folder)
            done.append(opened.keep_listing)
            await mount.releasedir(opened.handle)

        async def remove(name):
            await mount.unlink(folder, name)
            done.append("removed")

        for at in range(60):
            await listed(mount, folder)
            done.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_it)
                nursery.start_soon(remove, b"%d" % at)
            assert done != ["removed", True]


async def test_a_listing_that_a_change_of_this_mount_overtakes(autojump_clock, cluster, on):
    cluster.weather.slowest_s = 1
    async with on("nfs") as mount:
        folder = await new_folder(mount, 60)
        found = []

        async def list_it():
            found[:] = (await listed(mount, folder))[1]

        for at in range(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(list_it)
                nursery.start_soon(mount.unlink, folder, b"%d" % at)
            opened = await mount.opendir(folder)
            assert not (opened.keep_listing and b"%d" % at in found)
            await mount.releasedir(opened.handle)


async def test_what_the_client_has_no_more_is_not_kept(autojump_clock, cluster, on):
    """It would not know whether the attributes are trusted."""
    async with on("nfs") as mount:
        folder = await new_folder(mount)
        await listed(mount, folder)
        mount.vfs.listings.forget(folder)
        assert not mount.known_to_answer("opendir", folder).keep_listing


async def test_it_is_not_kept_when_an_entry_is_not_trusted(autojump_clock, cluster, on):
    """A listing renews all attributes at once, and without one each stat would ask by itself."""
    async with on("nfs") as mount:
        folder = await new_folder(mount)
        await listed(mount, folder)
        inode = (await mount.lookup(folder, b"7")).attributes.inode
        await mount.setattr(inode, NewAttributes(mode=0o600), None)  # trusted for seconds now
        assert await kept(mount, folder)
        await trio.sleep(5)
        asked(cluster)
        assert not await kept(mount, folder)
        assert asked(cluster) == ["GetAttributes", "ReadDirectory"]
        assert await kept(mount, folder)


async def test_it_is_not_kept_when_the_kernel_trusts_no_names(autojump_clock, cluster, on):
    """It would look up each: in the client's memory, but a listing is cheaper by far."""
    async with on("nfs") as mount:
        folder = await new_folder(mount)
        await listed(mount, folder)
        await trio.sleep(50)
        await mount.readdir((await mount.opendir(folder)).handle, 0)
        for at in range(ENTRIES):
            inode = (await mount.lookup(folder, b"%d" % at)).attributes.inode
            mount.vfs.attributes.distrust(inode)
            await mount.getattr(inode, None)
        await trio.sleep(15)
        asked(cluster)
        assert not await kept(mount, folder)
        assert asked(cluster) == ["GetAttributes"], "it comes from memory"


async def test_of_two_versions_nothing_is_kept(autojump_clock, cluster, on):
    """The kernel puts the end of one behind the start of the other."""
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first, PAGES_OF_ENTRIES)
        slow = (await first.opendir(folder)).handle
        page = await first.readdir(slow, 0)
        await second.unlink(folder, b"7")
        assert b"7" not in (await listed(first, folder))[1]
        await read(first, slow, page[-1][0].cookie)
        assert not await kept(first, folder)
        await first.releasedir(slow)
        assert not await kept(first, folder), "it is dropped at this open"
        assert await kept(first, folder)


async def test_who_may_not_see_what_another_one_reads_leaves_it_alone(autojump_clock, cluster, on):
    """The kernel may be putting into its listing what was told to the other one before."""
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first, PAGES_OF_ENTRIES)
        slow = (await first.opendir(folder)).handle
        page = await first.readdir(slow, 0)
        together = await first.opendir(folder)
        assert together.keep_listing
        assert together.cache_listing, "it is the same version"
        await second.unlink(folder, b"7")
        opened = await first.opendir(folder)
        assert (opened.keep_listing, opened.cache_listing) == (True, False)
        assert b"7" not in await read(first, opened.handle)
        await first.releasedir(opened.handle)
        await read(first, slow, page[-1][0].cookie)
        await first.releasedir(slow)
        await first.releasedir(together.handle)
        opened = await first.opendir(folder)
        assert (opened.keep_listing, opened.cache_listing) == (False, True)


async def test_who_opens_while_a_page_is_on_its_way(autojump_clock, cluster, on):
    cluster.weather.slowest_s = 1
    async with on("nfs") as mount:
        folder = await new_folder(mount, 3)
        handle = (await mount.opendir(folder)).handle
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mount.readdir, handle, 0)
                await trio.testing.wait_all_tasks_blocked()
                opened = mount.known_to_answer("opendir", folder)
                assert (opened.keep_listing, opened.cache_listing) == (True, False)
        assert (await mount.opendir(folder)).cache_listing


async def test_what_is_open_and_not_read_is_in_nobodys_way(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first, 3)
        await first.opendir(folder)
        for at in range(3):
            assert not await kept(first, folder) or not at
            assert await kept(first, folder)
            await touch(second, folder, b"more-%d" % at)


async def test_a_listing_that_was_overtaken_by_a_change(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first, PAGES_OF_ENTRIES)
        handle = (await first.opendir(folder)).handle
        page = await first.readdir(handle, 0)
        await second.unlink(folder, b"7")
        await read(first, handle, page[-1][0].cookie)
        await first.releasedir(handle)
        asked(cluster)
        keeps, names = await listed(first, folder)
        assert not keeps
        assert b"7" not in names


async def test_the_start_of_a_listing_is_kept(autojump_clock, cluster, on):
    """Else the kernel would have its end and not its start, and never again a whole one."""
    async with on("nfs") as mount:
        folder = await new_folder(mount)
        handle = (await mount.opendir(folder)).handle
        await mount.readdir(handle, 0)
        await mount.releasedir(handle)
        assert await kept(mount, folder)


async def test_of_what_was_opened_and_not_read_nothing_is_known(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = await new_folder(mount)
        await mount.releasedir((await mount.opendir(folder)).handle)
        assert not mount.known_to_answer("opendir", folder).keep_listing


async def test_a_mode_that_caches_nothing_lets_the_kernel_keep_nothing(autojump_clock, cluster, on):
    async with on("uncached") as mount:
        folder = await new_folder(mount, 3)
        for _ in range(2):
            opened = mount.known_to_answer("opendir", folder)
            assert (opened.keep_listing, opened.cache_listing) == (False, False)
            await read(mount, opened.handle)
            await mount.releasedir(opened.handle)


async def test_a_moved_directory_is_below_another_one(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = await new_folder(mount, 3)
        inner = (await mount.mkdir(folder, b"inner", 0o755, ME)).attributes.inode
        await touch(mount, inner, b"file")
        await listed(mount, inner)
        await mount.rename(folder, b"inner", 1, b"inner", 0)
        mount.vfs.attributes.distrust(inner)
        await mount.getattr(inner, None)
        assert not await kept(mount, inner), "the kernel keeps .. as well"
        assert await kept(mount, inner)


async def test_a_kept_listing_was_read(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        folder = await new_folder(mount, 3)
        await listed(mount, folder)
        await trio.sleep(30)
        mount.vfs.readings.drop(folder)
        before_ns = (await mount.getattr(folder, None)).attributes.atime_ns
        await mount.setattr(folder, NewAttributes(atime_ns=0), None)
        assert (await mount.opendir(folder)).keep_listing
        assert (await mount.getattr(folder, None)).attributes.atime_ns > before_ns


async def test_who_hears_of_a_foreign_change_tells_the_kernel(autojump_clock, cluster, on):
    """It compares the mtime that it believes with that of its listing, when that is rewound."""
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first)
        await listed(first, folder)
        await touch(first, folder, b"own")
        assert first.kernel.told == []
        await touch(second, folder, b"more")
        await listed(first, folder)
        assert first.kernel.told == [(folder, True)]


async def test_the_kernel_is_not_told_of_what_it_asks_for(autojump_clock, cluster, on):
    """It does not believe an answer that a notice has overtaken."""
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first)
        await listed(first, folder)
        await touch(second, folder, b"more")
        await trio.sleep(100)
        await first.getattr(folder, None)
        assert first.kernel.told == []


async def test_an_error_that_tells_of_a_foreign_change(autojump_clock, cluster, on):
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first)
        await listed(first, folder)
        await second.unlink(folder, b"7")
        with pytest.raises(TideError):
            await first.unlink(folder, b"7")
        assert first.kernel.told == [(folder, True)]


class KernelListing:
    """What the kernel does with FOPEN_CACHE_DIR, as far as it is of use for keeping too much: it
    puts what comes at the end behind what it has, from whatever open directory."""

    def __init__(self):
        self.drop()

    def drop(self):
        self.entries = []
        self.end = False

    def add(self, cookie, page):
        for entry, _ in page:
            if cookie == (self.entries[-1][1] if self.entries else 0) and not self.end:
                self.entries.append((entry.name, entry.cookie))
            cookie = entry.cookie
        if not page and self.entries and self.entries[-1][1] == cookie:
            self.end = True

    def is_right(self, entries):
        return self.entries == (entries if self.end else entries[: len(self.entries)])


@pytest.mark.parametrize("seed", range(8))
async def test_what_is_kept_is_right(autojump_clock, cluster, on, seed):
    """Three listings at a time, in pieces that come late, and changes by both mounts."""
    dice = random.Random(seed)
    cluster.weather.slowest_s = 1
    count = Counter()
    async with on("nfs", "nfs") as (first, second):
        folder = await new_folder(first, 500)
        kernel = KernelListing()
        changing = trio.Lock()

        async def open_it():
            async with changing:
                opened = await first.opendir(folder)
                if opened.keep_listing and opened.cache_listing:
                    assert kernel.is_right(await entries_of(second, folder))
                    count[kernel.end] += 1
            if not opened.keep_listing:
                await trio.sleep(dice.random())
                kernel.drop()
            return opened

        async def list_it():
            for _ in range(25):
                opened, cookie = await open_it(), 0
                while dice.random() < 0.97:
                    page = await first.readdir(opened.handle, cookie)
                    page = page[: dice.randrange(1, 300)]
                    await trio.sleep(dice.random())
                    if opened.cache_listing:
                        kernel.add(cookie, page)
                    if not page:
                        break
                    cookie = page[-1][0].cookie
                await first.releasedir(opened.handle)
                await trio.sleep(dice.random() * 15)

        async def change_it():
            for at in range(30):
                await trio.sleep(dice.random() * 15)
                async with changing:
                    mount = dice.choice((first, second))
                    await mount.unlink(folder, b"%d" % at)
                    await touch(mount, folder, b"new-%d" % at)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(list_it)
            nursery.start_soon(change_it)
    assert count.total() > 0


async def entries_of(mount, folder):
    """Names and cookies, as the server has them now."""
    found, cookie, end = [], 0, False
    while not end:
        reply = await mount.meta.call(ReadDirectory(folder, cookie, 1000))
        found += [(entry.name, entry.cookie) for entry in reply.entries]
        cookie, end = found[-1][1], reply.end
    return found


class TestKernelListings:
    def listing(self, listings, inode, version, until_ns=FOREVER_NS, *, keep=False):
        if not keep:
            listings.drop(inode)
        listings.begin(inode)
        listings.told(inode, version, until_ns)
        listings.end(inode)

    def test_names_are_believed_for_a_time(self):
        listings = KernelListings()
        self.listing(listings, 5, 3, until_ns=100)
        self.listing(listings, 5, 3, until_ns=200, keep=True)
        assert listings.version(5, 99) == 3
        assert listings.version(5, 100) is None, "those that were told first"
        self.listing(listings, 5, 3, until_ns=200)
        assert listings.version(5, 100) == 3, "they were told anew"

    def test_the_first_name_that_is_not_believed_counts(self):
        listings = KernelListings()
        listings.begin(5)
        listings.told(5, 3, 200)
        listings.told(5, 3, 100)
        assert listings.version(5, 99) == 3
        assert listings.version(5, 100) is None

    def test_what_is_told_to_a_kept_listing_is_added(self):
        listings = KernelListings()
        self.listing(listings, 5, 3)
        self.listing(listings, 5, 4, keep=True)
        assert listings.version(5, 0) is None
        self.listing(listings, 5, 4)
        assert listings.version(5, 0) == 4

    def test_bounds(self):
        listings = KernelListings(capacity=2)
        for inode in (5, 6, 7):
            self.listing(listings, inode, 3)
        assert [listings.version(inode, 0) for inode in (5, 6, 7)] == [None, 3, 3]
        self.listing(listings, 8, 3)
        self.listing(listings, 8, 4, keep=True)
        assert listings.version(6, 0) is None
        assert listings.version(7, 0) == 3, "what nothing is known of takes no room"
        self.listing(listings, 9, 3)
        assert listings.version(7, 0) == 3
        listings.forget(7)
        assert listings.version(7, 0) is None

    def test_what_is_open_is_forgotten_too(self):
        listings = KernelListings()
        listings.begin(5)
        listings.told(5, 3, FOREVER_NS)
        listings.forget(5)
        listings.told(5, 3, FOREVER_NS)
        listings.end(5)
        assert listings.version(5, 0) is None
