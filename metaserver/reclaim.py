"""Which replicas are garbage: chunks that no file has, and copies of no use (GFS section 4.4).

Pure: what is known comes in, what is to be deleted goes out.
"""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from .chunkservers import Chunkserver, Chunkservers
from .records import ChunkRecord


class Known(NamedTuple):
    """What the leader knows of chunks."""

    servers: Chunkservers
    chunk: Callable[[int], ChunkRecord | None]
    is_reserved: Callable[[int], bool]
    granted: Callable[[int], Collection[int]]
    """The servers that a chunk may be written on at the moment."""
    wanted: int


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
        self, server: Chunkserver, handles: Iterable[int], known: Known, now_ns: int
    ) -> list[Garbage]:
        """Which of its replicas of ``handles`` a server may delete now."""
        found: list[Garbage] = []
        for handle in handles:
            replica = server.replicas.get(handle)
            if replica is None:
                continue
            record = known.chunk(handle)
            place = server.server, handle
            if record is None and not known.is_reserved(handle):
                since_ns = self._unknown_since_ns.setdefault(place, now_ns)
                is_garbage = now_ns - since_ns >= self._grace_ns
            else:
                self._unknown_since_ns.pop(place, None)
                is_garbage = record is not None and _is_too_much(server, handle, record, known)
            if is_garbage:
                found.append(Garbage(handle, replica.version))
        return found

    def deleted(self, server: int, handle: int) -> None:
        """It is gone."""
        self._unknown_since_ns.pop((server, handle), None)


def _is_too_much(server: Chunkserver, handle: int, record: ChunkRecord, known: Known) -> bool:
    """Whether there are enough copies without this one.

    One that is stale, damaged or unclean is of no use then; before, repair decides. Of good ones
    that are more than wanted, the one on the fullest server goes, one at a time.
    """
    good = known.servers.whole(handle, record.version)
    if server not in good:
        return len(good) >= known.wanted
    granted = known.granted(handle)
    idle = [holder for holder in good if holder.server not in granted]
    if len(good) <= known.wanted or server not in idle:
        return False
    return server is min(idle, key=lambda holder: (holder.free_bytes, holder.server))
