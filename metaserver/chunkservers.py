"""The chunkservers as the leader knows them: who is up, with how much room, holding what.

In memory only: chunkservers tell it when they register and as it changes (GFS section 2.6.2).
Pure: every call is given the time.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ..fs.messages.chunk import ChunkReport
from ..fs.messages.places import ServerPlace


class Replica(NamedTuple):
    """One server's copy of a chunk."""

    version: int
    clean: bool  # no: the machine crashed while it had un-synced writes


class Damage(NamedTuple):
    """A block that does not match its checksum."""

    version: int
    offset: int


class Chunkserver:
    """One chunkserver since this leader first heard of it."""

    def __init__(self, place: ServerPlace) -> None:
        self.place = place
        self.pid = 0
        self.total_bytes = 0
        self.free_bytes = 0
        self.connected = False
        self.heard_ns = 0
        self.down_since_ns = 0
        self.replicas: dict[int, Replica] = {}
        self.damaged: dict[int, Damage] = {}
        self.reported = False
        """Whether the list of its chunks has come in whole, at least once."""
        self._told: set[int] | None = None
        """Handles named since it registered, while its list is coming in."""

    @property
    def server(self) -> int:
        return self.place.server

    def begin_report(self) -> None:
        self._told = set()

    def tell(self, handle: int, replica: Replica) -> None:
        """It holds this copy."""
        self.replicas[handle] = replica
        if self._told is not None:
            self._told.add(handle)

    def end_report(self) -> list[int]:
        """The list is whole; the handles that it no longer has."""
        if self._told is None:
            return []
        gone = [handle for handle in self.replicas if handle not in self._told]
        self._told = None
        self.reported = True
        return gone


class Chunkservers:
    """All of them, and for each chunk who holds it."""

    def __init__(self, dead_ns: int) -> None:
        """``dead_ns``: who is silent for longer is down, connected or not."""
        self._dead_ns = dead_ns
        self._servers: dict[int, Chunkserver] = {}
        self._holders: dict[int, set[int]] = {}

    # --- what they tell ----------------------------------------------------------------------

    def register(
        self, place: ServerPlace, pid: int, total_bytes: int, free_bytes: int, now_ns: int
    ) -> None:
        """It is up; its chunks will follow. Until they have, the old list is believed.

        What was damaged is forgotten: it may have been mended, or will be found again.
        """
        server = self._servers.get(place.server)
        if server is None:
            server = self._servers[place.server] = Chunkserver(place)
        server.place = place
        server.pid = pid
        server.connected = True
        server.damaged.clear()
        server.begin_report()
        self.heartbeat(place.server, total_bytes, free_bytes, now_ns)

    def heartbeat(self, server: int, total_bytes: int, free_bytes: int, now_ns: int) -> None:
        found = self._servers[server]
        found.total_bytes, found.free_bytes = total_bytes, free_bytes
        found.heard_ns = now_ns

    def report(self, server: int, reports: Iterable[ChunkReport], *, last: bool) -> None:
        """A piece of the list of all its chunks."""
        found = self._servers[server]
        for report in reports:
            self.holds(server, report.handle, Replica(report.version, report.clean))
        if last:
            for handle in found.end_report():
                self.drops(server, handle)

    def disconnected(self, server: int, now_ns: int) -> None:
        found = self._servers[server]
        found.connected = False
        found.down_since_ns = now_ns

    def silent(self, now_ns: int) -> list[int]:
        """Connected, but not heard of for too long."""
        return [
            server.server
            for server in self._servers.values()
            if server.connected and now_ns - server.heard_ns > self._dead_ns
        ]

    def holds(self, server: int, handle: int, replica: Replica) -> None:
        """The server has this copy now."""
        self._servers[server].tell(handle, replica)
        self._holders.setdefault(handle, set()).add(server)

    def drops(self, server: int, handle: int) -> None:
        """The server has no copy of it any more."""
        found = self._servers[server]
        found.replicas.pop(handle, None)
        found.damaged.pop(handle, None)
        holders = self._holders.get(handle)
        if holders is not None:
            holders.discard(server)
            if not holders:
                del self._holders[handle]

    def damaged(self, server: int, handle: int, damage: Damage) -> None:
        """Its copy has a bad block: it is not a copy until it was replaced."""
        found = self._servers[server]
        if handle in found.replicas:
            found.damaged[handle] = damage

    # --- what is known -----------------------------------------------------------------------

    def all(self) -> list[Chunkserver]:
        """By server id, up or down."""
        return [self._servers[server] for server in sorted(self._servers)]

    def get(self, server: int) -> Chunkserver | None:
        return self._servers.get(server)

    def is_up(self, server: int) -> bool:
        found = self._servers.get(server)
        return found is not None and found.connected

    def up(self) -> list[Chunkserver]:
        """Those that can be asked, by server id."""
        return [server for server in self.all() if server.connected]

    def have_reported(self, servers: Iterable[int]) -> bool:
        """Whether all of these are up and have told what they hold."""
        return all(
            (found := self._servers.get(server)) is not None and found.connected and found.reported
            for server in servers
        )

    def holders(self, handle: int) -> list[Chunkserver]:
        """Who has a copy, whatever its version, up or down, by server id."""
        return [self._servers[server] for server in sorted(self._holders.get(handle, ()))]

    def good(self, handle: int, version_min: int) -> list[Chunkserver]:
        """Up, with a copy that is as new, by server id.

        Damaged or unclean copies only while no better one is up: in a damaged one most blocks are
        right, and the chunkserver checks each of them.
        """
        current = [
            server
            for server in self.holders(handle)
            if server.connected and server.replicas[handle].version >= version_min
        ]
        whole = [server for server in current if handle not in server.damaged]
        clean = [server for server in whole if server.replicas[handle].clean]
        return clean or whole or current

    def whole(self, handle: int, version_min: int) -> list[Chunkserver]:
        """Up, with a clean, undamaged copy that is as new, by server id."""
        return [
            server
            for server in self.holders(handle)
            if server.connected
            and handle not in server.damaged
            and server.replicas[handle].version >= version_min
            and server.replicas[handle].clean
        ]
