"""What an application and the kernel do with a mount, in terms of the vfs: paths, open files.

Each call walks from the root by lookups, as a kernel without a name cache would, and remembers its
lookup counts so that it can forget inodes as the kernel does under memory pressure.
"""

import os
from collections.abc import Awaitable
from typing import TypeVar

from tidefs.client.fuse.driver import Caller, FileSystem, Known, LockRange, NewAttributes
from tidefs.client.soon import Soon
from tidefs.client.vfs_ranges import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.ids import ROOT
from tidefs.fs.messages.meta import DirectoryEntry

from .model import Path

T = TypeVar("T")

FIRST_OPEN_FILE = 1 << 32
"""Owners of locks are numbers; those of open files and those of processes are different ones."""

CALLER = Caller(uid=1000, gid=1000, pid=7, umask=0)


async def settled(answer: Soon[T]) -> T:
    """The answer, waited for when it has to be."""
    return await answer if isinstance(answer, Awaitable) else answer


class OpenFile:
    """An open file of a user."""

    def __init__(self, vfs: FileSystem, inode: int, handle: int) -> None:
        self._vfs = vfs
        self.inode = inode
        self.handle = handle
        self._number = FIRST_OPEN_FILE + handle
        self._process: int | None = None

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(await settled(self._vfs.read(self.handle, offset, length)))

    async def write(self, offset: int, data: bytes) -> None:
        count = await settled(self._vfs.write(self.handle, offset, data))
        assert count == len(data), f"write took {count} of {len(data)} bytes"

    async def fsync(self) -> None:
        await settled(self._vfs.fsync(self.handle, False))

    async def attributes(self) -> Attributes:
        return (await settled(self._vfs.getattr(self.inode, self.handle))).attributes

    async def truncate(self, size: int) -> Attributes:
        new = NewAttributes(size=size)
        return (await settled(self._vfs.setattr(self.inode, new, self.handle))).attributes

    async def make_hole(self, offset: int, length: int, *, extend: bool) -> None:
        """fallocate(2): with PUNCH_HOLE, or with ZERO_RANGE, which may extend the file."""
        mode = ZERO_RANGE if extend else PUNCH_HOLE | KEEP_SIZE
        await settled(self._vfs.fallocate(self.handle, mode, offset, length))

    async def next_data(self, offset: int) -> int | None:
        """lseek(2) with SEEK_DATA; None when there is none."""
        try:
            return await settled(self._vfs.lseek(self.handle, offset, os.SEEK_DATA))
        except TideError as error:
            if error.code is not Code.NO_SUCH_POSITION:
                raise
            return None

    async def copy_to(self, offset: int, target: "OpenFile", to: int, data: bytes) -> None:
        """copy_file_range(2), until it is done. As the kernel does, what the file system does not
        copy is read and written; ``data`` is known to be there."""
        copied = 0
        try:
            while copied < len(data):
                count = await settled(
                    self._vfs.copy_file_range(
                        self.handle,
                        offset + copied,
                        target.handle,
                        to + copied,
                        len(data) - copied,
                    )
                )
                assert count > 0, "less was copied than is there"
                copied += count
        except TideError as error:
            if error.code is not Code.NOT_SUPPORTED:
                raise
            await target.write(to + copied, data[copied:])

    async def close(self) -> None:
        """close(2) and the last reference: flush tells the error, release always follows."""
        owners = () if self._process is None else (self._process,)
        try:
            await settled(self._vfs.flush(self.handle, *owners))
        finally:
            await settled(self._vfs.release(self.handle, *owners and (self._number,)))

    # --- locks ---------------------------------------------------------------------------------

    def owner(self, process: int, *, flock: bool) -> int:
        """Who locks, as the kernel numbers it: a process with fcntl(2), else this open file. From
        now on it is closed by that process."""
        self._process = process
        return self._number if flock else process

    async def lock(self, process: int, lock: LockRange, *, wait: bool, flock: bool) -> None:
        """F_SETLK, F_SETLKW, LOCK_SH, LOCK_EX."""
        owner = self.owner(process, flock=flock)
        await settled(self._vfs.setlk(self.handle, owner, lock, wait=wait, flock=flock))

    async def unlock(self, process: int, start: int, end: int, *, flock: bool) -> None:
        """F_UNLCK, LOCK_UN."""
        owner = self.owner(process, flock=flock)
        await settled(self._vfs.unlock(self.handle, owner, start, end, flock=flock))

    async def in_the_way(self, process: int, lock: LockRange) -> LockRange | None:
        """F_GETLK."""
        return await settled(self._vfs.getlk(self.handle, process, lock))

    async def fence(self) -> int:
        """The newest token of this mount's locks on the file."""
        return int(await settled(self._vfs.getxattr(self.inode, b"user.tidefs.fence")))


