"""Commit, chunks, grants and truncation: nothing that was written is lost or comes back."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CHUNK_BYTES, FILE_MAX_BYTES, INLINE_MAX_BYTES
from tidefs.fs.messages.meta import (
    Commit,
    MakeSymlink,
    NewChunk,
    Patch,
    RemoveDirectory,
    SetAttributes,
    Unlink,
)
from tidefs.metaserver.effects import ChunksDropped, Orphaned
from tidefs.metaserver.entries import GrantChunk, Reap, ReserveHandles
from tidefs.metaserver.records import ChunkRecord, FileChunk

MIB = 1 << 20


@pytest.fixture
def file(cluster):
    cluster.do(ReserveHandles(100))
    return cluster.file()


def patches(inode, *pieces, size=0, mtime_ns=None):
    """A Commit of (offset, bytes) pieces, and its payload."""
    listed = [Patch(offset, len(content)) for offset, content in pieces]
    payload = b"".join(content for _, content in pieces)
    return Commit(inode, size, mtime_ns, listed, [], 0, False), payload


def chunks(inode, *written, size=0, base=0, data_changed=False, mtime_ns=None):
    """A Commit of (index, handle, version) chunks."""
    return Commit(
        inode, size, mtime_ns, [], [NewChunk(*chunk) for chunk in written], base, data_changed
    )


def version_of(cluster, inode):
    return cluster.state.attributes(inode).data_version


def chunked(cluster, inode, count=3, version=5):
    """Give a new file ``count`` chunks, with handles from 1 on."""
    written = [(index, index + 1, version) for index in range(count)]
    base = version_of(cluster, inode)
    return cluster.do(chunks(inode, *written, size=count * CHUNK_BYTES, base=base)).attributes


def truncate(cluster, inode, size):
    return cluster.do(SetAttributes(inode, size=size)).attributes


# --- inline


def test_patches(cluster, file):
    before = cluster.state.attributes(file)
    after = cluster.do(*patches(file, (0, b"hello"), (8, b"you"), size=11)).attributes
    assert cluster.state.content(file) == (after, b"hello\0\0\0you")
    assert (after.size, after.stored_bytes) == (11, 11)
    assert after.mtime_ns == after.ctime_ns == cluster.now
    assert after.data_version > before.data_version
    after = cluster.do(*patches(file, (4, b"0 "), mtime_ns=-3)).attributes
    assert cluster.state.content(file) == (after, b"hell0 \0\0you")
    assert (after.size, after.mtime_ns, after.ctime_ns) == (11, -3, cluster.now)


def test_a_patch_behind_the_size_raises_it(cluster, file):
    """As when a truncation came in between: the write comes after it."""
    assert cluster.do(*patches(file, (3, b"x"))).attributes.size == 4


def test_a_size_larger_than_the_patches(cluster, file):
    after = cluster.do(*patches(file, (0, b"abc"), size=MIB)).attributes
    assert (after.size, after.stored_bytes) == (MIB, 3)
    after = cluster.do(*patches(file, (10, b"d"))).attributes
    assert cluster.state.content(file) == (after, b"abc" + bytes(7) + b"d")


def test_the_inline_limit(cluster, file):
    cluster.do(*patches(file, (0, bytes(INLINE_MAX_BYTES)), size=INLINE_MAX_BYTES))
    late = patches(file, (INLINE_MAX_BYTES, b"x"), size=INLINE_MAX_BYTES + 1)
    assert cluster.refused(*late) == Code.LAYOUT_CHANGED


def test_patches_of_a_file_with_chunks(cluster, file):
    chunked(cluster, file)
    assert cluster.refused(*patches(file, (0, b"x"))) == Code.LAYOUT_CHANGED


def test_patches_that_cannot_be(cluster, file):
    commit, _ = patches(file, (0, b"four"))
    assert cluster.refused(commit, b"three"[:3]) == Code.MALFORMED
    assert cluster.refused(commit, b"four and more") == Code.MALFORMED
    nothing, _ = patches(file)
    assert cluster.refused(nothing, b"x") == Code.MALFORMED
    assert cluster.refused(*patches(file, (-1, b"x"))) == Code.INVALID
    assert cluster.refused(*patches(file, (0, b""), (0, b"x"))) == Code.INVALID
    wrong = Commit(file, 0, None, [Patch(0, 5), Patch(0, -1)], [], 0, False)
    assert cluster.refused(wrong, b"four") == Code.INVALID


# --- chunks


def test_an_inline_file_becomes_chunked(cluster, file):
    cluster.do(*patches(file, (0, b"hello"), size=5))
    base = version_of(cluster, file)
    after = cluster.do(chunks(file, (0, 7, 40), size=10 * MIB, base=base)).attributes
    assert (after.size, after.stored_bytes) == (10 * MIB, 10 * MIB)
    assert cluster.state.content(file) == (after, None)
    assert list(cluster.state.tables.inline.all()) == []
    assert cluster.state.chunks(file, 0, 10) == [FileChunk(0, 7, 40, -1)]
    assert cluster.state.chunk(7) == ChunkRecord(file, 0, 40, -1, 0)
    assert cluster.state.totals.chunks == 1
    assert cluster.state.totals.stored_bytes == 10 * MIB
    assert list(cluster.state.all_chunks()) == [(7, ChunkRecord(file, 0, 40, -1, 0))]


def test_a_base_that_is_not_that_of_now(cluster, file):
    cluster.do(*patches(file, (0, b"hello"), size=5))
    base = version_of(cluster, file)
    cluster.do(*patches(file, (0, b"J")))
    for wrong in (base, 0):
        commit = chunks(file, (0, 1, 1), size=MIB, base=wrong)
        assert cluster.refused(commit) == Code.LAYOUT_CHANGED


def test_a_sparse_file(cluster, file):
    base = version_of(cluster, file)
    after = cluster.do(chunks(file, (5, 1, 1), size=5 * CHUNK_BYTES + 10, base=base)).attributes
    assert after.stored_bytes == 10
    cluster.do(chunks(file, (2, 2, 1), size=3 * CHUNK_BYTES))
    assert [chunk.index for chunk in cluster.state.chunks(file, 0, 100)] == [2, 5]
    assert [chunk.index for chunk in cluster.state.chunks(file, 3, 3)] == [5]
    assert cluster.state.chunks(file, 3, 2) == []
    assert cluster.state.chunks(file, 3, 0) == []


def test_the_same_chunk_again(cluster, file):
    chunked(cluster, file)
    before = cluster.state.chunks(file, 0, 9)
    version = version_of(cluster, file)
    after = cluster.do(chunks(file, (1, 2, 5), data_changed=True)).attributes
    assert cluster.state.chunks(file, 0, 9) == before
    assert after.data_version == version + 1


def test_overwritten_bytes(cluster, file):
    before = chunked(cluster, file)
    after = cluster.do(chunks(file, data_changed=True, mtime_ns=9)).attributes
    assert after.data_version == before.data_version + 1
    assert (after.mtime_ns, after.ctime_ns) == (9, cluster.now)


def test_a_commit_of_nothing_but_a_size(cluster, file):
    after = cluster.do(chunks(file, size=MIB)).attributes
    assert (after.size, cluster.state.content(file)[1]) == (MIB, b"")
    again = cluster.do(chunks(file, size=5)).attributes
    assert (again.size, again.data_version) == (MIB, after.data_version), "it never shrinks"
    longer = chunked(cluster, file)
    longest = cluster.do(chunks(file, size=longer.size + 1)).attributes
    assert longest.size == longer.size + 1


def test_an_index_with_another_handle(cluster, file):
    chunked(cluster, file, 2)
    assert cluster.refused(chunks(file, (1, 9, 1))) == Code.LAYOUT_CHANGED


def test_bytes_carried_over_from_an_inline_file_that_is_none_any_more(cluster, file):
    """Another made it chunked, and then cut chunk 0 away: its old bytes must not come back."""
    cluster.do(*patches(file, (0, b"old"), size=3))
    base = version_of(cluster, file)
    cluster.do(chunks(file, (1, 1, 1), size=2 * CHUNK_BYTES, base=base))
    late = chunks(file, (0, 2, 1), size=MIB, base=base)
    assert cluster.refused(late) == Code.LAYOUT_CHANGED
    cluster.do(chunks(file, (2, 3, 1), size=3 * CHUNK_BYTES, base=base))
    cluster.do(chunks(file, (0, 2, 1), size=MIB))


def test_commits_that_cannot_be(cluster, file):
    other = cluster.file(b"other")
    link = cluster.do(MakeSymlink(1, b"link", b"x", 0, 0)).attributes.inode
    chunked(cluster, other, 2)
    base = version_of(cluster, file)

    def refused(*written, size=10 * CHUNK_BYTES):
        return cluster.refused(chunks(file, *written, size=size, base=base))

    assert refused((0, 101, 1)) == Code.INVALID, "a handle that was never reserved"
    assert refused((0, 0, 1)) == Code.INVALID
    assert refused((0, -1, 1)) == Code.INVALID
    assert refused((0, 5, 0)) == Code.INVALID
    assert refused((-1, 5, 1)) == Code.INVALID
    assert refused((FILE_MAX_BYTES // CHUNK_BYTES, 5, 1)) == Code.INVALID
    assert refused((0, 1, 1)) == Code.INVALID, "another file's"
    assert refused((0, 5, 1), (0, 6, 1)) == Code.INVALID
    assert refused((0, 5, 1), (1, 5, 1)) == Code.INVALID
    assert refused((1, 5, 1), size=CHUNK_BYTES) == Code.LAYOUT_CHANGED
    assert cluster.refused(chunks(other, (0, 2, 5))) == Code.INVALID, "at another index"
    assert cluster.refused(chunks(file, size=-1)) == Code.INVALID
    assert cluster.refused(chunks(file, size=FILE_MAX_BYTES + 1)) == Code.FILE_TOO_LARGE
    assert cluster.refused(chunks(file, mtime_ns=1 << 63)) == Code.INVALID
    assert cluster.refused(chunks(1, size=1)) == Code.IS_A_DIRECTORY
    assert cluster.refused(chunks(link, size=1)) == Code.INVALID
    assert cluster.refused(chunks(99, size=1)) == Code.STALE_HANDLE
    both = Commit(file, 1, None, [Patch(0, 1)], [NewChunk(0, 5, 1)], base, False)
    assert cluster.refused(both, b"x") == Code.INVALID


def test_content_and_chunks_of_what_has_none(cluster):
    for read in (cluster.state.content, lambda inode: cluster.state.chunks(inode, 0, 1)):
        for inode, code in [(1, Code.IS_A_DIRECTORY), (99, Code.STALE_HANDLE)]:
            with pytest.raises(TideError) as caught:
                read(inode)
            assert caught.value.code == code
    with pytest.raises(TideError):
        cluster.state.chunks(cluster.file(), -1, 1)
    assert cluster.state.chunk(0) is cluster.state.chunk(-1) is cluster.state.chunk(1 << 70) is None


# --- truncation


def test_truncate_at_a_chunk_boundary(cluster, file):
    chunked(cluster, file)
    after = truncate(cluster, file, CHUNK_BYTES)
    assert cluster.effects == [ChunksDropped([2, 3])]
    assert (after.size, after.stored_bytes) == (CHUNK_BYTES, CHUNK_BYTES)
    assert cluster.state.chunks(file, 0, 9) == [FileChunk(0, 1, 5, -1)]


def test_truncate_into_a_chunk(cluster, file):
    chunked(cluster, file)
    truncate(cluster, file, CHUNK_BYTES + 1000)
    assert cluster.effects == [ChunksDropped([3])]
    assert cluster.state.chunks(file, 1, 9) == [FileChunk(1, 2, 5, 1000)]
    truncate(cluster, file, CHUNK_BYTES + 2000)
    truncate(cluster, file, CHUNK_BYTES + 1500)
    assert cluster.state.chunks(file, 1, 9)[0].cut == 1000, "the lowest cut counts"
    truncate(cluster, file, CHUNK_BYTES + 10)
    assert cluster.state.chunks(file, 1, 9)[0].cut == 10


def test_truncate_into_a_hole(cluster, file):
    base = version_of(cluster, file)
    cluster.do(chunks(file, (1, 1, 1), size=2 * CHUNK_BYTES, base=base))
    after = truncate(cluster, file, 1000)
    assert cluster.effects == [ChunksDropped([1])]
    assert (after.stored_bytes, cluster.state.content(file)[1]) == (0, b""), "inline again"


def test_truncate_to_nothing_makes_it_inline_again(cluster, file):
    chunked(cluster, file)
    after = truncate(cluster, file, 0)
    assert cluster.state.content(file) == (after, b"")
    cluster.do(*patches(file, (0, b"small"), size=5))
    assert cluster.state.content(file)[1] == b"small"


def test_a_truncated_chunk_does_not_come_back(cluster, file):
    """A writer that did not hear of the truncation commits what it wrote before."""
    chunked(cluster, file)
    truncate(cluster, file, CHUNK_BYTES)
    assert cluster.state.dropped_handle(file, 2) == 3
    late = chunks(file, (2, 3, 5), size=3 * CHUNK_BYTES, data_changed=True)
    assert cluster.refused(late) == Code.LAYOUT_CHANGED
    lower = chunks(file, (2, 2, 5), size=3 * CHUNK_BYTES)
    assert cluster.refused(lower) == Code.LAYOUT_CHANGED
    cluster.do(chunks(file, (2, 9, 5), size=3 * CHUNK_BYTES))
    assert cluster.state.dropped_handle(file, 2) == 0
    assert cluster.state.dropped_handle(file, 1) == 2


def test_overwritten_bytes_that_were_truncated_away(cluster, file):
    chunked(cluster, file)
    truncate(cluster, file, 0)
    lost = chunks(file, size=MIB, data_changed=True)
    assert cluster.refused(lost) == Code.LAYOUT_CHANGED


def test_a_write_from_before_a_cut(cluster, file):
    chunked(cluster, file, 1)
    truncate(cluster, file, 1000)
    late = chunks(file, (0, 1, 5), size=MIB, data_changed=True)
    assert cluster.refused(late) == Code.LAYOUT_CHANGED
    cluster.do(GrantChunk(1, 6, 1000))
    assert cluster.refused(late) == Code.LAYOUT_CHANGED, "the grant has dropped its bytes"
    cluster.do(chunks(file, (0, 1, 6), size=MIB, data_changed=True))
    cluster.do(GrantChunk(1, 7, -1))
    cluster.do(chunks(file, (0, 1, 6), size=MIB, data_changed=True))


def test_extending_keeps_the_chunks(cluster, file):
    chunked(cluster, file, 1)
    after = truncate(cluster, file, 10 * CHUNK_BYTES)
    assert cluster.effects == []
    assert after.stored_bytes == CHUNK_BYTES
    assert cluster.state.chunks(file, 0, 9) == [FileChunk(0, 1, 5, -1)]


def test_chunks_go_with_their_file(cluster, file):
    chunked(cluster, file)
    truncate(cluster, file, 2 * CHUNK_BYTES)
    cluster.do(Unlink(1, b"file"))
    assert cluster.effects == [Orphaned(file)]
    cluster.do(chunks(file, (0, 1, 5), data_changed=True))
    cluster.directory()
    cluster.do(RemoveDirectory(1, b"dir"))
    cluster.do(Reap(cluster.state.orphans()))
    assert cluster.effects == [ChunksDropped([1, 2])]
    totals = cluster.state.totals
    assert (totals.chunks, totals.stored_bytes, totals.inodes) == (0, 0, 1)
    assert list(cluster.state.tables.chunks.all_dropped()) == []


# --- grants


def test_a_grant(cluster, file):
    chunked(cluster, file, 1)
    cluster.do(GrantChunk(1, 1 << 32, -1))
    assert cluster.state.chunk(1) == ChunkRecord(file, 0, 1 << 32, -1, 0)


def test_a_grant_that_cut(cluster, file):
    chunked(cluster, file, 1)
    truncate(cluster, file, 1000)
    cluster.do(GrantChunk(1, 6, 1000))
    assert cluster.state.chunk(1) == ChunkRecord(file, 0, 6, -1, 5)


def test_a_truncation_while_a_grant_is_under_way(cluster, file):
    chunked(cluster, file, 1)
    truncate(cluster, file, 1000)
    truncate(cluster, file, 500)
    cluster.do(GrantChunk(1, 6, 1000))
    assert cluster.state.chunk(1) == ChunkRecord(file, 0, 6, 500, 6)
    cluster.do(GrantChunk(1, 7, -1))
    assert cluster.state.chunk(1) == ChunkRecord(file, 0, 7, 500, 7)
    cluster.do(GrantChunk(1, 8, 500))
    assert cluster.state.chunk(1) == ChunkRecord(file, 0, 8, -1, 7)


def test_grants_that_cannot_be(cluster, file):
    chunked(cluster, file, 1)
    assert cluster.refused(GrantChunk(1, 5, -1)) == Code.STALE_VERSION
    assert cluster.refused(GrantChunk(1, 4, -1)) == Code.STALE_VERSION
    assert cluster.refused(GrantChunk(1, 1 << 63, -1)) == Code.STALE_VERSION
    assert cluster.refused(GrantChunk(2, 5, -1)) == Code.NO_CHUNK
    assert cluster.refused(GrantChunk(-2, 5, -1)) == Code.NO_CHUNK


def test_reservations(cluster, file):
    reply = cluster.do(ReserveHandles(50))
    assert (reply.first, reply.count) == (101, 50)
    assert cluster.state.totals.next_handle == 151
    assert cluster.refused(ReserveHandles(0)) == Code.INVALID
    assert cluster.refused(ReserveHandles(1 << 33)) == Code.INVALID
