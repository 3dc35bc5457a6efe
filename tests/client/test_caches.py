"""The small caches and tables on their own: blocks, names, attributes, read-ahead, modes."""

import itertools
import os

import pytest
from tidefs.client.attributes_cache import AttributesCache
from tidefs.client.block_cache import BlockCache
from tidefs.client.dentry_cache import ABSENT, DentryCache
from tidefs.client.handles import Handles, OpenDirectory
from tidefs.client.modes import DEFAULT_MODE, MODES, Ground, Trust, mode_named
from tidefs.client.readahead import RANDOM_UNIT_BYTES, ReadAhead
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CACHE_BLOCK_BYTES, KIB, READ_AHEAD_BYTES

SECOND = 1_000_000_000


class Clock:
    def __init__(self):
        self.now = 1000 * SECOND

    def monotonic_ns(self):
        return self.now

    def wall_ns(self):
        return self.now


def attributes(inode=2, change=1, mtime_ns=1000 * SECOND, version=1):
    return Attributes(
        inode, Kind.FILE, 0o644, 1, 0, 0, 0, 0, 0, 0, mtime_ns, mtime_ns, change, version
    )


class TestBlocks:
    def make(self, blocks=2):
        self.evicted = []
        return BlockCache(lambda *what: self.evicted.append(what), blocks * CACHE_BLOCK_BYTES)

    def test_bytes_across_blocks(self):
        cache = self.make(4)
        data = os.urandom(3 * CACHE_BLOCK_BYTES)
        cache.put(7, 1000, data, pinned=False)
        assert bytes(cache.get(7, 1000, 1000 + len(data))) == data
        assert bytes(cache.get(7, 2000, 2010)) == data[1000:1010]

    def test_the_oldest_leaves(self):
        cache = self.make(2)
        for index in range(3):
            cache.put(7, index * CACHE_BLOCK_BYTES, bytes(CACHE_BLOCK_BYTES), pinned=False)
            cache.get(7, 0, 1) if index == 1 else None
        assert self.evicted == [(7, CACHE_BLOCK_BYTES, 2 * CACHE_BLOCK_BYTES)]

    def test_pinned_blocks_stay(self):
        cache = self.make(2)
        for index in range(4):
            cache.put(7, index * CACHE_BLOCK_BYTES, bytes(CACHE_BLOCK_BYTES), pinned=True)
        assert self.evicted == []
        assert cache.pinned_bytes == cache.used_bytes == 4 * CACHE_BLOCK_BYTES
        cache.unpin(7, 0)
        cache.put(8, 0, b"x", pinned=False)
        assert self.evicted == [(7, 0, CACHE_BLOCK_BYTES)]
        for index in range(1, 4):
            cache.drop(7, index)
        cache.drop(8, 0)
        assert cache.used_bytes == cache.pinned_bytes == 0

    def test_small_files_take_little(self):
        cache = self.make(2)
        for inode in range(100):
            cache.put(inode, 0, b"x" * 1000, pinned=False)
        assert cache.used_bytes == 100 * KIB

    def test_lent_bytes_do_not_change(self):
        cache = self.make()
        cache.put(7, 0, b"old" * 1000, pinned=True)
        loan = cache.lend(7, 0, 3000)
        cache.put(7, 0, b"new" * 1000, pinned=True)
        assert b"".join(loan.buffers) == b"old" * 1000
        assert bytes(cache.get(7, 0, 3)) == b"new"
        loan.give_back()
        again = cache.lend(7, 0, 3)
        again.give_back()
        cache.put(7, 0, b"own", pinned=True)
        assert bytes(cache.get(7, 0, 6)) == b"ownnew"

    def test_a_buffer_that_somebody_holds_is_not_used_again(self):
        cache = self.make(1)
        cache.put(7, 0, b"a" * CACHE_BLOCK_BYTES, pinned=False)
        held = cache.get(7, 0, 10)
        cache.put(8, 0, b"b" * CACHE_BLOCK_BYTES, pinned=False)
        cache.put(9, 0, b"c" * CACHE_BLOCK_BYTES, pinned=False)
        assert bytes(held) == b"a" * 10


class TestNames:
    def test_a_name_is_known_at_a_version(self):
        names = DentryCache()
        names.put(1, b"a", 5, 3)
        assert names.get(1, b"a") is None, "a directory that was not seen"
        names.see(1, 3, own=False)
        names.put(1, b"a", 5, 3)
        names.put(1, b"b", ABSENT, 3)
        names.put(1, b"c", 6, 2)
        assert names.get(1, b"a") == 5
        assert names.get(1, b"b") is ABSENT
        assert names.get(1, b"c") is None, "learned at an older version"
        names.see(1, 4, own=True)
        assert names.get(1, b"a") == 5
        names.see(1, 3, own=False)
        assert names.version(1) == 4
        names.see(1, 6, own=True)
        assert names.get(1, b"a") is None, "somebody else made a change in between"

    def test_complete_directories(self):
        names = DentryCache()
        names.see(1, 1, own=False)
        names.is_complete(1, 2)
        assert names.get(1, b"x") is None
        names.is_complete(1, 1)
        assert names.get(1, b"x") is ABSENT
        names.see(1, 2, own=False)
        assert names.get(1, b"x") is None

    def test_bounds(self):
        names = DentryCache(capacity=10)
        for inode in range(1, 4):
            names.see(inode, 1, own=False)
            names.is_complete(inode, 1)
            for at in range(5):
                names.put(inode, b"%d" % at, at, 1)
        assert names.get(1, b"0") is None
        assert names.get(3, b"0") == 0
        names.see(9, 1, own=False)
        names.is_complete(9, 1)
        for at in range(20):
            names.put(9, b"%d" % at, at, 1)
        assert names.get(9, b"0") is None, "not ABSENT: it was forgotten"
        assert names.get(9, b"19") == 19
        names.forget(9)
        assert names.get(9, b"19") is None


