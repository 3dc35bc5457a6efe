"""fallocate, lseek and copy_file_range through the vfs: what each does, and what it costs."""

import os

import pytest
from tidefs.client.fuse.driver import Caller, NewAttributes
from tidefs.client.vfs_ranges import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CHUNK_BYTES, FILE_MAX_BYTES, INLINE_MAX_BYTES, KIB, MIB
from tidefs.fs.messages import meta

ME = Caller(1000, 1000, 1, 0o022)
PUNCH = PUNCH_HOLE | KEEP_SIZE
TIB = 1 << 40
SMALL_CHUNK = 256 * KIB


async def new_file(mount, content=b"", name=b"file"):
    known, opened = await mount.create(1, name, 0o644, os.O_RDWR, ME)
    if content:
        await mount.write(opened.handle, 0, content)
        await mount.flush(opened.handle)
    return known.attributes.inode, opened.handle


async def refused(awaitable) -> Code:
    with pytest.raises(TideError) as caught:
        await awaitable
    return caught.value.code


async def extents(mount, handle):
    """Where lseek(2) says that there is data."""
    found = []
    at = 0
    while True:
        try:
            start = await mount.lseek(handle, at, os.SEEK_DATA)
        except TideError as error:
            if error.code is not Code.NO_SUCH_POSITION:
                raise
            return found
        at = await mount.lseek(handle, start, os.SEEK_HOLE)
        found.append((start, at))


def count(cluster, kind):
    return sum(isinstance(call, kind) for call in cluster.calls)


# --- holes


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
async def test_a_hole_in_the_middle(autojump_clock, small, cluster, on, mode):
    with small():
        async with on(mode) as mount:
            content = os.urandom(4 * SMALL_CHUNK)
            inode, handle = await new_file(mount, content)
            before = (await mount.getattr(inode, None)).attributes
            await mount.fallocate(handle, PUNCH, SMALL_CHUNK - 1, 2 * SMALL_CHUNK + 2)
            wanted = bytearray(content)
            wanted[SMALL_CHUNK - 1 : 3 * SMALL_CHUNK + 1] = bytes(2 * SMALL_CHUNK + 2)
            assert bytes(await mount.read(handle, 0, len(content))) == wanted
            after = (await mount.getattr(inode, None)).attributes
            assert after.size == before.size
            assert after.stored_bytes == 2 * SMALL_CHUNK
            assert min(after.mtime_ns, after.ctime_ns) > before.mtime_ns
            assert await extents(mount, handle) == [
                (0, SMALL_CHUNK),
                (3 * SMALL_CHUNK, 4 * SMALL_CHUNK),
            ]
            await mount.fsync(handle, False)
            assert cluster.content(inode) == wanted
            assert len(cluster.chunks) == 2


