"""Creating, naming, listing and removing, with every error of each operation."""

import pytest
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.meta import (
    Create,
    Link,
    MakeDirectory,
    MakeSymlink,
    RemoveDirectory,
    Unlink,
)
from tidefs.metaserver.effects import Orphaned
from tidefs.metaserver.entries import Reap

BAD_NAMES = [
    (b"", Code.INVALID),
    (b".", Code.INVALID),
    (b"..", Code.INVALID),
    (b"a/b", Code.INVALID),
    (b"a\0b", Code.INVALID),
    (b"x" * 256, Code.NAME_TOO_LONG),
]


def create(name=b"file", parent=1, kind=Kind.FILE, **changes):
    fields = {
        "mode": 0o640,
        "uid": 1,
        "gid": 2,
        "device": 0,
        "exclusive": True,
        "open": False,
    } | changes
    return Create(parent=parent, name=name, kind=kind, **fields)


def raises(code, function, *arguments):
    with pytest.raises(TideError) as caught:
        function(*arguments)
    assert caught.value.code == code


# --- create


def test_create_a_file(cluster):
    reply = cluster.do(create())
    file, parent = reply.attributes, reply.parent
    assert file.kind is Kind.FILE
    assert (file.mode, file.uid, file.gid, file.links, file.size) == (0o640, 1, 2, 1, 0)
    assert file.atime_ns == file.mtime_ns == file.ctime_ns == cluster.now
    assert file.data_version > 0
    assert parent.mtime_ns == parent.ctime_ns == cluster.now
    assert parent.size == 1
    assert cluster.state.lookup(1, b"file") == reply
    assert cluster.state.content(file.inode) == (file, b"")
    assert cluster.state.totals.inodes == 2


@pytest.mark.parametrize("kind", [Kind.FIFO, Kind.SOCKET])
def test_create_a_special_file(cluster, kind):
    attributes = cluster.do(create(kind=kind, device=5)).attributes
    assert (attributes.kind, attributes.device) == (kind, 0)


@pytest.mark.parametrize("kind", [Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE])
def test_create_a_device(cluster, kind):
    attributes = cluster.do(create(kind=kind, device=0x801)).attributes
    assert (attributes.kind, attributes.device) == (kind, 0x801)


def test_create_what_is_there(cluster):
    first = cluster.do(create()).attributes
    assert cluster.refused(create()) == Code.EXISTS
    assert cluster.do(create(exclusive=False)).attributes == first
    assert cluster.refused(create(kind=Kind.FIFO, exclusive=False)) == Code.EXISTS
    cluster.directory(b"dir")
    assert cluster.refused(create(b"dir", exclusive=False)) == Code.IS_A_DIRECTORY
    assert cluster.refused(create(b"dir")) == Code.EXISTS
    cluster.do(create(b"fifo", kind=Kind.FIFO))
    assert cluster.refused(create(b"fifo", exclusive=False)) == Code.EXISTS


@pytest.mark.parametrize(("name", "code"), BAD_NAMES)
def test_bad_names(cluster, name, code):
    file = cluster.file(b"other")
    assert cluster.refused(create(name)) == code
    assert cluster.refused(MakeDirectory(1, name, 0o755, 0, 0)) == code
    assert cluster.refused(MakeSymlink(1, name, b"target", 0, 0)) == code
    assert cluster.refused(Link(file, 1, name)) == code
    assert cluster.refused(Unlink(1, name)) == code
    assert cluster.refused(RemoveDirectory(1, name)) == code
    if name not in (b".", b".."):
        raises(code, cluster.state.lookup, 1, name)


def test_the_longest_name(cluster):
    cluster.file(b"x" * 255)
    assert cluster.state.lookup(1, b"x" * 255).attributes.kind is Kind.FILE


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": 0o10000},
        {"mode": -1},
        {"uid": -1},
        {"uid": 1 << 32},
        {"gid": 1 << 32},
        {"device": -1},
        {"kind": Kind.DIRECTORY},
        {"kind": Kind.SYMLINK},
    ],
)
def test_create_with_bad_values(cluster, changes):
    assert cluster.refused(create(**changes)) == Code.INVALID


def test_create_in_the_wrong_place(cluster):
    file = cluster.file()
    assert cluster.refused(create(parent=file)) == Code.NOT_A_DIRECTORY
    assert cluster.refused(create(parent=99)) == Code.STALE_HANDLE
    assert cluster.refused(create(parent=0)) == Code.STALE_HANDLE
    assert cluster.refused(create(parent=-5)) == Code.STALE_HANDLE
    assert cluster.refused(create(parent=(1 << 64) - 1)) == Code.STALE_HANDLE


def test_set_group_id_is_inherited(cluster):
    directory = cluster.directory(mode=0o2775)
    file = cluster.do(create(parent=directory, gid=99)).attributes
    assert (file.gid, file.mode) == (2, 0o640)
    below = cluster.do(MakeDirectory(directory, b"below", 0o755, 1, 99)).attributes
    assert (below.gid, below.mode) == (2, 0o2755)
    link = cluster.do(MakeSymlink(directory, b"link", b"x", 1, 99)).attributes
    assert link.gid == 2


