"""When files were read here: noted at once, told to the metaservers later, many at a time. Pure.

A reading changes a file's atime only where that tells something (mount(8), relatime): when the
file was changed since, or a day has passed. It is seen here at once, and elsewhere when the next
batch was sent; what a client has noted dies with it. The server takes a time only if the inode is
as it was known here, so that a time that somebody has set meanwhile (utimensat(2)) stays.
"""

from collections.abc import Callable

from ..fs.attributes import Attributes, Kind
from ..fs.messages.meta import Reading
from .options import AccessTimes

DAY_NS = 24 * 3600 * 10**9

Known = Callable[[int], Attributes | None]
"""What is known of an inode."""


class Readings:
    """The inodes that were read, and when."""

    def __init__(self, rule: AccessTimes, *, directories: bool = True) -> None:
        self._rule = rule
        self.always = rule is AccessTimes.ALWAYS
        self._directories = directories
        self._noted: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, attributes: Attributes, now_ns: int) -> bool:
        """An inode is read. Whether that is news."""
        if not self._changes(attributes, now_ns):
            return False
        self._noted[attributes.inode] = now_ns
        return True

    def _changes(self, attributes: Attributes, now_ns: int) -> bool:
        if self._rule is AccessTimes.NEVER:
            return False
        if attributes.kind is Kind.DIRECTORY and not self._directories:
            return False
        if self._rule is AccessTimes.ALWAYS:
            return True
        atime_ns = self._noted.get(attributes.inode, attributes.atime_ns)
        changed_ns = max(attributes.mtime_ns, attributes.ctime_ns)
        return atime_ns <= changed_ns or now_ns - atime_ns >= DAY_NS

    def atime_ns(self, inode: int) -> int | None:
        """When it was read, if that is not told yet."""
        return self._noted.get(inode)

    def drop(self, inode: int) -> None:
        """Its atime was set, or it is gone."""
        self._noted.pop(inode, None)

    def take(self, count_max: int, known: Known) -> list[Reading]:
        """The next ones to be told."""
        batch: list[Reading] = []
        while self._noted and len(batch) < count_max:
            inode, atime_ns = self._noted.popitem()
            attributes = known(inode)
            if attributes is not None:
                batch.append(Reading(inode, attributes.change, atime_ns))
        return batch
