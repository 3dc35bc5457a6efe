"""Extended attributes."""

from collections.abc import Iterator

from . import keys
from .inodes import UNCOUNTED, Inode
from .kv import KeyValue


class Xattrs:
    """All extended attributes of all inodes."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    def get(self, inode: int, name: bytes) -> bytes | None:
        """The value, or None."""
        return self._kv.get(keys.named(keys.XATTR, inode, name))

    def of_name(self, inode: Inode, name: bytes) -> bytes | None:
        """The value, or None; it costs nothing where there are none at all."""
        return self.get(inode.number, name) if inode.xattrs else None

    def put(self, inode: Inode, name: bytes, value: bytes) -> None:
        """Set one. The caller puts the inode."""
        self._count(inode)
        inode.xattrs += self.get(inode.number, name) is None
        self._kv.put(keys.named(keys.XATTR, inode.number, name), value)

    def delete(self, inode: Inode, name: bytes) -> bool:
        """Take one away; whether it was there. The caller puts the inode."""
        self._count(inode)
        if self.of_name(inode, name) is None:
            return False
        inode.xattrs -= 1
        self._kv.delete(keys.named(keys.XATTR, inode.number, name))
        return True

    def _count(self, inode: Inode) -> None:
        if inode.xattrs == UNCOUNTED:
            inode.xattrs = sum(1 for _ in self.of(inode.number))

    def of(self, inode: int) -> Iterator[tuple[bytes, bytes]]:
        """The (name, value) pairs of one inode, by name."""
        for key, value in self._kv.scan(keys.numbered(keys.XATTR, inode)):
            yield keys.name_in(key), value

    def drop_all(self, inode: int) -> None:
        """Forget those of an inode that goes."""
        for name, _ in list(self.of(inode)):
            self._kv.delete(keys.named(keys.XATTR, inode, name))

    def owners(self) -> Iterator[int]:
        """The inode of every attribute."""
        for key, _ in self._kv.scan(keys.XATTR):
            yield int.from_bytes(key[1:9], "big")
