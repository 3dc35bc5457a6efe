"""What a change touches, beside what it turns out to have changed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import TideError
from tidefs.fs.limits import CHUNK_BYTES, LOCK_END
from tidefs.fs.messages import locks, meta
from tidefs.fs.messages.base import METHODS
from tidefs.metaserver.entries import ReserveHandles
from tidefs.metaserver.service_reads import READS
from tidefs.metaserver.touched import ASKED, TOLD, TOUCHED, asked, told, touched

HERE = "tidefs."
CHANGES = [kind for kind in METHODS.values() if issubclass(kind, meta.Change)]

INODES = st.integers(1, 9)
DIRECTORIES = st.sampled_from([1, 1, 2, 3])
NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
SIZES = st.sampled_from([0, 5, 9000, CHUNK_BYTES, CHUNK_BYTES + 5, 2 * CHUNK_BYTES])
OWNERS = st.integers(0, 2)
MODES = st.sampled_from([0o644, 0o2755])
XATTRS = st.sampled_from([b"trusted.x", b"trusted.y"])


def new_chunk(index, handle):
    return meta.NewChunk(index, handle, 1)


BUILDERS = {
    meta.Create: st.builds(
        meta.Create,
        DIRECTORIES,
        NAMES,
        st.just(Kind.FILE),
        MODES,
        OWNERS,
        OWNERS,
        st.just(0),
        st.booleans(),
        st.booleans(),
    ),
    meta.MakeDirectory: st.builds(meta.MakeDirectory, DIRECTORIES, NAMES, MODES, OWNERS, OWNERS),
    meta.MakeSymlink: st.builds(
        meta.MakeSymlink, DIRECTORIES, NAMES, st.just(b"to"), OWNERS, OWNERS
    ),
    meta.CreateUnnamed: st.builds(
        meta.CreateUnnamed, DIRECTORIES, MODES, OWNERS, OWNERS, st.just(0), st.booleans()
    ),
    meta.Link: st.builds(meta.Link, INODES, DIRECTORIES, NAMES),
    meta.Unlink: st.builds(meta.Unlink, DIRECTORIES, NAMES),
    meta.RemoveDirectory: st.builds(meta.RemoveDirectory, DIRECTORIES, NAMES),
    meta.Rename: st.builds(
        meta.Rename, DIRECTORIES, NAMES, DIRECTORIES, NAMES, st.sampled_from([0, 0, 1, 2, 4])
    ),
    meta.SetAttributes: st.builds(
        meta.SetAttributes,
        INODES,
        mode=st.none() | MODES,
        uid=st.none() | OWNERS,
        size=st.none() | SIZES,
        mtime_now=st.booleans(),
    ),
    meta.SetXattr: st.builds(
        meta.SetXattr, INODES, XATTRS, st.binary(max_size=3), st.sampled_from([0, 0, 1, 2])
    ),
    meta.RemoveXattr: st.builds(meta.RemoveXattr, INODES, XATTRS),
    meta.Commit: st.builds(
        meta.Commit,
        INODES,
        SIZES,
        st.none(),
        st.just([]),
        st.lists(st.builds(new_chunk, st.integers(0, 1), st.integers(1, 20)), max_size=1),
        st.integers(0, 3),
        st.booleans(),
    ),
    meta.Punch: st.builds(meta.Punch, INODES, SIZES, SIZES, SIZES),
    meta.NoteReadings: st.builds(
        meta.NoteReadings,
        st.lists(st.builds(meta.Reading, INODES, st.integers(1, 4), SIZES), max_size=3),
    ),
    locks.SetLock: st.builds(
        locks.SetLock,
        INODES,
        st.just(locks.LockKind.WHOLE),
        OWNERS,
        st.booleans(),
        st.just(0),
        st.just(LOCK_END),
        st.booleans(),
        st.just(1),
    ),
    locks.Unlock: st.builds(
        locks.Unlock,
        INODES,
        st.just(locks.LockKind.WHOLE),
        OWNERS,
        st.just(0),
        st.just(LOCK_END),
    ),
    locks.Withdraw: st.builds(locks.Withdraw, INODES, st.integers(1, 20)),
}


def test_each_change_says_what_it_touches():
    ours = {kind for kind in CHANGES if kind.__module__.startswith(HERE)}
    assert set(TOUCHED) == ours
    assert set(BUILDERS) == ours, "and is tried below"


def test_each_read_says_what_it_asks_about():
    """But for those that tell nothing about an inode that a session could hold alone."""
    about_none = {"FindNames", "GetSessionLocks", "TestLock", "ListLocks"}
    assert {read.__name__ for read in READS if read not in ASKED} == about_none


def test_each_reply_that_can_be_promised_says_what_it_tells():
    promised = {
        value
        for value in vars(meta).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and "promised" in value.__struct_fields__
    }
    assert set(TOLD) == promised


def grow(cluster):
    """1/a, 1/b and 2/c are directories 2, 3, 8; 1/c and 2/a one file, 4; 2/b, 3/a, 3/b others."""
    session = cluster.session()
    cluster.do(ReserveHandles(1000))
    assert (cluster.directory(b"a"), cluster.directory(b"b")) == (2, 3)
    assert cluster.file(b"c") == 4
    cluster.do(meta.Link(4, 2, b"a"))
    assert [cluster.file(b"b", 2), cluster.file(b"a", 3), cluster.file(b"b", 3)] == [5, 6, 7]
    assert cluster.directory(b"c", 2) == 8
    cluster.do(meta.Commit(5, 7, None, [meta.Patch(0, 7)], [], 0, False), b"content")
    cluster.do(meta.Commit(6, CHUNK_BYTES, None, [], [new_chunk(0, 1)], 1, True))
    return session


def picture(state, inode):
    """All that a session may be promised of an inode; None: it is not there."""
    try:
        attributes = state.attributes(inode)
    except TideError:
        return None
    seen = [msgspec.structs.replace(attributes, atime_ns=0)]
    seen.append([(name, state.xattr(inode, name)) for name in state.xattr_names(inode)])
    if attributes.kind is Kind.DIRECTORY:
        listed = state.listing(inode, 0, 1000).entries
        seen.append([(entry.name, entry.cookie, entry.attributes.inode) for entry in listed])
        if attributes.links:
            seen.append(state.lookup(inode, b"..").attributes.inode)
    elif attributes.kind is Kind.FILE:
        seen.append(state.content(inode)[1])
        seen.append([(chunk.index, chunk.handle) for chunk in state.chunks(inode, 0, 10)])
    else:
        seen.append(state.read_link(inode) if attributes.kind is Kind.SYMLINK else None)
    return seen


def check_touched(cluster, requests):
    session, state = grow(cluster), cluster.state
    for sequence, request in enumerate(requests, 1):
        before = {n: picture(state, n) for n in range(1, state.totals.next_inode)}
        claimed, beside = touched(state, request), asked(state, request)
        reply = cluster.apply(request, session=session, sequence=sequence)
        changed = {n for n, seen in before.items() if seen != picture(state, n)}
        assert changed <= set(claimed), request
        assert len(claimed) == len(set(claimed))
        new = set(range(len(before) + 1, state.totals.next_inode))
        assert set(told(reply)) <= {*claimed, *beside, *new}, request
    return changed


@pytest.mark.parametrize(
    ("requests", "changed"),
    [
        ([meta.Rename(1, b"a", 3, b"d", 0)], {1, 2, 3}),
        ([meta.Rename(2, b"a", 2, b"b", meta.RenameFlags.EXCHANGE)], {2, 4, 5}),
        ([meta.Rename(3, b"b", 2, b"b", 0)], {3, 2, 7, 5}),
        ([meta.Rename(3, b"b", 2, b"b", meta.RenameFlags.WHITEOUT)], {3, 2, 7, 5}),
        ([meta.RemoveDirectory(2, b"c"), meta.Unlink(1, b"c")], {1, 4}),
        ([meta.Link(6, 1, b"d")], {6, 1}),
        ([meta.Create(1, b"c", Kind.FILE, 0o644, 0, 0, 0, False, True)], set()),
        ([meta.Create(1, b"d", Kind.FILE, 0o644, 0, 0, 0, False, True)], {1}),
        ([meta.SetAttributes(6, size=5)], {6}),
        ([meta.NoteReadings([meta.Reading(4, 2, 10**18)])], set()),
    ],
)
def test_what_these_change_they_touch(cluster, requests, changed):
    assert check_touched(cluster, requests) == changed


def test_what_any_changes_change_they_touch(new_cluster):
    @given(st.lists(st.one_of(*BUILDERS.values()), min_size=1, max_size=8))
    def several(requests):
        check_touched(new_cluster(), requests)

    several()


@pytest.mark.parametrize("kind", BUILDERS, ids=lambda kind: kind.__name__)
def test_what_one_change_changes_it_touches(new_cluster, kind):
    @given(BUILDERS[kind])
    def one(request):
        check_touched(new_cluster(), [request])

    one()


def test_what_is_beside_a_change_it_asks_about(cluster):
    grow(cluster)
    unnamed = meta.CreateUnnamed(3, 0o600, 0, 0, 0, False)
    lock = locks.SetLock(4, locks.LockKind.WHOLE, 1, True, 0, LOCK_END, False, 1)
    open_or_create = meta.Create(3, b"a", Kind.FILE, 0o644, 0, 0, 0, False, False)
    for request, inodes in (
        (unnamed, (3,)),
        (lock, (4,)),
        (locks.Withdraw(4, 1), (4,)),
        (open_or_create, (6,)),
        (meta.Unlink(1, b"c"), ()),
    ):
        assert asked(cluster.state, request) == inodes


def test_a_name_that_cannot_be_is_nobodys(cluster):
    assert touched(cluster.state, meta.Unlink(1, b"x" * 1000)) == (1,)
    assert touched(cluster.state, meta.Unlink(77, b"x")) == (77,)
    assert touched(cluster.state, meta.Unlink(-1, b"x")) == (-1,)
    assert touched(cluster.state, meta.Unlink(1 << 63, b"x")) == (1 << 63,)
    assert touched(cluster.state, meta.Rename(1, b"x", 1, b"x", 0)) == (1,)
