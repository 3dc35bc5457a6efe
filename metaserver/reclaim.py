"""Which replicas are garbage: chunks that no file has, and copies that are stale (GFS section 4.4).

Pure: what is known comes in, what is to be deleted goes out.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .chunkservers import Chunkserver, Chunkservers
from .records import ChunkRecord


class Garbage(NamedTuple):
    """A replica that may be deleted, if its version is no higher by then."""

    handle: int
    version_max: int


class Reclaimer:
    """Remembers since when a replica belongs to nothing: it is deleted only after a while."""

    def __init__(self, grace_ns: int) -> None:
        self._grace_ns = grace_ns
        self._unknown_since_ns: dict[tuple[int, int], int] = {}

    def garbage_on(
        self,
        server: Chunkserver,
        handles: Iterable[int],
        servers: Chunkservers,
        chunk: Callable[[int], ChunkRecord | None],
        is_reserved: Callable[[int], bool],
        wanted: int,
        now_ns: int,
    ) -> list[Garbage]:
        """Which of its replicas of ``handles`` a server may delete now.

        A stale copy goes when there are as many good ones as are wanted; before, repair decides.
        """
        found: list[Garbage] = []
        for handle in handles:
            replica = server.replicas.get(handle)
            if replica is None:
                continue
            record = chunk(handle)
            place = server.server, handle
            if record is None and not is_reserved(handle):
                since_ns = self._unknown_since_ns.setdefault(place, now_ns)
                if now_ns - since_ns >= self._grace_ns:
                    found.append(Garbage(handle, replica.version))
                continue
            self._unknown_since_ns.pop(place, None)
            if (
                record is not None
                and replica.version < record.version
                and servers.copies(handle, record.version) >= wanted
            ):
                found.append(Garbage(handle, replica.version))
        return found

    def deleted(self, server: int, handle: int) -> None:
        """It is gone."""
        self._unknown_since_ns.pop((server, handle), None)
