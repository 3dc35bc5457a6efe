"""Operations on names and attributes."""

from tidefs.client.fuse.driver import NewAttributes
from tidefs.fs.attributes import Kind
from tidefs.fs.messages.meta import RenameFlags, XattrFlags

from .model import Node, Tree
from .user import as_text
from .worker import NAMES, Handle, Work, node_at, same

OPEN_MAX = 4


class WorkOnNames(Work):
    """The part of an application that makes, moves and removes names."""

    # --- names ---------------------------------------------------------------------------------

    async def _create(self) -> None:
        if self._full() or len(self.handles) >= OPEN_MAX:
            return
        path, mode = self._fresh(), self._random.choice((0o600, 0o644, 0o755))
        done = await self._step(
            f"create {as_text(path)}",
            lambda tree: tree.make(path, Node(Kind.FILE, mode)),
            lambda: self.user.create(path, mode),
        )
        if done is not None:
            node, file = done
            node.inode = file.inode
            self.handles.append(Handle(file, node))

    async def _mkdir(self) -> None:
        if self._full():
            return
        path, mode = self._fresh(), self._random.choice((0o700, 0o755))
        await self._step(
            f"mkdir {as_text(path)}",
            lambda tree: tree.make(path, Node(Kind.DIRECTORY, mode)),
            lambda: self.user.mkdir(path, mode),
            Node.see,
        )

    async def _mknod(self) -> None:
        if self._full():
            return
        path = self._fresh()
        kind = self._random.choice((Kind.FIFO, Kind.SOCKET))
        await self._step(
            f"mknod {as_text(path)}",
            lambda tree: tree.make(path, Node(kind, 0o644)),
            lambda: self.user.mknod(path, kind, 0o644),
            Node.see,
        )

    async def _symlink(self) -> None:
        if self._full():
            return
        path, target = self._fresh(), b"to/" + self._random.choice(NAMES)
        await self._step(
            f"symlink {as_text(path)}",
            lambda tree: tree.make(path, Node(Kind.SYMLINK, 0o777, target=target)),
            lambda: self.user.symlink(path, target),
            Node.see,
        )

    async def _readlink(self) -> None:
        path = self._some(Kind.SYMLINK)
        node = node_at(self.tree, path)
        if node is not None and node.kind is not Kind.SYMLINK:
            return
        await self._step(
            f"readlink {as_text(path)}",
            lambda tree: tree.find(path).target,
            lambda: self.user.readlink(path),
            same,
        )

    async def _link(self) -> None:
        path, new_path = self._some(), self._fresh()
        node = node_at(self.tree, path)
        if node is not None and node.kind is Kind.DIRECTORY and node_at(self.tree, new_path):
            return  # two reasons to refuse: the kernel looks at the name first
        await self._step(
            f"link {as_text(path)} {as_text(new_path)}",
            lambda tree: tree.link(path, new_path),
            lambda: self.user.link(path, new_path),
        )

    async def _unlink(self) -> None:
        path = self._some(Kind.FILE, Kind.SYMLINK, Kind.FIFO, Kind.SOCKET)
        await self._step(
            f"unlink {as_text(path)}",
            lambda tree: tree.unlink(path),
            lambda: self.user.unlink(path),
        )

    async def _rmdir(self) -> None:
        path = self._some(Kind.DIRECTORY)
        await self._step(
            f"rmdir {as_text(path)}",
            lambda tree: tree.rmdir(path),
            lambda: self.user.rmdir(path),
        )

    async def _rename(self) -> None:
        path = self._some()
        new_path = self._some() if self._random.random() < 0.3 else self._fresh()
        flags = self._random.choice(
            (RenameFlags.NONE, RenameFlags.NONE, RenameFlags.NOREPLACE, RenameFlags.EXCHANGE)
        )
        node = node_at(self.tree, path)
        upwards = new_path == path[: len(new_path)] and new_path != path
        if upwards and node is not None and node.kind is not Kind.DIRECTORY:
            return  # two reasons to refuse: the kernel has its own first
        await self._step(
            f"rename {as_text(path)} {as_text(new_path)} {flags.name}",
            lambda tree: tree.rename(path, new_path, flags),
            lambda: self.user.rename(path, new_path, flags),
        )

    async def _list(self) -> None:
        path = self._some(Kind.DIRECTORY)
        node = node_at(self.tree, path)
        if node is not None and node.kind is not Kind.DIRECTORY:
            return
        await self._step(
            f"list {as_text(path)}",
            lambda tree: sorted(tree.find(path).names),
            lambda: self.user.entries(path),
            lambda names, entries: same(names, sorted(entry.name for entry in entries)),
        )

    # --- attributes ----------------------------------------------------------------------------

    async def _stat(self) -> None:
        path = self._some()
        await self._step(
            f"stat {as_text(path)}",
            lambda tree: tree.find(path),
            lambda: self.user.look(path),
            Node.see,
        )

    async def _chmod(self) -> None:
        path, mode = self._some(Kind.FILE, Kind.DIRECTORY), self._random.choice((0o640, 0o711))
        node = node_at(self.tree, path)
        if node is not None and node.kind is Kind.SYMLINK:
            return

        def change(tree: Tree) -> Node:
            node = tree.find(path)
            node.mode = mode
            return node

        await self._step(
            f"chmod {as_text(path)} {mode:o}",
            change,
            lambda: self.user.change(path, NewAttributes(mode=mode)),
            Node.see,
        )

    async def _utime(self) -> None:
        path, mtime_ns = self._some(), self._random.randrange(10**18)
        node = node_at(self.tree, path)
        if any(handle.node is node for handle in self.handles):
            return  # its bytes may still be on their way, with a time of their own

        def change(tree: Tree) -> Node:
            node = tree.find(path)
            node.mtime_ns = mtime_ns
            return node

        await self._step(
            f"utime {as_text(path)} {mtime_ns}",
            change,
            lambda: self.user.change(path, NewAttributes(mtime_ns=mtime_ns)),
            Node.see,
        )

    async def _set_xattr(self) -> None:
        path = self._some_with_xattrs()
        name = b"user." + self._random.choice(NAMES[:3])
        value = self._random.randbytes(self._random.choice((0, 10, 300)))
        flags = self._random.choice((*XattrFlags, XattrFlags.NONE, XattrFlags.NONE))
        await self._step(
            f"set_xattr {as_text(path)} {name.decode()} {flags.name}",
            lambda tree: tree.set_xattr(path, name, value, flags),
            lambda: self.user.set_xattr(path, name, value, flags),
        )

    async def _get_xattr(self) -> None:
        path = self._some_with_xattrs()
        name = b"user." + self._random.choice(NAMES[:3])
        await self._step(
            f"get_xattr {as_text(path)} {name.decode()}",
            lambda tree: tree.get_xattr(path, name),
            lambda: self.user.get_xattr(path, name),
            same,
        )

    async def _list_xattrs(self) -> None:
        path = self._some_with_xattrs()
        await self._step(
            f"list_xattrs {as_text(path)}",
            lambda tree: sorted(tree.find(path).xattrs),
            lambda: self.user.list_xattrs(path),
            same,
        )

    async def _remove_xattr(self) -> None:
        path = self._some_with_xattrs()
        name = b"user." + self._random.choice(NAMES[:3])
        await self._step(
            f"remove_xattr {as_text(path)} {name.decode()}",
            lambda tree: tree.remove_xattr(path, name),
            lambda: self.user.remove_xattr(path, name),
        )

    async def _forget(self) -> None:
        self._trace.note("op", f"{self.name} forget")
        self.user.forget()
