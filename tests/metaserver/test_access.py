"""Access lists, set-user-id and its like, files without a name, whiteouts: in the state."""

import struct

import pytest
from tidefs.fs import acl
from tidefs.fs.acl import ACCESS, DEFAULT, AclEntry, Tag
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code
from tidefs.fs.messages.meta import (
    Create,
    CreateUnnamed,
    Link,
    MakeDirectory,
    MakeSymlink,
    NoteReadings,
    Reading,
    RemoveXattr,
    Rename,
    RenameFlags,
    SetAttributes,
    SetXattr,
    Unlink,
)
from tidefs.metaserver.entries import Reap

NAMED = (
    AclEntry(Tag.USER_OBJ, 7),
    AclEntry(Tag.USER, 5, 10),
    AclEntry(Tag.GROUP_OBJ, 4),
    AclEntry(Tag.MASK, 5),
    AclEntry(Tag.OTHER, 0),
)
PLAIN = (AclEntry(Tag.USER_OBJ, 6), AclEntry(Tag.GROUP_OBJ, 4), AclEntry(Tag.OTHER, 2))
CAPABILITY = b"security.capability"


def put(cluster, inode, name, value, **more):
    value = acl.encode(value) if isinstance(value, tuple) else value
    return cluster.do(SetXattr(inode, name, value, 0, **more)).attributes


def has(cluster, inode, name):
    """The list, None when there is none."""
    if name not in cluster.state.xattr_names(inode):
        return None
    return acl.decode(cluster.state.xattr(inode, name))


def attributes(cluster, inode):
    return cluster.state.attributes(inode)


def directory(cluster, name=b"dir", parent=1, mode=0o777, umask=0):
    return cluster.do(MakeDirectory(parent, name, mode, 1, 2, umask)).attributes.inode


def create(cluster, parent, mode, umask=0, kind=Kind.FILE, name=b"made"):
    request = Create(parent, name, kind, mode, 1, 2, 0, True, False, umask)
    return cluster.do(request).attributes


# --- access lists ----------------------------------------------------------------------------


def test_an_access_list_changes_the_mode(cluster):
    file = cluster.file()
    cluster.do(SetAttributes(file, mode=0o4644))
    after = put(cluster, file, ACCESS, NAMED)
    assert after.mode == 0o4750
    assert after.ctime_ns == cluster.now
    assert after.has_xattrs
    assert has(cluster, file, ACCESS) == NAMED


def test_one_that_says_no_more_than_a_mode_is_not_kept(cluster):
    file = cluster.file()
    assert not put(cluster, file, ACCESS, PLAIN).has_xattrs
    put(cluster, file, ACCESS, NAMED)
    after = put(cluster, file, ACCESS, PLAIN)
    assert after.mode == 0o642
    assert not after.has_xattrs
    assert has(cluster, file, ACCESS) is None


def test_chmod_keeps_the_list_and_the_mode_together(cluster):
    file = cluster.file()
    put(cluster, file, ACCESS, NAMED)
    cluster.do(SetAttributes(file, mode=0o4421))
    assert attributes(cluster, file).mode == 0o4421
    found = has(cluster, file, ACCESS)
    assert acl.mode_bits(found) == 0o421
    assert AclEntry(Tag.GROUP_OBJ, 4) in found, "the mask went, not the group"


def test_the_group_bit_goes_when_who_sets_a_list_is_not_in_the_group(cluster):
    file = cluster.file()
    cluster.do(SetAttributes(file, mode=0o6755))
    assert put(cluster, file, ACCESS, NAMED).mode == 0o6750
    assert put(cluster, file, ACCESS, NAMED, kill_set_group_id=True).mode == 0o4750


def test_removing_a_list(cluster):
    file = cluster.file()
    put(cluster, file, ACCESS, NAMED)
    after = cluster.do(RemoveXattr(file, ACCESS)).attributes
    assert (after.mode, after.has_xattrs) == (0o750, False)
    before = cluster.state.attributes(file)
    assert cluster.do(RemoveXattr(file, ACCESS)).attributes == before, "none was there"
    put(cluster, file, ACCESS, NAMED)
    assert not put(cluster, file, ACCESS, ()).has_xattrs, "an empty one is none"


