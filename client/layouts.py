"""Where the chunks of a file are, as far as it is known here.

A layout is asked for when it is needed, kept until it proves wrong, and then asked for anew. One
for reading stays good when versions rise; one for writing names the version that was granted.
"""

import msgspec
import trio

from ..fs.errors import Code
from ..fs.limits import LAYOUT_CHUNKS_MAX
from ..fs.messages.places import ChunkPlace

PLACEMENT_ERRORS = frozenset(
    {
        Code.STALE_VERSION,
        Code.NO_CHUNK,
        Code.BAD_CHECKSUM,
        Code.OUT_OF_ORDER,
        Code.REPLICA_FAILED,
        Code.UNAVAILABLE,
        Code.BUSY,
    }
)
"""With a fresh layout, the same read or write may succeed."""


class Slot:
    """One chunk's place. ``making`` is held by the first write to a fresh chunk: others wait until
    it exists. ``granted``: may be written at this version."""

    __slots__ = ("granted", "making", "place")

    def __init__(self, place: ChunkPlace, granted: bool) -> None:
        self.place = place
        self.granted = granted
        self.making = trio.Lock() if place.fresh else None

    def is_same(self, other: "Slot") -> bool:
        """Whether it is the same grant of the same chunk."""
        return (self.place.handle, self.place.version) == (
            other.place.handle,
            other.place.version,
        )

    def made(self) -> None:
        """The chunk exists on all its replicas."""
        self.place = msgspec.structs.replace(self.place, fresh=False)
        self.making = None


class FileLayout:
    """The chunks of one file by index; None is a hole. ``lock``: one question at a time."""

    __slots__ = ("_slots", "lock")

    def __init__(self) -> None:
        self._slots: dict[int, Slot | None] = {}
        self.lock = trio.Lock()

    def known(self, index: int) -> bool:
        return index in self._slots

    def readable(self, index: int) -> ChunkPlace | None:
        """A known chunk's place, None when there is nothing to read there."""
        slot = self._slots[index]
        return None if slot is None or slot.place.fresh else slot.place

    def writable(self, index: int) -> Slot | None:
        """The slot, if it may be written now."""
        slot = self._slots.get(index)
        return slot if slot is not None and slot.granted else None

    def put(self, first: int, count: int, places: list[ChunkPlace], *, granted: bool) -> None:
        """The answer to a question for ``count`` chunks from ``first`` on."""
        for index in range(first, first + count):
            slot = self._slots.get(index)
            if granted or slot is None or not slot.granted:
                self._slots[index] = None
        for place in places:
            if self._slots.get(place.index) is None:
                self._slots[place.index] = Slot(place, granted)

    def forget_slot(self, slot: Slot) -> None:
        """A grant proved wrong, if it is still the one that is known."""
        if self._slots.get(slot.place.index) is slot:
            del self._slots[slot.place.index]

    def forget_read(self) -> None:
        """Ask anew where to read; grants stay."""
        for index in [index for index, slot in self._slots.items() if not slot or not slot.granted]:
            del self._slots[index]

    def forget_range(self, first: int, last: int) -> None:
        """Reading these chunks failed: ask anew, also for a grant, but for one that was never
        written."""
        for index in range(first, last + 1):
            slot = self._slots.get(index)
            if slot is None or not slot.place.fresh:
                self._slots.pop(index, None)

    def forget(self) -> None:
        self._slots.clear()


def question(index: int, last: int) -> int:
    """How many chunks to ask for when ``index`` is needed, in a file that ends in ``last``."""
    return max(1, min(LAYOUT_CHUNKS_MAX, last - index + 1))
