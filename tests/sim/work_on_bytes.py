"""Operations on the bytes of files."""

from collections.abc import Awaitable, Callable

from tidefs.client.fuse.driver import NewAttributes
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import TideError
from tidefs.fs.limits import CHUNK_BYTES

from .file_model import FileModel
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

    # --- holes and copies ----------------------------------------------------------------------

    async def _punch(self) -> None:
        await self._make_hole(extend=False)

    async def _zero(self) -> None:
        await self._make_hole(extend=True)

    async def _make_hole(self, *, extend: bool) -> None:
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        model = handle.node.file
        if model.sizes is not None or model.unsettled:
            return
        offset = self._offset(handle.node)
        reach = self._random.choice((self._taste.write_max_bytes, 3 * CHUNK_BYTES))
        length = self._random.randint(1, reach)
        end = offset + length if extend else min(offset + length, model.size)
        if offset < end:
            model.write(offset, bytes(end - offset))
        handle.node.mtime_ns = None
        await self._data_step(
            f"{'zero' if extend else 'punch'} #{handle.node.inode} {offset}+{length}",
            handle,
            lambda: handle.file.make_hole(offset, length, extend=extend),
        )

    async def _seek(self) -> None:
        """What is said to be a hole has to be zeros."""
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        model = handle.node.file
        if model.sizes is not None or model.unsettled or not model.size:
            return
        offset = self._random.randrange(model.size)

        def see(file: FileModel, at: int | None) -> str | None:
            end = file.size if at is None else at
            if not offset <= end <= file.size:
                return f"data at {end}, the size is {file.size}"
            return file.see_bytes(offset, end - offset, bytes(end - offset))

        await self._step(
            f"seek #{handle.node.inode} {offset}",
            lambda _: model,
            lambda: handle.file.next_data(offset),
            see,
            data=True,
        )

    async def _copy(self) -> None:
        """From a file that nothing can happen to any more, at borders of chunks."""
        sources = [handle for handle in self.handles if handle.node.file.all_synced()]
        if not sources:
            return
        source, target = self._random.choice(sources), self._random.choice(self.handles)
        size = source.node.file.size
        offset = self._random.randint(0, size // CHUNK_BYTES) * CHUNK_BYTES
        to = self._random.randint(0, 2) * CHUNK_BYTES
        length = min(size - offset, self._random.choice((size, CHUNK_BYTES)))
        if length <= 0 or (source.node is target.node and abs(offset - to) < length):
            return
        data = source.node.file.expected(offset, length)
        target.node.mtime_ns = None
        target.node.file.write(to, data)
        await self._data_step(
            f"copy #{source.node.inode} {offset}+{length} to #{target.node.inode} {to}",
            target,
            lambda: source.file.copy_to(offset, target.file, to, data),
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
