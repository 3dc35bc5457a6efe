"""Extended attributes."""

from collections.abc import Iterator

from . import keys
from .kv import KeyValue


class Xattrs:
    """All extended attributes of all inodes."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    def get(self, inode: int, name: bytes) -> bytes | None:
        """The value, or None."""
        return self._kv.get(keys.named(keys.XATTR, inode, name))

    def put(self, inode: int, name: bytes, value: bytes) -> None:
        self._kv.put(keys.named(keys.XATTR, inode, name), value)

    def delete(self, inode: int, name: bytes) -> None:
        self._kv.delete(keys.named(keys.XATTR, inode, name))

    def of(self, inode: int) -> Iterator[tuple[bytes, bytes]]:
        """The (name, value) pairs of one inode, by name."""
        for key, value in self._kv.scan(keys.numbered(keys.XATTR, inode)):
            yield keys.name_in(key), value

    def drop_all(self, inode: int) -> None:
        """Forget those of an inode that goes."""
        for name, _ in list(self.of(inode)):
            self.delete(inode, name)

    def owners(self) -> Iterator[int]:
        """The inode of every attribute."""
        for key, _ in self._kv.scan(keys.XATTR):
            yield int.from_bytes(key[1:9], "big")
