"""Rename: every combination that POSIX and renameat2(2) tell apart."""

import pytest
from tidefs.fs.errors import Code
from tidefs.fs.messages.meta import Link, RemoveDirectory, Rename, RenameFlags
from tidefs.metaserver.effects import Orphaned

NOREPLACE, EXCHANGE = int(RenameFlags.NOREPLACE), int(RenameFlags.EXCHANGE)


def inode_of(cluster, name, parent=1):
    return cluster.state.lookup(parent, name).attributes.inode


def names(cluster, directory=1):
    return [entry.name for entry in cluster.state.listing(directory, 0, 100).entries]


def test_within_a_directory(cluster):
    file = cluster.file(b"a")
    cluster.file(b"z")
    reply = cluster.do(Rename(1, b"a", 1, b"b", 0))
    assert reply.attributes.inode == file
    assert reply.attributes.ctime_ns == reply.parent.mtime_ns == cluster.now
    assert reply.attributes.mtime_ns < cluster.now
    assert reply.parent == reply.new_parent == cluster.state.attributes(1)
    assert reply.displaced is None
    assert names(cluster) == [b"z", b"b"]


def test_to_another_directory(cluster):
    file, directory = cluster.file(b"a"), cluster.directory()
    reply = cluster.do(Rename(1, b"a", directory, b"b", 0))
    assert (reply.parent.size, reply.new_parent.size) == (1, 1)
    assert reply.parent.mtime_ns == reply.new_parent.mtime_ns == cluster.now
    assert inode_of(cluster, b"b", directory) == file


def test_a_directory_to_another_directory(cluster):
    moved, new_parent = cluster.directory(b"moved"), cluster.directory(b"new")
    reply = cluster.do(Rename(1, b"moved", new_parent, b"m", 0))
    assert (reply.parent.links, reply.new_parent.links) == (3, 3)
    assert cluster.state.lookup(moved, b"..").attributes.inode == new_parent


def test_over_a_file(cluster):
    file, other = cluster.file(b"a"), cluster.file(b"b")
    cluster.file(b"c")
    reply = cluster.do(Rename(1, b"a", 1, b"b", 0))
    assert (reply.displaced.inode, reply.displaced.links) == (other, 0)
    assert cluster.effects == [Orphaned(other)]
    assert inode_of(cluster, b"b") == file
    assert names(cluster) == [b"b", b"c"], "the new name keeps its place"


def test_over_a_file_with_more_names(cluster):
    cluster.file(b"a")
    other = cluster.file(b"b")
    cluster.do(Link(other, 1, b"c"))
    reply = cluster.do(Rename(1, b"a", 1, b"b", 0))
    assert reply.displaced.links == 1
    assert reply.displaced.ctime_ns == cluster.now
    assert cluster.effects == []


def test_over_an_empty_directory(cluster):
    moved, displaced = cluster.directory(b"a"), cluster.directory(b"b")
    reply = cluster.do(Rename(1, b"a", 1, b"b", 0))
    assert (reply.displaced.inode, reply.displaced.links) == (displaced, 0)
    assert reply.parent.links == 3
    assert cluster.effects == [Orphaned(displaced)]
    assert inode_of(cluster, b"b") == moved


def test_over_an_empty_directory_elsewhere(cluster):
    new_parent = cluster.directory(b"new")
    moved = cluster.directory(b"a")
    cluster.directory(b"b", new_parent)
    reply = cluster.do(Rename(1, b"a", new_parent, b"b", 0))
    assert (reply.parent.links, reply.new_parent.links) == (3, 3)
    assert cluster.state.lookup(moved, b"..").attributes.inode == new_parent


def test_over_the_wrong_kind(cluster):
    cluster.file(b"file")
    cluster.directory(b"dir")
    full = cluster.directory(b"full")
    cluster.file(b"x", full)
    assert cluster.refused(Rename(1, b"file", 1, b"dir", 0)) == Code.IS_A_DIRECTORY
    assert cluster.refused(Rename(1, b"dir", 1, b"file", 0)) == Code.NOT_A_DIRECTORY
    assert cluster.refused(Rename(1, b"dir", 1, b"full", 0)) == Code.NOT_EMPTY


def test_two_names_of_one_file_both_stay(cluster):
    file = cluster.file(b"a")
    cluster.do(Link(file, 1, b"b"))
    before = cluster.everything()
    assert cluster.do(Rename(1, b"a", 1, b"b", 0)).displaced.inode == file
    assert cluster.do(Rename(1, b"a", 1, b"a", 0)).displaced.inode == file
    assert cluster.do(Rename(1, b"a", 1, b"b", EXCHANGE)).displaced.inode == file
    assert cluster.everything() == before
    assert cluster.refused(Rename(1, b"a", 1, b"b", NOREPLACE)) == Code.EXISTS


def test_a_directory_onto_itself(cluster):
    cluster.directory(b"a")
    before = cluster.everything()
    cluster.do(Rename(1, b"a", 1, b"a", 0))
    assert cluster.everything() == before


