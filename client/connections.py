"""One connection to each chunkserver in use, made when it is first needed."""

import logging

import trio

from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.log import Once
from ..fs.messages.hello import CHUNKSERVER, CLIENT
from ..fs.messages.places import ServerPlace
from ..fs.ports import Ports
from ..fs.rpc import Identity, Peer, connect, no_requests

log = logging.getLogger(__name__)

UNIX = "unix:"


class _Attempt:
    """A connection in the making, shared by all who want it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: Peer | TideError | None = None


class Connections:
    """Connections by server id. ``host``: this machine's name; ``cluster``: which one we use."""

    def __init__(self, ports: Ports, host: str, cluster: str, nursery: trio.Nursery) -> None:
        self._ports = ports
        self._host = host
        self._hello = Identity(cluster, CLIENT, 0).hello()
        self._nursery = nursery
        self._peers: dict[int, Peer] = {}
        self._attempts: dict[int, _Attempt] = {}
        self._troubles: dict[int, TideError] = {}
        self._once = Once(log)

    @property
    def trouble(self) -> str:
        """Which servers could not be reached when they were last needed, for a person."""
        return "; ".join(error.detail for error in self._troubles.values())

    @property
    def busy(self) -> list[str]:
        """The servers that have been asked something and have not answered yet."""
        return [peer.name for peer in self._peers.values() if not peer.closed and peer.oldest_call]

    async def to(self, place: ServerPlace) -> Peer:
        """A living connection; DISCONNECTED says what each address of the server answered."""
        peer = self._peers.get(place.server)
        if peer is not None and not peer.closed:
            return peer
        attempt = self._attempts.get(place.server)
        if attempt is None:
            attempt = self._attempts[place.server] = _Attempt()
            self._nursery.start_soon(self._try, place, attempt)
        await attempt.done.wait()
        if isinstance(attempt.outcome, TideError):
            raise TideError(attempt.outcome.code, attempt.outcome.detail)
        assert attempt.outcome is not None
        return attempt.outcome

    def close(self) -> None:
        """Close them all."""
        for peer in self._peers.values():
            peer.close("the client ends")
        self._peers.clear()

    async def _try(self, place: ServerPlace, attempt: _Attempt) -> None:
        attempt.outcome = TideError(Code.DISCONNECTED, "the client ends")
        name = f"chunkserver {server_name(ServerId(place.server))}"
        try:
            attempt.outcome = self._peers[place.server] = await self._connect(place, name)
            self._troubles.pop(place.server, None)
            self._once.well(name, "%s can be reached again", name)
        except TideError as error:
            attempt.outcome = self._troubles[place.server] = error
            self._once.warn(name, "%s", error)
        finally:
            del self._attempts[place.server]
            attempt.done.set()

    async def _connect(self, place: ServerPlace, name: str) -> Peer:
        troubles = []
        for address in self._reachable(place):
            try:
                peer = await connect(
                    self._ports,
                    address,
                    self._hello,
                    no_requests,
                    self._nursery,
                    expected_role=CHUNKSERVER,
                )
            except TideError as error:
                troubles.append(str(error))
                continue
            found = getattr(peer.remote, "server", 0)
            if found == place.server:
                return peer
            peer.close("another chunkserver was looked for")
            troubles.append(f"{address}: that is chunkserver {server_name(ServerId(found))}")
        raise TideError(
            Code.DISCONNECTED, f"{name}: {'; '.join(troubles) or 'no address is known'}"
        )

    def _reachable(self, place: ServerPlace) -> list[str]:
        """A socket in a folder exists on one machine only."""
        here = place.host == self._host
        return [a for a in place.addresses if here or not a.startswith(UNIX)]
