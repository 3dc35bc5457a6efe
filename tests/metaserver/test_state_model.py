"""The state machine against a model: a tree of dicts, moved by the same random operations.

The model says what POSIX says, in the plainest way; the state must answer with the same success
or the same error, and look the same after every step.
"""

from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CHUNK_BYTES
from tidefs.fs.messages.meta import (
    Commit,
    Create,
    Link,
    MakeDirectory,
    MakeSymlink,
    NewChunk,
    Patch,
    RemoveDirectory,
    RemoveXattr,
    Rename,
    SetAttributes,
    SetXattr,
    Unlink,
)
from tidefs.metaserver.check import check
from tidefs.metaserver.effects import ChunksDropped, Orphaned
from tidefs.metaserver.entries import CutTail, GrantChunk, Reap, ReserveHandles

from .tree_model import Model, RefusedError

NAMES = st.sampled_from([b"a", b"b", b"c"])
PLACES = st.integers(0, 99)
"""Which inode: see Machine.some."""
SIZES = st.integers(0, 12) | st.sampled_from(
    [8191, 8192, 8193, CHUNK_BYTES, CHUNK_BYTES + 7, 2 * CHUNK_BYTES - 1, 3 * CHUNK_BYTES]
)


class Pair(RuleBasedStateMachine):
    """The state and the model, side by side: the same steps, the same outcome, the same look."""

    new_cluster = None

    def __init__(self):
        super().__init__()
        self.cluster = type(self).new_cluster()
        self.model = Model()
        self.cluster.do(ReserveHandles(1000))
        self.session = self.cluster.session()
        self.sequence = 0
        self.handle = 0
        self.version = 1

    def both(self, request, expected, payload=b""):
        """Apply to both; they agree on the outcome. Then once more: nothing but the same reply."""
        self.sequence += 1
        reply = self.cluster.apply(request, payload, session=self.session, sequence=self.sequence)
        effects = self.cluster.effects
        result, code = None, None
        try:
            result = expected()
        except RefusedError as refused:
            code = refused.code
        assert code == (reply.code if isinstance(reply, TideError) else None), reply
        assert code is None or effects == []
        self._again(request, payload, reply)
        self.cluster.effects = effects
        return reply, result

    def _again(self, request, payload, reply):
        before = self.cluster.everything()
        again = self.cluster.apply(request, payload, session=self.session, sequence=self.sequence)
        if isinstance(reply, TideError):
            assert again.args == reply.args
        else:
            assert again == reply
        assert self.cluster.effects == []
        assert self.cluster.everything() == before

    def some(self, place, *kinds):
        """An inode's number: mostly of one of the kinds, sometimes any, gone or not."""
        numbers = [number for number, node in self.model.nodes.items() if node.kind in kinds]
        if place >= 90 or not numbers:
            return place % (self.model.next_inode + 1)
        return numbers[place % len(numbers)]

    def directory(self, place):
        return self.some(place, Kind.DIRECTORY)

    def file(self, place):
        return self.some(place, Kind.FILE)

    def any(self, place):
        return self.some(place, *Kind)

    @rule(inodes=st.lists(PLACES, max_size=6))
    def reap(self, inodes):
        inodes = [self.any(place) for place in inodes]
        self.cluster.do(Reap(inodes))
        dropped = []
        for number in inodes:
            node = self.model.nodes.get(number)
            if node is not None and number != 1 and not node.parents:
                dropped += [node.chunks[index].handle for index in sorted(node.chunks)]
                del self.model.nodes[number]
        assert self.cluster.effects == ([ChunksDropped(dropped)] if dropped else [])

    # --- the same after every step

    @invariant()
    def consistent(self):
        assert check(self.cluster.state) == []

    @invariant()
    def same(self):
        state = self.cluster.state
        for number in range(1, self.model.next_inode):
            node = self.model.nodes.get(number)
            if node is None:
                with suppress(TideError):
                    raise AssertionError(state.attributes(number))
                continue
            attributes = state.attributes(number)
            assert attributes.kind is node.kind
            assert attributes.links == self.model.links(number)
            assert state.xattr_names(number) == sorted(b"trusted." + name for name in node.xattrs)
            for name, value in node.xattrs.items():
                assert state.xattr(number, b"trusted." + name) == value
            assert state.attributes(number).has_xattrs == bool(node.xattrs)
            if node.kind is Kind.DIRECTORY:
                self._same_directory(number, node)
            else:
                assert attributes.size == node.size
            if node.kind is Kind.FILE:
                self._same_file(number, node)
        assert state.totals.inodes == len(self.model.nodes)

    def _same_directory(self, number, node):
        state = self.cluster.state
        listing = state.listing(number, 0, 1000)
        assert listing.end
        assert [entry.name for entry in listing.entries] == list(node.entries)
        for entry in listing.entries:
            assert entry.attributes.inode == node.entries[entry.name]
            assert state.lookup(number, entry.name).attributes == entry.attributes
        if number != 1 and node.parents:
            assert state.lookup(number, b"..").attributes.inode == node.parents[0][0]

    def _same_file(self, number, node):
        attributes, inline = self.cluster.state.content(number)
        assert attributes.data_version == node.data_versions
        if node.chunks:
            assert inline is None
        else:
            assert inline.rstrip(b"\0") == node.content
        found = {
            chunk.index: (chunk.handle, chunk.version, chunk.cut)
            for chunk in self.cluster.state.chunks(number, 0, 100)
        }
        assert found == {
            index: (chunk.handle, chunk.version, chunk.cut) for index, chunk in node.chunks.items()
        }

    def teardown(self):
        self.cluster.check_twin()


