"""The same entries give the same state, in any store, reopened at any entry."""

from tidefs.fs import acl
from tidefs.fs.acl import AclEntry, Tag
from tidefs.fs.attributes import Kind
from tidefs.fs.limits import CHUNK_BYTES
from tidefs.fs.messages.meta import (
    Commit,
    Create,
    CreateUnnamed,
    Link,
    MakeDirectory,
    NewChunk,
    NoteReadings,
    Patch,
    Reading,
    Rename,
    RenameFlags,
    SetAttributes,
    SetXattr,
    Unlink,
)
from tidefs.metaserver.check import check
from tidefs.metaserver.entries import EndSession, GrantChunk, Reap, ReserveHandles
from tidefs.metaserver.kv_lmdb import LmdbKeyValue
from tidefs.metaserver.kv_memory import MemoryKeyValue
from tidefs.metaserver.state import State

from .lockers import Process

NAMED = (
    AclEntry(Tag.USER_OBJ, 7),
    AclEntry(Tag.USER, 5, 10),
    AclEntry(Tag.GROUP_OBJ, 4),
    AclEntry(Tag.MASK, 5),
    AclEntry(Tag.OTHER, 0),
)


def busy_log(cluster):
    """A log with everything in it that leaves a trace, errors too."""
    session = cluster.session()
    cluster.do(ReserveHandles(50))
    for number in range(20):
        create = Create(1, b"f%d" % number, Kind.FILE, 0o644, 0, 0, 0, True, True)
        inode = cluster.apply(create, session=session, slot=number % 4, sequence=number + 1)
        inode = inode.attributes.inode
        cluster.do(Commit(inode, 4, None, [Patch(0, 4)], [], 0, False), b"data")
        base = cluster.state.attributes(inode).data_version
        written = [NewChunk(0, 2 * number + 1, 1), NewChunk(1, 2 * number + 2, 1)]
        cluster.do(Commit(inode, 2 * CHUNK_BYTES, None, [], written, base, False))
        cluster.do(SetAttributes(inode, size=(number % 3) * 100))
        cluster.do(SetXattr(inode, b"user." + b"x" * 250, b"y", 0))
    cluster.do(GrantChunk(3, 9, 100))
    cluster.do(MakeDirectory(1, b"dir", 0o755, 0, 0))
    cluster.do(Rename(1, b"f1", 1, b"dir2", 0))
    cluster.do(Link(4, 1, b"n" * 255))
    folder = cluster.do(MakeDirectory(1, b"shared", 0o2777, 0, 0, 0o022)).attributes.inode
    cluster.do(SetXattr(folder, acl.DEFAULT, acl.encode(NAMED), 0))
    for linkable in (False, True):
        unnamed = cluster.do(CreateUnnamed(folder, 0o666, 0, 0, 0o022, linkable)).attributes
    cluster.do(Link(unnamed.inode, folder, b"named"))
    cluster.do(SetAttributes(unnamed.inode, mode=0o4600))
    cluster.do(SetAttributes(unnamed.inode, kill_privileges=True))
    cluster.do(Rename(folder, b"named", 1, b"renamed", int(RenameFlags.WHITEOUT)))
    cluster.do(NoteReadings([Reading(unnamed.inode, unnamed.change, cluster.now)]))
    cluster.refused(Unlink(1, b"dir"))
    for name in (b"f3", b"f4", b"f5"):
        cluster.do(Unlink(1, name))
    cluster.do(Reap(cluster.state.orphans()[:2]))
    one, two = (Process(cluster, cluster.session(nonce * 16), 9) for nonce in (b"m", b"o"))
    for start in range(0, 40, 4):
        one.lock(7, start % 8 == 0, start, start + 3)
        two.lock(7, start % 3 == 0, start + 2, start + 6, wait=True)
    one.unlock(7, 0, 10)
    cluster.do(EndSession(one.session, True))
    return cluster.log


def test_in_lmdb_and_in_memory(cluster, tmp_path):
    kv = LmdbKeyValue(str(tmp_path))
    state = State(kv)
    for entry in busy_log(cluster):
        state.apply(entry)
    assert check(state) == []
    assert state.digest() == cluster.state.digest()
    kv.close()


def test_reopened_after_every_entry(cluster):
    kv = MemoryKeyValue()
    for entry in busy_log(cluster):
        State(kv).apply(entry)
    assert State(kv).digest() == cluster.state.digest()
