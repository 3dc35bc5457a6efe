"""The state machine against a model: a tree of dicts, moved by the same random operations.

The model says what POSIX says, in the plainest way; the state must answer with the same success
or the same error, and look the same after every step.
"""

from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CHUNK_BYTES, INLINE_MAX_BYTES
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
    RenameFlags,
    SetAttributes,
    SetXattr,
    Unlink,
)
from tidefs.metaserver.check import check
from tidefs.metaserver.effects import ChunksDropped, Orphaned
from tidefs.metaserver.entries import GrantChunk, Reap, ReserveHandles

NAMES = st.sampled_from([b"a", b"b", b"c"])
PLACES = st.integers(0, 99)
"""Which inode: see Machine.some."""
SIZES = st.integers(0, 12) | st.sampled_from(
    [8191, 8192, 8193, CHUNK_BYTES, CHUNK_BYTES + 7, 2 * CHUNK_BYTES - 1, 3 * CHUNK_BYTES]
)


class RefusedError(Exception):
    """The model's errors."""

    def __init__(self, code):
        self.code = code


class Node:
    """An inode of the model."""

    def __init__(self, kind):
        self.kind = kind
        self.entries = {}  # name -> inode number, in order of creation
        self.parents = []  # (directory, name) of each of its names
        self.size = 0
        self.content = b""  # of an inline file, without the zeros at its end
        self.chunks = {}  # index -> Chunk
        self.dropped = {}  # index -> handle
        self.xattrs = {}
        self.data_versions = 1


class Chunk:
    def __init__(self, handle, version):
        self.handle = handle
        self.version = version
        self.cut = -1
        self.tainted = 0  # what was written up to this version may have been cut off


