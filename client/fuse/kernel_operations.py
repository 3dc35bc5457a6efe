"""Each request of the kernel, handed to the vfs: the dispatch table of the kernel driver.

An operation has three steps: its bytes are decoded, the vfs is asked, and its answer is told. The
vfs answers at once or by an awaitable; the steps are the same for both.
"""

import os
import stat
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.limits import LOCK_END
from ...fs.messages.meta import DirectoryEntry
from ..answers import settled, then
from ..soon import Soon
from .driver import (
    Caller,
    FileSystem,
    Known,
    LockRange,
    NewAttributes,
    Opened,
    OpenedDirectory,
)
from .dying import is_exiting
from .protocol import opcodes as o
from .protocol import replies
from .protocol.listing import Listing
from .protocol.negotiation import MESSAGE_MAX_BYTES
from .protocol.opcodes import Opcode, SetAttrValid
from .protocol.requests import DECODERS, GID, NODEID, OPCODE, PID, UID, Arguments, Decoder, Header
from .translation import DEVICES, KINDS, PARENT_COOKIE, SELF_COOKIE

Reply: TypeAlias = bytes | list[Buffer]
Ask: TypeAlias = Callable[[Header, Arguments], Soon[Any]]
Tell: TypeAlias = Callable[[int, Any], Reply]
"""(number of the request, answer) to the message for the kernel."""


class Operation(NamedTuple):
    """One kind of request. ``tell`` None: the kernel expects no reply. ``waits_for_lock``: whether,
    with these arguments, it waits for one, so that any signal ends it at once. ``keeps_buffer``:
    its arguments lie in the buffer that was read.
    """

    decode: Decoder
    ask: Ask
    tell: Tell | None
    waits_for_lock: Callable[[Arguments], bool] | None = None
    keeps_buffer: bool = False
    outlives: bool = False
    """It is carried out also when the mount ends meanwhile, for nobody else would do it."""


_MODE, _UID, _GID, _SIZE = (
    int(flag) for flag in (SetAttrValid.MODE, SetAttrValid.UID, SetAttrValid.GID, SetAttrValid.SIZE)
)
_ATIME, _MTIME, _FH = int(SetAttrValid.ATIME), int(SetAttrValid.MTIME), int(SetAttrValid.FH)
_ATIME_NOW, _MTIME_NOW = int(SetAttrValid.ATIME_NOW), int(SetAttrValid.MTIME_NOW)
_KILL = int(SetAttrValid.KILL_SUIDGID)
_WRITE_CACHE, _WRITE_KILL, _APPEND = o.WRITE_CACHE, o.WRITE_KILL_SUIDGID, os.O_APPEND
NS_PER_S = 1_000_000_000


def changes_of(arguments: Arguments) -> NewAttributes:
    """What a SETATTR asks for (struct fuse_setattr_in)."""
    (valid, _, size, _, atime_s, mtime_s, _, atime_ns, mtime_ns, _, mode, uid, gid) = arguments
    atime_now, mtime_now = bool(valid & _ATIME_NOW), bool(valid & _MTIME_NOW)
    return NewAttributes(
        mode=stat.S_IMODE(mode) if valid & _MODE else None,
        uid=uid if valid & _UID else None,
        gid=gid if valid & _GID else None,
        size=size if valid & _SIZE else None,
        atime_ns=atime_s * NS_PER_S + atime_ns if valid & _ATIME and not atime_now else None,
        mtime_ns=mtime_s * NS_PER_S + mtime_ns if valid & _MTIME and not mtime_now else None,
        atime_now=atime_now,
        mtime_now=mtime_now,
        kill_privileges=bool(valid & _KILL),
    )


