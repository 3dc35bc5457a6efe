"""Bytes that live in the state: of small files, and the targets of symbolic links.

The stored bytes of an inline file are the beginning of its content; what is missing up to its
size are zeros. So a truncation may extend a file to any size without storing anything.
"""

from collections.abc import Iterator

from . import keys
from .inodes import Inode, Inodes
from .kv import KeyValue


class InlineBytes:
    """The inline bytes of all inodes."""

    def __init__(self, kv: KeyValue, inodes: Inodes) -> None:
        self._kv = kv
        self._inodes = inodes

    def get(self, inode: int) -> bytes:
        """The stored bytes, empty when there are none."""
        return self._kv.get(keys.numbered(keys.INLINE, inode)) or b""

    def set(self, inode: Inode, content: bytes) -> None:
        """Replace the stored bytes. The caller puts the inode."""
        self._inodes.set_stored(inode, len(content))
        key = keys.numbered(keys.INLINE, inode.number)
        if content:
            self._kv.put(key, content)
        else:
            self._kv.delete(key)

    def all(self) -> Iterator[tuple[int, bytes]]:
        """Every (inode, stored bytes)."""
        for key, content in self._kv.scan(keys.INLINE):
            yield keys.last_number(key), content
