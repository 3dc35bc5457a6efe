"""The model tree: what a correct file system would answer to each operation. Pure.

One client (or one task of it) owns a tree, so the answers are exact. Paths are tuples of names
below the tree's root. Failures are TideErrors with the code that the real one must give.
"""

from dataclasses import dataclass, field
from typing import NoReturn

from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.meta import RenameFlags, XattrFlags

from .file_model import FileModel

Path = tuple[bytes, ...]


@dataclass(eq=False)
class Node:
    """One inode. ``inode`` is learned at the first look and must then stay the same."""

    kind: Kind
    mode: int
    links: int = 1
    names: dict[bytes, "Node"] = field(default_factory=dict)
    target: bytes = b""
    file: FileModel = field(default_factory=FileModel)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    mtime_ns: int | None = None  # when it was set and nothing was written since
    inode: int | None = None

    def see(self, seen: Attributes) -> str | None:
        """What is wrong with these attributes, if anything."""
        if self.inode is None:
            self.inode = seen.inode
        for what, wanted, got in (
            ("inode", self.inode, seen.inode),
            ("kind", self.kind, seen.kind),
            ("mode", self.mode, seen.mode),
            ("links", self.expected_links(), seen.links),
            ("mtime_ns", self.mtime_ns or seen.mtime_ns, seen.mtime_ns),
        ):
            if wanted != got:
                return f"{what} is {got}, expected {wanted}"
        if self.kind is Kind.FILE:
            return self.file.see_size(seen.size)
        if self.kind is Kind.DIRECTORY and seen.size != len(self.names):
            return f"the directory's size is {seen.size}, expected {len(self.names)}"
        return None

    def expected_links(self) -> int:
        if self.kind is Kind.DIRECTORY:
            below = sum(node.kind is Kind.DIRECTORY for node in self.names.values())
            return 2 + below if self.links else 0
        return self.links


