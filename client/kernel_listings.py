"""What the kernel was told of listings of directories, for who opens one of them again.

The kernel keeps one listing of each directory (FOPEN_CACHE_DIR). Behind its end it puts whatever is
read there, through any open directory, and it does not know of versions. So it may keep what it has
when all that it was told since it had nothing was told at one version, which still is the
directory's; how far the listing goes does not matter, for the kernel knows that itself.

It drops what it has at an open that does not let it keep that. What was told through another open
directory may still be on its way into the listing then. So who opens a directory that is being
read, and may not be shown what was read, stays out of it: it neither sees the listing, nor adds to
it, nor drops it.

A directory that the kernel forgets needs no attention: it then begins with nothing, and may keep
that. Nothing here waits.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from ..fs.limits import KERNEL_LISTINGS_MAX

NOTHING = 0
"""The kernel was told nothing."""
MIXED = -1
"""It was told of more than one version."""


class _Told:
    """``version`` of all that the kernel may have; until ``until_ns`` it believes the names.
    ``readers``: how many open directories read it. ``coming``: how many pages are on their way."""

    __slots__ = ("coming", "readers", "until_ns", "version")

    def __init__(self) -> None:
        self.coming = 0
        self.readers = 0
        self.version = NOTHING
        self.until_ns = 0


class KernelListings:
    """Of all directories that are read; and of the others those of which the kernel has one
    version, least recently read out first."""

    def __init__(self, capacity: int = KERNEL_LISTINGS_MAX) -> None:
        self._capacity = capacity
        self._read: dict[int, _Told] = {}
        self._unread: OrderedDict[int, _Told] = OrderedDict()

    def version(self, inode: int, now_ns: int) -> int | None:
        """The version of all that the kernel has of a listing, if it still believes the names; None
        when it has nothing, or it is not known what."""
        told = self._read.get(inode) or self._unread.get(inode)
        if told is None or told.coming or told.version in (NOTHING, MIXED):
            return None
        return told.version if told.until_ns > now_ns else None

    def is_read(self, inode: int) -> bool:
        """Whether an open directory is read, and what it was told may be on its way."""
        return inode in self._read

    def drop(self, inode: int) -> None:
        """The kernel drops what it has of a directory that is not read."""
        self._unread.pop(inode, None)

    def begin(self, inode: int) -> None:
        """An open directory is read from now on."""
        told = self._read.get(inode)
        if told is None:
            told = self._read[inode] = self._unread.pop(inode) if inode in self._unread else _Told()
        told.readers += 1

    @contextmanager
    def coming(self, inode: int) -> Iterator[None]:
        """While it is not known yet what one that is read will be told."""
        told = self._read[inode]
        told.coming += 1
        try:
            yield
        finally:
            told.coming -= 1

    def told(self, inode: int, version: int, until_ns: int) -> None:
        """It was told entries that are right at ``version``, with names to be believed until
        then."""
        told = self._read.get(inode)
        if told is None:
            return  # it was closed meanwhile
        if told.version == NOTHING:
            told.version, told.until_ns = version, until_ns
            return
        if told.version != version:
            told.version = MIXED
        told.until_ns = min(told.until_ns, until_ns)

    def end(self, inode: int) -> None:
        """One that was read is closed."""
        told = self._read[inode]
        told.readers -= 1
        if told.readers:
            return
        del self._read[inode]
        if told.version not in (NOTHING, MIXED):
            self._unread[inode] = told
            if len(self._unread) > self._capacity:
                self._unread.popitem(last=False)

    def forget(self, inode: int) -> None:
        """A directory is gone, or what the kernel has of it is not right any more."""
        self._unread.pop(inode, None)
        told = self._read.get(inode)
        if told is not None:
            told.version = MIXED
