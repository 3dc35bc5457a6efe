"""The file-system check finds each kind of damage that it claims to look for."""

import pytest
from tidefs.fs import acl
from tidefs.fs.acl import AclEntry, Tag
from tidefs.fs.attributes import Kind
from tidefs.fs.codec import pack
from tidefs.fs.limits import CHUNK_BYTES
from tidefs.fs.messages.meta import (
    Commit,
    Create,
    MakeDirectory,
    MakeSymlink,
    NewChunk,
    Patch,
    SetAttributes,
    SetXattr,
    Unlink,
)
from tidefs.metaserver import keys
from tidefs.metaserver.check import check
from tidefs.metaserver.entries import ReserveHandles
from tidefs.metaserver.namespace import Dentry
from tidefs.metaserver.records import ChunkRecord

DIRECTORY, BELOW, SMALL, BIG, GONE, LINK = range(2, 8)


@pytest.fixture
def house(new_cluster):
    """One of everything; what is damaged in it is thrown away with it."""
    made = new_cluster()
    made.do(MakeDirectory(1, b"dir", 0o755, 0, 0))
    made.do(MakeDirectory(DIRECTORY, b"below", 0o755, 0, 0))
    for name in (b"small", b"big", b"gone"):
        made.do(Create(1, name, Kind.FILE, 0o644, 0, 0, 0, True, False))
    made.do(MakeSymlink(1, b"link", b"target", 0, 0))
    made.do(Commit(SMALL, 5, None, [Patch(0, 5)], [], 0, False), b"small")
    made.do(ReserveHandles(10))
    base = made.state.attributes(BIG).data_version
    written = [NewChunk(0, 1, 3), NewChunk(1, 2, 3), NewChunk(2, 3, 3)]
    made.do(Commit(BIG, 3 * CHUNK_BYTES, None, [], written, base, False))
    made.do(SetAttributes(BIG, size=2 * CHUNK_BYTES - 5))
    made.do(Unlink(1, b"gone"))
    made.do(SetXattr(SMALL, b"user.a", b"x", 0))
    made.session()
    assert check(made.state) == []
    return made


PLAIN = acl.encode((AclEntry(Tag.USER_OBJ, 6), AclEntry(Tag.GROUP_OBJ, 4), AclEntry(Tag.OTHER, 4)))
MASKED = acl.encode(
    (
        AclEntry(Tag.USER_OBJ, 6),
        AclEntry(Tag.GROUP_OBJ, 4),
        AclEntry(Tag.MASK, 7),
        AclEntry(Tag.OTHER, 4),
    )
)


def put_xattr(tables, number, name, value):
    """Damage: behind the back of what keeps it together with the mode."""
    inode = tables.inodes.require(number)
    tables.xattrs.put(inode, name, value)
    tables.inodes.put(inode)


def numbered(prefix, number):
    return keys.numbered(prefix, number)


def inode_with(**changes):
    """Damage one field of an inode's record."""

    def damage(tables, number):
        inode = tables.inodes.require(number)
        for field, value in changes.items():
            setattr(inode, field, value)
        tables.inodes.put(inode)

    return damage