class Tree:
    """A directory and all below it."""

    def __init__(self, mode: int = 0o755) -> None:
        self.root = Node(Kind.DIRECTORY, mode)

    # --- looking -------------------------------------------------------------------------------

    def find(self, path: Path) -> Node:
        """NO_ENTRY, NOT_A_DIRECTORY."""
        node = self.root
        for name in path:
            if node.kind is not Kind.DIRECTORY:
                _fail(Code.NOT_A_DIRECTORY, path)
            if name not in node.names:
                _fail(Code.NO_ENTRY, path)
            node = node.names[name]
        return node

    def paths(self) -> list[tuple[Path, Node]]:
        """Everything below the root, parents first, in order of names."""
        found: list[tuple[Path, Node]] = []
        todo: list[tuple[Path, Node]] = [((), self.root)]
        while todo:
            path, node = todo.pop()
            for name in sorted(node.names):
                below = ((*path, name), node.names[name])
                found.append(below)
                todo.append(below)
        return found

    # --- changing ------------------------------------------------------------------------------

    def make(self, path: Path, node: Node) -> Node:
        """A new name for a new node. EXISTS."""
        parent = self._parent(path)
        if path[-1] in parent.names:
            _fail(Code.EXISTS, path)
        parent.names[path[-1]] = node
        _touch(parent)
        return node

    def link(self, path: Path, new_path: Path) -> None:
        """NOT_PERMITTED for directories."""
        node = self.find(path)
        parent = self._parent(new_path)
        if new_path[-1] in parent.names:
            _fail(Code.EXISTS, new_path)
        if node.kind is Kind.DIRECTORY:
            _fail(Code.NOT_PERMITTED, path)
        parent.names[new_path[-1]] = node
        node.links += 1
        _touch(parent)

    def unlink(self, path: Path) -> None:
        """IS_A_DIRECTORY."""
        node = self.find(path)
        if node.kind is Kind.DIRECTORY:
            _fail(Code.IS_A_DIRECTORY, path)
        self._take_out(path)

    def rmdir(self, path: Path) -> None:
        """NOT_A_DIRECTORY, NOT_EMPTY."""
        node = self.find(path)
        if node.kind is not Kind.DIRECTORY:
            _fail(Code.NOT_A_DIRECTORY, path)
        if node.names:
            _fail(Code.NOT_EMPTY, path)
        self._take_out(path)

    def rename(self, path: Path, new_path: Path, flags: int) -> None:
        """rename(2); EXISTS with NOREPLACE, NO_ENTRY with EXCHANGE of something missing."""
        parent, new_parent = self._parent(path), self._parent(new_path)
        node = self.find(path)
        there = new_parent.names.get(new_path[-1])
        if flags & RenameFlags.NOREPLACE and there is not None:
            _fail(Code.EXISTS, new_path)
        if flags & RenameFlags.EXCHANGE and there is None:
            _fail(Code.NO_ENTRY, new_path)
        if path == new_path[: len(path)] and path != new_path:
            _fail(Code.INVALID, new_path)
        if new_path == path[: len(new_path)] and path != new_path:
            _fail(Code.INVALID if flags & RenameFlags.EXCHANGE else Code.NOT_EMPTY, new_path)
        if there is node:
            return
        if flags & RenameFlags.EXCHANGE:
            assert there is not None
            parent.names[path[-1]], new_parent.names[new_path[-1]] = there, node
        else:
            if there is not None:
                _check_replaceable(node, there, new_path)
                self._take_out(new_path)
            del parent.names[path[-1]]
            new_parent.names[new_path[-1]] = node
        _touch(parent)
        _touch(new_parent)

    def set_xattr(self, path: Path, name: bytes, value: bytes, flags: int) -> None:
        """EXISTS with CREATE, NO_ATTRIBUTE with REPLACE."""
        node = self.find(path)
        if flags & XattrFlags.CREATE and name in node.xattrs:
            _fail(Code.EXISTS, path)
        if flags & XattrFlags.REPLACE and name not in node.xattrs:
            _fail(Code.NO_ATTRIBUTE, path)
        node.xattrs[name] = value

    def get_xattr(self, path: Path, name: bytes) -> bytes:
        """NO_ATTRIBUTE."""
        node = self.find(path)
        if name not in node.xattrs:
            _fail(Code.NO_ATTRIBUTE, path)
        return node.xattrs[name]

    def remove_xattr(self, path: Path, name: bytes) -> None:
        """NO_ATTRIBUTE."""
        self.get_xattr(path, name)
        del self.find(path).xattrs[name]

    # --- accidents -----------------------------------------------------------------------------

    def files(self) -> list[FileModel]:
        """Every file's bytes, hard links once."""
        found = {id(node): node.file for _, node in self.paths() if node.kind is Kind.FILE}
        return list(found.values())

    def _parent(self, path: Path) -> Node:
        parent = self.find(path[:-1])
        if parent.kind is not Kind.DIRECTORY:
            _fail(Code.NOT_A_DIRECTORY, path)
        return parent

    def _take_out(self, path: Path) -> None:
        parent = self._parent(path)
        node = parent.names.pop(path[-1])
        node.links -= 1
        _touch(parent)


def _check_replaceable(node: Node, there: Node, path: Path) -> None:
    if node.kind is Kind.DIRECTORY and there.kind is not Kind.DIRECTORY:
        _fail(Code.NOT_A_DIRECTORY, path)
    if node.kind is not Kind.DIRECTORY and there.kind is Kind.DIRECTORY:
        _fail(Code.IS_A_DIRECTORY, path)
    if there.names:
        _fail(Code.NOT_EMPTY, path)


def _touch(parent: Node) -> None:
    parent.mtime_ns = None


def _fail(code: Code, path: Path) -> NoReturn:
    raise TideError(code, (b"/" + b"/".join(path)).decode("utf-8", "backslashreplace"))
