"""Operations on the bytes of files."""

from collections.abc import Awaitable, Callable

from tidefs.client.fuse.driver import NewAttributes
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import TideError
from tidefs.fs.limits import CHUNK_BYTES

from .model import Node, Tree
from .user import as_text
from .work_on_names import OPEN_MAX
from .worker import Handle, Work, node_at


class WorkOnBytes(Work):
    """The part of an application that reads and writes."""

    # --- bytes ---------------------------------------------------------------------------------

    async def _open(self) -> None:
        path = self._some(Kind.FILE)
        node = node_at(self.tree, path)
        if len(self.handles) >= OPEN_MAX or (node is not None and node.kind is not Kind.FILE):
            return
        done = await self._step(
            f"open {as_text(path)}", lambda tree: tree.find(path), lambda: self.user.open(path)
        )
        if done is not None:
            found, file = done
            found.mtime_ns = None
            self.handles.append(Handle(file, found))

    async def _write(self) -> None:
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        offset = self._offset(handle.node)
        data = self._random.randbytes(self._random.randint(1, self._taste.write_max_bytes))
        handle.node.mtime_ns = None
        handle.node.file.write(offset, data)
        await self._data_step(
            f"write #{handle.node.inode} {offset}+{len(data)}",
            handle,
            lambda: handle.file.write(offset, data),
        )

    async def _read(self) -> None:
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        offset = self._offset(handle.node)
        length = self._random.randint(1, 2 * self._taste.write_max_bytes)
        await self._step(
            f"read #{handle.node.inode} {offset}+{length}",
            lambda _: handle.node.file,
            lambda: handle.file.read(offset, length),
            lambda file, data: file.see_bytes(offset, length, data),
            data=True,
        )

    async def _truncate(self) -> None:
        path = self._some(Kind.FILE)
        node = node_at(self.tree, path)
        if node is not None and node.kind is not Kind.FILE:
            return
        size = self._offset(node) if node is not None else 0

        def change(tree: Tree) -> Node:
            node = tree.find(path)
            node.file.cut(size)
            node.mtime_ns = None
            return node

        await self._step(
            f"truncate {as_text(path)} {size}",
            change,
            lambda: self.user.change(path, NewAttributes(size=size)),
            Node.see,
            data=True,
        )

    async def _fsync(self) -> None:
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        if await self._data_step(f"fsync #{handle.node.inode}", handle, handle.file.fsync):
            handle.node.file.synced()

    async def _close(self) -> None:
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        done = await self._data_step(f"close #{handle.node.inode}", handle, handle.file.close)
        self.handles.remove(handle)
        if done:
            handle.node.file.published()
        if not any(other.node is handle.node for other in self.handles):
            handle.node.file.let_go()

    async def _data_step(
        self, text: str, handle: Handle, ask: Callable[[], Awaitable[None]]
    ) -> bool:
        """As ``_step``, for what has no other error than an accident's; whether it succeeded."""
        self._begin(text)
        try:
            await ask()
        except TideError as error:
            self._trace.note("answer", f"{self.name} {error.code.name}")
            if not self._conditions.excuse(error.code, data=True):
                self._fail(f"{text} failed with {error!r}")
            handle.node.file.failed()
            return False
        self._trace.note("answer", f"{self.name} ok")
        return True

    def _offset(self, node: Node) -> int:
        """Somewhere in the file, at its end, behind it, or around the border of a chunk."""
        size = node.file.size
        reach = self._taste.write_max_bytes
        if self._taste.far_offsets and self._random.random() < 0.2:
            return CHUNK_BYTES - self._random.randint(1, min(reach, CHUNK_BYTES))
        return self._random.choice(
            (0, self._random.randint(0, size), size, size + self._random.randint(0, reach))
        )
