"""Random holes, clones and seeks between writes, against a bytearray; faults in between."""

import os

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from tidefs.client.vfs_ranges import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import KIB
from tidefs.tests.client import test_vfs_model as plain

CHUNK = 256 * KIB
CACHE_BYTES = 12 * CHUNK
"""Room for a file as a whole, which is read at once."""

chunk_borders = st.integers(0, 4).map(lambda index: index * CHUNK)
offsets = st.one_of(plain.offsets, chunk_borders)
lengths = st.one_of(plain.lengths, st.integers(1, 3 * CHUNK), st.sampled_from([CHUNK, 2 * CHUNK]))
handles = plain.handles
booleans = st.booleans()
clone_faults = st.sampled_from(
    [
        TideError(Code.NO_SPACE, "before"),
        TideError(Code.DISCONNECTED, "after"),
        TideError(Code.STALE_VERSION, "after"),
        None,
    ]
)
steps = st.one_of(
    plain.steps,
    st.tuples(st.just("punch"), handles, offsets, lengths),
    st.tuples(st.just("zero"), handles, offsets, lengths, booleans),
    st.tuples(st.just("allocate"), handles, offsets, lengths, booleans),
    st.tuples(st.just("seek"), handles, offsets),
    st.tuples(st.just("copy"), handles, chunk_borders, chunk_borders, lengths),
    st.tuples(st.just("copy_elsewhere"), handles, chunk_borders, lengths),
    st.tuples(st.just("fail_clones"), st.lists(clone_faults, min_size=1, max_size=3)),
)


class Run(plain.Run):
    """With ranges."""

    def zeros(self, offset, length):
        end = min(offset + length, len(self.model))
        if offset < end:
            self.model[offset:end] = bytes(end - offset)
        self.unseen.remove(offset, offset + length)

    def extend(self, size):
        self.model.extend(bytes(max(0, size - len(self.model))))

    async def punch(self, handle, offset, length):
        await self.mount.fallocate(self.handles[handle], PUNCH_HOLE | KEEP_SIZE, offset, length)
        self.zeros(offset, length)

    async def zero(self, handle, offset, length, keep):
        mode = ZERO_RANGE | keep * KEEP_SIZE
        await self.mount.fallocate(self.handles[handle], mode, offset, length)
        if not keep:
            self.extend(offset + length)
        self.zeros(offset, length)

    async def allocate(self, handle, offset, length, keep):
        await self.mount.fallocate(self.handles[handle], keep * KEEP_SIZE, offset, length)
        if not keep:
            self.extend(offset + length)

    async def seek(self, handle, offset):
        """What is said to be a hole has to be zeros."""
        size = len(self.model)
        if offset >= size:
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                with pytest.raises(TideError) as caught:
                    await self.mount.lseek(self.handles[handle], offset, whence)
                assert caught.value.code is Code.NO_SUCH_POSITION
            return
        hole = await self.mount.lseek(self.handles[handle], offset, os.SEEK_HOLE)
        assert offset <= hole <= size
        assert hole == size or self.model[hole] == 0
        try:
            data = await self.mount.lseek(self.handles[handle], offset, os.SEEK_DATA)
        except TideError as error:
            if error.code is not Code.NO_SUCH_POSITION:
                raise
            data = size
        assert offset <= data <= size
        assert not any(self.model[offset:data])

    async def copy(self, handle, source, target, length):
        length = min(length, max(0, len(self.model) - source))
        data = bytes(self.model[source : source + length])
        if not length or abs(source - target) < length:
            return
        await self.copied(self.handles[handle], source, self.handles[0], target, data)

    async def copied(self, source_handle, source, target_handle, target, data):
        copied = 0
        try:
            copied = await self.mount.copy_file_range(
                source_handle, source, target_handle, target, len(data)
            )
        except TideError as error:
            if error.code is not Code.NOT_SUPPORTED:
                raise
        assert 0 <= copied <= len(data)
        rest = data[copied:]
        if rest:  # as the kernel does
            await self.mount.write(target_handle, target + copied, rest)
        self.put(target, data)
        self.unseen.remove(target, target + len(data))

    async def copy_elsewhere(self, handle, source, length):
        """To a new file, whole."""
        data = bytes(self.model[source : source + length])
        name = b"copy %d" % self.counter
        self.counter += 1
        if self.unseen:
            return
        known, opened = await self.mount.create(1, name, 0o644, os.O_RDWR, plain.ME)
        inode = known.attributes.inode
        mine, self.model = self.model, bytearray()
        await self.copied(self.handles[handle], source, opened.handle, 0, data)
        assert bytes(await self.mount.read(opened.handle, 0, len(data) + 1)) == data
        await self.mount.fsync(opened.handle, False)
        if not self.mount.vfs.files.peek(inode).modified:
            assert self.cluster.content(inode) == data
        await self.mount.release(opened.handle)
        self.model = mine

    async def fail_clones(self, failures):
        self.cluster.weather.clone_failures += failures


def replay(small, new_cluster, mount_on, modes, script, seed):
    async def main():
        cluster = new_cluster(seed)
        async with mount_on(cluster, *modes, cache_bytes=CACHE_BYTES) as (mount, other):
            async with trio.open_nursery() as nursery:
                run = Run(cluster, mount, other, nursery)
                await run.start()
                for name, *arguments in script:
                    await getattr(run, name)(*arguments)
            await run.finish()

    with small():
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


scripts = st.lists(steps, max_size=25)


@plain.relaxed
@given(scripts, st.integers(0, 1000))
def test_nfs_against_a_model(small, new_cluster, mount_on, script, seed):
    replay(small, new_cluster, mount_on, ("nfs", "nfs"), script, seed)


@plain.relaxed
@given(scripts, st.integers(0, 1000))
def test_uncached_against_a_model(small, new_cluster, mount_on, script, seed):
    replay(small, new_cluster, mount_on, ("uncached", "nfs"), script, seed)


@plain.relaxed
@given(scripts, st.integers(0, 1000))
def test_strict_against_a_model(small, new_cluster, mount_on, script, seed):
    replay(small, new_cluster, mount_on, ("strict", "strict"), script, seed)
