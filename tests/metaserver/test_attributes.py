"""SetAttributes and the extended attributes."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import FILE_MAX_BYTES
from tidefs.fs.messages.meta import (
    Commit,
    MakeSymlink,
    Patch,
    RemoveXattr,
    SetAttributes,
    SetXattr,
    Unlink,
    XattrFlags,
)
from tidefs.metaserver.entries import Reap

CREATE, REPLACE = int(XattrFlags.CREATE), int(XattrFlags.REPLACE)


def set_on(cluster, inode, **changes):
    return cluster.do(SetAttributes(inode, **changes)).attributes


def test_mode_and_owner(cluster):
    file = cluster.file()
    before = cluster.state.attributes(file)
    after = set_on(cluster, file, mode=0o4711, uid=5, gid=0xFFFFFFFF)
    assert (after.mode, after.uid, after.gid) == (0o4711, 5, 0xFFFFFFFF)
    assert after.ctime_ns == cluster.now
    assert (after.mtime_ns, after.atime_ns) == (before.mtime_ns, before.atime_ns)
    assert after.change == before.change + 1
    assert after.data_version == before.data_version
    assert set_on(cluster, file, uid=6).gid == 0xFFFFFFFF


def test_zero_is_a_value(cluster):
    file = cluster.file()
    after = set_on(cluster, file, mode=0, uid=0, gid=0, atime_ns=0, mtime_ns=0)
    assert (after.mode, after.uid, after.gid, after.atime_ns, after.mtime_ns) == (0,) * 5


def test_times(cluster):
    file = cluster.file()
    after = set_on(cluster, file, atime_ns=-5, mtime_ns=(1 << 63) - 1)
    assert (after.atime_ns, after.mtime_ns, after.ctime_ns) == (-5, (1 << 63) - 1, cluster.now)
    after = set_on(cluster, file, atime_now=True)
    assert (after.atime_ns, after.mtime_ns) == (cluster.now, (1 << 63) - 1)
    after = set_on(cluster, file, mtime_now=True)
    assert after.mtime_ns == cluster.now


def test_nothing_but_ctime(cluster):
    assert set_on(cluster, 1).ctime_ns == cluster.now


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mode": 0o10000}, Code.INVALID),
        ({"mode": -1}, Code.INVALID),
        ({"uid": -1}, Code.INVALID),
        ({"gid": 1 << 32}, Code.INVALID),
        ({"size": -1}, Code.INVALID),
        ({"size": FILE_MAX_BYTES + 1}, Code.FILE_TOO_LARGE),
        ({"atime_ns": 1 << 63}, Code.INVALID),
        ({"atime_ns": 1, "atime_now": True}, Code.INVALID),
        ({"mtime_ns": 1, "mtime_now": True}, Code.INVALID),
    ],
)
def test_bad_values(cluster, changes, code):
    assert cluster.refused(SetAttributes(cluster.file(), **changes)) == code


def test_of_what_is_gone(cluster):
    assert cluster.refused(SetAttributes(99, mode=0)) == Code.STALE_HANDLE
    file = cluster.file()
    cluster.do(Unlink(1, b"file"))
    assert set_on(cluster, file, mode=0o600).mode == 0o600, "it is still open somewhere"
    cluster.do(Reap([file]))
    assert cluster.refused(SetAttributes(file, mode=0)) == Code.STALE_HANDLE


def test_the_size_of_what_has_none(cluster):
    link = cluster.do(MakeSymlink(1, b"link", b"x", 0, 0)).attributes.inode
    assert cluster.refused(SetAttributes(1, size=0)) == Code.IS_A_DIRECTORY
    assert cluster.refused(SetAttributes(link, size=0)) == Code.INVALID


# --- truncation of inline files


def filled(cluster, content):
    file = cluster.file()
    cluster.do(Commit(file, len(content), None, [Patch(0, len(content))], [], 0, False), content)
    return file


def test_truncate_and_extend_inline(cluster):
    file = filled(cluster, b"0123456789")
    before = cluster.state.attributes(file)
    after = set_on(cluster, file, size=4)
    assert (after.size, after.stored_bytes) == (4, 4)
    assert after.mtime_ns == after.ctime_ns == cluster.now
    assert after.data_version > before.data_version
    assert cluster.state.content(file) == (after, b"0123")

    longer = set_on(cluster, file, size=FILE_MAX_BYTES)
    assert (longer.size, longer.stored_bytes) == (FILE_MAX_BYTES, 4)
    assert cluster.state.content(file) == (longer, b"0123")

    assert set_on(cluster, file, size=100).stored_bytes == 4
    assert set_on(cluster, file, size=0).stored_bytes == 0
    assert cluster.state.content(file)[1] == b""


def test_what_was_cut_off_does_not_come_back(cluster):
    file = filled(cluster, b"secret")
    set_on(cluster, file, size=2)
    set_on(cluster, file, size=6)
    assert cluster.state.content(file)[1] == b"se"


def test_the_same_size_changes_mtime_but_no_data(cluster):
    file = filled(cluster, b"abc")
    before = cluster.state.attributes(file)
    after = set_on(cluster, file, size=3)
    assert after.mtime_ns == cluster.now
    assert after.data_version == before.data_version


def test_mtime_that_is_given_with_a_size(cluster):
    file = filled(cluster, b"abc")
    assert set_on(cluster, file, size=1, mtime_ns=7).mtime_ns == 7


# --- extended attributes


def test_xattrs(cluster):
    file = cluster.file()
    reply = cluster.do(SetXattr(file, b"user.b", b"two", 0))
    assert reply.attributes.ctime_ns == cluster.now
    cluster.do(SetXattr(file, b"user.a", b"", CREATE))
    cluster.do(SetXattr(1, b"user.c", b"\0\xff", 0))
    assert cluster.state.xattr_names(file) == [b"user.a", b"user.b"]
    assert cluster.state.xattr(file, b"user.a") == b""
    assert cluster.state.xattr(1, b"user.c") == b"\0\xff"
    cluster.do(SetXattr(file, b"user.b", b"three", REPLACE))
    assert cluster.state.xattr(file, b"user.b") == b"three"
    reply = cluster.do(RemoveXattr(file, b"user.b"))
    assert reply.attributes.ctime_ns == cluster.now
    assert cluster.state.xattr_names(file) == [b"user.a"]


def test_xattrs_that_cannot_be(cluster):
    file = cluster.file()
    cluster.do(SetXattr(file, b"user.a", b"x", 0))
    assert cluster.refused(SetXattr(file, b"user.a", b"y", CREATE)) == Code.EXISTS
    assert cluster.refused(SetXattr(file, b"user.b", b"y", REPLACE)) == Code.NO_ATTRIBUTE
    assert cluster.refused(SetXattr(file, b"user.b", b"y", 3)) == Code.INVALID
    assert cluster.refused(SetXattr(file, b"", b"y", 0)) == Code.INVALID
    assert cluster.refused(SetXattr(file, b"a\0b", b"y", 0)) == Code.INVALID
    assert cluster.refused(SetXattr(file, b"x" * 256, b"y", 0)) == Code.NO_BUFFER_ROOM
    assert cluster.refused(SetXattr(file, b"big", bytes(65537), 0)) == Code.ATTRIBUTE_TOO_LARGE
    assert cluster.refused(SetXattr(99, b"user.a", b"y", 0)) == Code.STALE_HANDLE
    assert cluster.refused(RemoveXattr(file, b"user.b")) == Code.NO_ATTRIBUTE
    assert cluster.refused(RemoveXattr(file, b"")) == Code.INVALID
    assert cluster.refused(RemoveXattr(99, b"user.b")) == Code.STALE_HANDLE
    for name, code in [(b"none", Code.NO_ATTRIBUTE), (b"x" * 256, Code.NO_BUFFER_ROOM)]:
        with pytest.raises(TideError) as caught:
            cluster.state.xattr(file, name)
        assert caught.value.code == code
    with pytest.raises(TideError):
        cluster.state.xattr_names(99)


def test_room_for_xattrs(cluster):
    file = cluster.file()
    cluster.do(SetXattr(file, b"user.a", bytes(65536), 0))
    cluster.do(SetXattr(file, b"user.a", bytes(65536), 0))
    assert cluster.refused(SetXattr(file, b"user.b", b"x", 0)) == Code.NO_SPACE
    cluster.do(RemoveXattr(file, b"user.a"))
    for number in range(256):
        cluster.do(SetXattr(file, b"user.%0250d" % number, b"", 0))
    assert cluster.refused(SetXattr(file, b"user.x", b"", 0)) == Code.NO_SPACE


def test_xattrs_and_bytes_go_with_their_inode(cluster):
    file = filled(cluster, b"bytes")
    cluster.do(SetXattr(file, b"user.a", b"x", 0))
    cluster.do(Unlink(1, b"file"))
    assert cluster.state.xattr(file, b"user.a") == b"x"
    cluster.do(Reap([file]))
    assert list(cluster.state.tables.xattrs.owners()) == []
    assert list(cluster.state.tables.inline.all()) == []