# --- directories


def test_make_a_directory(cluster):
    reply = cluster.do(MakeDirectory(1, b"dir", 0o750, 3, 4))
    made, parent = reply.attributes, reply.parent
    assert (made.kind, made.mode, made.uid, made.gid) == (Kind.DIRECTORY, 0o750, 3, 4)
    assert (made.links, made.size, parent.links, parent.size) == (2, 0, 3, 1)
    assert cluster.state.lookup(made.inode, b"..").attributes == parent
    assert cluster.state.lookup(made.inode, b".").attributes == made
    assert cluster.state.lookup(1, b"..").attributes.inode == 1


def test_make_a_directory_that_cannot_be(cluster):
    file = cluster.file()
    assert cluster.refused(MakeDirectory(1, b"file", 0o755, 0, 0)) == Code.EXISTS
    assert cluster.refused(MakeDirectory(file, b"dir", 0o755, 0, 0)) == Code.NOT_A_DIRECTORY
    assert cluster.refused(MakeDirectory(77, b"dir", 0o755, 0, 0)) == Code.STALE_HANDLE
    assert cluster.refused(MakeDirectory(1, b"dir", 0o10755, 0, 0)) == Code.INVALID
    assert cluster.refused(MakeDirectory(1, b"dir", 0o755, -1, 0)) == Code.INVALID


def test_too_many_subdirectories(monkeypatch, cluster):
    monkeypatch.setattr("tidefs.metaserver.operations.checks.LINKS_MAX", 3)
    parent = cluster.directory()
    cluster.directory(b"one", parent)
    assert cluster.refused(MakeDirectory(parent, b"two", 0, 0, 0)) == Code.TOO_MANY_LINKS


def test_remove_a_directory(cluster):
    directory = cluster.directory()
    reply = cluster.do(RemoveDirectory(1, b"dir"))
    assert cluster.effects == [Orphaned(directory)]
    assert (reply.attributes.links, reply.parent.links, reply.parent.size) == (0, 2, 0)
    # Somebody may still have it as working directory.
    assert cluster.state.attributes(directory).links == 0
    assert cluster.state.listing(directory, 0, 10).entries == []
    assert cluster.state.lookup(directory, b"..").attributes.inode == 1
    raises(Code.NO_ENTRY, cluster.state.lookup, directory, b"x")
    assert cluster.refused(create(parent=directory)) == Code.NO_ENTRY
    assert cluster.refused(Unlink(directory, b"x")) == Code.NO_ENTRY
    cluster.do(Reap([directory]))
    raises(Code.STALE_HANDLE, cluster.state.attributes, directory)
    raises(Code.STALE_HANDLE, cluster.state.lookup, directory, b"x")
    assert cluster.refused(create(parent=directory)) == Code.STALE_HANDLE


def test_the_parent_of_a_removed_directory_may_be_gone(cluster):
    outer = cluster.directory(b"outer")
    inner = cluster.directory(b"inner", outer)
    cluster.do(RemoveDirectory(outer, b"inner"))
    cluster.do(RemoveDirectory(1, b"outer"))
    cluster.do(Reap([outer]))
    raises(Code.NO_ENTRY, cluster.state.lookup, inner, b"..")


def test_remove_a_directory_that_cannot_be(cluster):
    directory = cluster.directory()
    cluster.file(b"in it", directory)
    cluster.file(b"file")
    assert cluster.refused(RemoveDirectory(1, b"dir")) == Code.NOT_EMPTY
    assert cluster.refused(RemoveDirectory(1, b"file")) == Code.NOT_A_DIRECTORY
    assert cluster.refused(RemoveDirectory(1, b"nothing")) == Code.NO_ENTRY
    assert cluster.refused(RemoveDirectory(99, b"x")) == Code.STALE_HANDLE


# --- symbolic links


def test_make_a_symlink(cluster):
    target = b"../some where\xff"
    made = cluster.do(MakeSymlink(1, b"link", target, 3, 4)).attributes
    assert (made.kind, made.mode, made.size) == (Kind.SYMLINK, 0o777, len(target))
    assert cluster.state.read_link(made.inode) == target


def test_symlink_targets(cluster):
    cluster.do(MakeSymlink(1, b"long", b"x" * 4095, 0, 0))
    assert cluster.refused(MakeSymlink(1, b"l", b"x" * 4096, 0, 0)) == Code.NAME_TOO_LONG
    assert cluster.refused(MakeSymlink(1, b"l", b"", 0, 0)) == Code.INVALID
    assert cluster.refused(MakeSymlink(1, b"l", b"a\0b", 0, 0)) == Code.INVALID
    assert cluster.refused(MakeSymlink(1, b"long", b"x", 0, 0)) == Code.EXISTS
    raises(Code.INVALID, cluster.state.read_link, 1)
    raises(Code.STALE_HANDLE, cluster.state.read_link, 99)


# --- hard links and unlink


