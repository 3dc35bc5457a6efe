"""What a file's bytes may be, after every promise and every accident. Pure.

Each write is a *layer* above the *stable* bytes. A layer is

- DIRTY until close or fsync: only the writing client promised it, and only for its own life;
- PUBLISHED after close: everybody sees it, but it may still be in page caches only;
- SYNCED after fsync: it is there whatever happens.

An accident makes layers *shaky*: a byte in a shaky layer may be the old one or the new one, after
a power failure also zero. An fsync mends what the writer still held open; what nobody held any
more, or what a failed close or fsync was about, stays shaky until it is written again.
"""

from dataclasses import dataclass, field
from enum import IntEnum

PAGE_BYTES = 4096
ZEROS = bytes(PAGE_BYTES)


class Pages:
    """Bytes of a sparse file; zeros where nothing was written."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def read(self, offset: int, length: int) -> bytearray:
        found = bytearray()
        while length > 0:
            page, start = divmod(offset, PAGE_BYTES)
            count = min(length, PAGE_BYTES - start)
            found += self._pages.get(page, ZEROS)[start : start + count]
            offset, length = offset + count, length - count
        return found

    def write(self, offset: int, data: bytes) -> None:
        taken = 0
        while taken < len(data):
            page, start = divmod(offset + taken, PAGE_BYTES)
            count = min(len(data) - taken, PAGE_BYTES - start)
            held = self._pages.setdefault(page, bytearray(PAGE_BYTES))
            held[start : start + count] = data[taken : taken + count]
            taken += count

    def cut(self, size: int) -> None:
        """Zeros from ``size`` on."""
        last, start = divmod(size, PAGE_BYTES)
        for page in [page for page in self._pages if page > last]:
            del self._pages[page]
        if last in self._pages:
            self._pages[last][start:] = bytes(PAGE_BYTES - start)


class Level(IntEnum):
    """How far a write has come."""

    DIRTY = 0
    PUBLISHED = 1
    SYNCED = 2


@dataclass
class Layer:
    """One write. ``lost``: no later fsync makes it certain; ``zero``: bytes may read as zero."""

    offset: int
    data: bytes
    level: Level = Level.DIRTY
    shaky: bool = False
    lost: bool = False
    zero: bool = False

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    def buries(self, lower: "Layer") -> bool:
        """Whether nothing of ``lower`` can ever be seen again."""
        inside = self.offset <= lower.offset and lower.end <= self.end
        return inside and self.level is Level.SYNCED

    def covers(self, position: int) -> bool:
        return self.offset <= position < self.end


@dataclass
class FileModel:
    """One file. ``size`` is what its client sees, ``durable_size`` what the servers promised."""

    size: int = 0
    durable_size: int = 0
    stable: Pages = field(default_factory=Pages)
    layers: list[Layer] = field(default_factory=list)
    sizes: set[tuple[int, int]] | None = None
    """Possible ones (least, most), between a crash and the next look: a write may be half done."""
    unsettled: bool = False
    """After a failure the client may still show what the servers never got: no look settles it."""

    # --- what the client does ------------------------------------------------------------------

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        self.layers.append(Layer(offset, data))
        self.size = max(self.size, end)
        if self.sizes is not None:
            grown = {(max(least, end), max(most, end)) for least, most in self.sizes}
            self.sizes = self.sizes | grown

    def cut(self, size: int) -> None:
        """The size was set, and that was acknowledged: it is in the log."""
        for layer in self.layers:
            layer.data = layer.data[: max(0, size - layer.offset)]
        self.layers = [layer for layer in self.layers if layer.data]
        self.stable.cut(size)
        self.size = self.durable_size = size
        self.sizes = None
        self.unsettled = False

    def published(self) -> None:
        """A close was acknowledged."""
        self.unsettled = False
        for layer in self.layers:
            if not layer.lost:
                layer.level = max(layer.level, Level.PUBLISHED)
        self.durable_size = self.size

    def synced(self) -> None:
        """An fsync was acknowledged."""
        self.published()
        for layer in self.layers:
            if not layer.lost:
                layer.level = Level.SYNCED
                layer.shaky = layer.zero = False
        self._fold()

    # --- what happens to it --------------------------------------------------------------------

    def failed(self) -> None:
        """A write, close or fsync ended with an error: nothing is known of what was not synced."""
        for layer in self._unsynced():
            layer.shaky = layer.lost = True
        self.sizes = self._possible_sizes() | {(self.size, self.size)}
        self.unsettled = True

    def servers_lost_power(self, *, held_open: bool) -> None:
        """A machine with chunks crashed. ``held_open``: an fsync may still come."""
        for layer in self._unsynced():
            layer.shaky = layer.zero = True
            layer.lost = layer.lost or not held_open

    def client_died(self) -> None:
        """What it had not published may be half there; nobody will sync the rest."""
        self.sizes = self._possible_sizes()
        self.unsettled = False
        for layer in self._unsynced():
            if layer.level is Level.DIRTY:
                layer.shaky = True
            if layer.shaky:
                layer.lost = True

    def let_go(self) -> None:
        """The last close: what is shaky now will not be synced again."""
        for layer in self._unsynced():
            layer.lost = layer.lost or layer.shaky

    # --- what is seen --------------------------------------------------------------------------

    def see_size(self, size: int) -> str | None:
        """What is wrong with this size, if anything; one of several possible ones is adopted."""
        allowed = self.sizes or {(self.size, self.size)}
        if not any(least <= size <= most for least, most in allowed):
            return f"the size is {size}, allowed is {sorted(allowed)}"
        if self.unsettled:
            self.size = size
        elif self.sizes is not None:
            self.size = self.durable_size = size
            self.sizes = None
        return None

    def see_bytes(self, offset: int, length: int, seen: bytes) -> str | None:
        """What is wrong with the answer to read(offset, length), if anything."""
        if self.sizes is not None and seen and len(seen) < length:
            if wrong := self.see_size(offset + len(seen)):
                return f"a read of {length} at {offset} ends early: {wrong}"
        elif self.sizes is not None:
            length = len(seen)  # the size stays open: the read did not show where the file ends
        length = max(0, min(length, self.size - offset))
        if len(seen) != length:
            return f"{len(seen)} bytes at {offset}, expected {length} (size {self.size})"
        wanted = self.expected(offset, length)
        if seen == wanted:
            return None
        for index in range(length):
            if seen[index] != wanted[index]:
                allowed = self._allowed(offset + index)
                if seen[index] not in allowed:
                    return (
                        f"byte {offset + index} is {seen[index]:#04x}, "
                        f"allowed is {sorted(allowed)} ({self.describe(offset + index)})"
                    )
        return None

    def expected(self, offset: int, length: int) -> bytes:
        """The bytes if no accident mattered."""
        found = self.stable.read(offset, length)
        for layer in self.layers:
            begin, end = max(layer.offset, offset), min(layer.end, offset + length)
            if begin < end and not layer.lost:
                found[begin - offset : end - offset] = layer.data[
                    begin - layer.offset : end - layer.offset
                ]
        return bytes(found)

    def certain(self) -> bool:
        """Whether every byte has exactly one possible value."""
        return self.sizes is None and not any(layer.shaky for layer in self.layers)

    def all_synced(self) -> bool:
        """Whether every byte must be on stable storage on every replica."""
        return self.sizes is None and not self.layers

    def describe(self, position: int) -> str:
        """The layers over one byte, for the reader of a failure."""
        over = [
            f"{layer.level.name.lower()}{' shaky' * layer.shaky}{' lost' * layer.lost}"
            f" {layer.data[position - layer.offset]:#04x}"
            for layer in self.layers
            if layer.covers(position)
        ]
        return ", ".join(["stable", *over])

    def _unsynced(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.level is not Level.SYNCED]

    def _possible_sizes(self) -> set[tuple[int, int]]:
        durable = self.durable_size
        found = {(durable, durable), *(self.sizes or ())}
        for layer in self.layers:
            if layer.level is Level.DIRTY:
                found.add((max(durable, layer.offset + 1), max(durable, layer.end)))
        return found

    def _allowed(self, position: int) -> set[int]:
        allowed = {self.stable.read(position, 1)[0]}
        for layer in self.layers:
            if layer.covers(position):
                byte = layer.data[position - layer.offset]
                if not layer.shaky:
                    allowed = {byte}
                else:
                    allowed |= {byte, 0} if layer.zero else {byte}
        return allowed

    def _fold(self) -> None:
        """Certain layers become stable bytes, as long as nothing uncertain lies below them."""
        kept: list[Layer] = []
        for index, layer in enumerate(self.layers):
            if any(above.buries(layer) for above in self.layers[index + 1 :]):
                continue
            if layer.level is Level.SYNCED and not kept:
                self.stable.write(layer.offset, layer.data)
            else:
                kept.append(layer)
        self.layers = kept
