"""Readdir's buffers: entries one behind the other, each at a multiple of eight bytes."""

from collections.abc import Iterable

from ....fs.messages.meta import DirectoryEntry
from ..driver import Known
from ..translation import FORMAT_BITS
from . import structures as s
from .replies import entry_fields

DT_DIR = 4
_NOT_AN_INODE = (0,) * 22
"""struct fuse_entry_out without a nodeid: the kernel takes name and type only, and counts no
lookup."""

PLUS_BYTES = s.DIRENTPLUS.size
PLAIN_BYTES = s.DIRENT.size
_put_plus = s.DIRENTPLUS.pack_into
_put_plain = s.DIRENT.pack_into


class Listing:
    """One reply to READDIR or, with ``plus``, READDIRPLUS: at most ``room_bytes``.

    ``inodes``: those of which the kernel counts a lookup.
    """

    def __init__(self, room_bytes: int, *, plus: bool) -> None:
        self._buffer = bytearray(room_bytes)
        self._plus = plus
        self._used = 0
        self.inodes: list[int] = []

    def payload(self) -> memoryview:
        """What is in it so far."""
        return memoryview(self._buffer)[: self._used]

    def add_dot(self, name: bytes, inode: int, cookie: int) -> bool:
        """``.`` or ``..``, of which only the number is told; whether it fitted."""
        start = self._used
        if self._plus:
            end = start + PLUS_BYTES + 8
            if end > len(self._buffer):
                return False
            _put_plus(self._buffer, start, *_NOT_AN_INODE, inode, cookie, len(name), DT_DIR)
        else:
            end = start + PLAIN_BYTES + 8
            if end > len(self._buffer):
                return False
            _put_plain(self._buffer, start, inode, cookie, len(name), DT_DIR)
        self._put_name(name, end - 8, end)
        return True

    def add(self, entries: Iterable[tuple[DirectoryEntry, Known]], cookies_before: int) -> None:
        """As many entries as fit. Their cookies are moved up by ``cookies_before``."""
        if self._plus:
            self._add_plus(entries, cookies_before)
        else:
            self._add_plain(entries, cookies_before)

    def _add_plus(
        self, entries: Iterable[tuple[DirectoryEntry, Known]], cookies_before: int
    ) -> None:
        buffer, used, inodes = self._buffer, self._used, self.inodes
        room = len(buffer)
        for entry, known in entries:
            name = entry.name
            length = len(name)
            at = used + PLUS_BYTES
            end = at + (length + 7 & ~7)
            if end > room:
                break
            attributes = known.attributes
            _put_plus(
                buffer,
                used,
                *entry_fields(known),
                attributes.inode,
                entry.cookie + cookies_before,
                length,
                FORMAT_BITS[attributes.kind] >> 12,
            )
            buffer[at : at + length] = name
            inodes.append(attributes.inode)
            used = end
        self._used = used

    def _add_plain(
        self, entries: Iterable[tuple[DirectoryEntry, Known]], cookies_before: int
    ) -> None:
        for entry, known in entries:
            attributes = known.attributes
            start, length = self._used, len(entry.name)
            at = start + PLAIN_BYTES
            end = at + (length + 7 & ~7)
            if end > len(self._buffer):
                break
            kind = FORMAT_BITS[attributes.kind] >> 12
            cookie = entry.cookie + cookies_before
            _put_plain(self._buffer, start, attributes.inode, cookie, length, kind)
            self._put_name(entry.name, at, end)

    def _put_name(self, name: bytes, at: int, end: int) -> None:
        self._buffer[at : at + len(name)] = name
        self._used = end
