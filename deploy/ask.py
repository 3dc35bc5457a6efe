"""Ask the metaservers of a cluster for its status, over the RPC protocol."""

import trio

from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.messages.hello import ANY_CLUSTER, CLIENT, METASERVER
from ..fs.messages.meta import GetStatus, Status
from ..fs.ports import Ports
from ..fs.ports.clock import RealClock
from ..fs.ports.disk_real import RealDisk
from ..fs.ports.network_real import RealNetwork
from ..fs.ports.randomness import RealRandomness
from ..fs.rpc import connect, no_requests

ASK_TIMEOUT_MS = 3_000


def ask_status(addresses: list[str], cluster: str = ANY_CLUSTER) -> Status:
    """The first answer. TideError of the last address when none gives one."""
    return trio.run(_ask_all, addresses, cluster)


async def _ask_all(addresses: list[str], cluster: str) -> Status:
    ports = Ports(RealClock(), RealRandomness(), RealDisk("/"), RealNetwork())
    failure = TideError(Code.DISCONNECTED, "there is no metaserver to ask")
    for address in addresses:
        try:
            return await _ask(ports, address, cluster)
        except TideError as error:
            failure = error
    raise failure


async def _ask(ports: Ports, address: str, cluster: str) -> Status:
    hello = Identity(cluster, CLIENT, 0).hello()
    outcome: Status | TideError
    async with trio.open_nursery() as nursery:
        try:
            peer = await connect(
                ports, address, hello, no_requests, nursery, expected_role=METASERVER
            )
            outcome = await peer.call(GetStatus(), timeout_ms=ASK_TIMEOUT_MS)
        except TideError as error:
            outcome = error
        nursery.cancel_scope.cancel()
    if isinstance(outcome, TideError):
        raise outcome
    return outcome