class NamesMachine(Pair):
    """Everything that moves names."""

    @initialize()
    def grow(self):
        """Directories in directories, with a file in each: room for renames that must fail."""
        for parent in (1, 2, 4):
            self.both(
                MakeDirectory(parent, b"a", 0o755, 0, 0),
                lambda parent=parent: self.model.make(parent, b"a", Kind.DIRECTORY),
            )
            self.both(
                Create(parent, b"b", Kind.FILE, 0o644, 0, 0, 0, True, False),
                lambda parent=parent: self.model.make(parent, b"b", Kind.FILE),
            )

    @rule(parent=PLACES, name=NAMES, kind=st.sampled_from([Kind.FILE, Kind.FIFO]))
    def create(self, parent, name, kind):
        parent = self.directory(parent)
        request = Create(parent, name, kind, 0o644, 0, 0, 0, True, False)
        reply, number = self.both(request, lambda: self.model.make(parent, name, kind))
        if number:
            assert reply.attributes.inode == number

    @rule(parent=PLACES, name=NAMES)
    def create_or_open(self, parent, name):
        parent = self.directory(parent)
        request = Create(parent, name, Kind.FILE, 0o644, 0, 0, 0, False, True)
        reply, number = self.both(request, lambda: self.model.open_or_make(parent, name))
        if number:
            assert reply.attributes.inode == number

    @rule(parent=PLACES, name=NAMES)
    def mkdir(self, parent, name):
        parent = self.directory(parent)
        request = MakeDirectory(parent, name, 0o755, 0, 0)
        self.both(request, lambda: self.model.make(parent, name, Kind.DIRECTORY))

    @rule(parent=PLACES, name=NAMES)
    def symlink(self, parent, name):
        parent = self.directory(parent)

        def make():
            number = self.model.make(parent, name, Kind.SYMLINK)
            self.model.nodes[number].size = 6

        self.both(MakeSymlink(parent, name, b"target", 0, 0), make)

    @rule(inode=PLACES, parent=PLACES, name=NAMES)
    def link(self, inode, parent, name):
        inode = self.any(inode)
        parent = self.directory(parent)
        self.both(Link(inode, parent, name), lambda: self.model.link(inode, parent, name))

    @rule(parent=PLACES, name=NAMES)
    def unlink(self, parent, name):
        parent = self.directory(parent)
        _, number = self.both(Unlink(parent, name), lambda: self.model.unlink(parent, name))
        if number:
            orphaned = [] if self.model.nodes[number].parents else [Orphaned(number)]
            assert self.cluster.effects == orphaned

    @rule(parent=PLACES, name=NAMES)
    def rmdir(self, parent, name):
        parent = self.directory(parent)
        request = RemoveDirectory(parent, name)
        _, number = self.both(request, lambda: self.model.rmdir(parent, name))
        if number:
            assert self.cluster.effects == [Orphaned(number)]

    @rule(
        parent=PLACES,
        name=NAMES,
        new_parent=PLACES,
        new_name=NAMES,
        flags=st.sampled_from([0, 0, 1, 2]),
    )
    def rename(self, parent, name, new_parent, new_name, flags):
        parent = self.directory(parent)
        new_parent = self.directory(new_parent)
        request = Rename(parent, name, new_parent, new_name, flags)
        self.both(request, lambda: self.model.rename(parent, name, new_parent, new_name, flags))

    @rule(inode=PLACES, name=NAMES, value=st.binary(max_size=3), flags=st.sampled_from([0, 1, 2]))
    def set_xattr(self, inode, name, value, flags):
        inode = self.any(inode)

        def put():
            xattrs = self.model.node(inode).xattrs
            if flags == 1 and name in xattrs:
                raise RefusedError(Code.EXISTS)
            if flags == 2 and name not in xattrs:
                raise RefusedError(Code.NO_ATTRIBUTE)
            xattrs[name] = value

        self.both(SetXattr(inode, b"trusted." + name, value, flags), put)

    @rule(inode=PLACES, name=NAMES)
    def remove_xattr(self, inode, name):
        inode = self.any(inode)

        def remove():
            if self.model.node(inode).xattrs.pop(name, None) is None:
                raise RefusedError(Code.NO_ATTRIBUTE)

        self.both(RemoveXattr(inode, b"trusted." + name), remove)


