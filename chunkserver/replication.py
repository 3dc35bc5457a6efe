"""In which order a replica takes writes, and which of them it has seen before. Pure.

Within one version of a chunk the primary numbers the writes from 1; every replica takes them in
that order, without a gap (GFS section 3.1: the lease order is the primary's serial numbers). A
replica that cannot tell what came before, because it was restarted or missed a write, takes no
more at that version: the next grant, a new version, brings all of them together again.

A write may carry a fencing token: that of a lock under which its writer believes to be. Once a
higher one was seen, it is refused (Chubby section 2.4). What is seen counts for one version only.
So no replica refuses what its primary took, for the primary has seen whatever came at that version;
and a write at an older version is refused anyway, where the token only tells why.
"""

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

from ..fs.errors import Code, TideError

T = TypeVar("T")

CHUNKS_MAX = 1 << 17
ANSWERS_MAX = 1 << 14


class _Order(NamedTuple):
    version: int
    next_serial: int
    fence: int = 0
    """The highest token that was seen at this version."""
    fence_before: int = 0
    """At any earlier one, as far as is remembered."""


_NONE = _Order(0, 0)


class Orders:
    """The next serial number of each chunk that writes are taken for. Bounded: one that was
    forgotten is as after a restart."""

    def __init__(self) -> None:
        self._orders: OrderedDict[int, _Order] = OrderedDict()

    def begin(self, handle: int, version: int) -> None:
        """The chunk has that version from now on, and no write came in at it."""
        before = self._orders.pop(handle, _NONE)
        self._orders[handle] = _Order(version, 1, 0, max(before.fence, before.fence_before))
        if len(self._orders) > CHUNKS_MAX:
            self._orders.popitem(last=False)

    def begin_unless_known(self, handle: int, version: int) -> None:
        """As ``begin``, unless writes are counted at that version already."""
        order = self._orders.get(handle)
        if order is None or order.version != version:
            self.begin(handle, version)

    def end(self, handle: int) -> None:
        """No more writes: the chunk is gone, or a write was missed."""
        self._orders.pop(handle, None)

    def check(self, handle: int, version: int, serial: int) -> None:
        """Whether a write with ``serial`` (0: this is the primary, and it numbers it) may come.

        OUT_OF_ORDER when one before it is missing.
        """
        expected = self._next(handle, version)
        if serial not in (0, expected):
            raise TideError(
                Code.OUT_OF_ORDER,
                f"chunk {handle:016x} version {version:x}: write {serial} came, {expected} is next",
            )

    def check_fence(self, handle: int, version: int, fence: int) -> None:
        """FENCED when a write at ``version`` comes from before the lock of another one. Its detail
        ends in the token that was seen."""
        order = self._orders.get(handle, _NONE)
        seen = order.fence if version <= order.version else 0
        if version < order.version:
            seen = max(seen, order.fence_before)
        if 0 < fence < seen:
            raise TideError(
                Code.FENCED,
                f"chunk {handle:016x}: a write with token {fence} came after one with: {seen}",
            )

    def take(self, handle: int, version: int, fence: int = 0) -> int:
        """Count one write, and give its number."""
        serial = self._next(handle, version)
        order = self._orders[handle]
        self._orders[handle] = order._replace(next_serial=serial + 1, fence=max(order.fence, fence))
        return serial

    def _next(self, handle: int, version: int) -> int:
        order = self._orders.get(handle)
        if order is None or order.version != version:
            raise TideError(
                Code.OUT_OF_ORDER,
                f"chunk {handle:016x} version {version:x}: this replica does not know which"
                " writes came before; it waits for a new grant",
            )
        self._orders.move_to_end(handle)
        return order.next_serial


class Answers(Generic[T]):
    """What became of the latest writes, by who asked: a repetition gets the first answer."""

    def __init__(self, count_max: int = ANSWERS_MAX) -> None:
        self._answers: OrderedDict[tuple[int, ...], T] = OrderedDict()
        self._count_max = count_max

    def get(self, key: tuple[int, ...]) -> T | None:
        """What was noted for ``key``; None when nothing was, or long ago."""
        return self._answers.get(key)

    def put(self, key: tuple[int, ...], answer: T) -> None:
        """Note it; the oldest is forgotten."""
        self._answers[key] = answer
        if len(self._answers) > self._count_max:
            self._answers.popitem(last=False)

    def drop(self, key: tuple[int, ...]) -> None:
        """It did not come to anything: the same request may come again as a new one."""
        self._answers.pop(key, None)
