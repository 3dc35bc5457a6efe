"""Ask metaservers something over the RPC protocol, from a command that is no server itself."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.messages.base import Message, Request
from ..fs.messages.hello import CLIENT, METASERVER
from ..fs.ports import Ports
from ..fs.ports.clock import RealClock
from ..fs.ports.disk_real import RealDisk
from ..fs.ports.network_real import RealNetwork
from ..fs.ports.randomness import RealRandomness
from ..fs.rpc import Peer, connect, no_requests

ASK_TIMEOUT_MS = 3_000

R = TypeVar("R", bound=Message)
T = TypeVar("T")


class Asker:
    """Connections to metaservers of ``cluster``, made when they are needed and kept."""

    def __init__(self, nursery: trio.Nursery, cluster: str) -> None:
        self._nursery = nursery
        self._hello = Identity(cluster, CLIENT, 0).hello()
        self._ports = Ports(RealClock(), RealRandomness(), RealDisk("/"), RealNetwork())
        self._peers: dict[str, Peer] = {}

    async def ask(
        self, addresses: Sequence[str], request: Request[R], *, timeout_ms: int = ASK_TIMEOUT_MS
    ) -> R:
        """The answer of the one server that has these addresses, by the first that can be
        reached. TideError: its refusal, or of the last address when none can be reached."""
        peer = await self._reach(addresses, min(timeout_ms, ASK_TIMEOUT_MS))
        return await peer.call(request, timeout_ms=timeout_ms)

    async def _reach(self, addresses: Sequence[str], timeout_ms: int) -> Peer:
        failure = TideError(Code.DISCONNECTED, "there is no metaserver to ask")
        with trio.move_on_after(timeout_ms / 1000):
            for address in addresses:
                failure = TideError(
                    Code.TIMED_OUT, f"{address} does not answer within {timeout_ms} ms"
                )
                try:
                    return await self._peer(address)
                except TideError as error:
                    failure = error
        raise failure

    async def _peer(self, address: str) -> Peer:
        peer = self._peers.get(address)
        if peer is None or peer.closed:
            peer = self._peers[address] = await connect(
                self._ports,
                address,
                self._hello,
                no_requests,
                self._nursery,
                expected_role=METASERVER,
            )
        return peer


def asking(cluster: str, work: Callable[[Asker], Awaitable[T]]) -> T:
    """Do ``work`` with an Asker for a cluster (ANY_CLUSTER: whoever answers); its result.

    TideError as ``work`` raises it, and KeyboardInterrupt not in a group either.
    """
    try:
        return trio.run(_asking, cluster, work)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


async def _asking(cluster: str, work: Callable[[Asker], Awaitable[T]]) -> T:
    outcome: T | TideError
    async with trio.open_nursery() as nursery:
        try:
            outcome = await work(Asker(nursery, cluster))
        except TideError as error:
            outcome = error  # raised out here it is not part of a group
        nursery.cancel_scope.cancel()
    if isinstance(outcome, TideError):
        raise outcome
    return outcome