def test_what_may_have_lists(cluster):
    file, folder = cluster.file(), directory(cluster)
    link = cluster.do(MakeSymlink(1, b"link", b"to", 1, 2)).attributes.inode
    value = acl.encode(NAMED)
    assert cluster.refused(SetXattr(file, DEFAULT, value, 0)) == Code.ACCESS_DENIED
    assert cluster.refused(SetXattr(link, ACCESS, value, 0)) == Code.NOT_SUPPORTED
    assert cluster.refused(SetXattr(file, ACCESS, value[:-1], 0)) == Code.INVALID
    assert cluster.refused(SetXattr(folder, DEFAULT, struct.pack("<I", 3), 0)) == Code.INVALID
    mode = attributes(cluster, folder).mode
    assert put(cluster, folder, DEFAULT, NAMED).mode == mode, "it is for others"


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.FIFO, Kind.SOCKET, Kind.CHARACTER_DEVICE])
def test_what_is_made_inherits(cluster, kind):
    folder = directory(cluster)
    put(cluster, folder, DEFAULT, NAMED)
    made = create(cluster, folder, 0o666, 0o077, kind)
    assert made.mode == 0o640, "the list decides, the umask does not"
    assert acl.mode_bits(has(cluster, made.inode, ACCESS)) == 0o640
    assert has(cluster, made.inode, DEFAULT) is None
    assert made.has_xattrs


def test_a_directory_inherits_both(cluster):
    folder = directory(cluster)
    put(cluster, folder, DEFAULT, NAMED)
    below = directory(cluster, b"below", folder, 0o777, 0o777)
    assert has(cluster, below, DEFAULT) == NAMED
    assert has(cluster, below, ACCESS) == NAMED
    assert attributes(cluster, below).mode == 0o750


def test_a_symbolic_link_inherits_nothing(cluster):
    folder = directory(cluster)
    put(cluster, folder, DEFAULT, NAMED)
    link = cluster.do(MakeSymlink(folder, b"link", b"to", 1, 2)).attributes
    assert (link.mode, link.has_xattrs) == (0o777, False)


def test_the_umask_counts_where_there_is_no_default(cluster):
    assert create(cluster, 1, 0o4666, 0o027).mode == 0o4640
    assert attributes(cluster, directory(cluster, umask=0o022)).mode == 0o755
    assert cluster.refused(MakeDirectory(1, b"x", 0o700, 0, 0, 0o10000)) == Code.INVALID


def test_attributes_are_counted(cluster):
    file = cluster.file()
    assert not attributes(cluster, file).has_xattrs
    for name in (b"user.a", b"user.b", b"user.a"):
        assert put(cluster, file, name, b"x").has_xattrs
    assert cluster.do(RemoveXattr(file, b"user.a")).attributes.has_xattrs
    assert not cluster.do(RemoveXattr(file, b"user.b")).attributes.has_xattrs


def test_an_inode_from_before_they_were_counted(cluster):
    file = cluster.file()
    put(cluster, file, b"user.a", b"x")
    tables = cluster.state.tables
    inode = tables.inodes.require(file)
    inode.xattrs = -1
    tables.inodes.put(inode)
    assert attributes(cluster, file).has_xattrs, "perhaps"
    put(cluster, file, b"user.b", b"x")
    assert tables.inodes.require(file).xattrs == 2


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (Kind.FILE, b"other.x", Code.NOT_SUPPORTED),
        (Kind.FILE, b"system.x", Code.NOT_SUPPORTED),
        (Kind.FILE, b"user", Code.NOT_SUPPORTED),
        (Kind.FILE, b"user.", Code.INVALID),
        (Kind.FIFO, b"user.x", Code.NOT_PERMITTED),
    ],
)
def test_names_that_cannot_be(cluster, kind, name, code):
    inode = create(cluster, 1, 0o600, 0, kind).inode
    assert cluster.refused(SetXattr(inode, name, b"x", 0)) == code
    assert cluster.refused(RemoveXattr(inode, name)) == code
    put(cluster, inode, b"trusted.x", b"x")


# --- set-user-id, set-group-id, capabilities -------------------------------------------------


@pytest.mark.parametrize("changes", [{"uid": 7}, {"gid": 7}, {"kill_privileges": True}])
def test_what_takes_privileges_away(cluster, changes):
    file = cluster.file()
    cluster.do(SetAttributes(file, mode=0o6755))
    put(cluster, file, CAPABILITY, b"all")
    after = cluster.do(SetAttributes(file, **changes)).attributes
    assert (after.mode, after.has_xattrs) == (0o755, False)
    cluster.do(SetAttributes(file, mode=0o2745))
    assert cluster.do(SetAttributes(file, **changes)).attributes.mode == 0o2745


def test_other_changes_leave_them(cluster):
    file = cluster.file()
    cluster.do(SetAttributes(file, mode=0o6755))
    put(cluster, file, CAPABILITY, b"all")
    after = cluster.do(SetAttributes(file, size=5, mtime_ns=1)).attributes
    assert (after.mode, after.has_xattrs) == (0o6755, True)


def test_a_mode_that_comes_with_the_owner_counts(cluster):
    file = cluster.file()
    assert cluster.do(SetAttributes(file, mode=0o4755, uid=7)).attributes.mode == 0o4755


