"""Listings of directories that were read to the end of a page, for who lists them again.

A page is right as long as its directory has the version at which it was read. Whoever reads it
has to ask for that version, and whether the attributes of its entries may still be believed: a
page whose attributes are old is read anew, which renews them all in one question.

Nothing here waits.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from ..fs.limits import LISTED_ENTRIES_MAX
from ..fs.messages.meta import DirectoryEntry


class Page(NamedTuple):
    """Entries in the order of their cookies. ``end``: there is none behind them."""

    entries: list[DirectoryEntry]
    end: bool
    inodes: list[int]


class _Listing:
    """``pages`` by the cookie behind which they begin."""

    __slots__ = ("pages", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.pages: dict[int, Page] = {}


class Listings:
    """Pages of all directories, least recently used directory out first."""

    def __init__(self, capacity: int = LISTED_ENTRIES_MAX) -> None:
        self._capacity = capacity
        self._count = 0
        self._listings: OrderedDict[int, _Listing] = OrderedDict()

    def put(self, inode: int, version: int, cookie: int, page: Page) -> None:
        """What is behind ``cookie`` in a directory at ``version``."""
        listing = self._listings.get(inode)
        if listing is None or listing.version != version:
            self.forget(inode)
            listing = self._listings[inode] = _Listing(version)
        before = listing.pages.get(cookie)
        self._count += len(page.entries) - (len(before.entries) if before else 0)
        listing.pages[cookie] = page
        while self._count > self._capacity:
            self.forget(next(iter(self._listings)))

    def get(self, inode: int, version: int, cookie: int) -> Page | None:
        """The page behind ``cookie``, when the directory is at ``version``."""
        listing = self._listings.get(inode)
        if listing is None or listing.version != version:
            return None
        self._listings.move_to_end(inode)
        return listing.pages.get(cookie)

    def version(self, inode: int) -> int | None:
        """The version of which there are pages."""
        listing = self._listings.get(inode)
        return None if listing is None else listing.version

    def inodes(self, inode: int) -> Iterator[int]:
        """Those of all entries that are in pages of a directory."""
        listing = self._listings.get(inode)
        pages = () if listing is None else listing.pages.values()
        return chain.from_iterable(page.inodes for page in pages)

    def forget(self, inode: int) -> None:
        """All pages of a directory."""
        listing = self._listings.pop(inode, None)
        if listing is not None:
            self._count -= sum(len(page.entries) for page in listing.pages.values())