class Operations:
    """The table for one vfs. ``by_opcode`` has no entry for what is answered with ENOSYS."""

    def __init__(self, file_system: FileSystem) -> None:
        self._vfs = file_system
        self.counters = file_system.counters
        self._listed: dict[int, int] = {}  # directory handle -> its inode
        self.by_opcode: dict[int, Operation] = {}
        self._names()
        self._attributes()
        self._files()
        self._ranges()
        self._locks()
        self._directories()

    def add(self, opcode: Opcode, ask: Ask, tell: Tell | None, **more: Any) -> None:
        """Put an operation into the table."""
        self.by_opcode[int(opcode)] = Operation(DECODERS[opcode], ask, tell, **more)

    # --- names

    def _names(self) -> None:
        vfs = self._vfs
        entry, done = replies.entry, _done
        self.add(Opcode.LOOKUP, lambda h, a: vfs.lookup(h[NODEID], a[0]), entry)
        self.add(Opcode.FORGET, lambda h, a: vfs.forget(((h[NODEID], a[0]),)), None)
        self.add(Opcode.BATCH_FORGET, lambda h, a: vfs.forget(a[0]), None)
        self.add(Opcode.MKNOD, self._mknod, entry)
        self.add(Opcode.MKDIR, self._mkdir, entry)
        self.add(
            Opcode.SYMLINK, lambda h, a: vfs.symlink(h[NODEID], a[0], a[1], _caller(h, 0)), entry
        )
        self.add(Opcode.LINK, lambda h, a: vfs.link(a[0], h[NODEID], a[1]), entry)
        self.add(Opcode.UNLINK, lambda h, a: vfs.unlink(h[NODEID], a[0]), done)
        self.add(Opcode.RMDIR, lambda h, a: vfs.rmdir(h[NODEID], a[0]), done)
        self.add(Opcode.RENAME, lambda h, a: vfs.rename(h[NODEID], a[1], a[0], a[2], 0), done)
        self.add(Opcode.RENAME2, lambda h, a: vfs.rename(h[NODEID], a[2], a[0], a[3], a[1]), done)
        self.add(Opcode.READLINK, lambda h, a: vfs.readlink(h[NODEID]), replies.with_payload)

    def _mknod(self, header: Header, arguments: Arguments) -> Soon[Known]:
        mode, device, umask, name = arguments
        kind = KINDS.get(stat.S_IFMT(mode), Kind.FILE)
        return self._vfs.mknod(
            header[NODEID],
            name,
            kind,
            stat.S_IMODE(mode),
            device if kind in DEVICES else 0,
            _caller(header, umask),
        )

    def _mkdir(self, header: Header, arguments: Arguments) -> Soon[Known]:
        mode, umask, name = arguments
        return self._vfs.mkdir(header[NODEID], name, stat.S_IMODE(mode), _caller(header, umask))

    # --- attributes

    def _attributes(self) -> None:
        vfs = self._vfs
        self.add(Opcode.GETATTR, self._getattr, replies.attr)
        self.add(Opcode.SETATTR, self._setattr, replies.attr)
        self.add(Opcode.STATFS, lambda h, a: vfs.statfs(), replies.statfs)
        self.add(Opcode.GETXATTR, self._getxattr, _sized_reply)
        self.add(Opcode.LISTXATTR, self._listxattr, _sized_reply)
        self.add(Opcode.SETXATTR, self._setxattr, _done)
        self.add(Opcode.REMOVEXATTR, lambda h, a: vfs.removexattr(h[NODEID], a[0]), _done)

    def _getattr(self, header: Header, arguments: Arguments) -> Soon[Known]:
        flags, handle = arguments
        return self._vfs.getattr(header[NODEID], handle if flags & o.GETATTR_FH else None)

    def _setattr(self, header: Header, arguments: Arguments) -> Soon[Known]:
        handle = arguments[1] if arguments[0] & _FH else None
        return self._vfs.setattr(header[NODEID], changes_of(arguments), handle)

    def _getxattr(self, header: Header, arguments: Arguments) -> Soon[Buffer | int]:
        room_bytes, name = arguments
        return then(self._vfs.getxattr(header[NODEID], name), lambda v: _sized(v, room_bytes))

    def _listxattr(self, header: Header, arguments: Arguments) -> Soon[Buffer | int]:
        (room_bytes,) = arguments
        is_root = header[UID] == 0

        def sized(names: list[bytes]) -> Buffer | int:
            if not is_root:  # xattr(7): others do not see them; the kernel leaves that to us
                names = [name for name in names if not name.startswith(b"trusted.")]
            return _sized(b"".join(name + b"\0" for name in names), room_bytes)

        return then(self._vfs.listxattr(header[NODEID]), sized)

    def _setxattr(self, header: Header, arguments: Arguments) -> Soon[None]:
        _, flags, more_flags, name, value = arguments
        if more_flags & o.SETXATTR_ACL_KILL_SGID:
            return self._vfs.setxattr(header[NODEID], name, value, flags, kill_set_group_id=True)
        return self._vfs.setxattr(header[NODEID], name, value, flags)

    # --- files

    def _files(self) -> None:
        vfs = self._vfs
        self.add(Opcode.OPEN, self._open, replies.opened)
        self.add(Opcode.CREATE, self._create, replies.created)
        self.add(Opcode.TMPFILE, self._tmpfile, replies.created)
        self.add(Opcode.READ, lambda h, a: vfs.read(a[0], a[1], a[2]), replies.with_payload)
        self.add(Opcode.WRITE, self._write, replies.written, keeps_buffer=True)
        self.add(Opcode.FLUSH, self._flush, _done)
        self.add(Opcode.RELEASE, self._release, _done, outlives=True)
        self.add(Opcode.FSYNC, lambda h, a: vfs.fsync(a[0], bool(a[1] & o.FSYNC_FDATASYNC)), _done)

    def _flush(self, header: Header, arguments: Arguments) -> Soon[None]:
        handle, owner = arguments[:2]
        flushing = self._vfs.flush(handle, owner)
        return None if flushing is None else self._flushed(header[PID], handle, flushing)

    async def _flushed(self, thread: int, handle: int, flushing: Awaitable[None]) -> None:
        """Nobody hears what came of a close by a process that exits."""
        try:
            await flushing
        except TideError:
            if is_exiting(thread):
                self._vfs.untold(handle)
            raise

    def _open(self, header: Header, arguments: Arguments) -> Soon[Opened]:
        flags, more_flags = arguments
        if more_flags & o.OPEN_KILL_SUIDGID:
            return self._vfs.open(header[NODEID], flags, kill_privileges=True)
        return self._vfs.open(header[NODEID], flags)

    def _create(self, header: Header, arguments: Arguments) -> Soon[tuple[Known, Opened]]:
        flags, mode, umask, _, name = arguments
        return self._vfs.create(
            header[NODEID], name, stat.S_IMODE(mode), flags, _caller(header, umask)
        )

    def _tmpfile(self, header: Header, arguments: Arguments) -> Soon[tuple[Known, Opened]]:
        flags, mode, umask, _, _ = arguments
        return self._vfs.tmpfile(header[NODEID], stat.S_IMODE(mode), flags, _caller(header, umask))

    def _write(self, header: Header, arguments: Arguments) -> Soon[int]:
        handle, offset, _, flags, _, open_flags, data = arguments
        return self._vfs.write(
            handle,
            offset,
            data,
            kill_privileges=flags & _WRITE_KILL != 0,
            append=open_flags & _APPEND != 0 and not flags & _WRITE_CACHE,
        )

    def _release(self, header: Header, arguments: Arguments) -> Soon[None]:
        handle, _, flags, owner = arguments
        return self._vfs.release(handle, owner if flags & o.RELEASE_FLOCK_UNLOCK else None)

    # --- ranges

    def _ranges(self) -> None:
        vfs = self._vfs
        self.add(Opcode.FALLOCATE, lambda h, a: vfs.fallocate(a[0], a[3], a[1], a[2]), _done)
        self.add(Opcode.LSEEK, lambda h, a: vfs.lseek(a[0], a[1], a[2]), replies.offset)
        self.add(Opcode.COPY_FILE_RANGE, self._copy_file_range, replies.written)
        self.add(Opcode.COPY_FILE_RANGE_64, self._copy_file_range, replies.offset)

    def _copy_file_range(self, header: Header, arguments: Arguments) -> Soon[int]:
        source, source_offset, _, target, target_offset, length, flags = arguments
        if flags:
            raise TideError(Code.INVALID, f"copy_file_range with flags {flags:#x}")
        if header[OPCODE] == Opcode.COPY_FILE_RANGE:
            length = min(length, COPY_MAX_BYTES)
        return self._vfs.copy_file_range(source, source_offset, target, target_offset, length)

    # --- locks

    def _locks(self) -> None:
        self.add(Opcode.GETLK, self._getlk, replies.lock)
        self.add(Opcode.SETLK, self._setlk, _done)
        self.add(Opcode.SETLKW, self._setlk, _done, waits_for_lock=_locks)

    def _getlk(self, header: Header, arguments: Arguments) -> Soon[LockRange | None]:
        handle, owner, start, last, kind, pid, _ = arguments
        return self._vfs.getlk(handle, owner, _lock_range(start, last, kind, pid))

    def _setlk(self, header: Header, arguments: Arguments) -> Soon[None]:
        handle, owner, start, last, kind, pid, flags = arguments
        flock = bool(flags & o.LK_FLOCK)
        lock = _lock_range(start, last, kind, pid)
        if kind == o.F_UNLCK:
            return self._vfs.unlock(handle, owner, lock.start, lock.end, flock=flock)
        wait = header[OPCODE] == Opcode.SETLKW
        return self._vfs.setlk(handle, owner, lock, wait=wait, flock=flock)

    # --- directories

    def _directories(self) -> None:
        vfs = self._vfs
        self.add(Opcode.OPENDIR, self._opendir, replies.directory_opened)
        self.add(Opcode.READDIR, self._readdir, _listed)
        self.add(Opcode.READDIRPLUS, self._readdir, _listed)
        self.add(Opcode.RELEASEDIR, self._releasedir, _done)
        self.add(Opcode.FSYNCDIR, lambda h, a: vfs.fsyncdir(a[0]), _done)

    def _opendir(self, header: Header, arguments: Arguments) -> Soon[OpenedDirectory]:
        return self._vfs.opendir(header[NODEID])

    def _releasedir(self, header: Header, arguments: Arguments) -> None:
        self._vfs.releasedir(arguments[0])

    def _readdir(self, header: Header, arguments: Arguments) -> Soon[Listing]:
        """The vfs is asked for each piece anew, and what does not fit is dropped: what it said a
        moment ago may be wrong by now, and the kernel would believe it."""
        handle, cookie, wanted_bytes = arguments[:3]
        room_bytes = min(wanted_bytes, MESSAGE_MAX_BYTES)
        listing = Listing(room_bytes, plus=header[OPCODE] == Opcode.READDIRPLUS)
        if cookie < PARENT_COOKIE:
            return self._readdir_from_start(listing, header[NODEID], handle, cookie)

        def filled(entries: Iterable[tuple[DirectoryEntry, Known]]) -> Listing:
            listing.add(entries, PARENT_COOKIE)
            return listing

        return then(self._vfs.readdir(handle, cookie - PARENT_COOKIE), filled)

    async def _readdir_from_start(
        self, listing: Listing, inode: int, handle: int, cookie: int
    ) -> Listing:
        if cookie < SELF_COOKIE and not listing.add_dot(b".", inode, SELF_COOKIE):
            return listing
        try:
            parent = (await settled(self._vfs.lookup(inode, b".."))).attributes.inode
        except TideError:
            return listing  # removed meanwhile: it has no parent any more, and nothing to list
        self._vfs.forget([(parent, 1)])
        if listing.add_dot(b"..", parent, PARENT_COOKIE):
            listing.add(await settled(self._vfs.readdir(handle, 0)), PARENT_COOKIE)
        return listing

    # --- what did not reach the kernel

    def lost(self, operation: Operation, answer: Any) -> None:
        """The kernel does not want an answer any more: the lookups in it do not count, and nobody
        will close the directory."""
        if operation.tell is replies.entry:
            self._vfs.forget([(answer.attributes.inode, 1)])
        elif operation.tell is replies.created:
            self._vfs.forget([(answer[0].attributes.inode, 1)])
        elif operation.tell is _listed and answer.inodes:
            self._vfs.forget([(inode, 1) for inode in answer.inodes])
        elif operation.tell is replies.directory_opened:
            self._vfs.releasedir(answer.handle)