def test_a_directory_keeps_its_group_bit(cluster):
    folder = directory(cluster, mode=0o2775)
    after = cluster.do(SetAttributes(folder, uid=7, gid=8)).attributes
    assert (after.uid, after.gid, after.mode) == (7, 8, 0o2775)
    assert create(cluster, folder, 0o644).gid == 8


# --- files without a name --------------------------------------------------------------------


def unnamed(cluster, parent=1, mode=0o666, umask=0o022, linkable=True):
    request = CreateUnnamed(parent, mode, 1, 2, umask, linkable)
    return cluster.do(request).attributes


def test_a_file_without_a_name(cluster):
    before = attributes(cluster, 1)
    made = unnamed(cluster)
    assert (made.links, made.mode, made.kind) == (0, 0o644, Kind.FILE)
    assert cluster.effects == [], "whoever made it has it open"
    assert attributes(cluster, 1) == before
    assert cluster.state.is_orphan(made.inode)
    cluster.do(Reap([made.inode]))
    assert cluster.refused(SetAttributes(made.inode)) == Code.STALE_HANDLE


def test_it_gets_a_name(cluster):
    made = unnamed(cluster)
    linked = cluster.do(Link(made.inode, 1, b"name")).attributes
    assert (linked.links, linked.ctime_ns) == (1, cluster.now)
    assert not cluster.state.is_orphan(made.inode)
    cluster.do(Reap([made.inode]))
    assert cluster.state.lookup(1, b"name").attributes == linked
    cluster.do(Unlink(1, b"name"))
    assert cluster.refused(Link(made.inode, 1, b"again")) == Code.NO_ENTRY


def test_one_that_may_not_get_a_name(cluster):
    made = unnamed(cluster, linkable=False)
    assert cluster.refused(Link(made.inode, 1, b"name")) == Code.NO_ENTRY


def test_it_inherits_as_if_it_were_made_there(cluster):
    folder = directory(cluster, mode=0o2777)
    cluster.do(SetAttributes(folder, gid=9))
    put(cluster, folder, DEFAULT, NAMED)
    made = unnamed(cluster, folder, umask=0o777)
    assert (made.gid, made.mode) == (9, 0o640)
    assert has(cluster, made.inode, ACCESS)
    assert cluster.refused(CreateUnnamed(made.inode, 0, 0, 0, 0, True)) == Code.NOT_A_DIRECTORY


# --- whiteouts -------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [RenameFlags.WHITEOUT, RenameFlags.WHITEOUT | 1])
def test_a_whiteout_stays_where_the_file_was(cluster, flags):
    file = cluster.file(b"old")
    reply = cluster.do(Rename(1, b"old", 1, b"new", int(flags)))
    left = cluster.state.lookup(1, b"old").attributes
    assert left == reply.whiteout
    assert (left.kind, left.device, left.mode) == (Kind.CHARACTER_DEVICE, 0, 0)
    assert left.uid == attributes(cluster, file).uid
    assert cluster.state.lookup(1, b"new").attributes.inode == file
    assert attributes(cluster, 1).size == 2


def test_a_whiteout_of_a_directory(cluster):
    directory(cluster, b"old")
    there = directory(cluster, b"there")
    cluster.file(b"other")
    cluster.do(Rename(1, b"old", there, b"new", int(RenameFlags.WHITEOUT)))
    assert attributes(cluster, 1).links == 3
    assert cluster.do(Rename(1, b"other", there, b"other", 0)).whiteout is None
    assert cluster.refused(Rename(1, b"there", 1, b"x", 6)) == Code.INVALID, "with EXCHANGE"


# --- readings --------------------------------------------------------------------------------


def test_readings_move_atime_and_nothing_else(cluster):
    file = cluster.file()
    before = attributes(cluster, file)
    cluster.do(NoteReadings([Reading(file, before.change, cluster.now + 5), Reading(99, 1, 5)]))
    after = attributes(cluster, file)
    assert after.atime_ns > before.atime_ns
    assert after == before.__class__(
        *[
            after.atime_ns if field == "atime_ns" else getattr(before, field)
            for field in before.__struct_fields__
        ]
    )
    cluster.do(NoteReadings([Reading(file, before.change, before.atime_ns)]))
    assert attributes(cluster, file) == after, "it never goes back"


def test_a_reading_of_what_was_changed_meanwhile_does_not_count(cluster):
    file = cluster.file()
    change = attributes(cluster, file).change
    cluster.do(SetAttributes(file, atime_ns=5))
    cluster.do(NoteReadings([Reading(file, change, cluster.now)]))
    assert attributes(cluster, file).atime_ns == 5


def test_readings_that_cannot_be(cluster):
    file = cluster.file()
    assert cluster.refused(NoteReadings([Reading(file, 1, 1 << 63)])) == Code.INVALID
    assert cluster.refused(NoteReadings([Reading(file, 1, 1)] * 1025)) == Code.INVALID
