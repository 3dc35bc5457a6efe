"""The driver interface implemented as briefly as can be, in memory."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import trio
from tidefs.client.counters import Counters
from tidefs.client.fuse.driver import (
    Caller,
    Known,
    LockRange,
    NewAttributes,
    Opened,
    OpenedDirectory,
    Soon,
)
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.codec import Buffer
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages.meta import DirectoryEntry, RenameFlags, Space
from tidefs.tests.mount.memory_locks import Held, MemoryLocks

# fallocate(2)
KEEP_SIZE = 1
PUNCH_HOLE = 2
HOLE_BYTES = 4096
"""So many zeros, aligned, are a hole: for SEEK_DATA and SEEK_HOLE."""


class Node:
    """One inode in memory."""

    def __init__(self, inode: int, kind: Kind, mode: int, caller: Caller, device: int = 0) -> None:
        self.inode = inode
        self.kind = kind
        self.mode = mode
        self.links = 1
        self.uid = caller.uid
        self.gid = caller.gid
        self.device = device
        self.times = {"atime_ns": 0, "mtime_ns": 0, "ctime_ns": 0}
        self.data = bytearray()
        self.target = b""
        self.xattrs: dict[bytes, bytes] = {}
        self.names: dict[bytes, tuple[int, Node]] = {}  # cookie, node
        self.parent = self

    def kill_privileges(self) -> None:
        self.mode &= ~0o6000

    def attributes(self) -> Attributes:
        return Attributes(
            self.inode, self.kind, self.mode, self.links, self.uid, self.gid, self.device,
            len(self.data), 1 << 26 if self.data else 0, **self.times, change=1, data_version=1,
        )  # fmt: skip


class MemoryFileSystem:
    """Implements ``FileSystem`` as briefly as can be. ``answer`` makes answers late if asked to."""

    def __init__(self, trust_ms: int = 0) -> None:
        self.trust_ms = trust_ms
        self.counters = Counters()
        self.nodes: dict[int, Node] = {}
        self.handles: dict[int, Node] = {}
        self.counter = 0
        self.cookies = 0
        self.forgotten: Counter[int] = Counter()
        self.looked_up: Counter[int] = Counter()
        self.locks = MemoryLocks()
        self.calls: list[str] = []
        self.released = 0
        self.callers: list[Caller] = []
        self.root = self.new(Kind.DIRECTORY, 0o755, Caller(0, 0, 0, 0))
        self.direct_io = False
        self.asked: list[NewAttributes] = []
        self.appended: list[bool | None] = []

    def new(self, kind: Kind, mode: int, caller: Caller, device: int = 0) -> Node:
        self.counter += 1
        node = self.nodes[self.counter] = Node(self.counter, kind, mode, caller, device)
        return node

    def known(self, node: Node) -> Known:
        return Known(node.attributes(), self.trust_ms, self.trust_ms)

    def entry(self, node: Node) -> Known:
        """An answer for which the kernel counts a lookup."""
        self.looked_up[node.inode] += 1
        return self.known(node)

    def child(self, parent: int, name: bytes) -> Node:
        if name == b"boom":
            raise ZeroDivisionError("a bug")
        if name.startswith(b"error-"):
            raise TideError(Code[name[6:].decode()], "asked for")
        if len(name) > 255:  # the kernel's own limit for FUSE is higher
            raise TideError(Code.NAME_TOO_LONG, repr(name))
        node = self.nodes[parent]
        if name == b"..":
            return node.parent
        if name not in node.names:
            raise TideError(Code.NO_ENTRY, repr(name))
        return node.names[name][1]

    def put(self, parent: int, name: bytes, node: Node) -> Known:
        if name in self.nodes[parent].names:
            raise TideError(Code.EXISTS, repr(name))
        self.cookies += 1
        self.nodes[parent].names[name] = (self.cookies, node)
        if node.kind is Kind.DIRECTORY:
            node.parent = self.nodes[parent]
        return self.entry(node)

    def lookup(self, parent: int, name: bytes) -> Known:
        if name == b".":
            if parent not in self.nodes:
                raise TideError(Code.STALE_HANDLE, str(parent))
            return self.entry(self.nodes[parent])
        return self.entry(self.child(parent, name))

    def forget(self, inodes: Iterable[tuple[int, int]]) -> None:
        for inode, count in inodes:
            self.forgotten[inode] += count

    def getattr(self, inode: int, handle: int | None) -> Known:
        self.calls.append(f"getattr {inode}")
        return self.known(self.nodes[inode])

    def setattr(self, inode: int, new: NewAttributes, handle: int | None) -> Known:
        node = self.nodes[inode]
        self.asked.append(new)
        assert (new.mode or 0) <= 0o7777
        if new.kill_privileges:
            node.kill_privileges()
        if new.size is not None:
            node.data = node.data[: new.size].ljust(new.size, b"\0")
        for field in ("mode", "uid", "gid"):
            if getattr(new, field) is not None:
                setattr(node, field, getattr(new, field))
        for field in ("atime_ns", "mtime_ns"):
            if getattr(new, field) is not None:
                node.times[field] = getattr(new, field)
        return self.known(node)

    def readlink(self, inode: int) -> bytes:
        return self.nodes[inode].target

    def mknod(
        self, parent: int, name: bytes, kind: Kind, mode: int, device: int, caller: Caller
    ) -> Known:
        self.callers.append(caller)
        return self.put(parent, name, self.new(kind, mode & ~caller.umask, caller, device))

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Known:
        return self.put(parent, name, self.new(Kind.DIRECTORY, mode & ~caller.umask, caller))

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Known:
        node = self.new(Kind.SYMLINK, 0o777, caller)
        node.target = target
        return self.put(parent, name, node)

    def link(self, inode: int, parent: int, name: bytes) -> Known:
        self.nodes[inode].links += 1
        return self.put(parent, name, self.nodes[inode])

    def unlink(self, parent: int, name: bytes) -> None:
        self.child(parent, name).links -= 1
        del self.nodes[parent].names[name]

    def rmdir(self, parent: int, name: bytes) -> None:
        if self.child(parent, name).names:
            raise TideError(Code.NOT_EMPTY, repr(name))
        self.unlink(parent, name)

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        if flags not in (0, RenameFlags.NOREPLACE, RenameFlags.EXCHANGE):
            raise TideError(Code.INVALID, f"rename flags {flags}")
        moved = self.child(parent, name)
        there = self.nodes[new_parent].names.get(new_name)
        if flags & RenameFlags.NOREPLACE and there:
            raise TideError(Code.EXISTS, repr(new_name))
        if flags & RenameFlags.EXCHANGE:
            other = self.child(new_parent, new_name)
            del self.nodes[parent].names[name]
            self.put(parent, name, other)
            self.looked_up[other.inode] -= 1
        else:
            self.unlink(parent, name)
            moved.links += 1
        self.nodes[new_parent].names.pop(new_name, None)
        self.put(new_parent, new_name, moved)
        self.looked_up[moved.inode] -= 1

    def handle_of(self, node: Node) -> int:
        self.counter += 1
        self.handles[self.counter] = node
        return self.counter

    def open(self, inode: int, flags: int, *, kill_privileges: bool = False) -> Opened:
        node = self.nodes[inode]
        if kill_privileges:
            node.kill_privileges()
        if flags & os.O_TRUNC:
            node.data.clear()
        return Opened(self.handle_of(self.nodes[inode]), False, self.direct_io)

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Known, Opened]:
        if name in self.nodes[parent].names:  # another one was faster
            known = self.lookup(parent, name)
        else:
            known = self.mknod(parent, name, Kind.FILE, mode, 0, caller)
        return known, self.open(known.attributes.inode, flags)

    def tmpfile(self, parent: int, mode: int, flags: int, caller: Caller) -> tuple[Known, Opened]:
        node = self.new(Kind.FILE, mode & ~caller.umask, caller)
        node.links = 0
        return self.entry(node), self.open(node.inode, flags)

    def read(self, handle: int, offset: int, length: int) -> memoryview:
        return memoryview(bytes(self.handles[handle].data))[offset : offset + length]

    def write(
        self,
        handle: int,
        offset: int,
        data: Buffer,
        *,
        kill_privileges: bool = False,
        append: bool | None = None,
    ) -> int:
        node = self.handles[handle]
        self.appended.append(append)
        if kill_privileges:
            node.kill_privileges()
        old = node.data
        if append:
            offset = len(old)
        if len(old) < offset:
            old.extend(bytes(offset - len(old)))
        old[offset : offset + len(data)] = data
        return len(data)

    def untold(self, handle: int) -> None:
        self.calls.append("untold")

    def flush(self, handle: int, owner: int | None = None) -> None:
        self.calls.append("flush")
        if owner is not None:
            self.unlock(handle, owner, 0, LOCK_END, flock=False)

    def release(self, handle: int, owner: int | None = None) -> None:
        self.released += 1
        if owner is not None:
            self.unlock(handle, owner, 0, LOCK_END, flock=True)
        del self.handles[handle]

    def fsync(self, handle: int, data_only: bool) -> None:
        self.calls.append(f"fsync {data_only}")

    # --- ranges

    def fallocate(self, handle: int, mode: int, offset: int, length: int) -> None:
        if mode not in (0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE):
            raise TideError(Code.NOT_SUPPORTED, f"fallocate mode {mode}")
        data = self.handles[handle].data
        end = offset + length
        if mode & PUNCH_HOLE:
            data[offset:end] = bytes(len(data[offset:end]))
        elif mode == 0 and end > len(data):
            data.extend(bytes(end - len(data)))

    def lseek(self, handle: int, offset: int, whence: int) -> int:
        data = self.handles[handle].data
        if offset >= len(data):
            raise TideError(Code.NO_SUCH_POSITION, str(offset))
        while offset < len(data):
            there = bytes(data[offset - offset % HOLE_BYTES :][:HOLE_BYTES])
            if (there.count(0) == len(there)) == (whence == os.SEEK_HOLE):
                return offset
            offset += HOLE_BYTES - offset % HOLE_BYTES
        if whence == os.SEEK_HOLE:
            return len(data)
        raise TideError(Code.NO_SUCH_POSITION, str(offset))

    def copy_file_range(
        self, source: int, source_offset: int, target: int, target_offset: int, length: int
    ) -> int:
        self.calls.append("copy_file_range")
        return self.write(target, target_offset, self.read(source, source_offset, length))

    # --- locks

    def getlk(self, handle: int, owner: int, lock: LockRange) -> LockRange | None:
        return self.locks.conflict(Held(self.handles[handle].inode, False, owner, lock))

    def setlk(
        self, handle: int, owner: int, lock: LockRange, *, wait: bool, flock: bool
    ) -> Soon[None]:
        wanted = Held(self.handles[handle].inode, flock, owner, lock)
        if self.locks.take(wanted):
            return None
        if not wait:
            raise self.locks.refuse()
        return self.locks.wait(wanted)

    def unlock(self, handle: int, owner: int, start: int, end: int, *, flock: bool) -> None:
        gone = LockRange(False, start, end, 0)
        self.locks.give_back(Held(self.handles[handle].inode, flock, owner, gone))

    # --- directories

    def opendir(self, inode: int) -> OpenedDirectory:
        handle = self.handle_of(self.nodes[inode])
        return OpenedDirectory(handle, keep_listing=False, cache_listing=False)

    def readdir(self, handle: int, cookie: int) -> Iterator[tuple[DirectoryEntry, Known]]:
        behind = sorted(
            (at, name, node) for name, (at, node) in self.handles[handle].names.items()
            if at > cookie
        )  # fmt: skip
        return (
            (DirectoryEntry(name, at, node.attributes()), self.known(node))
            for at, name, node in behind[:1000]
        )

    def releasedir(self, handle: int) -> None:
        del self.handles[handle]

    def fsyncdir(self, handle: int) -> None:
        self.calls.append("fsyncdir")

    def statfs(self) -> Space:
        return Space(1 << 40, 1 << 39, 17)

    def setxattr(
        self, inode: int, name: bytes, value: bytes, flags: int, *, kill_set_group_id: bool = False
    ) -> None:
        there = name in self.nodes[inode].xattrs
        if flags & os.XATTR_CREATE and there:
            raise TideError(Code.EXISTS, repr(name))
        if flags & os.XATTR_REPLACE and not there:
            raise TideError(Code.NO_ATTRIBUTE, repr(name))
        if kill_set_group_id:
            self.nodes[inode].mode &= ~0o2000
        self.nodes[inode].xattrs[name] = value

    def getxattr(self, inode: int, name: bytes) -> bytes:
        if name not in self.nodes[inode].xattrs:
            raise TideError(Code.NO_ATTRIBUTE, repr(name))
        return self.nodes[inode].xattrs[name]

    def listxattr(self, inode: int) -> list[bytes]:
        return sorted(self.nodes[inode].xattrs)

    def removexattr(self, inode: int, name: bytes) -> None:
        self.getxattr(inode, name)
        del self.nodes[inode].xattrs[name]


class Late:
    """The same file system, each answer an awaitable that really suspends."""

    AT_ONCE = ("counters", "forget", "releasedir")

    def __init__(self, inner: MemoryFileSystem) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name in self.AT_ONCE:
            return method

        async def later(*arguments: Any, **more: Any) -> Any:
            await trio.lowlevel.checkpoint()
            answer = method(*arguments, **more)
            return await answer if hasattr(answer, "__await__") else answer

        return later