class Model:
    """The tree."""

    def __init__(self):
        self.nodes = {1: Node(Kind.DIRECTORY)}
        self.next_inode = 2

    def node(self, number):
        if number not in self.nodes:
            raise RefusedError(Code.STALE_HANDLE)
        return self.nodes[number]

    def directory(self, number):
        node = self.node(number)
        if node.kind is not Kind.DIRECTORY:
            raise RefusedError(Code.NOT_A_DIRECTORY)
        if number != 1 and not node.parents:
            raise RefusedError(Code.NO_ENTRY)
        return node

    def entry(self, directory, name):
        if name not in directory.entries:
            raise RefusedError(Code.NO_ENTRY)
        number = directory.entries[name]
        return number, self.nodes[number]

    def file(self, number):
        node = self.node(number)
        if node.kind is Kind.DIRECTORY:
            raise RefusedError(Code.IS_A_DIRECTORY)
        if node.kind is not Kind.FILE:
            raise RefusedError(Code.INVALID)
        return node

    def links(self, number):
        node = self.nodes[number]
        if node.kind is not Kind.DIRECTORY:
            return len(node.parents)
        if number != 1 and not node.parents:
            return 0
        below = [self.nodes[entry].kind for entry in node.entries.values()]
        return 2 + below.count(Kind.DIRECTORY)

    # --- the operations

    def make(self, parent, name, kind):
        directory = self.directory(parent)
        if name in directory.entries:
            raise RefusedError(Code.EXISTS)
        number = self.next_inode
        self.next_inode += 1
        self.nodes[number] = Node(kind)
        self._enter(parent, name, number)
        return number

    def open_or_make(self, parent, name):
        directory = self.directory(parent)
        if name not in directory.entries:
            return self.make(parent, name, Kind.FILE)
        kind = self.nodes[directory.entries[name]].kind
        if kind is Kind.DIRECTORY:
            raise RefusedError(Code.IS_A_DIRECTORY)
        if kind is not Kind.FILE:
            raise RefusedError(Code.EXISTS)
        return directory.entries[name]

    def link(self, number, parent, name):
        node = self.node(number)
        if node.kind is Kind.DIRECTORY:
            raise RefusedError(Code.NOT_PERMITTED)
        if not node.parents:
            raise RefusedError(Code.NO_ENTRY)
        if name in self.directory(parent).entries:
            raise RefusedError(Code.EXISTS)
        self._enter(parent, name, number)

    def unlink(self, parent, name):
        number, node = self.entry(self.directory(parent), name)
        if node.kind is Kind.DIRECTORY:
            raise RefusedError(Code.IS_A_DIRECTORY)
        self._leave(parent, name)
        return number

    def rmdir(self, parent, name):
        number, node = self.entry(self.directory(parent), name)
        if node.kind is not Kind.DIRECTORY:
            raise RefusedError(Code.NOT_A_DIRECTORY)
        if node.entries:
            raise RefusedError(Code.NOT_EMPTY)
        self._leave(parent, name)
        return number

    def rename(self, parent, name, new_parent, new_name, flags):
        old, new = self.directory(parent), self.directory(new_parent)
        moved, node = self.entry(old, name)
        if flags == RenameFlags.NOREPLACE and new_name in new.entries:
            raise RefusedError(Code.EXISTS)
        if flags == RenameFlags.EXCHANGE:
            self.entry(new, new_name)
        there = new.entries.get(new_name)
        if there == moved:
            return
        self._refuse_below(moved, new_parent)
        if flags == RenameFlags.EXCHANGE:
            self._refuse_below(there, parent)
            self._change(parent, name, there)
            self._change(new_parent, new_name, moved)
            return
        if there is None:
            self._leave(parent, name)
            self._enter(new_parent, new_name, moved)
            return
        other = self.nodes[there]
        if node.kind is not Kind.DIRECTORY and other.kind is Kind.DIRECTORY:
            raise RefusedError(Code.IS_A_DIRECTORY)
        if node.kind is Kind.DIRECTORY and other.kind is not Kind.DIRECTORY:
            raise RefusedError(Code.NOT_A_DIRECTORY)
        if other.entries:
            raise RefusedError(Code.NOT_EMPTY)
        self._leave(parent, name)
        self._change(new_parent, new_name, moved)

    def resize(self, number, size):
        node = self.file(number)
        if size < node.size:
            node.content = node.content[:size].rstrip(b"\0")
            for index in [index for index in node.chunks if index * CHUNK_BYTES >= size]:
                node.dropped[index] = node.chunks.pop(index).handle
            middle = node.chunks.get(size // CHUNK_BYTES)
            if middle is not None and size % CHUNK_BYTES:
                cuts = [size % CHUNK_BYTES, middle.cut]
                middle.cut = min(cut for cut in cuts if cut >= 0)
                middle.tainted = middle.version
        if size != node.size:
            node.data_versions += 1
        node.size = size

    def patch(self, number, offset, content):
        node = self.file(number)
        if node.chunks or offset + len(content) > INLINE_MAX_BYTES:
            raise RefusedError(Code.LAYOUT_CHANGED)
        old = node.content.ljust(offset + len(content), b"\0")
        new = old[:offset] + content + old[offset + len(content) :]
        node.content = new.rstrip(b"\0")
        node.size = max(node.size, offset + len(content))
        node.data_versions += 1

    def commit(self, number, index, handle, version, size, base):
        node = self.file(number)
        size = max(size, node.size)
        if not node.chunks and base != node.data_versions:
            raise RefusedError(Code.LAYOUT_CHANGED)
        if node.chunks and base and index == 0 and 0 not in node.chunks:
            raise RefusedError(Code.LAYOUT_CHANGED)
        if index * CHUNK_BYTES >= size:
            raise RefusedError(Code.LAYOUT_CHANGED)
        for other_number, other in self.nodes.items():
            for other_index, chunk in other.chunks.items():
                if chunk.handle == handle and (other_number, other_index) != (number, index):
                    raise RefusedError(Code.INVALID)
        chunk = node.chunks.get(index)
        if chunk is None:
            if handle <= node.dropped.get(index, 0):
                raise RefusedError(Code.LAYOUT_CHANGED)
            node.dropped.pop(index, None)
            node.chunks[index] = Chunk(handle, version)
            node.content = b""
        elif chunk.handle != handle or version <= chunk.tainted:
            raise RefusedError(Code.LAYOUT_CHANGED)
        node.size = size
        node.data_versions += 1

    def _enter(self, parent, name, number):
        self.nodes[parent].entries[name] = number
        self.nodes[number].parents.append((parent, name))

    def _leave(self, parent, name):
        number = self.nodes[parent].entries.pop(name)
        self.nodes[number].parents.remove((parent, name))

    def _change(self, parent, name, number):
        """Another inode under a name that keeps its place in the listing."""
        old = self.nodes[parent].entries[name]
        self.nodes[parent].entries[name] = number
        self.nodes[old].parents.remove((parent, name))
        for place in list(self.nodes[number].parents):
            if self.nodes[place[0]].entries.get(place[1]) != number:
                self.nodes[number].parents.remove(place)
        self.nodes[number].parents.append((parent, name))

    def _refuse_below(self, moved, number):
        while True:
            if number == moved and self.nodes[moved].kind is Kind.DIRECTORY:
                raise RefusedError(Code.INVALID)
            if number == 1:
                return
            number = self.nodes[number].parents[0][0]


class Machine(RuleBasedStateMachine):
    """The state and the model, side by side."""

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

    # --- names

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

    # --- attributes

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

        self.both(SetXattr(inode, name, value, flags), put)

    @rule(inode=PLACES, name=NAMES)
    def remove_xattr(self, inode, name):
        inode = self.any(inode)

        def remove():
            if self.model.node(inode).xattrs.pop(name, None) is None:
                raise RefusedError(Code.NO_ATTRIBUTE)

        self.both(RemoveXattr(inode, name), remove)

    @rule(inode=PLACES, size=SIZES)
    def truncate(self, inode, size):
        inode = self.file(inode)
        self.both(SetAttributes(inode, size=size), lambda: self.model.resize(inode, size))

    # --- content

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
        written = [NewChunk(index, handle, version)]
        self.both(
            Commit(inode, size, None, [], written, bases[base], False),
            lambda: self.model.commit(inode, index, handle, version, size, bases[base]),
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
            assert state.xattr_names(number) == sorted(node.xattrs)
            for name, value in node.xattrs.items():
                assert state.xattr(number, name) == value
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


def test_the_state_is_the_model(new_cluster):
    Machine.new_cluster = new_cluster
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=150, stateful_step_count=60, deadline=None)
    )
