"""Names in directories: what they lead to, or that they are not there.

A name belongs to the version of its directory at which it was learned, and may be believed as
long as the directory's attributes are trusted (the caller asks that of the attributes cache):
when they show a version that our own changes do not explain, all names of the directory go.
So one refreshed directory stands for all its names. A directory that was made here, or listed
from beginning to end at one version, is *complete*: what is not in it does not exist.

Nothing here waits.
"""

from collections import OrderedDict
from enum import Enum
from itertools import islice

from ..fs.limits import NAMES_CACHED_MAX


class Absence(Enum):
    """What is known when there is nothing."""

    ABSENT = "the name is not there"


ABSENT = Absence.ABSENT


class _Directory:
    __slots__ = ("complete", "names", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.complete = False
        self.names: dict[bytes, int | Absence] = {}


class DentryCache:
    """The names of all directories, least recently used directory out first."""

    def __init__(self, capacity: int = NAMES_CACHED_MAX) -> None:
        self._capacity = capacity
        self._count = 0
        self._directories: OrderedDict[int, _Directory] = OrderedDict()

    def see(self, inode: int, version: int, *, own: bool) -> bool:
        """A directory is at ``version``; ``own``: after one change that we made. Whether somebody
        else has changed it, as far as can be known."""
        directory = self._directories.get(inode)
        if directory is None:
            self._directories[inode] = _Directory(version)
            self._make_room(inode)
            return False
        foreign = version > directory.version + own
        if foreign:
            self._clear(directory)
        directory.version = max(version, directory.version)
        return foreign

    def version(self, inode: int) -> int:
        """The version at which names are known now; 0: none are."""
        directory = self._directories.get(inode)
        return 0 if directory is None else directory.version

    def get(self, inode: int, name: bytes) -> int | Absence | None:
        """The inode that ``name`` leads to, ABSENT, or None: not known."""
        directory = self._directories.get(inode)
        if directory is None:
            return None
        self._directories.move_to_end(inode)
        found = directory.names.get(name)
        if found is None and directory.complete:
            return ABSENT
        return found

    def put(self, inode: int, name: bytes, found: int | Absence, version: int) -> None:
        """``name`` was learned at ``version``; ignored when the directory has moved on."""
        directory = self._directories.get(inode)
        if directory is None or directory.version != version:
            return
        self._count += name not in directory.names
        directory.names[name] = found
        self._make_room(inode)

    def is_complete(self, inode: int, version: int) -> None:
        """All names of the directory at ``version`` were put here."""
        directory = self._directories.get(inode)
        if directory is not None and directory.version == version:
            directory.complete = True

    def forget(self, inode: int) -> None:
        """All names of a directory."""
        directory = self._directories.pop(inode, None)
        if directory is not None:
            self._count -= len(directory.names)

    def _clear(self, directory: _Directory) -> None:
        self._count -= len(directory.names)
        directory.names = {}
        directory.complete = False

    def _make_room(self, keep: int) -> None:
        """Old directories go first; when one alone is too large, the older half of its names (one
        at a time would cost a walk over all that went before: a dict keeps their places)."""
        while self._count > self._capacity or len(self._directories) > self._capacity:
            oldest = next(iter(self._directories))
            if oldest == keep:
                if len(self._directories) > 1:
                    self._directories.move_to_end(keep)
                    continue
                directory = self._directories[keep]
                names = directory.names
                directory.names = dict(islice(names.items(), (len(names) + 1) // 2, None))
                directory.complete = False
                self._count -= len(names) - len(directory.names)
            else:
                self.forget(oldest)
