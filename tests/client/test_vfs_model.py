"""Random operations on several handles of a file, against a bytearray; faults in between."""

import os

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidefs.client.fuse.driver import Caller, NewAttributes
from tidefs.client.intervals import IntervalSet
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import KIB

ME = Caller(1000, 1000, 1, 0o022)
FILE_MAX_BYTES = 700 * KIB

offsets = st.one_of(
    st.integers(0, 20 * KIB),
    st.integers(0, FILE_MAX_BYTES),
    st.sampled_from([0, 8 * KIB, 64 * KIB, 256 * KIB, 512 * KIB]),
)
lengths = st.one_of(st.integers(1, 9 * KIB), st.integers(1, 200 * KIB))
handles = st.integers(0, 2)
faults = st.sampled_from(
    [
        TideError(Code.REPLICA_FAILED, "before"),
        TideError(Code.REPLICA_FAILED, "after"),
        TideError(Code.STALE_VERSION, "before"),
        None,
    ]
)
steps = st.one_of(
    st.tuples(st.just("write"), handles, offsets, lengths),
    st.tuples(st.just("write"), handles, offsets, lengths),
    st.tuples(st.just("read"), handles, offsets, lengths),
    st.tuples(st.just("truncate"), handles, offsets),
    st.tuples(st.just("flush"), handles),
    st.tuples(st.just("flush_meanwhile"), handles),
    st.tuples(st.just("fsync"), handles),
    st.tuples(st.just("reopen"), handles),
    st.tuples(st.just("forget")),
    st.tuples(st.just("sleep"), st.integers(1, 50)),
    st.tuples(st.just("fail_writes"), st.lists(faults, min_size=1, max_size=4)),
    st.tuples(st.just("fail_reads"), st.lists(faults, min_size=1, max_size=2)),
    st.tuples(st.just("lose_session")),
    st.tuples(st.just("change_elsewhere"), offsets, lengths),
    st.tuples(st.just("change_elsewhere_meanwhile"), offsets, lengths),
    st.tuples(st.just("truncate_elsewhere"), offsets),
)


