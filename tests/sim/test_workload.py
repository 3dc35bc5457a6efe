"""The workload against the kernel's own file system: the model must agree with a real one."""

import ctypes
import os
import random
import stat
from collections.abc import Iterable

import pytest
from tidefs.client.fuse.driver import (
    Caller,
    FileSystem,
    Known,
    NewAttributes,
    Opened,
    OpenedDirectory,
)
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import TABLE, TideError
from tidefs.fs.messages.meta import DirectoryEntry
from tidefs.tests.sim import determinism
from tidefs.tests.sim.conditions import Conditions, ViolationError
from tidefs.tests.sim.taste import Taste
from tidefs.tests.sim.trace import Trace
from tidefs.tests.sim.user import User
from tidefs.tests.sim.workload import Worker

KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
}
CODES = {row.errno: code for code, row in reversed(TABLE.items())}
LIBC = ctypes.CDLL(None, use_errno=True)


def translated(method):
    def call(*arguments):
        try:
            return method(*arguments)
        except OSError as error:
            raise TideError(CODES[error.errno], str(error)) from None

    return call


class LocalFileSystem:
    """A local folder with the face of a vfs. Inodes stay open, so their numbers stay theirs."""

    def __init__(self, folder: str) -> None:
        self._held = {1: os.open(folder, os.O_PATH)}
        self._root_inode = os.fstat(self._held[1]).st_ino
        self._listed: dict[int, int] = {}

    def _path(self, inode: int) -> str:
        return f"/proc/self/fd/{self._held[inode]}"

    def _known(self, parent: int, name: bytes) -> Known:
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._held[parent])
        number = os.fstat(held).st_ino
        if number in self._held:
            os.close(held)
        else:
            self._held[number] = held
        return self.getattr(number, None)

    def forget(self, inodes: Iterable[tuple[int, int]]) -> None:
        """Nothing to do: all are held to the end."""

    @translated
    def lookup(self, parent, name):
        return self._known(parent, name)

    @translated
    def getattr(self, inode, handle):
        seen = os.fstat(self._held[inode])
        kind = KINDS[stat.S_IFMT(seen.st_mode)]
        size = len(os.listdir(self._path(inode))) if kind is Kind.DIRECTORY else seen.st_size
        attributes = Attributes(
            inode=1 if seen.st_ino == self._root_inode else seen.st_ino,
            kind=kind,
            mode=stat.S_IMODE(seen.st_mode),
            links=seen.st_nlink,
            uid=seen.st_uid,
            gid=seen.st_gid,
            device=seen.st_rdev,
            size=size,
            stored_bytes=0,
            atime_ns=seen.st_atime_ns,
            mtime_ns=seen.st_mtime_ns,
            ctime_ns=seen.st_ctime_ns,
            change=0,
            data_version=0,
        )
        return Known(attributes, 0, 0)

    @translated
    def setattr(self, inode, new: NewAttributes, handle):
        if new.size is not None:
            os.truncate(self._path(inode), new.size)
        if new.mode is not None:
            os.chmod(self._path(inode), new.mode)
        if new.mtime_ns is not None:
            os.utime(self._path(inode), ns=(0, new.mtime_ns))
        return self.getattr(inode, handle)

    @translated
    def readlink(self, inode):
        return os.fsencode(os.readlink("", dir_fd=self._held[inode]))

    @translated
    def mknod(self, parent, name, kind, mode, device, caller: Caller):
        bits = {Kind.FIFO: stat.S_IFIFO, Kind.SOCKET: stat.S_IFSOCK}[kind]
        os.mknod(name, bits | mode, dir_fd=self._held[parent])
        return self._known(parent, name)

    @translated
    def mkdir(self, parent, name, mode, caller: Caller):
        os.mkdir(name, mode, dir_fd=self._held[parent])
        return self._known(parent, name)

    @translated
    def symlink(self, parent, name, target, caller: Caller):
        os.symlink(target, name, dir_fd=self._held[parent])
        return self._known(parent, name)

    @translated
    def link(self, inode, parent, name):
        held = self._held[inode]
        if LIBC.linkat(held, b"", self._held[parent], name, 0x1000):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return self._known(parent, name)

    @translated
    def unlink(self, parent, name):
        os.unlink(name, dir_fd=self._held[parent])

    @translated
    def rmdir(self, parent, name):
        os.rmdir(name, dir_fd=self._held[parent])

    @translated
    def rename(self, parent, name, new_parent, new_name, flags):
        if LIBC.renameat2(self._held[parent], name, self._held[new_parent], new_name, int(flags)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    @translated
    def open(self, inode, flags):
        return Opened(os.open(self._path(inode), flags), False, False)

    @translated
    def create(self, parent, name, mode, flags, caller: Caller):
        handle = os.open(name, flags, mode, dir_fd=self._held[parent])
        return self._known(parent, name), Opened(handle, False, False)

    @translated
    def read(self, handle, offset, length):
        return os.pread(handle, length, offset)

    @translated
    def write(self, handle, offset, data):
        return os.pwrite(handle, data, offset)

    @translated
    def fallocate(self, handle, mode, offset, length):
        if LIBC.fallocate64(handle, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    @translated
    def lseek(self, handle, offset, whence):
        return os.lseek(handle, offset, whence)

    @translated
    def copy_file_range(self, source, source_offset, target, target_offset, length):
        return os.copy_file_range(source, target, length, source_offset, target_offset)

    def flush(self, handle):
        """Nothing is kept back."""

    @translated
    def release(self, handle):
        os.close(handle)

    @translated
    def fsync(self, handle, data_only):
        """Taken for granted."""

    @translated
    def opendir(self, inode):
        self._listed[len(self._listed) + 1] = inode
        return OpenedDirectory(len(self._listed), keep_listing=False, cache_listing=False)

    @translated
    def readdir(self, handle, cookie):
        inode = self._listed[handle]
        names = sorted(os.listdir(os.fsencode(self._path(inode))))
        return [
            (DirectoryEntry(name=name, cookie=at, attributes=known.attributes), known)
            for at, name in list(enumerate(names, 1))[cookie : cookie + 3]
            for known in [self._known(inode, name)]
        ]

    def releasedir(self, handle):
        """Nothing is held."""

    @translated
    def setxattr(self, inode, name, value, flags):
        os.setxattr(self._path(inode), name, value, flags)

    @translated
    def getxattr(self, inode, name):
        return os.getxattr(self._path(inode), name)

    @translated
    def listxattr(self, inode):
        return sorted(os.fsencode(name) for name in os.listxattr(self._path(inode)))

    @translated
    def removexattr(self, inode, name):
        os.removexattr(self._path(inode), name)


@pytest.fixture
def vfs(tmp_path) -> FileSystem:
    before = os.umask(0)
    tmp_path.chmod(0o755)
    yield LocalFileSystem(str(tmp_path))
    os.umask(before)


def worker(seed: int) -> Worker:
    made = Worker("w", (), Taste.draw(random.Random(seed)), Conditions(), Trace())
    made.seed(str(seed))
    return made


@pytest.mark.parametrize("seed", range(12))
def test_the_model_agrees_with_the_kernels_own_file_system(vfs, seed):
    async def main() -> None:
        one = worker(seed)
        await one.attach(User(vfs, ()))
        await one.work(400)
        await one.finish()
        await one.check_all(User(vfs, ()))

    determinism.run(main, seed)


def test_a_file_system_that_forgets_a_rename_is_caught(vfs):
    vfs.rename = lambda *arguments: None

    async def main() -> None:
        one = worker(3)
        await one.attach(User(vfs, ()))
        await one.work(400)
        await one.finish()
        await one.check_all(User(vfs, ()))

    with pytest.raises(ViolationError):
        determinism.run(main, 3)