class User:
    """One application on one mount, below one directory."""

    def __init__(self, vfs: FileSystem, base: Path) -> None:
        self.vfs = vfs
        self._base = base
        self._looked_up: dict[int, int] = {}

    # --- walking -------------------------------------------------------------------------------

    async def look(self, path: Path) -> Attributes:
        """lstat(2)."""
        return (await self._walk(path)).attributes

    async def _walk(self, path: Path) -> Known:
        path = self._base + path
        known = await settled(self.vfs.getattr(ROOT, None))
        for name in path:
            if known.attributes.kind is not Kind.DIRECTORY:
                raise TideError(Code.NOT_A_DIRECTORY, repr(path))
            known = self._count(await settled(self.vfs.lookup(known.attributes.inode, name)))
        return known

    async def _parent(self, path: Path) -> int:
        known = await self._walk(path[:-1])
        if known.attributes.kind is not Kind.DIRECTORY:
            raise TideError(Code.NOT_A_DIRECTORY, repr(path))
        return known.attributes.inode

    def _count(self, known: Known) -> Known:
        inode = known.attributes.inode
        self._looked_up[inode] = self._looked_up.get(inode, 0) + 1
        return known

    def forget(self) -> None:
        """As the kernel does when it wants its memory back: give up everything looked up."""
        counts, self._looked_up = self._looked_up, {}
        self.vfs.forget(counts.items())

    # --- names ---------------------------------------------------------------------------------

    async def mkdir(self, path: Path, mode: int) -> Attributes:
        parent = await self._parent(path)
        made = await settled(self.vfs.mkdir(parent, path[-1], mode, CALLER))
        return self._count(made).attributes

    async def mknod(self, path: Path, kind: Kind, mode: int) -> Attributes:
        parent = await self._parent(path)
        made = await settled(self.vfs.mknod(parent, path[-1], kind, mode, 0, CALLER))
        return self._count(made).attributes

    async def symlink(self, path: Path, target: bytes) -> Attributes:
        parent = await self._parent(path)
        made = await settled(self.vfs.symlink(parent, path[-1], target, CALLER))
        return self._count(made).attributes

    async def readlink(self, path: Path) -> bytes:
        return await settled(self.vfs.readlink((await self.look(path)).inode))

    async def link(self, path: Path, new_path: Path) -> Attributes:
        return await self.link_inode((await self.look(path)).inode, new_path)

    async def link_inode(self, inode: int, new_path: Path) -> Attributes:
        """The second half of link(2): what has the name was looked up before."""
        parent = await self._parent(new_path)
        return self._count(await settled(self.vfs.link(inode, parent, new_path[-1]))).attributes

    async def unlink(self, path: Path) -> None:
        await settled(self.vfs.unlink(await self._parent(path), path[-1]))

    async def rmdir(self, path: Path) -> None:
        await settled(self.vfs.rmdir(await self._parent(path), path[-1]))

    async def rename(self, path: Path, new_path: Path, flags: int) -> None:
        parent, new_parent = await self._parent(path), await self._parent(new_path)
        await settled(self.vfs.rename(parent, path[-1], new_parent, new_path[-1], flags))

    async def entries(self, path: Path) -> list[DirectoryEntry]:
        """All entries of a directory, to the end."""
        known = await self._walk(path)
        handle = (await settled(self.vfs.opendir(known.attributes.inode))).handle
        found: list[DirectoryEntry] = []
        try:
            while piece := await settled(
                self.vfs.readdir(handle, found[-1].cookie if found else 0)
            ):
                found += [entry for entry, _ in piece]
        finally:
            self.vfs.releasedir(handle)
        return found

    # --- attributes ----------------------------------------------------------------------------

    async def change(self, path: Path, new: NewAttributes) -> Attributes:
        """chmod(2), utimensat(2), truncate(2)."""
        inode = (await self.look(path)).inode
        return (await settled(self.vfs.setattr(inode, new, None))).attributes

    async def set_xattr(self, path: Path, name: bytes, value: bytes, flags: int) -> None:
        await settled(self.vfs.setxattr((await self.look(path)).inode, name, value, flags))

    async def get_xattr(self, path: Path, name: bytes) -> bytes:
        return await settled(self.vfs.getxattr((await self.look(path)).inode, name))

    async def list_xattrs(self, path: Path) -> list[bytes]:
        return await settled(self.vfs.listxattr((await self.look(path)).inode))

    async def remove_xattr(self, path: Path, name: bytes) -> None:
        await settled(self.vfs.removexattr((await self.look(path)).inode, name))

    # --- files ---------------------------------------------------------------------------------

    async def create(self, path: Path, mode: int, caller: Caller = CALLER) -> OpenFile:
        """open(2) with O_CREAT, O_EXCL and O_RDWR."""
        parent = await self._parent(path)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
        known, opened = await settled(self.vfs.create(parent, path[-1], mode, flags, caller))
        return OpenFile(self.vfs, self._count(known).attributes.inode, opened.handle)

    async def open(self, path: Path, flags: int = os.O_RDWR) -> OpenFile:
        """open(2)."""
        attributes = await self.look(path)
        opened = await settled(self.vfs.open(attributes.inode, flags))
        return OpenFile(self.vfs, attributes.inode, opened.handle)

    async def read_all(self, path: Path) -> tuple[Attributes, bytes]:
        """Open, read to the end, close; with the attributes as seen through the open file."""
        file = await self.open(path)
        try:
            attributes = await file.attributes()
            return attributes, await file.read(0, attributes.size)
        finally:
            await file.close()


def as_text(path: Path) -> str:
    """For traces: a path like an ``ls`` shows it."""
    return "/" + "/".join(name.decode("utf-8", "backslashreplace") for name in path)
