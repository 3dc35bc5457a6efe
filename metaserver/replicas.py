"""What the leader asks chunkservers about one chunk, and what it learns from the answers.

Whatever they say goes into the table of who holds what at once.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.messages.chunk import CopyChunk, DeleteChunks, SetVersion
from .chunks import NO_CUT
from .chunkservers import Chunkservers, Replica
from .links import Links

ASK_TIMEOUT_MS = 3_000
COPY_TIMEOUT_MS = 60_000

log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """What came of asking servers to take a version."""

    accepted: list[int]
    absent: list[int]  # they have no such chunk
    outdated: list[int]  # they have an older one


class Replicas:
    """The copies of chunks on all chunkservers."""

    def __init__(self, servers: Chunkservers, links: Links) -> None:
        self._servers = servers
        self._links = links

    async def ask(
        self, request: SetVersion, servers: Sequence[int], *, quietly: bool = False
    ) -> Taken:
        """Have these servers take a version. ``quietly``: that they do not is no surprise."""
        taken = Taken([], [], [])
        outcomes = await self._links.call_all(servers, request, ASK_TIMEOUT_MS)
        for server in servers:
            outcome = outcomes[server]
            if not isinstance(outcome, TideError):
                self._took(server, request)
                taken.accepted.append(server)
                continue
            if outcome.code is Code.NO_CHUNK:
                self._servers.drops(server, request.handle)
                taken.absent.append(server)
            if outcome.code is Code.STALE_VERSION:
                taken.outdated.append(server)
            if not quietly:
                version = f"version {request.version} of {name_of(request.handle)}"
                log.warning("chunkserver %s did not take %s: %s", _server(server), version, outcome)
        return taken

    def _took(self, server: int, request: SetVersion) -> None:
        found = self._servers.get(server)
        before = found.replicas.get(request.handle) if found else None
        clean = before.clean if before else True
        self._servers.holds(server, request.handle, Replica(request.version, clean))

    def verify(self, handle: int, version: int, servers: Iterable[int]) -> None:
        """A chunk was committed that was written on these servers: ask those that told of none."""
        holders = {server.server for server in self._servers.holders(handle)}
        for server in set(servers) - holders:
            self._verify(handle, version, server)

    def _verify(self, handle: int, version: int, server: int) -> None:
        def done(outcome: object, payload: memoryview) -> None:
            if not isinstance(outcome, TideError):
                self._servers.holds(server, handle, Replica(version, clean=True))

        peer = self._links.get(server)
        if peer is not None:
            # The version it should have: taking it once more changes nothing.
            request = SetVersion(handle, version, version, NO_CUT)
            peer.post(request, timeout_ms=ASK_TIMEOUT_MS, done=done)

    async def copy(
        self, handle: int, version: int, sources: Sequence[int], targets: Sequence[int]
    ) -> list[int]:
        """Copy a chunk that is held exclusively, at a version its sources took; who has it then."""
        found = [self._servers.get(server) for server in sources]
        places = [server.place for server in found if server is not None]
        request = CopyChunk(handle, version, places)
        copied: list[int] = []
        outcomes = await self._links.call_all(targets, request, COPY_TIMEOUT_MS)
        for server in targets:
            outcome = outcomes[server]
            if isinstance(outcome, TideError):
                what = f"copying {name_of(handle)} to chunkserver {_server(server)}"
                log.warning("%s failed: %s", what, outcome)
                continue
            self._servers.drops(server, handle)
            self._servers.holds(server, handle, Replica(version, clean=True))
            copied.append(server)
        return copied

    async def delete(self, handle: int, version_max: int, servers: Sequence[int]) -> list[int]:
        """Delete copies that are of no use; on which servers that was done."""
        request = DeleteChunks([(handle, version_max)])
        outcomes = await self._links.call_all(servers, request, ASK_TIMEOUT_MS)
        done = [server for server in servers if not isinstance(outcomes[server], TideError)]
        for server in done:
            self._servers.drops(server, handle)
        return done


def name_of(handle: int) -> str:
    """How a chunk is called in messages to people."""
    return f"chunk {handle:016x}"


def _server(server: int) -> str:
    return server_name(ServerId(server))
