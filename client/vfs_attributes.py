"""Attributes: getattr, setattr, extended attributes, access lists, statfs.

Changes are written through: durable when they return. For what reading does to access times see
`client/access_times.py`.
"""

import logging
from collections.abc import Awaitable

import msgspec

from ..fs import acl
from ..fs.attributes import Attributes, Kind
from ..fs.errors import Code, TideError
from ..fs.limits import (
    FILE_MAX_BYTES,
    READINGS_MAX,
    XATTR_NAME_MAX_BYTES,
    XATTR_VALUE_MAX_BYTES,
)
from ..fs.messages.meta import (
    GetAttributes,
    GetSpace,
    GetXattr,
    ListXattrs,
    Node,
    NoteReadings,
    RemoveXattr,
    SetAttributes,
    SetXattr,
    Space,
)
from .answers import finally_, then
from .attributes_cache import Cached
from .fuse.driver import Known, NewAttributes
from .inodes import File
from .soon import Soon
from .vfs_told import ToldOperations

log = logging.getLogger(__name__)

CAPABILITY = b"security.capability"
NOTHING = NewAttributes()
TIME_MIN_NS = -(1 << 63)
TIME_MAX_NS = (1 << 63) - 1
"""Times from 1677 to 2262. What lies beyond becomes that, as on other file systems of Linux."""


