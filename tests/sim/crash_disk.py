"""A disk in memory that forgets: the disk port with a page cache, crashes, bit rot and full disks.

Faults it injects, and why each is one that a real disk has:

- ``crash``: the machine loses power. Of each 4 KiB page that was written and not synced, stable
  storage holds the old content, the new one, or a mixture of 512-byte sectors of both. A file
  whose size changed has the old size, the new one, or one in between. Of the names that were made,
  renamed or removed and whose folder was not synced, a prefix (in the order done) is there.
- ``kill``: only the process dies; the page cache stays. Files it had open cannot be used any more.
- ``die_after_writes``: the process dies in the middle of a write, of which a prefix is done. From
  then on whatever it does with the disk raises ``Died``, until ``kill``.
- ``flip_bit``: stable storage rots, and nobody is told.
- ``capacity_bytes``: the disk is full; a write that meets it leaves what still fitted.
- ``cold_percent``: so often a read must wait for the disk, whatever it held in memory before.
- ``failing``: paths whose sync fails with DEVICE_ERROR (what was dirty stays un-synced).

Never injected: a synced page that changes without ``flip_bit``, a sector that holds neither the
old nor the new bytes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import trio
from tidefs.fs.codec import Buffer
from tidefs.fs.errors import Code, TideError
from tidefs.fs.ports.disk import DiskSpace, File
from tidefs.fs.ports.randomness import Randomness

PAGE_BYTES = 4096
SECTOR_BYTES = 512
TOTAL_BYTES = 1 << 40


class Died(BaseException):
    """The process was killed in the middle of a write. Nothing may catch this but the test."""


class Inode:
    """One file's bytes: as the page cache has them, and as stable storage does."""

    def __init__(self) -> None:
        self.cache = bytearray()
        self.stable = bytearray()
        self.dirty: dict[int, int] = {}  # page -> number of its last write
        self.allocated: set[int] = set()
        self.writes = 0

    def touch(self, start: int, stop: int) -> None:
        """The bytes from ``start`` to ``stop`` differ from stable storage from now on."""
        self.writes += 1
        for page in range(start // PAGE_BYTES, -(-stop // PAGE_BYTES)):
            self.dirty[page] = self.writes

    def resize(self, length: int) -> None:
        """Set the size in the page cache; what is new reads as zeros."""
        old = len(self.cache)
        if length < old:
            self.touch(length, max(old, len(self.stable)))
            del self.cache[length:]
            last = -(-length // PAGE_BYTES)
            self.allocated = {page for page in self.allocated if page < last}
        else:
            self.cache.extend(bytes(length - old))

    def page(self, page: int) -> bytes:
        """A page of the cache, whole, with zeros behind the end."""
        return _page(self.cache, page)

    def commit(self, length: int, pages: dict[int, tuple[int, bytes]]) -> None:
        """``pages`` (number of the write, content) and the size are on stable storage now."""
        _resize(self.stable, length)
        for page, (write, content) in pages.items():
            _put(self.stable, page, content)
            if self.dirty.get(page) == write:
                del self.dirty[page]

    def crash(self, randomness: Randomness) -> None:
        """Settle on what stable storage holds after the power failed."""
        self.stable = self._survivor(randomness)
        self.cache = bytearray(self.stable)
        self.dirty.clear()
        self.allocated = set(range(-(-len(self.cache) // PAGE_BYTES)))

    def _survivor(self, randomness: Randomness) -> bytearray:
        old, new = len(self.stable), len(self.cache)
        length = old
        if old != new:
            between = min(old, new) + randomness.below(abs(old - new) + 1)
            length = (old, new, between)[randomness.below(3)]
        left = bytearray(self.stable)
        _resize(left, length)
        for page in sorted(self.dirty):
            fate = randomness.below(3)
            if fate == 1:
                _put(left, page, self.page(page))
            elif fate == 2:
                _put(left, page, _torn(_page(left, page), self.page(page), randomness))
        return left


class Change(NamedTuple):
    """A change of names that is not on stable storage: all of it, or nothing of it."""

    removed: str | None
    made: str | None
    inode: Inode | None  # None with ``made``: a folder, with ``removed`` also: one that was moved


class CrashFile:
    """An open file of a ``CrashDisk``."""

    def __init__(self, disk: "CrashDisk", path: str, inode: Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self._life = disk.lives
        self._open = True

    def _check(self) -> None:
        self._disk.check_alive()
        assert self._life == self._disk.lives, f"{self._path}: used after its process died"
        assert self._open, f"{self._path}: used after close"

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        self._check()
        if self._disk.cold():
            return None
        return bytes(self._inode.cache[offset : offset + length])

    async def read(self, offset: int, length: int) -> bytes:
        self._check()
        await self._disk.wait_for_device()
        self._check()
        return bytes(self._inode.cache[offset : offset + length])

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self._check()
        data = b"".join(bytes(buffer) for buffer in buffers)
        dying = self._disk.count_write()
        if dying is not None:
            data = data[: dying.below(len(data) + 1)]
        room = self._disk.take_room(self._inode, offset, len(data))
        kept = data[:room]
        if kept:
            end = offset + len(kept)
            if end > len(self._inode.cache):
                self._inode.resize(end)
            self._inode.cache[offset:end] = kept
            self._inode.touch(offset, end)
        if dying is not None:
            self._disk.dead = True
            raise Died
        if room < len(data):
            raise TideError(Code.NO_SPACE, f"writing {self._path}")

    async def sync(self) -> None:
        self._check()
        inode = self._inode
        length = len(inode.cache)
        pages = {page: (write, inode.page(page)) for page, write in inode.dirty.items()}
        await self._disk.wait_for_device()
        self._check()
        if self._path in self._disk.failing:
            raise TideError(Code.DEVICE_ERROR, f"syncing {self._path}")
        inode.commit(length, pages)

    def size(self) -> int:
        self._check()
        return len(self._inode.cache)

    def truncate(self, length: int) -> None:
        self._check()
        before = len(self._inode.allocated)
        self._inode.resize(length)
        self._disk.give_back(before - len(self._inode.allocated))

    def allocate(self, offset: int, length: int) -> None:
        self._check()
        if self._disk.take_room(self._inode, offset, length) < length:
            raise TideError(Code.NO_SPACE, f"allocating {self._path}")
        if offset + length > len(self._inode.cache):
            self._inode.resize(offset + length)

    def close(self) -> None:
        self._open = False


class CrashDisk:
    """The disk port in memory. ``randomness`` decides what is cold; a crash is given its own."""

    def __init__(
        self,
        randomness: Randomness,
        *,
        capacity_bytes: int = TOTAL_BYTES,
        cold_percent: int = 0,
        latency_s: float = 0.0,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.cold_percent = cold_percent
        self.latency_s = latency_s
        self.failing: set[str] = set()
        self.lives = 0
        self.dead = False
        self._randomness = randomness
        self._boots = 1
        self._files: dict[str, Inode] = {}
        self._folders: set[str] = {""}
        self._stable_files: dict[str, Inode] = {}
        self._stable_folders: set[str] = {""}
        self._changes: list[Change] = []
        self._used_bytes = 0
        self._writes_left: int | None = None
        self._dying = randomness

    # --- the port ----------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False) -> File:
        self.check_alive()
        inode = self._files.get(path)
        if path in self._folders:
            raise TideError(Code.IS_A_DIRECTORY, f"opening {path}")
        if inode is None:
            self._need_folder(path)
            if not create:
                raise TideError(Code.NO_ENTRY, f"opening {path}")
            inode = self._files[path] = Inode()
            self._changes.append(Change(None, path, inode))
        return CrashFile(self, path, inode)

    def exists(self, path: str) -> bool:
        return path in self._files or _plain(path) in self._folders

    def names(self, path: str) -> list[str]:
        folder = _plain(path)
        if folder not in self._folders:
            code = Code.NOT_A_DIRECTORY if folder in self._files else Code.NO_ENTRY
            raise TideError(code, f"listing {path}")
        below = [*self._files, *self._folders]
        return sorted(name.rpartition("/")[2] for name in below if name and _parent(name) == folder)

    def make_folder(self, path: str) -> None:
        folder = ""
        for name in _plain(path).split("/"):
            folder = f"{folder}/{name}" if folder else name
            if folder in self._files:
                raise TideError(Code.NOT_A_DIRECTORY, f"making the folder {folder}")
            if folder and folder not in self._folders:
                self._folders.add(folder)
                self._changes.append(Change(None, folder, None))

    def rename(self, path: str, new_path: str) -> None:
        self.check_alive()
        if path in self._folders:
            self._rename_folder(path, new_path)
            return
        if path not in self._files:
            raise TideError(Code.NO_ENTRY, f"renaming {path}")
        self._need_folder(new_path)
        replaced = self._files.get(new_path)
        if replaced is not None:
            self._used_bytes -= len(replaced.allocated) * PAGE_BYTES
        inode = self._files[new_path] = self._files.pop(path)
        self._changes.append(Change(path, new_path, inode))

    def _rename_folder(self, path: str, new_path: str) -> None:
        """What it holds goes with it, also what is not on stable storage."""
        assert not self.exists(new_path), f"{new_path} is in the way of {path}"
        self._need_folder(new_path)
        self._files = {_moved(name, path, new_path): inode for name, inode in self._files.items()}
        self._folders = {_moved(name, path, new_path) for name in self._folders}
        self._changes = [_moved_change(change, path, new_path) for change in self._changes]
        self._changes.append(Change(path, new_path, None))

    def remove(self, path: str) -> None:
        self.check_alive()
        folder = _plain(path)
        if not self.exists(folder):
            raise TideError(Code.NO_ENTRY, f"removing {path}")
        for name in sorted(name for name in self._files if _within(name, folder)):
            self._used_bytes -= len(self._files.pop(name).allocated) * PAGE_BYTES
            self._changes.append(Change(name, None, None))
        for name in sorted((name for name in self._folders if _within(name, folder)), key=len):
            self._folders.discard(name)
            self._changes.append(Change(name, None, None))

    async def sync_folder(self, path: str) -> None:
        folder = _plain(path)
        if folder not in self._folders:
            raise TideError(Code.NO_ENTRY, f"syncing the folder {path}")
        mine = [change for change in self._changes if _touches(change, folder)]
        await self.wait_for_device()
        self.check_alive()
        for change in mine:
            if change in self._changes:
                self._changes.remove(change)
                self._make_stable(change)

    def space(self) -> DiskSpace:
        return DiskSpace(self.capacity_bytes, max(self.capacity_bytes - self._used_bytes, 0))

    def boot_id(self) -> str:
        return f"boot-{self._boots}"

    # --- faults ------------------------------------------------------------------------------

    def kill(self) -> None:
        """The process is gone; the machine and its page cache are not."""
        self.lives += 1
        self.dead = False
        self._writes_left = None

    def crash(self, randomness: Randomness) -> None:
        """The machine is gone, and is up again with what stable storage held."""
        self.kill()
        self._boots += 1
        for change in self._changes[: randomness.below(len(self._changes) + 1)]:
            self._make_stable(change)
        self._changes.clear()
        self._folders = {
            name for name in self._stable_folders if _ancestors(name) <= self._stable_folders
        }
        self._files = {
            path: inode
            for path, inode in self._stable_files.items()
            if _parent(path) in self._folders
        }
        self._stable_files = dict(self._files)
        self._stable_folders = set(self._folders)
        for path in sorted(self._files):
            self._files[path].crash(randomness)
        allocated = sum(len(inode.allocated) for inode in self._files.values())
        self._used_bytes = allocated * PAGE_BYTES

    def die_after_writes(self, count: int, randomness: Randomness) -> None:
        """The ``count``-th write from now does only a part of its work and raises ``Died``."""
        assert count > 0
        self._writes_left = count
        self._dying = randomness

    def flip_bit(self, path: str, offset: int, bit: int = 0) -> None:
        """Turn one bit of a file around, in the page cache and on stable storage."""
        inode = self._files[path]
        for content in (inode.cache, inode.stable):
            if offset < len(content):
                content[offset] ^= 1 << bit

    def paths(self) -> list[str]:
        """All files, sorted."""
        return sorted(self._files)

    # --- for the files -------------------------------------------------------------------------

    def check_alive(self) -> None:
        if self.dead:
            raise Died

    def cold(self) -> bool:
        return self.cold_percent > 0 and self._randomness.below(100) < self.cold_percent

    async def wait_for_device(self) -> None:
        if self.latency_s:
            await trio.sleep(self.latency_s)
        else:
            await trio.lowlevel.checkpoint()

    def count_write(self) -> Randomness | None:
        """None while the process lives on; else what draws how much of this write is done."""
        if self._writes_left is None:
            return None
        self._writes_left -= 1
        return None if self._writes_left else self._dying

    def take_room(self, inode: Inode, offset: int, length: int) -> int:
        """Allocate pages for a write, in order; how many of its bytes found room."""
        if not length:
            return 0
        for page in range(offset // PAGE_BYTES, -(-(offset + length) // PAGE_BYTES)):
            if page not in inode.allocated:
                if self._used_bytes + PAGE_BYTES > self.capacity_bytes:
                    return max(page * PAGE_BYTES - offset, 0)
                self._used_bytes += PAGE_BYTES
                inode.allocated.add(page)
        return length

    def give_back(self, pages: int) -> None:
        """So many pages are free again."""
        self._used_bytes -= pages * PAGE_BYTES

    def _need_folder(self, path: str) -> None:
        parent = _parent(path)
        if parent in self._files:
            raise TideError(Code.NOT_A_DIRECTORY, f"opening {path}")
        if parent not in self._folders:
            raise TideError(Code.NO_ENTRY, f"opening {path}")

    def _make_stable(self, change: Change) -> None:
        if change.removed is not None and change.made is not None and change.inode is None:
            self._stable_files = {
                _moved(name, change.removed, change.made): inode
                for name, inode in self._stable_files.items()
            }
            self._stable_folders = {
                _moved(name, change.removed, change.made) for name in self._stable_folders
            }
            return
        if change.removed is not None:
            self._stable_files.pop(change.removed, None)
            self._stable_folders.discard(change.removed)
        if change.made is not None and change.inode is not None:
            self._stable_files[change.made] = change.inode
        elif change.made is not None:
            self._stable_folders.add(change.made)


def _plain(path: str) -> str:
    return "" if path == "." else path.strip("/")


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _ancestors(folder: str) -> set[str]:
    found = {""}
    while folder:
        found.add(folder)
        folder = _parent(folder)
    return found


def _moved(name: str, path: str, new_path: str) -> str:
    """A name, after the folder ``path`` became ``new_path``."""
    return new_path + name[len(path) :] if _within(name, path) else name


def _moved_change(change: Change, path: str, new_path: str) -> Change:
    """One of what is in the folder, of which the folder's own name is no part."""

    def moved(name: str | None) -> str | None:
        return _moved(name, path, new_path) if name is not None and name != path else name

    return Change(moved(change.removed), moved(change.made), change.inode)


def _touches(change: Change, folder: str) -> bool:
    return any(
        path is not None and _parent(path) == folder for path in (change.removed, change.made)
    )


def _resize(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))


def _page(content: bytearray, page: int) -> bytes:
    return bytes(content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]).ljust(PAGE_BYTES, b"\0")


def _put(content: bytearray, page: int, new: bytes) -> None:
    """Write a page, as far as the file reaches."""
    start = page * PAGE_BYTES
    stop = min(start + PAGE_BYTES, len(content))
    if start < stop:
        content[start:stop] = new[: stop - start]


def _torn(old: bytes, new: bytes, randomness: Randomness) -> bytes:
    return b"".join(
        (new if randomness.below(2) else old)[at : at + SECTOR_BYTES]
        for at in range(0, PAGE_BYTES, SECTOR_BYTES)
    )
