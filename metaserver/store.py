"""The working copy of the state: two Protocols, on LMDB (real) and in memory (simulator).

The log is the truth. A working copy only spares replaying it: it is committed every so often, never
synced, and trusted only while the machine has not been restarted since.
"""

from typing import NamedTuple, Protocol

from .kv import KeyValue


class StateDigest(NamedTuple):
    """A checksum over a whole state: equal for all members at the same index."""

    applied_index: int
    digest: int


class Store(Protocol):
    """An open working copy."""

    @property
    def kv(self) -> KeyValue: ...

    def commit(self) -> None:
        """A process that dies now finds all that was put. TideError: not so, but nothing that was
        put is lost to this process either, and the next commit may succeed."""
        ...

    async def copy_to(self, path: str) -> None:
        """Write a copy of what is committed when this is called into a new file, while the store
        goes on being used. Not yet synced."""
        ...

    async def digest(self) -> StateDigest:
        """Of what was committed (now or while this runs), while the store goes on being used."""
        ...

    def close(self) -> None:
        """Commit what can be and give everything back."""
        ...


class Stores(Protocol):
    """Where a server finds its working copy at its start."""

    async def open_trusted(self) -> Store | None:
        """The one that is there, None when there is none that can be believed."""
        ...

    async def open_copy(self, path: str) -> Store:
        """One with the contents of a file that ``copy_to`` made, in place of what is there. Who
        has that one open still may go on using it."""
        ...

    async def open_empty(self) -> Store:
        """An empty one, in place of what is there."""
        ...
