"""A file system as a tree of dicts: what POSIX says, in the plainest way."""

from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code
from tidefs.fs.limits import CHUNK_BYTES, INLINE_MAX_BYTES
from tidefs.fs.messages.meta import RenameFlags


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
            self.cut(node, size)
        if size > node.size:
            self.cut(node, node.size)
        if size != node.size:
            node.data_versions += 1
        node.size = size

    def cut(self, node, size):
        """What lies in the middle chunk behind ``size`` is to go."""
        middle = node.chunks.get(size // CHUNK_BYTES)
        if middle is not None and size % CHUNK_BYTES:
            cuts = [size % CHUNK_BYTES, middle.cut]
            middle.cut = min(cut for cut in cuts if cut >= 0)
            middle.tainted = middle.version

    def cut_tail(self, handle):
        for node in self.nodes.values():
            for index, chunk in node.chunks.items():
                if chunk.handle == handle and node.size // CHUNK_BYTES == index:
                    self.cut(node, node.size)

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
        if size > node.size and node.size // CHUNK_BYTES != index:
            self.cut(node, node.size)
        node.size = size
        node.data_versions += 1

    def overwritten(self, number):
        node = self.file(number)
        if not node.chunks:
            raise RefusedError(Code.LAYOUT_CHANGED)
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
