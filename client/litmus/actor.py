"""One mount in a litmus test: does what the steps say, with real system calls."""

import fcntl
import mmap
import os
from contextlib import suppress
from pathlib import Path

from ...fs.limits import KIB
from . import contents
from .model import ERROR_PREFIX
from .steps import (
    NAMES,
    Action,
    AddOne,
    Append,
    Close,
    CountRecords,
    Create,
    Delete,
    File,
    Lock,
    Look,
    Map,
    MapSync,
    Number,
    Open,
    Peek,
    Publish,
    Read,
    Rename,
    Size,
    Store,
    Sync,
    TryLock,
    Unlock,
    Unmap,
    Write,
)

NUMBER_BYTES = 8
READ_BYTES = 1_020 * KIB
"""For one read(2): as much as `strict` promises to be of one moment, and more than any file has."""


class Actor:
    """Works in ``folder``, the test's folder as this mount shows it."""

    def __init__(self, who: int, folder: Path, files: tuple[File, ...]) -> None:
        self._who = who
        self._path = folder
        self._folder = -1
        self._block_bytes = {file.name: file.block_bytes for file in files}
        self._open: dict[str, int] = {}
        self._maps: dict[str, mmap.mmap] = {}

    def prepare(self, files: tuple[File, ...]) -> None:
        """Make the folder and the files that are there before the first step."""
        self._path.mkdir()
        for file in files:
            block = contents.block(file.word, file.block_bytes)
            (self._path / file.name).write_bytes(block * file.blocks)

    def enter(self) -> None:
        """Hold the folder, so that a step asks for its own name only, and not for a whole path."""
        self._folder = os.open(self._path, os.O_PATH | os.O_DIRECTORY)

    def do(self, action: Action) -> str:
        """What it saw; with a failed call, why it failed."""
        try:
            return self._do(action)
        except OSError as error:
            return f"{ERROR_PREFIX}{error.strerror or error}"

    def close(self) -> None:
        """Close whatever is open, whatever that says."""
        for mapping in self._maps.values():
            mapping.close()
        self._maps.clear()
        for descriptor in (*self._open.values(), self._folder):
            with suppress(OSError):
                os.close(descriptor)
        self._open.clear()
        self._folder = -1

    def _opened(self, name: str, flags: int) -> int:
        return os.open(name, flags, 0o644, dir_fd=self._folder)

    def _do(self, action: Action) -> str:
        match action:
            case Look() | Size() | Create() | Publish() | Rename() | Delete():
                return self._do_to_name(action)
            case Map() | Store() | MapSync() | Unmap():
                return self._do_to_mapping(action)
            case Lock() | TryLock() | Unlock():
                return self._lock(action)
            case Peek() | Number() | CountRecords():
                return self._look_into(action)
            case _:
                return self._do_to_open_file(action)

    def _do_to_name(self, action: Look | Size | Create | Publish | Rename | Delete) -> str:
        match action:
            case Look(name):
                try:
                    os.stat(name, dir_fd=self._folder)
                except FileNotFoundError:
                    return "absent"
                return "there"
            case Size(name):
                size = os.stat(name, dir_fd=self._folder).st_size / self._block_bytes[name]
                return f"{size:g} block{'' if size == 1 else 's'}"
            case Create(name):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                os.close(self._opened(name, flags))
            case Publish(name, word, blocks):
                new = self._opened(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                with open(new, "wb") as file:
                    file.write(contents.block(word, self._block_bytes[name]) * blocks)
                self._rename(f"{name}.new", name)
            case Rename(old, new_name):
                self._rename(old, new_name)
            case Delete(name):
                os.unlink(name, dir_fd=self._folder)
        return ""

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _do_to_open_file(self, action: Open | Close | Write | Read | Sync | Append | AddOne) -> str:
        name = action.file
        match action:
            case Open():
                append = os.O_APPEND | os.O_WRONLY if action.to_append else 0
                flags = append or (os.O_RDWR if action.to_write else os.O_RDONLY)
                self._open[name] = self._opened(name, flags)
            case Close():
                os.close(self._open.pop(name))
            case Write():
                size = self._block_bytes[name]
                block = contents.block(action.word, size)
                for number in range(action.first, action.first + action.blocks):
                    os.pwrite(self._open[name], block, number * size)
            case Read():
                return contents.described(_all(self._open[name]), self._block_bytes[name])
            case Sync():
                os.fsync(self._open[name])
            case Append():
                for number in range(action.records):
                    os.write(self._open[name], contents.record(NAMES[self._who], number))
            case AddOne():
                number = int(os.pread(self._open[name], NUMBER_BYTES, 0) or b"0")
                os.pwrite(self._open[name], b"%0*d" % (NUMBER_BYTES, number + 1), 0)
                return f"{number} to {number + 1}"
        return ""

    def _look_into(self, action: Peek | Number | CountRecords) -> str:
        descriptor = self._opened(action.file, os.O_RDONLY)
        try:
            data = _all(descriptor)
        finally:
            os.close(descriptor)
        match action:
            case Peek(name):
                return contents.described(data, self._block_bytes[name])
            case Number():
                return str(int(data or b"0"))
            case CountRecords():
                return contents.counted(data)

    def _do_to_mapping(self, action: Map | Store | MapSync | Unmap) -> str:
        name = action.file
        match action:
            case Map():
                self._maps[name] = mmap.mmap(self._open[name], self._block_bytes[name])
            case Store():
                size = self._block_bytes[name]
                self._maps[name][:size] = contents.block(action.word, size)
            case MapSync():
                self._maps[name].flush()
            case Unmap():
                self._maps.pop(name).close()
        return ""

    def _lock(self, action: Lock | TryLock | Unlock) -> str:
        descriptor = self._open[action.file]
        match action:
            case Lock():
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            case Unlock():
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            case TryLock():
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return "refused"
                return "got it"
        return ""


def _all(descriptor: int) -> bytes:
    """Everything in an open file."""
    pieces: list[bytes] = []
    at = 0
    while piece := os.pread(descriptor, READ_BYTES, at):
        pieces.append(piece)
        at += len(piece)
        if len(piece) < READ_BYTES:
            break
    return b"".join(pieces)