class BytesMachine(Pair):
    """Everything that changes what is in a few files."""

    @initialize(chunked=st.booleans())
    def grow(self, chunked):
        """A small file, and one with two chunks."""
        for name in (b"a", b"b"):
            self.both(
                Create(1, name, Kind.FILE, 0o644, 0, 0, 0, True, False),
                lambda name=name: self.model.make(1, name, Kind.FILE),
            )
        for index in range(2 if chunked else 0):
            base = 0 if index else 1
            self.handle += 1
            self._commit(3, index, self.handle, 1, 2 * CHUNK_BYTES, base)

    @rule(name=NAMES)
    def unlink_and_create(self, name):
        self.both(Unlink(1, name), lambda: self.model.unlink(1, name))
        self.both(
            Create(1, name, Kind.FILE, 0o644, 0, 0, 0, True, False),
            lambda: self.model.make(1, name, Kind.FILE),
        )

    @rule(inode=PLACES)
    def commit_overwritten(self, inode):
        inode = self.file(inode)
        request = Commit(inode, 0, None, [], [], 0, True)
        self.both(request, lambda: self.model.overwritten(inode))

    @rule(inode=PLACES, size=SIZES)
    def truncate(self, inode, size):
        inode = self.file(inode)
        self.both(SetAttributes(inode, size=size), lambda: self.model.resize(inode, size))

    @rule(inode=PLACES, offset=st.integers(0, 12) | st.just(8190), content=st.binary(min_size=1))
    def patch(self, inode, offset, content):
        inode = self.file(inode)
        content = content[:5]
        request = Commit(inode, 0, None, [Patch(offset, len(content))], [], 0, False)
        self.both(request, lambda: self.model.patch(inode, offset, content), content)

    @rule(
        inode=PLACES,
        index=st.integers(0, 3),
        end=st.integers(1, 9),
        how=st.sampled_from(["fresh", "own", "own", "dropped", "any"]),
        base=st.sampled_from(["right", "right", "none", "old"]),
        data=st.data(),
    )
    def commit(self, inode, index, end, how, base, data):
        inode = self.file(inode)
        node = self.model.nodes.get(inode)
        handle, version = self._handle(node, index, how, data)
        bases = {"right": 0, "none": 0, "old": 1}
        if node is not None and not node.chunks:
            bases["right"] = node.data_versions
        size = index * CHUNK_BYTES + end - 1
        self._commit(inode, index, handle, version, size, bases[base])

    def _commit(self, inode, index, handle, version, size, base):
        written = [NewChunk(index, handle, version)]
        self.both(
            Commit(inode, size, None, [], written, base, False),
            lambda: self.model.commit(inode, index, handle, version, size, base),
        )

    def _handle(self, node, index, how, data):
        """A chunk to commit: fresh, the file's own, one that was truncated away, or just any."""
        versions = st.integers(max(1, self.version - 1), self.version)
        if node is not None and how == "own" and index in node.chunks:
            return node.chunks[index].handle, data.draw(versions, "version")
        if node is not None and how == "dropped" and index in node.dropped:
            return node.dropped[index], data.draw(versions, "version")
        if self.handle and how == "any":
            return data.draw(st.integers(1, self.handle), "handle"), self.version
        self.handle += 1
        return self.handle, self.version

    @rule(data=st.data())
    def cut_tail(self, data):
        chunks = [chunk for node in self.model.nodes.values() for chunk in node.chunks.values()]
        handle = data.draw(st.sampled_from([chunk.handle for chunk in chunks] or [77]))
        self.cluster.do(CutTail(handle))
        self.model.cut_tail(handle)

    @rule(data=st.data(), cutting=st.booleans())
    def grant(self, data, cutting):
        chunks = [chunk for node in self.model.nodes.values() for chunk in node.chunks.values()]
        if not chunks:
            return
        chunk = data.draw(st.sampled_from(chunks))
        self.version += 1
        cut = chunk.cut if cutting else -1
        self.cluster.do(GrantChunk(chunk.handle, self.version, cut))
        chunk.version = self.version
        if chunk.cut >= 0 and not cutting:
            chunk.tainted = self.version
        else:
            chunk.cut = -1


def run(machine, new_cluster):
    machine.new_cluster = new_cluster
    wanted = settings(max_examples=100, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(machine, settings=wanted)


def test_names(new_cluster):
    run(NamesMachine, new_cluster)


def test_bytes(new_cluster):
    run(BytesMachine, new_cluster)
