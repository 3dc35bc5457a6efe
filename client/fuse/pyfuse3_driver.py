"""The portable driver: translates between pyfuse3 and the vfs, and nothing else.

One instance at a time: pyfuse3 keeps its session in a global of the process.

What pyfuse3 3.5 does not hand on, and what follows from it: "set this time to now" arrives as this
machine's time; XATTR_CREATE and XATTR_REPLACE are checked by pyfuse3 with a getxattr before the
setxattr, so two racing callers may both succeed; modes come with the umask taken away, which a
default access list should have replaced; locks, fallocate, lseek and copy_file_range are answered
by the kernel alone.
"""

import errno
import functools
import logging
import stat
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

import pyfuse3
import trio

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import TideError
from ...fs.limits import CACHE_BLOCK_BYTES, NAME_MAX_BYTES
from ..answers import settled
from .driver import Caller, FileSystem, Known, NewAttributes, Opened
from .translation import (
    DEVICES,
    FORMAT_BITS,
    KINDS,
    PARENT_COOKIE,
    SELF_COOKIE,
    STATFS_UNIT_BYTES,
    blocks_of,
    statfs_figures,
)

log = logging.getLogger(__name__)


IDLE_READERS = 8
"""Tasks that pyfuse3 keeps waiting for requests: fewer, and it starts one for each burst."""
READERS_MAX = 256
"""Requests that may wait for the network at the same time."""


Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])


def _translated(handler: Handler) -> Handler:
    """Errors of the vfs become an errno; a bug becomes EIO with a trace in the log.

    (Any other exception from a handler would end the whole mount.)
    """

    @functools.wraps(handler)
    async def translated(*arguments: Any) -> Any:
        arguments[0].counters.operations[handler.__name__] += 1
        try:
            return await handler(*arguments)
        except TideError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        except pyfuse3.FUSEError:
            raise
        except Exception:
            log.exception("%s%r failed: a bug", handler.__name__, arguments[1:3])
            raise pyfuse3.FUSEError(errno.EIO) from None

    return translated  # type: ignore[return-value]


def stat_of(known: Known) -> pyfuse3.EntryAttributes:
    """What the kernel gets to know about an inode, and for how long."""
    attributes = known.attributes
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = attributes.inode
    entry.generation = 0  # inode numbers are never used twice
    entry.entry_timeout = known.entry_trust_ms / 1000
    entry.attr_timeout = known.attributes_trust_ms / 1000
    entry.st_mode = FORMAT_BITS[attributes.kind] | attributes.mode
    entry.st_nlink = attributes.links
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.device
    entry.st_size = attributes.size
    entry.st_blksize = CACHE_BLOCK_BYTES
    entry.st_blocks = blocks_of(attributes)
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    return entry


