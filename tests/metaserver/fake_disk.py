"""A disk in memory that forgets what was not synced, and can be full or broken."""

from collections.abc import Sequence

import trio
from tidefs.fs.codec import Buffer
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import MIB
from tidefs.fs.ports.disk import DiskSpace


class _Node:
    def __init__(self, path: str):
        self.path = path
        self.data = bytearray()
        self.synced = b""


class FakeDisk:
    """Names below one folder. ``capacity_bytes`` can be lowered at any time."""

    def __init__(self, capacity_bytes: int = 1 << 40):
        self.capacity_bytes = capacity_bytes
        self.files: dict[str, _Node] = {}
        self.folders: set[str] = {""}
        self.durable: dict[str, _Node] = {}
        self.boot = "boot-1"
        self.syncs: list[str] = []
        self.sync_gate: trio.Event | None = None
        """While set and not set off: syncs wait for it."""
        self.on_sync = lambda path: None
        self.reserved_bytes = 0
        """Of somebody else's."""

    # --- the port

    def open(self, path: str, *, create: bool = False) -> "FakeFile":
        if path not in self.files:
            if not create:
                raise TideError(Code.NO_ENTRY, path)
            self.files[path] = _Node(path)
        return FakeFile(self, self.files[path])

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.folders

    def names(self, path: str) -> list[str]:
        prefix = path + "/" if path else ""
        below = [p for p in [*self.files, *self.folders] if p.startswith(prefix) and p != path]
        return sorted({p[len(prefix) :].split("/")[0] for p in below} - {""})

    def make_folder(self, path: str) -> None:
        parts = path.split("/")
        self.folders.update("/".join(parts[: i + 1]) for i in range(len(parts)))

    def rename(self, path: str, new_path: str) -> None:
        moved = {p: n for p, n in self.files.items() if p == path or p.startswith(path + "/")}
        for p in moved:
            del self.files[p]
        for p, node in moved.items():
            node.path = new_path + p[len(path) :]
            self.files[node.path] = node
        if path in self.folders:
            self.folders.discard(path)
            self.folders.add(new_path)

    def remove(self, path: str) -> None:
        for p in [p for p in self.files if p == path or p.startswith(path + "/")]:
            del self.files[p]
        self.folders -= {p for p in self.folders if p == path or p.startswith(path + "/")}

    async def sync_folder(self, path: str) -> None:
        await trio.lowlevel.checkpoint()
        inside = path + "/" if path else ""
        for p in [p for p in self.durable if p.startswith(inside) and p not in self.files]:
            del self.durable[p]
        for p, node in self.files.items():
            if p.startswith(inside):
                self.durable[p] = node

    def space(self) -> DiskSpace:
        return DiskSpace(self.capacity_bytes, max(0, self.capacity_bytes - self.used_bytes))

    def boot_id(self) -> str:
        return self.boot

    # --- for tests

    @property
    def used_bytes(self) -> int:
        return self.reserved_bytes + sum(len(node.data) for node in self.files.values())

    def crash(self) -> "FakeDisk":
        """What a machine finds after it lost power."""
        after = FakeDisk(self.capacity_bytes)
        after.boot = self.boot + "+"
        after.folders = set(self.folders)
        for path, node in self.durable.items():
            copy = after.files[path] = after.durable[path] = _Node(path)
            copy.data = bytearray(node.synced)
            copy.synced = node.synced
        return after

    def kill(self) -> "FakeDisk":
        """What the next process finds when this one was killed."""
        after = FakeDisk(self.capacity_bytes)
        after.boot = self.boot
        after.folders = set(self.folders)
        for path, node in self.files.items():
            copy = after.files[path] = _Node(path)
            copy.data = bytearray(node.data)
            copy.synced = node.synced
        after.durable = {p: after.files[p] for p in self.durable if p in after.files}
        return after

    def grow(self, node: _Node, length: int) -> None:
        if length > len(node.data):
            if self.used_bytes + length - len(node.data) > self.capacity_bytes:
                raise TideError(Code.NO_SPACE, "the fake disk is full")
            node.data.extend(bytes(length - len(node.data)))


class FakeFile:
    def __init__(self, disk: FakeDisk, node: _Node):
        self._disk = disk
        self._node = node

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        return bytes(self._node.data[offset : offset + length])

    async def read(self, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(self._node.data[offset : offset + length])

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(bytes(buffer) for buffer in buffers)
        self._disk.grow(self._node, offset + len(data))
        self._node.data[offset : offset + len(data)] = data

    async def sync(self) -> None:
        self._disk.syncs.append(self._node.path)
        await trio.lowlevel.checkpoint()
        if self._disk.sync_gate is not None:
            await self._disk.sync_gate.wait()
        self._disk.on_sync(self._node.path)
        self._node.synced = bytes(self._node.data)

    def size(self) -> int:
        return len(self._node.data)

    def truncate(self, length: int) -> None:
        del self._node.data[length:]
        self._disk.grow(self._node, length)

    def allocate(self, offset: int, length: int) -> None:
        self._disk.grow(self._node, offset + length)

    def close(self) -> None:
        pass


SMALL_SEGMENT_BYTES = 4 * 1024
assert SMALL_SEGMENT_BYTES < MIB
