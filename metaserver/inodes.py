"""The inode table: attributes and what else belongs to one inode; and the orphans.

An orphan is an inode that lost its last name. It stays, with ``links`` 0, until it is reaped.
"""

from collections.abc import Iterator

import msgspec

from ..fs.attributes import Attributes, Kind
from ..fs.codec import pack, unpack
from ..fs.errors import Code, TideError
from . import keys
from .effects import Orphaned
from .kv import KeyValue
from .moment import Moment
from .records import Totals

_KINDS = {int(kind): kind for kind in Kind}

UNCOUNTED = -1
"""Of an inode that was made before its extended attributes were counted."""

_LINKABLE = b"\1"


class Inode(msgspec.Struct):
    """Attributes (see there), and what a client has no need to know."""

    number: int
    kind: Kind
    mode: int
    links: int
    uid: int
    gid: int
    device: int
    size: int
    stored_bytes: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    change: int = 1
    data_version: int = 1  # never 0: that means "none known" in requests
    parent: int = 0  # of a directory, for ``..``
    next_cookie: int = 0  # of a directory: its next entry's, never used twice
    chunks: int = 0  # of a file; it is inline while there is none
    xattrs: int = UNCOUNTED

    def attributes(self) -> Attributes:
        """What the world may know, as it is now."""
        return Attributes(
            self.number,
            self.kind,
            self.mode,
            self.links,
            self.uid,
            self.gid,
            self.device,
            self.size,
            self.stored_bytes,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.change,
            self.data_version,
            self.xattrs != 0,
        )

    def changed(self, time_ns: int) -> None:
        """Something about the inode changed: ctime."""
        self.ctime_ns = time_ns
        self.change += 1

    def data_changed(self, time_ns: int) -> None:
        """Its bytes or its entries changed: mtime and ctime."""
        self.mtime_ns = time_ns
        self.data_version += 1
        self.changed(time_ns)


class Inodes:
    """All inodes, by number."""

    def __init__(self, kv: KeyValue, totals: Totals) -> None:
        self._kv = kv
        self._totals = totals

    def get(self, number: int) -> Inode | None:
        """The inode, or None when there is none of that number any more, or yet."""
        if not 0 < number < self._totals.next_inode:
            return None
        packed = self._kv.get(keys.numbered(keys.INODE, number))
        return None if packed is None else _unpacked(packed)

    def require(self, number: int) -> Inode:
        """The inode; STALE_HANDLE when it is gone."""
        inode = self.get(number)
        if inode is None:
            raise TideError(Code.STALE_HANDLE, f"inode {number}")
        return inode

    def directory(self, number: int) -> Inode:
        """A directory; NOT_A_DIRECTORY when it is something else."""
        inode = self.require(number)
        if inode.kind is not Kind.DIRECTORY:
            raise TideError(Code.NOT_A_DIRECTORY, f"inode {number}")
        return inode

    def living_directory(self, number: int) -> Inode:
        """A directory that has a name; NO_ENTRY when it was removed and is only kept open."""
        inode = self.directory(number)
        if inode.links == 0:
            raise TideError(Code.NO_ENTRY, f"directory {number} was removed")
        return inode

    def file(self, number: int) -> Inode:
        """A regular file; IS_A_DIRECTORY or INVALID when it is something else."""
        inode = self.require(number)
        if inode.kind is Kind.DIRECTORY:
            raise TideError(Code.IS_A_DIRECTORY, f"inode {number}")
        if inode.kind is not Kind.FILE:
            raise TideError(Code.INVALID, f"inode {number} is a {inode.kind.name}, not a file")
        return inode

    def new(self, kind: Kind, mode: int, uid: int, gid: int, time_ns: int) -> Inode:
        """A new inode without a name: ``put`` it when its link count is right."""
        number = self._totals.next_inode
        self._totals.next_inode += 1
        self._totals.inodes += 1
        times = time_ns, time_ns, time_ns
        return Inode(number, kind, mode, 0, uid, gid, 0, 0, 0, *times, xattrs=0)

    def put(self, inode: Inode) -> None:
        """Write what was changed in ``inode``."""
        self._kv.put(keys.numbered(keys.INODE, inode.number), pack(inode))

    def set_stored(self, inode: Inode, stored_bytes: int) -> None:
        """Note how much room its bytes take, here and in the totals."""
        self._totals.stored_bytes += stored_bytes - inode.stored_bytes
        inode.stored_bytes = stored_bytes

    def lose_name(self, inode: Inode, moment: Moment) -> None:
        """One name less; a directory has only one. Without a name it is an orphan."""
        inode.links = 0 if inode.kind is Kind.DIRECTORY else inode.links - 1
        inode.changed(moment.time_ns)
        if inode.links == 0:
            self._kv.put(keys.numbered(keys.ORPHAN, inode.number), b"")
            moment.effects.append(Orphaned(inode.number))

    def begin_unnamed(self, inode: Inode, *, linkable: bool) -> None:
        """A new inode has no name, and may be given one later if it is ``linkable``. Whoever made
        it has it open: it is no news that it waits to be reaped."""
        self._kv.put(keys.numbered(keys.ORPHAN, inode.number), _LINKABLE if linkable else b"")

    def is_linkable(self, inode: Inode) -> bool:
        """Whether it may get a name: it has one, or never had one and was made for that."""
        orphan = keys.numbered(keys.ORPHAN, inode.number)
        return inode.links > 0 or self._kv.get(orphan) == _LINKABLE

    def gain_name(self, inode: Inode, time_ns: int) -> None:
        """One name more."""
        if inode.links == 0:
            self._kv.delete(keys.numbered(keys.ORPHAN, inode.number))
        inode.links += 1
        inode.changed(time_ns)

    def is_orphan(self, number: int) -> bool:
        """Whether it waits to be reaped."""
        if not 0 < number < self._totals.next_inode:
            return False
        return self._kv.get(keys.numbered(keys.ORPHAN, number)) is not None

    def orphans(self) -> Iterator[int]:
        """All that wait to be reaped, by number."""
        for key, _ in self._kv.scan(keys.ORPHAN):
            yield keys.last_number(key)

    def drop_orphan(self, inode: Inode) -> None:
        """Forget an orphan. Its number is never used again."""
        self.set_stored(inode, 0)
        self._totals.inodes -= 1
        self._kv.delete(keys.numbered(keys.ORPHAN, inode.number))
        self._kv.delete(keys.numbered(keys.INODE, inode.number))

    def all(self) -> Iterator[Inode]:
        """Every inode, by number."""
        for _, packed in self._kv.scan(keys.INODE):
            yield _unpacked(packed)


def _unpacked(packed: bytes) -> Inode:
    fields = unpack(packed)
    fields[1] = _KINDS[fields[1]]
    return Inode(*fields)
