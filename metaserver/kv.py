"""The small key-value interface that the state lives behind: bytes to bytes, in key order."""

from collections.abc import Iterator
from typing import Protocol


class KeyValue(Protocol):
    """An ordered map. Keys are 1 to 511 bytes (LMDB's limit), values any length.

    One owner, one thread. What was put is seen by the next ``get`` and the next ``scan``.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of ``key``, whether or not there was one."""
        ...

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; whether it was there."""
        ...

    def scan(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The pairs whose keys start with ``prefix`` and are greater than ``after``, in key order.

        Nobody writes while a scan is under way, but a scan may be abandoned half way and writes
        may follow; ``get`` and further scans may happen inside it.
        """
        ...