def test_into_itself_or_below(cluster):
    outer = cluster.directory(b"outer")
    middle = cluster.directory(b"middle", outer)
    inner = cluster.directory(b"inner", middle)
    for target in (outer, middle, inner):
        assert cluster.refused(Rename(1, b"outer", target, b"x", 0)) == Code.INVALID
    cluster.do(Rename(outer, b"middle", 1, b"m", 0))
    cluster.do(Rename(1, b"outer", inner, b"x", 0))


def test_over_an_ancestor(cluster):
    outer = cluster.directory(b"outer")
    cluster.directory(b"inner", outer)
    assert cluster.refused(Rename(outer, b"inner", 1, b"outer", 0)) == Code.NOT_EMPTY


def test_noreplace(cluster):
    cluster.file(b"a")
    cluster.file(b"b")
    assert cluster.refused(Rename(1, b"a", 1, b"b", NOREPLACE)) == Code.EXISTS
    cluster.do(Rename(1, b"a", 1, b"c", NOREPLACE))


def test_exchange_within_a_directory(cluster):
    a, b = cluster.file(b"a"), cluster.directory(b"b")
    reply = cluster.do(Rename(1, b"a", 1, b"b", EXCHANGE))
    assert (reply.attributes.inode, reply.displaced.inode) == (a, b)
    assert reply.attributes.ctime_ns == reply.displaced.ctime_ns == cluster.now
    assert (inode_of(cluster, b"a"), inode_of(cluster, b"b")) == (b, a)
    assert names(cluster) == [b"a", b"b"]
    assert reply.parent.links == 3


def test_exchange_between_directories(cluster):
    left, right = cluster.directory(b"left"), cluster.directory(b"right")
    directory = cluster.directory(b"d", left)
    file = cluster.file(b"f", right)
    reply = cluster.do(Rename(left, b"d", right, b"f", EXCHANGE))
    assert (reply.parent.links, reply.new_parent.links) == (2, 3)
    assert inode_of(cluster, b"f", right) == directory
    assert inode_of(cluster, b"d", left) == file
    assert cluster.state.lookup(directory, b"..").attributes.inode == right


def test_exchange_with_an_ancestor_or_a_descendant(cluster):
    outer = cluster.directory(b"outer")
    cluster.directory(b"inner", outer)
    assert cluster.refused(Rename(1, b"outer", outer, b"inner", EXCHANGE)) == Code.INVALID
    assert cluster.refused(Rename(outer, b"inner", 1, b"outer", EXCHANGE)) == Code.INVALID


def test_exchange_needs_both(cluster):
    cluster.file(b"a")
    assert cluster.refused(Rename(1, b"a", 1, b"b", EXCHANGE)) == Code.NO_ENTRY
    assert cluster.refused(Rename(1, b"b", 1, b"a", EXCHANGE)) == Code.NO_ENTRY


@pytest.mark.parametrize("flags", [3, 6, 7, 8, -1])
def test_flags_that_are_none(cluster, flags):
    cluster.file(b"a")
    assert cluster.refused(Rename(1, b"a", 1, b"b", flags)) == Code.INVALID


def test_places_that_are_none(cluster):
    file = cluster.file(b"a")
    gone = cluster.directory(b"gone")
    cluster.do(RemoveDirectory(1, b"gone"))
    assert cluster.refused(Rename(1, b"nothing", 1, b"b", 0)) == Code.NO_ENTRY
    assert cluster.refused(Rename(1, b"a", gone, b"b", 0)) == Code.NO_ENTRY
    assert cluster.refused(Rename(gone, b"a", 1, b"b", 0)) == Code.NO_ENTRY
    assert cluster.refused(Rename(1, b"a", file, b"b", 0)) == Code.NOT_A_DIRECTORY
    assert cluster.refused(Rename(1, b"a", 99, b"b", 0)) == Code.STALE_HANDLE
    assert cluster.refused(Rename(99, b"a", 1, b"b", 0)) == Code.STALE_HANDLE
    assert cluster.refused(Rename(1, b"a", 1, b"..", 0)) == Code.INVALID
    assert cluster.refused(Rename(1, b".", 1, b"b", 0)) == Code.INVALID
    assert cluster.refused(Rename(1, b"a", 1, b"x" * 256, 0)) == Code.NAME_TOO_LONG


def test_too_many_subdirectories(monkeypatch, cluster):
    monkeypatch.setattr("tidefs.metaserver.operations.checks.LINKS_MAX", 4)
    full = cluster.directory(b"full")
    cluster.directory(b"there", full)
    cluster.directory(b"too", full)
    cluster.file(b"file", full)
    cluster.directory(b"a")
    assert cluster.refused(Rename(1, b"a", full, b"a", 0)) == Code.TOO_MANY_LINKS
    assert cluster.refused(Rename(1, b"a", full, b"file", EXCHANGE)) == Code.TOO_MANY_LINKS
    assert cluster.refused(Rename(full, b"file", 1, b"a", EXCHANGE)) == Code.TOO_MANY_LINKS
    assert cluster.do(Rename(1, b"a", full, b"there", 0)).new_parent.links == 4
    cluster.do(Rename(full, b"too", full, b"two", 0))
