"""The small key-value interface that the state lives behind: bytes to bytes, in key order."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from ..fs.codec import checksum_of


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


def digest_of(pairs: Iterable[tuple[bytes, bytes]]) -> int:
    """A checksum over pairs in key order: equal when they are."""
    return checksum_of(part for pair in pairs for part in _framed(pair))


def _framed(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes, bytes]:
    """A pair such that no two different lists of pairs have the same concatenation."""
    key, value = pair
    return len(key).to_bytes(4, "big") + len(value).to_bytes(4, "big"), key, value