class Run:
    """One mount, the file's handles, and what it must hold."""

    def __init__(self, cluster, mount, other, nursery):
        self.cluster = cluster
        self.mount = mount
        self.other = other
        self.nursery = nursery
        self.model = bytearray()
        self.inode = 0
        self.handles = []
        self.counter = 0
        self.unseen = IntervalSet()
        """What was changed elsewhere: seen for certain only after the next open."""

    async def start(self):
        known, opened = await self.mount.create(1, b"f", 0o644, os.O_RDWR, ME)
        self.inode = known.attributes.inode
        self.handles = [opened.handle]
        for _ in range(2):
            self.handles.append((await self.mount.open(self.inode, os.O_RDWR)).handle)

    def bytes(self, length):
        self.counter += 1
        return (b"%07d." % self.counter * (length // 8 + 1))[:length]

    def put(self, offset, data):
        if len(self.model) < offset + len(data):
            self.model.extend(bytes(offset + len(data) - len(self.model)))
        self.model[offset : offset + len(data)] = data

    async def write(self, handle, offset, length):
        data = self.bytes(length)
        assert await self.mount.write(self.handles[handle], offset, data) == length
        self.put(offset, data)
        self.unseen.remove(offset, offset + length)

    async def read(self, handle, offset, length):
        found = bytes(await self.mount.read(self.handles[handle], offset, length))
        if not self.unseen.intersects(offset, offset + length):
            assert found == self.model[offset : offset + length]

    async def truncate(self, handle, size):
        known = await self.mount.setattr(self.inode, NewAttributes(size=size), self.handles[handle])
        assert known.attributes.size == size
        self.cut(size)

    def cut(self, size):
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    async def flush(self, handle):
        await self.mount.flush(self.handles[handle])

    async def flush_meanwhile(self, handle):
        answer = self.mount.vfs.flush(self.handles[handle])
        if answer is not None:
            self.nursery.start_soon(lambda: answer)

    async def fsync(self, handle):
        await self.mount.fsync(self.handles[handle], False)
        if not self.mount.vfs.files.peek(self.inode).modified:
            assert self.cluster.content(self.inode) == self.model
            if self.unseen:
                return  # others' bytes are theirs to sync
            for chunk in self.cluster.state.chunks(self.inode, 0, 4):
                stored = self.cluster.chunks[chunk.handle]
                assert stored.synced == stored.data

    async def reopen(self, handle):
        await self.mount.flush(self.handles[handle])
        await self.mount.release(self.handles[handle])
        self.handles[handle] = (await self.mount.open(self.inode, os.O_RDWR)).handle
        self.unseen.clear()

    async def forget(self):
        """As if memory were needed for other things."""
        self.mount.vfs.files.peek(self.inode).drop_clean()

    async def sleep(self, hundredths):
        await trio.sleep(hundredths / 100)

    async def fail_writes(self, failures):
        self.cluster.weather.write_failures += failures

    async def fail_reads(self, failures):
        self.cluster.weather.read_failures += failures

    async def lose_session(self):
        self.mount.meta.lose_session()
        self.cluster.opens[self.mount.meta.session, self.inode] = 1

    async def change_elsewhere(self, offset, length):
        """Another mount writes after this one closed, and before it opens again."""
        await self.flush_all()
        await self.write_elsewhere(offset, length)
        await self.reopen(0)

    async def change_elsewhere_meanwhile(self, offset, length):
        """Another mount writes where this one has no changes, while it has some."""
        changes = self.mount.vfs.files.peek(self.inode).changes
        if not changes.pinned(offset, offset + length):
            self.unseen.add(min(offset, len(self.model)), offset + length)
            await self.write_elsewhere(offset, length)

    async def truncate_elsewhere(self, size):
        await self.flush_all()
        await self.other.setattr(self.inode, NewAttributes(size=size), None)
        self.cut(size)
        await self.reopen(0)

    async def flush_all(self):
        for handle in self.handles:
            await self.mount.flush(handle)

    async def write_elsewhere(self, offset, length):
        data = self.bytes(length)
        opened = await self.other.open(self.inode, os.O_RDWR)
        await self.other.write(opened.handle, offset, data)
        await self.other.flush(opened.handle)
        await self.other.release(opened.handle)
        self.put(offset, data)

    async def finish(self):
        await self.flush_all()
        assert self.cluster.content(self.inode) == self.model
        await self.reopen(0)
        await self.read(0, 0, len(self.model) + 1)
        known = await self.mount.getattr(self.inode, None)
        assert known.attributes.size == len(self.model)
        for handle in self.handles:
            await self.mount.release(handle)
        files = self.mount.vfs.files
        assert files.account.bytes == 0
        assert files.blocks.pinned_bytes == 0
        assert not self.mount.meta.reservations
        assert not self.mount.meta.held


def replay(small, new_cluster, mount_on, modes, script, seed):
    async def main():
        cluster = new_cluster(seed)
        async with mount_on(cluster, *modes, cache_bytes=1024 * KIB) as (mount, other):
            async with trio.open_nursery() as nursery:
                run = Run(cluster, mount, other, nursery)
                await run.start()
                for name, *arguments in script:
                    await getattr(run, name)(*arguments)
            await run.finish()

    with small():
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


relaxed = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
scripts = st.lists(steps, max_size=25)


PUSHED_AND_NOT_USED = [
    ("write", 0, 512 * KIB, 1),
    ("change_elsewhere", 256 * KIB, 1),
    ("truncate", 0, 1063),
    ("write", 0, 0, 1),
    ("truncate", 0, 0),
    ("write", 0, 8 * KIB, 1),
]
"""A byte goes to a new chunk, then the file turns out to have its bytes in the inode; later that
chunk would be used after all, with the byte in it."""


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
def test_what_was_pushed_in_vain_is_never_seen(small, new_cluster, mount_on, mode):
    replay(small, new_cluster, mount_on, (mode, mode), PUSHED_AND_NOT_USED, 0)


GROWN_ELSEWHERE = [
    ("truncate", 0, 2),
    ("change_elsewhere_meanwhile", 0, 3),
    ("write", 0, 0, 1),
    ("write", 0, 3, 8 * KIB),
]
"""What was small here has grown by a byte elsewhere when it is carried over into a chunk."""


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
def test_all_of_a_small_file_is_carried_over(small, new_cluster, mount_on, mode):
    replay(small, new_cluster, mount_on, (mode, mode), GROWN_ELSEWHERE, 0)


@relaxed
@given(scripts, st.integers(0, 1000))
def test_nfs_against_a_model(small, new_cluster, mount_on, script, seed):
    replay(small, new_cluster, mount_on, ("nfs", "nfs"), script, seed)


@relaxed
@given(scripts, st.integers(0, 1000))
def test_uncached_against_a_model(small, new_cluster, mount_on, script, seed):
    replay(small, new_cluster, mount_on, ("uncached", "nfs"), script, seed)


@relaxed
@given(scripts, st.integers(0, 1000))
def test_strict_against_a_model(small, new_cluster, mount_on, script, seed):
    replay(small, new_cluster, mount_on, ("strict", "strict"), script, seed)
