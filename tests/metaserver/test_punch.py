"""Punch: holes in files, and what is told of them."""

import pytest
from tidefs.fs.errors import Code
from tidefs.fs.limits import CHUNK_BYTES, EXTENT_CHUNKS_MAX, FILE_MAX_BYTES
from tidefs.fs.messages.meta import Commit, NewChunk, Patch, Punch, SetAttributes
from tidefs.metaserver.check import check
from tidefs.metaserver.effects import ChunksDropped
from tidefs.metaserver.entries import GrantChunk, ReserveHandles

TIB = 1 << 40


@pytest.fixture
def file(cluster):
    cluster.do(ReserveHandles(10_000))
    return cluster.file()


def write_inline(cluster, inode, content):
    patch = Patch(0, len(content))
    cluster.do(Commit(inode, len(content), None, [patch], [], 0, False), content)


def write_chunks(cluster, inode, indexes, size, version=5):
    """Chunks with the handle ``index + 1``."""
    base = cluster.state.attributes(inode).data_version
    written = [NewChunk(index, index + 1, version) for index in indexes]
    cluster.do(Commit(inode, size, None, [], written, base, False))


def punch(cluster, inode, offset, end, size=0):
    after = cluster.do(Punch(inode, offset, end, size)).attributes
    assert check(cluster.state) == []
    return after


def indexes(cluster, inode):
    return [chunk.index for chunk in cluster.state.chunks(inode, 0, 10_000)]


def test_whole_chunks_are_dropped(cluster, file):
    write_chunks(cluster, file, range(5), 5 * CHUNK_BYTES)
    before = cluster.state.attributes(file)
    after = punch(cluster, file, CHUNK_BYTES - 1, 3 * CHUNK_BYTES + 1)
    assert indexes(cluster, file) == [0, 3, 4]
    assert ChunksDropped([2, 3]) in cluster.effects
    assert after.size == before.size
    assert after.stored_bytes == 3 * CHUNK_BYTES
    assert after.data_version > before.data_version
    assert after.mtime_ns == after.ctime_ns == cluster.now
    assert cluster.state.dropped_handle(file, 1) == 2
    assert all(chunk.cut == -1 for chunk in cluster.state.chunks(file, 0, 5))


def test_a_range_within_a_chunk_leaves_its_bytes_to_the_client(cluster, file):
    write_chunks(cluster, file, range(2), 2 * CHUNK_BYTES)
    before = cluster.state.chunks(file, 0, 2)
    punch(cluster, file, 1, CHUNK_BYTES)
    assert cluster.state.chunks(file, 0, 2) == before


def test_a_hole_that_reaches_the_end(cluster, file):
    """It begins with a cut, and needs no zeros from the client."""
    write_chunks(cluster, file, range(3), 2 * CHUNK_BYTES + 100)
    after = punch(cluster, file, 1000, 2 * CHUNK_BYTES + 100)
    assert indexes(cluster, file) == [0]
    assert cluster.state.chunk(1).cut == 1000
    assert after.size == 2 * CHUNK_BYTES + 100
    assert after.stored_bytes == CHUNK_BYTES


def test_a_hole_that_is_the_file(cluster, file):
    write_chunks(cluster, file, range(3), 3 * CHUNK_BYTES)
    after = punch(cluster, file, 0, FILE_MAX_BYTES)
    assert (after.size, after.stored_bytes) == (3 * CHUNK_BYTES, 0)
    assert cluster.state.content(file)[1] == b"", "inline again"


def test_a_larger_size(cluster, file):
    write_chunks(cluster, file, [0], 1000)
    after = punch(cluster, file, 500, 3 * CHUNK_BYTES, size=3 * CHUNK_BYTES)
    assert after.size == 3 * CHUNK_BYTES
    assert cluster.state.chunk(1).cut == 500
    assert punch(cluster, file, 0, 0, size=1).size == 3 * CHUNK_BYTES


def test_a_larger_size_alone(cluster, file):
    write_chunks(cluster, file, [0], 1000)
    after = punch(cluster, file, 5000, 5000, size=5000)
    assert after.size == 5000
    assert cluster.state.chunk(1).cut == 1000


