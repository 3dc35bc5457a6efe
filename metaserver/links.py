"""The connections on which the leader asks chunkservers for something."""

from collections.abc import Sequence
from typing import Any, TypeVar

import trio

from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.messages.base import Message, Request
from ..fs.rpc import Peer

R = TypeVar("R", bound=Message)


class Links:
    """One connection for each chunkserver that is up: the one on which it registered."""

    def __init__(self) -> None:
        self._peers: dict[int, Peer] = {}

    def set(self, server: int, peer: Peer) -> Peer | None:
        """``peer`` is the connection from now on; the one before, if any."""
        before = self._peers.get(server)
        self._peers[server] = peer
        return before if before is not peer else None

    def drop(self, server: int, peer: Peer) -> bool:
        """``peer`` is closed; whether it was still the one."""
        if self._peers.get(server) is not peer:
            return False
        del self._peers[server]
        return True

    def get(self, server: int) -> Peer | None:
        return self._peers.get(server)

    async def call(self, server: int, request: Request[R], timeout_ms: int) -> R:
        """The reply; DISCONNECTED when the server is not up."""
        peer = self._peers.get(server)
        if peer is None:
            name = server_name(ServerId(server))
            raise TideError(Code.DISCONNECTED, f"chunkserver {name} is down")
        return await peer.call(request, timeout_ms=timeout_ms)

    async def call_all(
        self, servers: Sequence[int], request: Request[Any], timeout_ms: int
    ) -> dict[int, Message | TideError]:
        """Ask all of them at once; what each one answered."""
        outcomes: dict[int, Message | TideError] = {}

        async def one(server: int) -> None:
            try:
                outcomes[server] = await self.call(server, request, timeout_ms)
            except TideError as error:
                outcomes[server] = error

        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(one, server)
        return outcomes
