"""Connections to other chunkservers: one each, made when it is needed, kept, and made again.

What is posted while a connection is being made is sent over it in order. When one breaks, what was
under way fails; nothing is ever sent twice, for the order of writes would suffer.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import trio

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.frames import EMPTY
from ..fs.handshake import Identity
from ..fs.ids import ServerId, server_name
from ..fs.limits import CALL_TIMEOUT_MS
from ..fs.log import Once
from ..fs.messages.base import Request
from ..fs.messages.hello import CHUNKSERVER
from ..fs.messages.places import ServerPlace
from ..fs.ports import Ports
from ..fs.rpc import Mutation, Peer, connect, no_requests

log = logging.getLogger(__name__)

Done = Callable[[Any, memoryview], None]


class _Neighbour:
    """One other chunkserver: a connection, or what waits for one."""

    def __init__(self) -> None:
        self.peer: Peer | None = None
        self.waiting: list[Callable[[Peer | TideError], None]] | None = None


class Neighbours:
    """All other chunkservers that this one had to do with."""

    def __init__(self, ports: Ports, identity: Identity, host: str, tasks: trio.Nursery) -> None:
        self._ports = ports
        self._identity = identity
        self._host = host
        self._tasks = tasks
        self._neighbours: dict[int, _Neighbour] = {}
        self._once = Once(log)

    def post(
        self,
        place: ServerPlace,
        request: Request[Any],
        payload: Sequence[Buffer],
        mutation: Mutation | None,
        done: Done,
        *,
        timeout_ms: int = CALL_TIMEOUT_MS,
    ) -> None:
        """Send a request behind all that was posted before; ``done`` gets the outcome."""

        def send(peer: Peer | TideError) -> None:
            if isinstance(peer, TideError):
                done(peer, EMPTY)
            else:
                peer.post(
                    request, payload=payload, mutation=mutation, timeout_ms=timeout_ms, done=done
                )

        neighbour = self._neighbours.setdefault(place.server, _Neighbour())
        if neighbour.peer is not None and not neighbour.peer.closed:
            send(neighbour.peer)
        elif neighbour.waiting is not None:
            neighbour.waiting.append(send)
        else:
            neighbour.waiting = [send]
            self._tasks.start_soon(self._connect, neighbour, place)

    async def exchange(
        self, place: ServerPlace, request: Request[Any], *, timeout_ms: int = CALL_TIMEOUT_MS
    ) -> tuple[Any, memoryview]:
        """The reply to a request, and its payload."""
        answered = trio.Event()
        found: list[tuple[Any, memoryview]] = []

        def done(outcome: Any, payload: memoryview) -> None:
            found.append((outcome, payload))
            answered.set()

        self.post(place, request, (), None, done, timeout_ms=timeout_ms)
        await answered.wait()
        if isinstance(found[0][0], TideError):
            raise found[0][0]
        return found[0]

    async def _connect(self, neighbour: _Neighbour, place: ServerPlace) -> None:
        outcome: Peer | TideError
        name = server_name(ServerId(place.server))
        try:
            outcome = neighbour.peer = await self._reach(place)
            self._once.well(name, "chunkserver %s can be reached again", name)
        except TideError as error:
            outcome = error
            self._once.warn(name, "chunkserver %s cannot be reached: %s", name, error)
        finally:
            waiting, neighbour.waiting = neighbour.waiting or [], None
        for send in waiting:
            send(outcome)

    async def _reach(self, place: ServerPlace) -> Peer:
        """A connection to the first of its addresses that answers."""
        last = TideError(Code.DISCONNECTED, "it has no address that can be used from here")
        for address in place.addresses:
            if address.startswith("unix:") and place.host != self._host:
                continue
            try:
                peer = await connect(
                    self._ports,
                    address,
                    self._identity.hello(),
                    no_requests,
                    self._tasks,
                    expected_role=CHUNKSERVER,
                )
            except TideError as error:
                last = error
                continue
            if peer.remote.server == place.server:
                return peer
            peer.close("another server was looked for")
            last = TideError(Code.WRONG_ROLE, f"{address}: {peer.name} answered instead")
        raise last
