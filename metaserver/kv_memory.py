"""The in-memory twin of the state's key-value store, for the simulator and for tests."""

from collections.abc import Iterator

from sortedcontainers import SortedDict


class MemoryKeyValue:
    """A KeyValue in a sorted dict. Nothing in it survives the process."""

    def __init__(self) -> None:
        self._items = SortedDict()

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._items.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        self._items[key] = value

    def delete(self, key: bytes) -> bool:
        return self._items.pop(key, None) is not None

    def scan(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        # The first key of irange may be ``after`` itself: it is left out only when it counts.
        inclusive = after < prefix
        start = prefix if inclusive else after
        for key in self._items.irange(minimum=start, inclusive=(inclusive, True)):
            if not key.startswith(prefix):
                return
            yield key, self._items[key]