class AttributeOperations(ToldOperations):
    """The part of the vfs that deals with single inodes, but for their bytes."""

    def getattr(self, inode: int, handle: int | None) -> Soon[Known]:
        cached = self.attributes.trusted(inode)
        if cached is not None:
            return self.known_of(cached)
        return self._getattr(inode)

    def _getattr(self, inode: int) -> Awaitable[Known]:
        def learn(reply: Node) -> Known:
            self.absorb(reply.attributes, promised=reply.promised)
            return self.known(reply.attributes)

        return self.ask(inode, GetAttributes(inode), learn)

    def setattr(self, inode: int, new: NewAttributes, handle: int | None) -> Soon[Known]:
        if new.size is not None and new.size > FILE_MAX_BYTES:
            raise TideError(Code.FILE_TOO_LARGE, f"a size of {new.size} bytes")
        if new.atime_ns is not None or new.atime_now:
            self.readings.drop(inode)
        new = new._replace(atime_ns=_in_range(new.atime_ns), mtime_ns=_in_range(new.mtime_ns))
        # chown(2) of nothing to nobody arrives so, and takes privileges away as any other.
        kills = new.kill_privileges or new == NOTHING
        request = SetAttributes(inode, *new._replace(kill_privileges=kills))

        def learn(reply: Node) -> Known:
            self.absorb(reply.attributes, own=True)
            if new.mode is not None:
                self.unlearn(inode, acl.ACCESS)
            if kills or new.uid is not None or new.gid is not None:
                self.unlearn(inode, CAPABILITY)
            return self.known(reply.attributes)

        file = self._file_to_set(inode, new)
        if file is None:
            return self.ask(inode, request, learn)
        done = self.writer.set_attributes(file, request)
        ended = self.attributes.begin_change([inode])
        return finally_(then(done, learn, lambda error: self.failed(inode, error)), ended)

    def _file_to_set(self, inode: int, new: NewAttributes) -> File | None:
        """The file whose writes such a change must be in order with."""
        file = self.files.peek(inode)
        if new.size is None:
            times = new.mtime_ns is not None or new.mtime_now
            return file if file is not None and times and file.modified else None
        if file is None:  # it may be opened and written while it is truncated
            cached = self.attributes.get(inode)
            if cached is not None and cached.attributes.kind is Kind.FILE:
                file = self.files.get(cached.attributes)
        return file

    # --- readings

    def was_read(self, inode: int) -> None:
        """Its atime changes, if that tells something. Costs nothing but memory."""
        cached = self.attributes.get(inode)
        if cached is not None:
            self.readings.note(self.known(cached.attributes).attributes, self.clock.wall_ns())

    async def tell_readings(self) -> None:
        """Tell the metaservers of all readings so far. What cannot be told is dropped."""
        while batch := self.readings.take(READINGS_MAX, self._attributes_of):
            try:
                await self.meta.call(NoteReadings(batch))
            except TideError as error:
                log.debug("%d readings change no atime: %s", len(batch), error)
                continue
            for reading in batch:
                cached = self.attributes.get(reading.inode)
                if cached is not None and cached.attributes.change == reading.change:
                    cached.attributes = msgspec.structs.replace(
                        cached.attributes, atime_ns=reading.atime_ns
                    )

    def _attributes_of(self, inode: int) -> Attributes | None:
        cached = self.attributes.get(inode)
        return None if cached is None else cached.attributes

    # --- what a write takes away

    def may_have_privileges(self, inode: int) -> bool:
        """Whether a file has what a write by somebody without CAP_FSETID takes away, as far as is
        known here. (The kernel says of nearly every write that it is one.)"""
        cached = self.attributes.get(inode)
        if cached is None:
            return True
        mode = cached.attributes.mode
        if acl.without_privileges(mode) != mode:
            return True
        is_known = cached.xattrs_complete or CAPABILITY in cached.xattrs
        return not is_known or cached.xattrs.get(CAPABILITY) is not None

    async def kill_privileges(self, inode: int) -> None:
        """Take it away, if it is there."""
        known = await self._getattr(inode)
        mode = known.attributes.mode
        if acl.without_privileges(mode) == mode and not await self._has_xattr(inode, CAPABILITY):
            return
        reply = await self.change(inode, SetAttributes(inode, kill_privileges=True))
        self.absorb(reply.attributes, own=True)
        self._keep(inode, reply.attributes.change, CAPABILITY, None)
        if self.kernel is not None:
            self.kernel.invalidate_inode(inode, attributes_only=True)

    async def _has_xattr(self, inode: int, name: bytes) -> bool:
        try:
            await self._getxattr(inode, name)
        except TideError as error:
            if error.code is Code.NO_ATTRIBUTE:
                return False
            raise
        return True

    # --- extended attributes

    def getxattr(self, inode: int, name: bytes) -> Soon[bytes]:
        if name in self.told_xattrs:
            return self.told_xattrs[name](inode)
        cached = self.attributes.trusted(inode)
        if cached is not None:
            value = cached.xattrs.get(name)
            if value is not None:
                return value
            if name in cached.xattrs or cached.xattrs_complete:
                raise _no_attribute(inode, name)
        return self._getxattr(inode, name)

    async def _getxattr(self, inode: int, name: bytes) -> bytes:
        before = self._change_of(inode)
        try:
            reply = await self.meta.call(GetXattr(inode, name))
        except TideError as error:
            if error.code is Code.NO_ATTRIBUTE:
                self._keep(inode, before, name, None)
            raise
        self._keep(inode, before, name, reply.value)
        return reply.value

    def listxattr(self, inode: int) -> Soon[list[bytes]]:
        cached = self.attributes.trusted(inode)
        if cached is not None and cached.xattrs_complete:
            return _names(cached)
        return self._listxattr(inode)

    async def _listxattr(self, inode: int) -> list[bytes]:
        return (await self.meta.call(ListXattrs(inode))).names

    def setxattr(
        self, inode: int, name: bytes, value: bytes, flags: int, *, kill_set_group_id: bool = False
    ) -> Soon[None]:
        self._check_may_change(name)
        if len(name) > XATTR_NAME_MAX_BYTES:
            raise TideError(Code.NO_BUFFER_ROOM, f"an attribute's name of {len(name)} bytes")
        if len(value) > XATTR_VALUE_MAX_BYTES:
            raise TideError(Code.ATTRIBUTE_TOO_LARGE, f"{name!r} with {len(value)} bytes")

        def learn(reply: Node) -> None:
            self.absorb(reply.attributes, own=True)
            if name in acl.NAMES:
                self.unlearn(inode, name)  # it may say no more than the mode: then it is not kept
            else:
                self._keep(inode, reply.attributes.change, name, value)

        return self.ask(inode, SetXattr(inode, name, value, flags, kill_set_group_id), learn)

    def removexattr(self, inode: int, name: bytes) -> Soon[None]:
        self._check_may_change(name)

        def learn(reply: Node) -> None:
            self.absorb(reply.attributes, own=True)
            self._keep(inode, reply.attributes.change, name, None)

        return self.ask(inode, RemoveXattr(inode, name), learn)

    def _check_may_change(self, name: bytes) -> None:
        if name in self.told_xattrs:
            raise TideError(Code.NOT_PERMITTED, f"{name!r} is told by the mount, and cannot be set")

    def _change_of(self, inode: int) -> int:
        cached = self.attributes.get(inode)
        return 0 if cached is None else cached.attributes.change

    def _keep(self, inode: int, change: int, name: bytes, value: bytes | None) -> None:
        """Remember a value, if it is that of the version that is known."""
        cached = self.attributes.get(inode)
        if cached is not None and cached.attributes.change == change:
            cached.xattrs[name] = value

    def unlearn(self, inode: int, name: bytes) -> None:
        """The server may have changed a value by itself."""
        cached = self.attributes.get(inode)
        if cached is not None and cached.attributes.has_xattrs:
            cached.xattrs.pop(name, None)
            cached.xattrs_complete = False

    # --- the whole file system

    def statfs(self) -> Soon[Space]:
        return self.meta.start(GetSpace())


def _in_range(time_ns: int | None) -> int | None:
    return None if time_ns is None else min(max(time_ns, TIME_MIN_NS), TIME_MAX_NS)


def _names(cached: Cached) -> list[bytes]:
    return sorted(name for name, value in cached.xattrs.items() if value is not None)


def _no_attribute(inode: int, name: bytes) -> TideError:
    return TideError(Code.NO_ATTRIBUTE, f"{name!r} of inode {inode}")