class TestAttributes:
    def test_trust_grows_while_nothing_changes(self):
        clock = Clock()
        cache = AttributesCache(clock, MODES["nfs"].attributes, lambda: 0)
        cache.see(attributes())
        assert cache.trust_ms(2) == 3_000
        clock.now += 3 * SECOND
        assert cache.trusted(2) is None
        clock.now += 20 * SECOND
        cache.see(attributes())
        assert cache.trust_ms(2) == 23_000
        clock.now += 1000 * SECOND
        cache.see(attributes())
        assert cache.trust_ms(2) == 60_000

    def test_old_replies_are_refused(self):
        cache = AttributesCache(Clock(), MODES["nfs"].attributes, lambda: 0)
        assert cache.see(attributes(change=5))
        assert not cache.see(attributes(change=4))
        assert cache.get(2).attributes.change == 5

    def test_bounds(self):
        cache = AttributesCache(Clock(), MODES["nfs"].attributes, lambda: 0, capacity=3)
        for inode in range(5):
            cache.see(attributes(inode))
        assert cache.get(1) is None
        assert cache.get(4) is not None


class TestPromises:
    def setup_method(self):
        self.clock = Clock()
        self.lease_until_ns = self.clock.now + 10 * SECOND
        trust = Trust(Ground.PROMISED)
        self.cache = AttributesCache(self.clock, trust, lambda: self.lease_until_ns)

    def test_what_is_not_promised_is_not_believed(self):
        self.cache.see(attributes())
        assert self.cache.trusted(2) is None
        self.cache.see(attributes(), promised=True)
        assert self.cache.trusted(2) is not None
        assert self.cache.trust_ms(2) == 0, "the kernel asks each time"

    def test_until_it_is_recalled(self):
        self.cache.see(attributes(), promised=True)
        self.cache.see(attributes(3), promised=True)
        self.cache.recall(2)
        assert self.cache.trusted(2) is None
        assert self.cache.trusted(3) is not None
        assert not self.cache.trusts_all([2, 3])
        assert self.cache.trusts_all([3])

    def test_on_a_new_connection_nothing_is_promised(self):
        self.cache.see(attributes(), promised=True)
        self.cache.recall_all()
        assert self.cache.trusted(2) is None
        self.cache.see(attributes(), promised=True)
        assert self.cache.trusted(2) is not None

    def test_no_longer_than_the_lease(self):
        self.cache.see(attributes(), promised=True)
        self.cache.claim(2)
        self.clock.now += 10 * SECOND
        assert self.cache.trusted(2) is None
        assert not self.cache.claimed(2)
        self.lease_until_ns += 5 * SECOND  # the session lived on, and was never recalled
        assert self.cache.trusted(2) is not None
        assert self.cache.claimed(2)

    def test_not_while_a_change_of_ours_may_have_been_made(self):
        self.cache.see(attributes(change=5), promised=True)
        ended = self.cache.begin_change([2, 77])
        assert self.cache.trusted(2) is None
        self.cache.see(attributes(change=6), own=True)
        ended()
        known = self.cache.trusted(2)
        assert known is not None, "our own change ends no promise"
        assert known.attributes.change == 6

    def test_claims_go_with_the_promise(self):
        self.cache.claim(2)
        assert not self.cache.claimed(2), "nothing is known of it"
        for recall in (lambda: self.cache.recall(2), self.cache.recall_all):
            self.cache.see(attributes(), promised=True)
            assert not self.cache.claimed(2)
            self.cache.claim(2)
            assert self.cache.claimed(2)
            recall()
            assert not self.cache.claimed(2)


class TestReadAhead:
    def test_windows_grow_for_a_sequential_reader(self):
        reader = ReadAhead()
        asked, offset = [], 0
        for _ in range(400):
            ahead = reader.follow(offset, 128 * KIB)
            offset += 128 * KIB
            if ahead:
                asked.append(ahead)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(asked)), "no byte twice"
        assert max(end - start for start, end in asked) <= READ_AHEAD_BYTES + 128 * KIB
        assert asked[-1][1] >= offset + READ_AHEAD_BYTES // 2 - 128 * KIB
        assert len(asked) < 60

    def test_a_random_reader_gets_what_it_asks_for(self):
        reader = ReadAhead()
        for offset in (10 << 20, 500 << 20, 3 << 20, 90 << 20):
            assert reader.follow(offset, 4 * KIB) is None
            assert reader.unit_bytes == RANDOM_UNIT_BYTES


class TestModes:
    def test_rows(self):
        assert set(MODES) == {"uncached", "nfs", "strict"}
        assert mode_named(DEFAULT_MODE).name == "nfs"
        with pytest.raises(TideError) as caught:
            mode_named("warp")
        assert caught.value.code is Code.INVALID
        assert "uncached, nfs" in str(caught.value)

    def test_trust(self):
        trust = Trust(Ground.UNTIL, 10, 100)
        assert [trust.for_age(age) for age in (-5, 50, 500)] == [10, 50, 100]
        assert Trust(Ground.NEVER).for_age(500) == 0


class TestHandles:
    def test_numbers_are_never_used_twice(self):
        handles = Handles()
        first = handles.add("a")
        assert handles.pop(first) == "a"
        assert handles.add("b") != first
        with pytest.raises(TideError) as caught:
            handles.get(first)
        assert caught.value.code is Code.STALE_HANDLE

    def test_an_empty_page(self):
        directory = OpenDirectory(attributes(1))
        assert directory.behind(0) is None
        directory.after, directory.end = 0, True
        assert directory.behind(0) == []