async def test_a_hole_in_one_known_chunk_asks_nobody(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        _, handle = await new_file(mount, b"x" * MIB)
        cluster.calls.clear()
        await mount.fallocate(handle, PUNCH, 100_000, 200_000)
        assert cluster.calls == []
        wanted = b"x" * 100_000 + bytes(200_000) + b"x" * 10
        assert bytes(await mount.read(handle, 0, 300_010)) == wanted


async def test_a_hole_in_an_inline_file(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount, b"abcdefgh")
        await mount.fallocate(handle, PUNCH, 2, 3)
        assert bytes(await mount.read(handle, 0, 100)) == b"ab\0\0\0fgh"
        await mount.write(handle, 3, b"!")
        await mount.fallocate(handle, PUNCH, 6, FILE_MAX_BYTES - 6)
        assert bytes(await mount.read(handle, 0, 100)) == b"ab\0!\0f\0\0"
        await mount.flush(handle)
        assert cluster.content(inode) == b"ab\0!\0f\0\0"
        assert (await mount.getattr(inode, None)).attributes.stored_bytes == 6
        assert not cluster.chunks


async def test_the_whole_file_becomes_a_hole_and_is_written_again(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount, b"x" * MIB)
        await mount.fallocate(handle, PUNCH, 0, MIB)
        assert (await mount.getattr(inode, None)).attributes.stored_bytes == 0
        assert await extents(mount, handle) == []
        assert await mount.lseek(handle, 5, os.SEEK_HOLE) == 5
        assert not cluster.chunks
        await mount.write(handle, 500_000, b"new")
        await mount.flush(handle)
        assert cluster.content(inode) == bytes(500_000) + b"new" + bytes(MIB - 500_003)


async def test_zeros_that_raise_the_size(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount, b"x" * MIB)
        await mount.fallocate(handle, ZERO_RANGE | KEEP_SIZE, MIB - 10, 1000)
        assert (await mount.getattr(inode, None)).attributes.size == MIB
        await mount.fallocate(handle, ZERO_RANGE, MIB - 20, 1000)
        assert (await mount.getattr(inode, None)).attributes.size == MIB + 980
        assert bytes(await mount.read(handle, MIB - 21, 2000)) == b"x" + bytes(1000)
        await mount.flush(handle)
        assert cluster.content(inode) == b"x" * (MIB - 20) + bytes(1000)


async def test_what_was_written_behind_the_end_by_others_does_not_show(autojump_clock, cluster, on):
    """As after a truncation: the hole is there for them too."""
    async with on("nfs", "nfs") as (mount, other):
        inode, handle = await new_file(mount, b"x" * MIB)
        opened = await other.open(inode, os.O_RDWR)
        await mount.fallocate(handle, PUNCH, 1000, MIB)
        await mount.flush(handle)
        await other.write(opened.handle, MIB - 5, b"other")
        await other.flush(opened.handle)
        assert cluster.content(inode) == b"x" * 1000 + bytes(MIB - 1005) + b"other"


# --- allocate


async def test_allocate(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount, b"x")
        before = (await mount.getattr(inode, None)).attributes
        await mount.fallocate(handle, KEEP_SIZE, 0, MIB)
        assert (await mount.getattr(inode, None)).attributes == before
        await mount.fallocate(handle, 0, 10, MIB)
        after = (await mount.getattr(inode, None)).attributes
        assert after.size == MIB + 10
        assert after.mtime_ns > before.mtime_ns
        assert bytes(await mount.read(handle, 0, 5)) == b"x\0\0\0\0"
        await mount.fallocate(handle, 0, 0, 10)
        assert (await mount.getattr(inode, None)).attributes.size == MIB + 10


async def test_an_extension_behind_what_is_dirty(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 5 * MIB, b"dirty")
        await mount.fallocate(handle, 0, 6 * MIB, 1)
        await mount.write(handle, 7 * MIB, b"more")
        await mount.fallocate(handle, 0, 0, 6 * MIB)
        await mount.flush(handle)
        wanted = bytes(5 * MIB) + b"dirty" + bytes(2 * MIB - 5) + b"more"
        assert cluster.content(inode) == wanted


async def test_fallocate_that_cannot_be(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        _, handle = await new_file(mount, b"x")
        for mode, offset, length, code in [
            (0, 0, 0, Code.INVALID),
            (0, -1, 5, Code.INVALID),
            (0, FILE_MAX_BYTES, 1, Code.FILE_TOO_LARGE),
            (0, 0, 2 * TIB, Code.NO_SPACE),  # the cluster of these tests has half of one
            (KEEP_SIZE, 0, 2 * TIB, Code.NO_SPACE),
            (PUNCH_HOLE, 0, 1, Code.NOT_SUPPORTED),
            (PUNCH | ZERO_RANGE, 0, 1, Code.NOT_SUPPORTED),
            (0x08, 0, 1, Code.NOT_SUPPORTED),  # COLLAPSE_RANGE
            (0x20, 0, 1, Code.NOT_SUPPORTED),  # INSERT_RANGE
            (0x40, 0, 1, Code.NOT_SUPPORTED),  # UNSHARE_RANGE
        ]:
            assert await refused(mount.fallocate(handle, mode, offset, length)) is code


# --- seeking


async def test_seeking_in_a_file_without_holes_asks_nobody(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        _, handle = await new_file(mount, b"x" * MIB)
        assert mount.known_to_answer("lseek", handle, 5, os.SEEK_DATA) == 5
        assert mount.known_to_answer("lseek", handle, 5, os.SEEK_HOLE) == MIB


async def test_seeking_sees_what_is_not_written_yet(autojump_clock, small, cluster, on):
    with small():
        async with on("nfs") as mount:
            inode, handle = await new_file(mount)
            await mount.setattr(inode, NewAttributes(size=10 * SMALL_CHUNK), handle)
            mount.known_to_answer("write", handle, SMALL_CHUNK + 10, b"dirty")
            assert await extents(mount, handle) == [(SMALL_CHUNK + 10, SMALL_CHUNK + 15)]
            mount.known_to_answer("write", handle, 10 * SMALL_CHUNK + 5, b"!")
            assert (await extents(mount, handle))[1:] == [
                (10 * SMALL_CHUNK + 5, 10 * SMALL_CHUNK + 6)
            ]
            await mount.flush(handle)
            assert await extents(mount, handle) == [
                (SMALL_CHUNK, 2 * SMALL_CHUNK),
                (10 * SMALL_CHUNK, 10 * SMALL_CHUNK + 6),
            ]


async def test_seeking_where_nothing_is(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            assert await refused(mount.lseek(handle, 0, whence)) is Code.NO_SUCH_POSITION
        await mount.write(handle, 0, b"abc")
        assert await mount.lseek(handle, 1, os.SEEK_HOLE) == 3
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            assert await refused(mount.lseek(handle, 3, whence)) is Code.NO_SUCH_POSITION
            assert await refused(mount.lseek(handle, -1, whence)) is Code.NO_SUCH_POSITION
        assert await refused(mount.lseek(handle, 0, os.SEEK_END)) is Code.INVALID
        await mount.flush(handle)
        await mount.setattr(inode, NewAttributes(size=MIB), handle)
        assert await extents(mount, handle) == [(0, 3)]
        assert await refused(mount.lseek(handle, 3, os.SEEK_DATA)) is Code.NO_SUCH_POSITION


# --- sparse files


async def test_a_byte_at_eight_tib(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        inode, handle = await new_file(mount)
        await mount.write(handle, 8 * TIB, b"x")
        found = (await mount.getattr(inode, None)).attributes
        assert (found.size, found.stored_bytes) == (8 * TIB + 1, 1)
        await mount.fsync(handle, False)
        found = (await mount.getattr(inode, None)).attributes
        assert (found.size, found.stored_bytes) == (8 * TIB + 1, 1)
        cluster.calls.clear()
        assert await extents(mount, handle) == [(8 * TIB, 8 * TIB + 1)]
        assert len(cluster.calls) <= 4
        cluster.calls.clear()
        for offset in range(TIB, TIB + 64 * MIB, 128 * KIB):
            assert not any(await mount.read(handle, offset, 128 * KIB))
        assert len(cluster.calls) <= 2, "the hole was asked for once"
        await mount.release(handle)
        mount.vfs.files.forget(inode)
        opened = await mount.open(inode, os.O_RDWR)
        cluster.calls.clear()
        await mount.fsync(opened.handle, False)  # of what others may have written
        assert len(cluster.calls) <= 4
        await mount.setattr(inode, NewAttributes(size=10), opened.handle)
        found = (await mount.getattr(inode, None)).attributes
        assert (found.size, found.stored_bytes) == (10, 0)
        assert bytes(await mount.read(opened.handle, 0, 100)) == bytes(10)


# --- clones


async def copy(mount, source, target, length, at=0, to=0):
    return await mount.copy_file_range(source, at, target, to, length)


@pytest.mark.parametrize("mode", ["nfs", "uncached", "strict"])
async def test_a_copy_of_a_whole_file_moves_no_bytes(autojump_clock, small, cluster, on, mode):
    with small():
        async with on(mode) as mount:
            content = os.urandom(3 * SMALL_CHUNK + SMALL_CHUNK // 2)
            _, source = await new_file(mount, content)
            inode, target = await new_file(mount, name=b"copy")
            cluster.writes.clear()
            assert await copy(mount, source, target, 1 << 30) == len(content)
            assert bytes(await mount.read(target, 0, len(content) + 1)) == content
            assert not cluster.writes
            lengths = sorted(length for _, _, length in cluster.clones)
            assert lengths == [SMALL_CHUNK // 2] + [SMALL_CHUNK] * 3
            assert cluster.content(inode) == content
            assert mount.known_to_answer("fsync", target, False) is None, "it is synced already"
            assert count(cluster, meta.Commit) <= 5
            behind = copy(mount, source, target, SMALL_CHUNK, 4 * SMALL_CHUNK, 4 * SMALL_CHUNK)
            assert await refused(behind) is Code.NOT_SUPPORTED, "the kernel finds that it is 0"


async def test_what_was_not_flushed_is_copied_too(autojump_clock, small, cluster, on):
    with small():
        async with on("nfs") as mount:
            _, source = await new_file(mount)
            mount.known_to_answer("write", source, 0, b"a" * 300 * KIB)
            inode, target = await new_file(mount, name=b"copy")
            assert await copy(mount, source, target, 300 * KIB) == 300 * KIB
            assert cluster.content(inode) == b"a" * 300 * KIB


async def test_holes_stay_holes(autojump_clock, small, cluster, on):
    with small():
        async with on("nfs") as mount:
            inode, source = await new_file(mount, b"a" * SMALL_CHUNK)
            await mount.write(source, 3 * SMALL_CHUNK, b"b" * SMALL_CHUNK)
            await mount.setattr(inode, NewAttributes(size=6 * SMALL_CHUNK), source)
            inode, target = await new_file(mount, name=b"copy")
            copied = 0
            while copied < 6 * SMALL_CHUNK:
                copied += await copy(mount, source, target, 1 << 30, copied, copied)
            assert len(cluster.clones) == 2
            assert (await mount.getattr(inode, None)).attributes.size == 6 * SMALL_CHUNK
            assert await extents(mount, target) == [
                (0, SMALL_CHUNK),
                (3 * SMALL_CHUNK, 4 * SMALL_CHUNK),
            ]


async def test_within_one_file(autojump_clock, small, cluster, on):
    with small():
        async with on("nfs") as mount:
            content = os.urandom(SMALL_CHUNK)
            inode, handle = await new_file(mount, content)
            assert await copy(mount, handle, handle, SMALL_CHUNK, 0, 2 * SMALL_CHUNK)
            wanted = content + bytes(SMALL_CHUNK) + content
            assert cluster.content(inode) == wanted
            assert bytes(await mount.read(handle, 0, len(wanted))) == wanted
            overlapping = copy(mount, handle, handle, 2 * SMALL_CHUNK, 0, SMALL_CHUNK)
            assert await refused(overlapping) is Code.INVALID


async def test_only_whole_chunks_into_holes(autojump_clock, small, cluster, on):
    with small():
        async with on("nfs") as mount:
            _, source = await new_file(mount, b"s" * (2 * SMALL_CHUNK + 1000))
            _, target = await new_file(mount, b"t" * 10 * SMALL_CHUNK, b"target")
            await mount.fallocate(target, PUNCH, SMALL_CHUNK, 2 * SMALL_CHUNK)

            async def fails(at, to, length):
                code = await refused(copy(mount, source, target, length, at, to))
                assert code is Code.NOT_SUPPORTED

            await fails(0, 0, 3 * SMALL_CHUNK)  # there are bytes in the way
            await fails(1, SMALL_CHUNK, SMALL_CHUNK)
            await fails(0, SMALL_CHUNK + 1, SMALL_CHUNK)
            await fails(0, SMALL_CHUNK, SMALL_CHUNK - 1)
            await fails(2 * SMALL_CHUNK, SMALL_CHUNK, SMALL_CHUNK)  # an end inside of the target
            whole = await copy(mount, source, target, 3 * SMALL_CHUNK, 0, 2 * SMALL_CHUNK)
            assert whole == SMALL_CHUNK
            assert bytes(await mount.read(target, 3 * SMALL_CHUNK - 1, 2)) == b"st"


async def test_small_files_are_copied_by_the_kernel(autojump_clock, cluster, on):
    async with on("nfs") as mount:
        _, source = await new_file(mount, b"s" * INLINE_MAX_BYTES)
        inode, target = await new_file(mount, name=b"copy")
        cluster.calls.clear()
        assert await refused(copy(mount, source, target, MIB)) is Code.NOT_SUPPORTED
        assert cluster.calls == []
        _, large = await new_file(mount, b"x" * 2 * MIB, b"large")
        await mount.write(target, 0, b"inline")
        assert await refused(copy(mount, large, target, 2 * MIB)) is Code.NOT_SUPPORTED
        to = CHUNK_BYTES
        assert await refused(copy(mount, large, target, 2 * MIB, 0, to)) is Code.NOT_SUPPORTED
        assert cluster.content(inode) == b"inline"


@pytest.mark.parametrize("failure", ["before", "after"])
async def test_a_clone_that_fails_leaves_nothing(autojump_clock, small, cluster, on, failure):
    with small():
        async with on("nfs") as mount:
            _, source = await new_file(mount, b"s" * 4 * SMALL_CHUNK)
            inode, target = await new_file(mount, name=b"copy")
            chunks = set(cluster.chunks)
            cluster.weather.clone_failures += [None, TideError(Code.NO_SPACE, failure)]
            code = await refused(copy(mount, source, target, 4 * SMALL_CHUNK))
            assert code is Code.NOT_SUPPORTED
            assert set(cluster.chunks) == chunks
            assert not mount.meta.reservations
            assert not cluster.reserved
            await mount.write(target, SMALL_CHUNK + 5, b"x")
            await mount.flush(target)
            assert cluster.content(inode) == bytes(SMALL_CHUNK + 5) + b"x"


async def test_a_commit_that_fails_leaves_nothing(autojump_clock, small, cluster, on):
    with small():
        async with on("nfs", "nfs") as (mount, other):
            _, source = await new_file(mount, b"s" * 2 * SMALL_CHUNK)
            inode, target = await new_file(mount, name=b"copy")
            cluster.weather.call_failures[meta.Commit] = [TideError(Code.LAYOUT_CHANGED, "")]
            code = await refused(copy(mount, source, target, 2 * SMALL_CHUNK))
            assert code is Code.NOT_SUPPORTED
            assert not mount.meta.reservations
            assert len(cluster.chunks) == 2
            assert await copy(mount, source, target, 2 * SMALL_CHUNK) == 2 * SMALL_CHUNK
            opened = await other.open(inode, os.O_RDONLY)
            assert bytes(await other.read(opened.handle, 0, 10)) == b"s" * 10