COPY_MAX_BYTES = 0xFFFF_F000
"""What COPY_FILE_RANGE's reply can say; COPY_FILE_RANGE_64 came for that."""


def _caller(header: Header, umask: int) -> Caller:
    return Caller(header[UID], header[GID], header[PID], umask)


def _locks(arguments: Arguments) -> bool:
    """Unlocking comes with the same opcode, and is never interrupted on a local disk."""
    _, _, _, _, kind, _, _ = arguments
    return bool(kind != o.F_UNLCK)


def _lock_range(start: int, last: int, kind: int, pid: int) -> LockRange:
    if start > last or last > o.OFFSET_MAX or kind not in (o.F_RDLCK, o.F_WRLCK, o.F_UNLCK):
        raise TideError(Code.INVALID, f"a lock of kind {kind} from {start} to {last}")
    end = LOCK_END if last == o.OFFSET_MAX else last + 1
    return LockRange(kind == o.F_WRLCK, start, end, pid)


def _done(unique: int, answer: None) -> bytes:
    return replies.done(unique)


def _sized(value: Buffer, room_bytes: int) -> Buffer | int:
    """An extended attribute for who has so much room; 0 asks how much is needed."""
    if not room_bytes:
        return len(value)
    if len(value) > room_bytes:
        raise TideError(Code.NO_BUFFER_ROOM, f"{len(value)} bytes into {room_bytes}")
    return value


def _sized_reply(unique: int, answer: Buffer | int) -> Reply:
    if isinstance(answer, int):
        return replies.size_of(unique, answer)
    return replies.with_payload(unique, answer)


def _listed(unique: int, answer: Listing) -> Reply:
    return replies.with_payload(unique, answer.payload())