def test_link_and_unlink(cluster):
    file = cluster.file(b"one")
    directory = cluster.directory()
    reply = cluster.do(Link(file, directory, b"two"))
    assert (reply.attributes.inode, reply.attributes.links) == (file, 2)
    assert reply.attributes.ctime_ns == reply.parent.mtime_ns == cluster.now
    assert reply.attributes.mtime_ns < cluster.now

    removed = cluster.do(Unlink(1, b"one"))
    assert (removed.attributes.links, removed.parent.size) == (1, 1)
    assert removed.attributes.ctime_ns == removed.parent.mtime_ns == cluster.now
    assert cluster.effects == []
    raises(Code.NO_ENTRY, cluster.state.lookup, 1, b"one")

    removed = cluster.do(Unlink(directory, b"two"))
    assert removed.attributes.links == 0
    assert cluster.effects == [Orphaned(file)]
    assert cluster.state.orphans() == [file]
    assert cluster.state.is_orphan(file)
    assert not cluster.state.is_orphan(directory)
    assert not cluster.state.is_orphan(-1)


def test_link_that_cannot_be(cluster):
    file = cluster.file()
    directory = cluster.directory()
    assert cluster.refused(Link(directory, 1, b"two")) == Code.NOT_PERMITTED
    assert cluster.refused(Link(file, 1, b"dir")) == Code.EXISTS
    assert cluster.refused(Link(file, 1, b"file")) == Code.EXISTS
    assert cluster.refused(Link(file, file, b"two")) == Code.NOT_A_DIRECTORY
    assert cluster.refused(Link(99, 1, b"two")) == Code.STALE_HANDLE
    assert cluster.refused(Link(file, 99, b"two")) == Code.STALE_HANDLE
    cluster.do(Unlink(1, b"file"))
    assert cluster.refused(Link(file, 1, b"two")) == Code.NO_ENTRY


def test_too_many_links(monkeypatch, cluster):
    monkeypatch.setattr("tidefs.metaserver.operations.checks.LINKS_MAX", 2)
    file = cluster.file()
    cluster.do(Link(file, 1, b"two"))
    assert cluster.refused(Link(file, 1, b"three")) == Code.TOO_MANY_LINKS


def test_unlink_that_cannot_be(cluster):
    cluster.directory()
    assert cluster.refused(Unlink(1, b"dir")) == Code.IS_A_DIRECTORY
    assert cluster.refused(Unlink(1, b"nothing")) == Code.NO_ENTRY
    assert cluster.refused(Unlink(99, b"x")) == Code.STALE_HANDLE


def test_reap_leaves_alone_what_is_no_orphan(cluster):
    file = cluster.file()
    cluster.do(Reap([file, 1, 99, 0, -1]))
    assert cluster.state.attributes(file).links == 1


def test_an_inode_number_is_never_used_again(cluster):
    file = cluster.file()
    cluster.do(Unlink(1, b"file"))
    cluster.do(Reap([file]))
    assert cluster.file() > file


# --- listing


def listed(cluster, directory=1, cookie=0, count=100):
    return cluster.state.listing(directory, cookie, count)


def test_a_listing_is_in_order_of_creation_and_continues(cluster):
    names = [b"c", b"a", b"b", b"d"]
    for name in names:
        cluster.file(name)
    whole = listed(cluster)
    assert [entry.name for entry in whole.entries] == names
    assert whole.end
    assert whole.directory == cluster.state.attributes(1)
    first = listed(cluster, count=2)
    assert ([entry.name for entry in first.entries], first.end) == ([b"c", b"a"], False)
    rest = listed(cluster, cookie=first.entries[-1].cookie, count=2)
    assert ([entry.name for entry in rest.entries], rest.end) == ([b"b", b"d"], True)
    assert listed(cluster, cookie=rest.entries[-1].cookie).entries == []
    assert len(listed(cluster, count=0).entries) == 1
    assert whole.entries[0].attributes == cluster.state.lookup(1, b"c").attributes


def test_a_listing_goes_on_while_the_directory_changes(cluster):
    for name in (b"a", b"b", b"c"):
        cluster.file(name)
    first = listed(cluster, count=2)
    cluster.do(Unlink(1, b"b"))
    cluster.do(Unlink(1, b"a"))
    cluster.file(b"a")
    rest = listed(cluster, cookie=first.entries[-1].cookie)
    assert [entry.name for entry in rest.entries] == [b"c", b"a"]


def test_listings_of_neighbours_do_not_mix(cluster):
    one, two = cluster.directory(b"one"), cluster.directory(b"two")
    cluster.file(b"x", one)
    cluster.file(b"y", two)
    assert [entry.name for entry in listed(cluster, one).entries] == [b"x"]
    assert [entry.name for entry in listed(cluster, two).entries] == [b"y"]


def test_a_listing_that_cannot_be(cluster):
    file = cluster.file()
    raises(Code.NOT_A_DIRECTORY, listed, cluster, file)
    raises(Code.STALE_HANDLE, listed, cluster, 99)
    raises(Code.INVALID, listed, cluster, 1, -1)
    raises(Code.INVALID, listed, cluster, 1, 1 << 64)
    raises(Code.NOT_A_DIRECTORY, cluster.state.lookup, file, b"x")