DAMAGES = {
    "name of a missing inode": lambda t: t.kv.delete(numbered(keys.INODE, SMALL)),
    "name in a missing directory": lambda t: t.kv.delete(numbered(keys.INODE, DIRECTORY)),
    "name without a line": lambda t: t.kv.delete(keys.paired(keys.LISTING, 1, 3)),
    "line without a name": lambda t: t.kv.delete(keys.named(keys.DENTRY, 1, b"small")),
    "line of another inode": lambda t: t.kv.put(
        keys.paired(keys.LISTING, 1, 3), pack((SMALL, b"dir"))
    ),
    "wrong kind": lambda t: t.kv.put(
        keys.named(keys.DENTRY, 1, b"small"), pack(Dentry(SMALL, 4, 4))
    ),
    "cookie never given": lambda t: inode_with(next_cookie=3)(t, 1),
    "links of a file": lambda t: inode_with(links=2)(t, SMALL),
    "links of a directory": lambda t: inode_with(links=4)(t, DIRECTORY),
    "size of a directory": lambda t: inode_with(size=7)(t, DIRECTORY),
    "negative size": lambda t: inode_with(size=-1)(t, SMALL),
    "parent": lambda t: inode_with(parent=1)(t, BELOW),
    "inode number": lambda t: setattr(t.totals, "next_inode", LINK),
    "orphan with links": lambda t: t.kv.put(numbered(keys.ORPHAN, SMALL), b""),
    "no links, no orphan": lambda t: t.kv.delete(numbered(keys.ORPHAN, GONE)),
    "orphan that is gone": lambda t: t.kv.put(numbered(keys.ORPHAN, 99), b""),
    "name of an orphan": lambda t: inode_with(links=0)(t, SMALL),
    "name in an orphan": lambda t: inode_with(links=0)(t, DIRECTORY),
    "inline of a missing inode": lambda t: t.kv.put(numbered(keys.INLINE, 99), b"x"),
    "inline of a directory": lambda t: t.kv.put(numbered(keys.INLINE, 1), b"x"),
    "inline of a file with chunks": lambda t: t.kv.put(numbered(keys.INLINE, BIG), b"x"),
    "inline behind the size": lambda t: inode_with(size=4)(t, SMALL),
    "target and size": lambda t: inode_with(size=4)(t, LINK),
    "stored bytes": lambda t: inode_with(stored_bytes=4)(t, SMALL),
    "chunks counted": lambda t: inode_with(chunks=1)(t, BIG),
    "stored bytes of chunks": lambda t: inode_with(stored_bytes=4)(t, BIG),
    "chunk behind the size": lambda t: inode_with(size=CHUNK_BYTES)(t, BIG),
    "bytes of a directory": lambda t: inode_with(stored_bytes=4)(t, DIRECTORY),
    "chunk without record": lambda t: t.kv.delete(numbered(keys.CHUNK, 1)),
    "record without chunk": lambda t: t.kv.delete(keys.paired(keys.MAP, BIG, 0)),
    "chunk of another": lambda t: t.chunks.put(1, ChunkRecord(SMALL, 0, 3, -1, 0)),
    "chunk of a missing inode": lambda t: t.kv.put(keys.paired(keys.MAP, 99, 0), pack(1)),
    "impossible cut": lambda t: t.chunks.put(1, ChunkRecord(BIG, 0, 3, CHUNK_BYTES, 0)),
    "impossible version": lambda t: t.chunks.put(1, ChunkRecord(BIG, 0, 3, -1, 4)),
    "chunk never reserved": lambda t: setattr(t.totals, "next_handle", 2),
    "dropped chunk of a missing inode": lambda t: t.kv.put(
        keys.paired(keys.DROPPED, 99, 0), pack(5)
    ),
    "dropped chunk that is there": lambda t: t.kv.put(keys.paired(keys.DROPPED, BIG, 0), pack(5)),
    "xattr of a missing inode": lambda t: t.kv.put(keys.named(keys.XATTR, 99, b"a"), b""),
    "xattrs counted": lambda t: inode_with(xattrs=2)(t, SMALL),
    "an access list that is none": lambda t: put_xattr(t, SMALL, acl.ACCESS, b"x"),
    "an access list that says nothing": lambda t: put_xattr(t, SMALL, acl.ACCESS, PLAIN),
    "an access list and another mode": lambda t: put_xattr(t, SMALL, acl.ACCESS, MASKED),
    "an access list of a link": lambda t: put_xattr(t, LINK, acl.ACCESS, MASKED),
    "a default list of a file": lambda t: put_xattr(t, SMALL, acl.DEFAULT, PLAIN),
    "an empty default list": lambda t: put_xattr(t, DIRECTORY, acl.DEFAULT, PLAIN[:4]),
    "nonce": lambda t: t.kv.delete(keys.NONCE + b"n" * 16),
    "slot": lambda t: t.sessions.remember(99, 0, 1, 1, None),
    "inodes counted": lambda t: setattr(t.totals, "inodes", 3),
    "bytes counted": lambda t: setattr(t.totals, "stored_bytes", 3),
    "all chunks counted": lambda t: setattr(t.totals, "chunks", 3),
    "no root": lambda t: t.kv.delete(numbered(keys.INODE, 1)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_found(house, damage):
    damage(house.state.tables)
    findings = check(house.state)
    assert findings
    assert all(isinstance(finding, str) and finding for finding in findings)


def test_a_ring_of_directories(house):
    """dir and below hold each other: all counts are right, and nobody gets there."""
    tables = house.state.tables
    root, outer, inner = (tables.inodes.require(number) for number in (1, DIRECTORY, BELOW))
    tables.names.remove(root, b"dir", tables.names.require(root, b"dir"), 0)
    tables.names.add(inner, b"dir", outer, 0)
    for inode in (root, outer, inner):
        tables.inodes.put(inode)
    assert check(house.state) == [
        f"directory {DIRECTORY} cannot be reached from the root",
        f"directory {BELOW} cannot be reached from the root",
    ]
