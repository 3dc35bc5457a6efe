"""Attributes, extended attributes and link targets of inodes, and until when they are trusted.

Nothing here waits. Replies may overtake each other: the one with the lower ``change`` is old and
is not let in.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from ..fs.attributes import Attributes
from ..fs.limits import ATTRIBUTES_CACHED_MAX
from ..fs.ports.clock import Clock
from .modes import Ground, Trust

NS_PER_MS = 1_000_000


class Cached:
    """What is cached of one inode. An extended attribute that is None is known to be absent."""

    __slots__ = (
        "attributes",
        "changing",
        "exclusive",
        "promise",
        "seen_ns",
        "target",
        "trusted_until_ns",
        "xattrs",
        "xattrs_complete",
    )

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self.seen_ns = 0
        self.trusted_until_ns = 0
        self.promise = 0
        """The number of the connection on which they were promised; 0: they are not."""
        self.exclusive = False
        self.changing = 0
        """So many changes of ours are under way, which others may see before we do."""
        self.target: bytes | None = None
        self.xattrs: dict[bytes, bytes | None] = {}
        self.xattrs_complete = False

    def trust_ms(self, now_ns: int) -> int:
        """For how long yet they may be believed."""
        left_ns = self.trusted_until_ns - now_ns
        return left_ns // NS_PER_MS if left_ns > 0 else 0


class AttributesCache:
    """All inodes' attributes, least recently used out first."""

    def __init__(
        self,
        clock: Clock,
        trust: Trust,
        lease_until_ns: Callable[[], int],
        capacity: int = ATTRIBUTES_CACHED_MAX,
    ) -> None:
        """``lease_until_ns``: until when promises can be believed without news."""
        self._clock = clock
        self._trust = trust
        self._by_promise = trust.ground is Ground.PROMISED
        self._lease_until_ns = lease_until_ns
        self._capacity = capacity
        self._known: OrderedDict[int, Cached] = OrderedDict()
        self.connection = 1
        """Counts those on which promises were made."""

    def see(
        self, attributes: Attributes, *, own: bool = False, promised: bool = False
    ) -> Cached | None:
        """Attributes came from a server, ``own``: in the reply to a change that we made.

        None when they are older than what is known; else they are trusted from now on, in some
        modes only when they are ``promised``.
        """
        known = self._known.get(attributes.inode)
        if known is None:
            known = self._known[attributes.inode] = Cached(attributes)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        else:
            change = known.attributes.change
            if attributes.change < change:
                return None
            if attributes.change > change + own:
                known.xattrs = {}
                known.xattrs_complete = False
            known.attributes = attributes
        if promised and known.promise != self.connection:
            known.promise = self.connection
            known.exclusive = False
        if not attributes.has_xattrs:
            # Nearly all inodes have none: so the kernel's questions for access lists, at each name
            # of a path, cost nothing.
            known.xattrs = {}
            known.xattrs_complete = True
        trust_ms = self._trust.for_age(
            (self._clock.wall_ns() - max(attributes.mtime_ns, attributes.ctime_ns)) // NS_PER_MS
        )
        known.seen_ns = self._clock.monotonic_ns()
        known.trusted_until_ns = known.seen_ns + trust_ms * NS_PER_MS
        return known

    def get(self, inode: int) -> Cached | None:
        """What is known of an inode, trusted or not."""
        known = self._known.get(inode)
        if known is not None:
            self._known.move_to_end(inode)
        return known

    def peek(self, inode: int) -> Cached | None:
        """The same, without counting as use."""
        return self._known.get(inode)

    def trusted(self, inode: int) -> Cached | None:
        """What is known, if it may be believed now."""
        known = self.get(inode)
        if known is None or not self._is_trusted(known, self._clock.monotonic_ns()):
            return None
        return known

    def _is_trusted(self, known: Cached, now_ns: int) -> bool:
        if self._by_promise:
            is_promised = known.promise == self.connection and not known.changing
            return is_promised and now_ns < self._lease_until_ns()
        return known.trusted_until_ns > now_ns

    def trust_ms(self, inode: int) -> int:
        """For how long yet."""
        known = self._known.get(inode)
        return 0 if known is None else known.trust_ms(self._clock.monotonic_ns())

    def trusts_all(self, inodes: Iterable[int]) -> bool:
        """Whether all of them may be believed now."""
        now_ns = self._clock.monotonic_ns()
        for inode in inodes:
            known = self._known.get(inode)
            if known is None or not self._is_trusted(known, now_ns):
                return False
        return True

    def distrust(self, inode: int) -> None:
        """Ask the server next time."""
        known = self._known.get(inode)
        if known is not None:
            known.trusted_until_ns = 0
            known.promise = 0

    # --- promises

    def claimed(self, inode: int) -> bool:
        """Whether nobody else may believe, or change, anything of it."""
        known = self._known.get(inode)
        return (
            known is not None
            and known.exclusive
            and known.promise == self.connection
            and self._clock.monotonic_ns() < self._lease_until_ns()
        )

    def claim(self, inode: int) -> None:
        """It was promised to us alone."""
        known = self._known.get(inode)
        if known is not None:
            known.exclusive = known.promise == self.connection

    def recall(self, inode: int) -> None:
        """It is promised no more."""
        known = self._known.get(inode)
        if known is not None:
            known.promise = 0
            known.exclusive = False

    def recall_all(self, kept: Iterable[int] = ()) -> None:
        """Promises of the connection before do not count on a new one, but for exclusive ones that
        were ``kept``."""
        self.connection += 1
        for inode in kept:
            known = self._known.get(inode)
            if known is not None and known.exclusive and known.promise == self.connection - 1:
                known.promise = self.connection

    def begin_change(self, inodes: Iterable[int]) -> Callable[[], None]:
        """A change of ours goes out: others may see it before we know. Call what this returns as
        soon as it is known what became of it."""
        changing = [known for inode in inodes if (known := self._known.get(inode)) is not None]
        for known in changing:
            known.changing += 1

        def ended() -> None:
            for known in changing:
                known.changing -= 1

        return ended

    def forget(self, inode: int) -> None:
        self._known.pop(inode, None)
