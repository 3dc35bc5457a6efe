"""Names: which directory calls which inode what, and in which order it lists them.

Every name stands twice, by itself and by its cookie. Cookies count up within a directory in the
order of creation and are never used twice, so a listing continues rightly while the directory
changes. Cookies 1 and 2 are never given: a client may use them for ``.`` and ``..``.

Adding and removing a name also keeps the directory's size, its link count (2 and one for each
subdirectory), its times, and a subdirectory's parent. The caller puts both inodes.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ..fs.attributes import Kind
from ..fs.codec import pack, unpack
from ..fs.errors import Code, TideError
from . import keys
from .inodes import Inode
from .kv import KeyValue

FIRST_COOKIE = 3


class Dentry(NamedTuple):
    """What a name leads to."""

    inode: int
    kind: int
    cookie: int


class Listed(NamedTuple):
    """One line of a listing."""

    cookie: int
    name: bytes
    inode: int


class Names:
    """All names of all directories."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    def find(self, directory: Inode, name: bytes) -> Dentry | None:
        """What ``name`` leads to, or None."""
        packed = self._kv.get(keys.named(keys.DENTRY, directory.number, name))
        return None if packed is None else Dentry(*unpack(packed))

    def leads_to(self, directory: int, name: bytes) -> int:
        """The number of the inode that ``name`` leads to, 0: none, whatever ``directory`` is."""
        packed = self._kv.get(keys.named(keys.DENTRY, directory, name))
        return 0 if packed is None else int(unpack(packed)[0])

    def require(self, directory: Inode, name: bytes) -> Dentry:
        """What ``name`` leads to; NO_ENTRY when there is no such name."""
        dentry = self.find(directory, name)
        if dentry is None:
            raise TideError(Code.NO_ENTRY, f"{show(name)} in directory {directory.number}")
        return dentry

    def add(self, directory: Inode, name: bytes, inode: Inode, time_ns: int) -> None:
        """A new name, at the end of the listing."""
        cookie = directory.next_cookie
        directory.next_cookie += 1
        directory.size += 1
        self._enter(directory, name, inode, cookie)
        directory.data_changed(time_ns)

    def remove(self, directory: Inode, name: bytes, dentry: Dentry, time_ns: int) -> None:
        """Take a name away."""
        directory.size -= 1
        self._leave(directory, dentry)
        self._kv.delete(keys.named(keys.DENTRY, directory.number, name))
        self._kv.delete(keys.paired(keys.LISTING, directory.number, dentry.cookie))
        directory.data_changed(time_ns)

    def replace(
        self, directory: Inode, name: bytes, dentry: Dentry, inode: Inode, time_ns: int
    ) -> None:
        """Let a name that is there lead to another inode; it keeps its place in the listing."""
        self._leave(directory, dentry)
        self._enter(directory, name, inode, dentry.cookie)
        directory.data_changed(time_ns)

    def listing(self, directory: int, cookie: int) -> Iterator[Listed]:
        """The names behind ``cookie``, by cookie."""
        prefix = keys.numbered(keys.LISTING, directory)
        after = keys.paired(keys.LISTING, directory, cookie)
        for key, packed in self._kv.scan(prefix, after):
            inode, name = unpack(packed)
            yield Listed(keys.last_number(key), name, inode)

    def all(self, directory: int = 0, name: bytes = b"") -> Iterator[tuple[int, bytes, Dentry]]:
        """Every (directory, name, what it leads to) behind these two, in their order."""
        after = keys.named(keys.DENTRY, directory, name)
        for key, packed in self._kv.scan(keys.DENTRY, after):
            yield int.from_bytes(key[1:9], "big"), keys.name_in(key), Dentry(*unpack(packed))

    def all_listed(self) -> Iterator[tuple[int, Listed]]:
        """Every line of every listing."""
        for key, packed in self._kv.scan(keys.LISTING):
            inode, name = unpack(packed)
            yield int.from_bytes(key[1:9], "big"), Listed(keys.last_number(key), name, inode)

    def _enter(self, directory: Inode, name: bytes, inode: Inode, cookie: int) -> None:
        if inode.kind is Kind.DIRECTORY:
            directory.links += 1
            inode.parent = directory.number
        dentry = Dentry(inode.number, inode.kind, cookie)
        self._kv.put(keys.named(keys.DENTRY, directory.number, name), pack(dentry))
        listing_key = keys.paired(keys.LISTING, directory.number, cookie)
        self._kv.put(listing_key, pack((inode.number, name)))

    def _leave(self, directory: Inode, dentry: Dentry) -> None:
        if dentry.kind == Kind.DIRECTORY:
            directory.links -= 1


def show(name: bytes) -> str:
    """A name as people read it in messages."""
    return repr(name.decode(errors="backslashreplace"))