@pytest.mark.parametrize(
    ("offset", "end", "left"),
    [
        (0, 3, b"\0\0\0defgh"),
        (2, 4, b"ab\0\0efgh"),
        (4, 8, b"abcd"),
        (4, 900, b"abcd"),
        (8, 900, b"abcdefgh"),
        (0, TIB, b""),
    ],
)
@pytest.mark.parametrize("size", [8, 1000, 2 * TIB])
def test_inline_bytes(cluster, file, offset, end, left, size):
    write_inline(cluster, file, b"abcdefgh")
    cluster.do(SetAttributes(file, size=size))
    after = punch(cluster, file, offset, end)
    assert cluster.state.content(file) == (after, left)
    assert (after.size, after.stored_bytes) == (size, len(left))


def test_who_wrote_into_what_was_dropped_hears_of_it(cluster, file):
    write_chunks(cluster, file, range(3), 3 * CHUNK_BYTES)
    punch(cluster, file, CHUNK_BYTES, 2 * CHUNK_BYTES)
    late = Commit(file, 0, None, [], [NewChunk(1, 2, 5)], 0, True)
    assert cluster.refused(late) == Code.LAYOUT_CHANGED
    fresh = Commit(file, 0, None, [], [NewChunk(1, 9, 6)], 0, False)
    cluster.do(fresh)
    assert indexes(cluster, file) == [0, 1, 2]
    assert check(cluster.state) == []


def test_who_wrote_into_what_was_cut_hears_of_it(cluster, file):
    write_chunks(cluster, file, [0], CHUNK_BYTES)
    punch(cluster, file, 10, CHUNK_BYTES)
    late = Commit(file, 0, None, [], [NewChunk(0, 1, 5)], 0, True)
    assert cluster.refused(late) == Code.LAYOUT_CHANGED
    cluster.do(GrantChunk(1, 7, 10))
    cluster.do(Commit(file, 0, None, [], [NewChunk(0, 1, 7)], 0, True))


def test_holes_that_cannot_be(cluster, file):
    assert cluster.refused(Punch(file, -1, 5, 0)) == Code.INVALID
    assert cluster.refused(Punch(file, 6, 5, 0)) == Code.INVALID
    assert cluster.refused(Punch(file, 0, FILE_MAX_BYTES + 1, 0)) == Code.FILE_TOO_LARGE
    assert cluster.refused(Punch(file, 0, 1, FILE_MAX_BYTES + 1)) == Code.FILE_TOO_LARGE
    assert cluster.refused(Punch(1, 0, 1, 0)) == Code.IS_A_DIRECTORY


# --- where there are bytes


def test_extents_of_an_inline_file(cluster, file):
    write_inline(cluster, file, b"abc")
    cluster.do(SetAttributes(file, size=8 * TIB))
    found = cluster.state.extents(file, 1)
    assert (found.ranges, found.until, found.inline) == ([(1, 3)], 8 * TIB, True)
    assert cluster.state.extents(file, 3).ranges == []


def test_extents_of_chunks(cluster, file):
    size = 9 * CHUNK_BYTES + 10
    write_chunks(cluster, file, [1, 2, 5, 9], size)
    found = cluster.state.extents(file, 0)
    assert (found.until, found.inline) == (size, False)
    assert found.ranges == [
        (CHUNK_BYTES, 3 * CHUNK_BYTES),
        (5 * CHUNK_BYTES, 6 * CHUNK_BYTES),
        (9 * CHUNK_BYTES, size),
    ]
    assert cluster.state.extents(file, 3 * CHUNK_BYTES - 1).ranges[0] == (
        3 * CHUNK_BYTES - 1,
        3 * CHUNK_BYTES,
    )
    assert cluster.state.extents(file, size + CHUNK_BYTES).ranges == []
    assert cluster.state.attributes(file).stored_bytes == 3 * CHUNK_BYTES + 10


def test_extents_of_a_long_file_come_in_pieces(cluster, file):
    count = EXTENT_CHUNKS_MAX + 5
    write_chunks(cluster, file, range(count), count * CHUNK_BYTES)
    border = EXTENT_CHUNKS_MAX * CHUNK_BYTES
    found = cluster.state.extents(file, 0)
    assert (found.ranges, found.until) == ([(0, border)], border)
    found = cluster.state.extents(file, border)
    assert (found.ranges, found.until) == ([(border, count * CHUNK_BYTES)], count * CHUNK_BYTES)