def changes_of(attributes: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> NewAttributes:
    """What a setattr asks for."""
    return NewAttributes(
        mode=stat.S_IMODE(attributes.st_mode) if fields.update_mode else None,
        uid=attributes.st_uid if fields.update_uid else None,
        gid=attributes.st_gid if fields.update_gid else None,
        size=attributes.st_size if fields.update_size else None,
        atime_ns=attributes.st_atime_ns if fields.update_atime else None,
        mtime_ns=attributes.st_mtime_ns if fields.update_mtime else None,
    )


def _caller(context: pyfuse3.RequestContext) -> Caller:
    return Caller(context.uid, context.gid, context.pid, context.umask)


def _file_info(opened: Opened) -> pyfuse3.FileInfo:
    return pyfuse3.FileInfo(
        fh=opened.handle, direct_io=opened.direct_io, keep_cache=opened.keep_cache
    )


class Operations(pyfuse3.Operations):
    """Each request of the kernel, handed to the vfs."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = True

    def __init__(self, file_system: FileSystem) -> None:
        super().__init__()
        self._vfs = file_system
        self.counters = file_system.counters
        self._listed: dict[int, int] = {}  # directory handle -> its inode
        self._of_others: set[int] = set()
        """Handles whose writes take set-user-id and its like away: the kernel sees to it only where
        it keeps pages, and says of no write who makes it. So whoever opened it counts."""

    # --- names ---------------------------------------------------------------------------

    @_translated
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return stat_of(await settled(self._vfs.lookup(parent_inode, name)))

    @_translated
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._vfs.forget(inode_list)

    @_translated
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        kind = KINDS.get(stat.S_IFMT(mode), Kind.FILE)
        device = rdev if kind in DEVICES else 0
        made = self._vfs.mknod(parent_inode, name, kind, stat.S_IMODE(mode), device, _caller(ctx))
        return stat_of(await settled(made))

    @_translated
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        made = self._vfs.mkdir(parent_inode, name, stat.S_IMODE(mode), _caller(ctx))
        return stat_of(await settled(made))

    @_translated
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        made = self._vfs.symlink(parent_inode, name, target, _caller(ctx))
        return stat_of(await settled(made))

    @_translated
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return stat_of(await settled(self._vfs.link(inode, new_parent_inode, new_name)))

    @_translated
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await settled(self._vfs.unlink(parent_inode, name))

    @_translated
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await settled(self._vfs.rmdir(parent_inode, name))

    @_translated
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        # The flags have the same numbers on both sides: renameat2(2)'s.
        await settled(
            self._vfs.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)
        )

    # --- attributes ----------------------------------------------------------------------

    @_translated
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return stat_of(await settled(self._vfs.getattr(inode, None)))

    @_translated
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        return stat_of(await settled(self._vfs.setattr(inode, changes_of(attr, fields), fh)))

    @_translated
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return await settled(self._vfs.readlink(inode))

    @_translated
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        figures = statfs_figures(await settled(self._vfs.statfs()))
        told = pyfuse3.StatvfsData()
        told.f_bsize = told.f_frsize = STATFS_UNIT_BYTES
        told.f_blocks = figures.blocks
        told.f_bfree = told.f_bavail = figures.free_blocks
        told.f_ffree = told.f_favail = figures.free_inodes
        told.f_files = figures.inodes
        told.f_namemax = NAME_MAX_BYTES
        return told

    # --- extended attributes -------------------------------------------------------------

    @_translated
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        # The kernel asks for security.capability before every write(2): the vfs answers from
        # what it has cached.
        return bytes(await settled(self._vfs.getxattr(inode, name)))

    @_translated
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        await settled(self._vfs.setxattr(inode, name, value, 0))

    @_translated
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        names = await settled(self._vfs.listxattr(inode))
        if ctx.uid == 0:
            return names
        return [name for name in names if not name.startswith(b"trusted.")]  # xattr(7)

    @_translated
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await settled(self._vfs.removexattr(inode, name))

    # --- files ---------------------------------------------------------------------------

    @_translated
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        # libfuse says nothing of who may keep set-user-id when a file is truncated at its opening.
        opened = await settled(self._vfs.open(inode, flags, kill_privileges=ctx.uid != 0))
        return self._file_info(opened, ctx)

    @_translated
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        made = self._vfs.create(parent_inode, name, stat.S_IMODE(mode), flags, _caller(ctx))
        known, opened = await settled(made)
        return self._file_info(opened, ctx), stat_of(known)

    def _file_info(self, opened: Opened, context: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if opened.direct_io and context.uid != 0:
            self._of_others.add(opened.handle)
        return _file_info(opened)

    @_translated
    async def read(self, fh: int, off: int, size: int) -> bytes:
        data: Buffer = await settled(self._vfs.read(fh, off, size))
        return cast(bytes, data)  # pyfuse3 takes anything with the buffer protocol

    @_translated
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        kills = fh in self._of_others
        return await settled(self._vfs.write(fh, off, buf, kill_privileges=kills))

    @_translated
    async def flush(self, fh: int) -> None:
        try:
            await settled(self._vfs.flush(fh))
        except TideError:
            self._vfs.untold(fh)  # it may be a process that exits: who closes is not known here
            raise

    @_translated
    async def release(self, fh: int) -> None:
        self._of_others.discard(fh)
        await settled(self._vfs.release(fh))

    @_translated
    async def fsync(self, fh: int, datasync: bool) -> None:
        await settled(self._vfs.fsync(fh, datasync))

    # --- directories ---------------------------------------------------------------------

    @_translated
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        # pyfuse3 hands on the handle only: the kernel keeps no listings.
        opened = await settled(self._vfs.opendir(inode))
        self._listed[opened.handle] = inode
        return opened.handle

    @_translated
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        # The vfs is asked for each piece anew, and what did not fit is dropped: what it said a
        # moment ago may be wrong by now, and the kernel would believe it.
        if start_id < PARENT_COOKIE and not await self._list_dots(fh, start_id, token):
            return
        cookie = max(start_id - PARENT_COOKIE, 0)
        for entry, known in await settled(self._vfs.readdir(fh, cookie)):
            next_id = entry.cookie + PARENT_COOKIE
            if not pyfuse3.readdir_reply(token, entry.name, stat_of(known), next_id):
                return

    async def _list_dots(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        """``.`` and ``..``; whether they fitted. The kernel reads only their inode numbers."""
        inode = self._listed[fh]
        if start_id < SELF_COOKIE and not pyfuse3.readdir_reply(
            token, b".", _bare_directory(inode), SELF_COOKIE
        ):
            return False
        try:
            parent = (await settled(self._vfs.lookup(inode, b".."))).attributes.inode
        except TideError:
            return True  # removed meanwhile: it has no parent any more, and nothing to list
        self._vfs.forget([(parent, 1)])
        return pyfuse3.readdir_reply(token, b"..", _bare_directory(parent), PARENT_COOKIE)

    @_translated
    async def releasedir(self, fh: int) -> None:
        self._listed.pop(fh, None)
        self._vfs.releasedir(fh)

    @_translated
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await settled(self._vfs.fsyncdir(fh))


def _bare_directory(inode: int) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = inode
    entry.st_mode = stat.S_IFDIR
    entry.entry_timeout = 0
    entry.attr_timeout = 0
    return entry


class Invalidation:
    """What the kernel is to forget, told from a thread; attributes alone are told at once.

    A notification about a name blocks while a request in that directory is unanswered, and one
    about pages while they are written back, so these are never sent from the task that answers
    requests (see the module docstring of ``driver``). Forgetting attributes waits for nothing,
    and must take effect before the open that asked for it is answered.
    """

    def __init__(self) -> None:
        self._wanted: dict[tuple[int, bytes | None], bool] = {}
        self._more = trio.Event()

    def invalidate_inode(self, inode: int, *, attributes_only: bool) -> None:
        """Forget the attributes and, without ``attributes_only``, the pages of an inode."""
        if attributes_only:
            _send({(inode, None): True})
            return
        self._wanted[inode, None] = False
        self._more.set()

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Forget what a name leads to."""
        self._wanted[parent, name] = False
        self._more.set()

    async def forget_inode(self, inode: int) -> None:
        """Forget attributes and pages; done when this returns."""
        wanted: dict[tuple[int, bytes | None], bool] = {(inode, None): False}
        await trio.to_thread.run_sync(_send, wanted, abandon_on_cancel=True)

    async def send_forever(self) -> None:
        """Send what is wanted, in order, until cancelled."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            wanted, self._wanted = self._wanted, {}
            await trio.to_thread.run_sync(_send, wanted, abandon_on_cancel=True)


def _send(wanted: dict[tuple[int, bytes | None], bool]) -> None:
    for (inode, name), attributes_only in wanted.items():
        try:
            if name is None:
                pyfuse3.invalidate_inode(inode, attributes_only)
            else:
                pyfuse3.invalidate_entry(inode, name)
        except OSError as error:
            # ENOENT: the kernel did not know it. ENOTCONN, ENODEV, EBADF: it is unmounted.
            if error.errno not in (errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.EBADF):
                log.warning("the kernel did not forget inode %d %r: %s", inode, name, error)


class Pyfuse3Driver:
    """A mount point, served by pyfuse3. ``options`` are libfuse's."""

    def __init__(
        self,
        file_system: FileSystem,
        mount_point: str,
        options: set[str],
        invalidation: Invalidation,
    ) -> None:
        """Mounts; OSError or RuntimeError when libfuse cannot (it says why on stderr)."""
        self._invalidation = invalidation
        self._mount_point = mount_point
        self._detached = False
        pyfuse3.init(Operations(file_system), mount_point, options)

    async def serve_forever(self) -> None:
        """Answer the kernel until it unmounts, or until ``unmount``."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._invalidation.send_forever)
                await pyfuse3.main(min_tasks=IDLE_READERS, max_tasks=READERS_MAX)
                nursery.cancel_scope.cancel()
        finally:
            pyfuse3.close(unmount=not self._detached)

    def sync(self) -> None:
        """Have the kernel send what was written through mappings. Blocks while that is served, so
        call it from a thread. OSError."""
        pyfuse3.syncfs(self._mount_point)

    def unmount(self, *, detached: bool = False) -> None:
        """Stop serving; who still uses the mount gets ENOTCONN.

        ``detached``: the mount point was taken away already, and something else may be there.
        """
        self._detached = detached
        pyfuse3.terminate()
