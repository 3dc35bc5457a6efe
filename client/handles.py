"""Open files and directories: what each handle remembers for itself."""

from bisect import bisect_right
from operator import attrgetter
from typing import Generic, TypeVar

from ..fs.attributes import Attributes
from ..fs.errors import Code, TideError
from ..fs.limits import LISTED_AT_ONCE_MAX
from ..fs.messages.meta import DirectoryEntry
from .inodes import File
from .readahead import ReadAhead


class OpenFile:
    """One open(2). ``lost``: locks on the file were lost while it was open, so whoever has it open
    may believe what is not true. ``mappable``: it may be mapped, and pages written back."""

    __slots__ = ("append", "file", "lost", "mappable", "read_ahead", "read_at_change", "unseen")

    def __init__(
        self, file: File, *, append: bool, mappable: bool = False, unseen: bool = False
    ) -> None:
        self.file = file
        self.append = append
        self.lost = False
        self.mappable = mappable
        file.mappable += mappable
        self.unseen = unseen  # reading changes no atime (O_NOATIME)
        self.read_at_change = -1  # the ``change`` of the file at which it was last noted as read
        self.read_ahead = ReadAhead()

    def close(self) -> None:
        """It is open no more."""
        self.file.mappable -= self.mappable

    def check_not_lost(self) -> None:
        """EIO for whoever may believe to hold a lock that is lost."""
        if self.lost:
            raise TideError(
                Code.DEVICE_ERROR,
                f"inode {self.file.inode}: locks on it were lost with an earlier session of this"
                " mount; close it, and open it again",
            )


_COOKIE = attrgetter("cookie")


class OpenDirectory:
    """One opendir(3): the last page of the listing, never more.

    ``version`` is the directory's when the listing began at its start; 0 when the pages so far do
    not add up to one version of it. ``listed``: the one at which the last page was right.
    ``asked``: the one that the server told opendir, until the first page is read; 0: none.
    ``cached``: the kernel puts what is told here into its listing. ``read``: it was told something.
    ``attributes``: as they were when it was opened.
    """

    __slots__ = (
        *("after", "asked", "attributes", "cached", "end"),
        *("entries", "inode", "listed", "read", "version"),
    )

    def __init__(self, attributes: Attributes) -> None:
        self.inode = attributes.inode
        self.attributes = attributes
        self.cached = False
        self.read = False
        self.after = -1  # the cookie behind which the page begins; -1: there is no page
        self.entries: list[DirectoryEntry] = []
        self.end = False
        self.version = 0
        self.listed = 0
        self.asked = 0

    def behind(self, cookie: int) -> list[DirectoryEntry] | None:
        """The next entries behind ``cookie``; None when another page is needed."""
        if cookie == self.after:
            return self.entries[:LISTED_AT_ONCE_MAX] if self.entries or self.end else None
        at = bisect_right(self.entries, cookie, key=_COOKIE)
        if not at or self.entries[at - 1].cookie != cookie:
            return None
        rest = self.entries[at : at + LISTED_AT_ONCE_MAX]
        return rest if rest or self.end else None


H = TypeVar("H")


class Handles(Generic[H]):
    """Numbers for open things; a number is never used twice."""

    def __init__(self) -> None:
        self._open: dict[int, H] = {}
        self._next = 1

    def add(self, opened: H) -> int:
        handle = self._next
        self._next += 1
        self._open[handle] = opened
        return handle

    def all(self) -> list[H]:
        return list(self._open.values())

    def get(self, handle: int) -> H:
        """What is open under the number; STALE_HANDLE when nothing is."""
        opened = self._open.get(handle)
        if opened is None:
            raise TideError(Code.STALE_HANDLE, f"handle {handle} is not open")
        return opened

    def pop(self, handle: int) -> H:
        opened = self.get(handle)
        del self._open[handle]
        return opened
