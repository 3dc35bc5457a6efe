"""The connections to the other members of the group, and what consensus says on them.

Each member opens one to each other member and speaks on that; only while it has none it uses one
that the other opened: so a member that joins is heard before it knows where anybody is. What is
said are notices, which may be lost: what cannot be sent at once is dropped, and consensus says
again what still matters.
"""

import logging
from collections.abc import Callable, Sequence

import msgspec
import trio

from ..fs.backoff import Backoff
from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.ids import ServerId, server_name
from ..fs.limits import (
    LINK_BACKOFF_FIRST_MS,
    LINK_BACKOFF_MAX_MS,
    LINK_CHECK_MS,
    LINK_SILENT_MAX_MS,
    MEMBER_CONNECT_TIMEOUT_MS,
)
from ..fs.log import Once
from ..fs.messages.base import Done
from ..fs.messages.hello import METASERVER
from ..fs.messages.raft import Append, Configuration, Greet, RaftMessage
from ..fs.ports import Ports
from ..fs.rpc import Handler, Incoming, Peer, connect, no_requests
from .directory import Directory
from .envelopes import append_from_wire, append_on_wire
from .guests import Guests
from .raft.contract import Envelope, Record

RUN_BYTES = 8

log = logging.getLogger(__name__)


class _Link(msgspec.Struct, eq=False):
    """Our own connection to another member. ``peer`` is None until that has greeted back."""

    server: int
    scope: trio.CancelScope
    peer: Peer | None = None


class Group:
    """What a member has of the others. Its tasks run in ``nursery``."""

    def __init__(
        self, ports: Ports, identity: Identity, directory: Directory, nursery: trio.Nursery
    ) -> None:
        self._ports = ports
        self._identity = identity
        self._directory = directory
        self._nursery = nursery
        self._run = int.from_bytes(ports.randomness.bytes(RUN_BYTES)) >> 1
        self._guests = Guests(identity, directory, ports.clock)
        self._links: dict[int, _Link] = {}
        self._once = Once(log)
        self.deliver: Callable[[Envelope], None] = _drop
        """Gets what other members say on the connections that this one opened."""
        self._follow_directory()

    def learn(self, configuration: Configuration) -> None:
        """This configuration is in force. Costs nothing when it is the same as before."""
        if self._directory.learn(configuration):
            self._follow_directory()

    def connected(self) -> list[int]:
        """The members that this one has a connection of its own to."""
        return [link.server for link in self._links.values() if link.peer is not None]

    # --- sending -----------------------------------------------------------------------------

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Give all of them to the network, as far as it takes them now; the rest is dropped."""
        by_receiver: dict[int, list[Envelope]] = {}
        for envelope in envelopes:
            by_receiver.setdefault(envelope.receiver, []).append(envelope)
        for receiver, mine in by_receiver.items():
            peer = self._peer(receiver)
            if peer is not None:
                self._tell_all(peer, mine)

    def _tell_all(self, peer: Peer, envelopes: Sequence[Envelope]) -> None:
        left = len(envelopes)
        for envelope in envelopes:
            left -= 1
            message: RaftMessage = envelope.message
            payload: Sequence[Buffer] = ()
            if type(message) is Append and envelope.records:
                message, bodies = append_on_wire(message, envelope.records)
                payload = (bodies,)
            try:
                peer.tell(message, payload, more=left > 0)
            except TideError as error:
                self._once.warn(f"{peer.name} {error.code.name}", "%s: %s", peer.name, error)

    def _peer(self, server: int) -> Peer | None:
        link = self._links.get(server)
        if link is not None and link.peer is not None:
            return link.peer
        return self._guests.peer(server)

    # --- receiving ---------------------------------------------------------------------------

    def greeted(self, incoming: Incoming) -> None:
        """Answer a ``Greet``."""
        assert isinstance(incoming.request, Greet)
        try:
            self._guests.greet(incoming.peer, incoming.request.run)
        except TideError as error:
            if error.code is not Code.BUSY:
                what = f"{server_name(ServerId(incoming.peer.remote.server))} {error.code.name}"
                self._once.warn(what, "%s is refused: %s", incoming.peer.name, error)
            incoming.fail(error)
        else:
            incoming.reply(Done())

    def received(self, incoming: Incoming) -> Envelope:
        """What another member says, for ``Driver.deliver``.

        TideError, in words: who said it is no member that has greeted, or it is malformed.
        """
        sender = self._guests.sender(incoming.peer)
        return self._envelope(sender, incoming)

    def _envelope(self, sender: int, incoming: Incoming) -> Envelope:
        message = incoming.request
        if not isinstance(message, RaftMessage):
            raise TideError(Code.UNKNOWN_METHOD, f"{type(message).__name__} is not for members")
        records: Sequence[Record] = ()
        if type(message) is Append:
            message, records = append_from_wire(message, incoming.payload)
        return Envelope(sender, self._identity.server, message, records)

    def _received_on_link(self, incoming: Incoming) -> None:
        """On a connection of our own: from a member that has none to us."""
        if not incoming.is_notice:
            raise TideError(Code.UNKNOWN_METHOD, type(incoming.request).__name__)
        self.deliver(self._envelope(self._guests.check(incoming.peer), incoming))

    # --- connecting --------------------------------------------------------------------------

    def _follow_directory(self) -> None:
        """One link to each of the others, none to anybody else."""
        wanted = self._directory.others()
        for server in [server for server in self._links if server not in wanted]:
            self._links.pop(server).scope.cancel()
        for server in wanted:
            if server not in self._links:
                link = self._links[server] = _Link(server, trio.CancelScope())
                self._nursery.start_soon(self._keep, link)

    async def _keep(self, link: _Link) -> None:
        backoff = Backoff(
            self._ports.randomness, first_ms=LINK_BACKOFF_FIRST_MS, max_ms=LINK_BACKOFF_MAX_MS
        )
        name = server_name(ServerId(link.server))
        with link.scope:
            while True:
                try:
                    await self._hold(link, backoff)
                except TideError as error:
                    if error.code is not Code.BUSY:
                        self._once.warn(name, "no connection to metaserver %s: %s", name, error)
                await trio.sleep(backoff.next_ms() / 1000)

    async def _hold(self, link: _Link, backoff: Backoff) -> None:
        """Connect, greet, and go on greeting until the link fails with a TideError."""
        peer = await self.reach(link.server, self._received_on_link)
        try:
            while True:
                await peer.call(Greet(run=self._run), timeout_ms=LINK_SILENT_MAX_MS)
                if link.peer is None:
                    link.peer = peer
                    backoff.reset()
                    name = server_name(ServerId(link.server))
                    self._once.well(name, "connected to metaserver %s again", name)
                with trio.move_on_after(LINK_CHECK_MS / 1000):
                    await peer.wait_closed()
        finally:
            link.peer = None
            peer.close("this side makes the connection anew")

    async def reach(self, server: int, handler: Handler = no_requests) -> Peer:
        """A new connection to a member, by the first of its addresses where it answers.

        What the last one said that answered is raised, else DISCONNECTED for the last one.
        """
        last = TideError(
            Code.DISCONNECTED,
            f"no address of metaserver {server_name(ServerId(server))} is known that is good here",
        )
        for address in self._directory.addresses(server):
            try:
                peer = await self._connect(address, handler)
            except TideError as error:
                if last.code is Code.DISCONNECTED or error.code is not Code.DISCONNECTED:
                    last = error
                continue
            if peer.remote.server == server:
                return peer
            last = self._wrong_server(server, peer)
            peer.close("another member was looked for")
        raise last

    async def _connect(self, address: str, handler: Handler) -> Peer:
        with trio.move_on_after(MEMBER_CONNECT_TIMEOUT_MS / 1000):
            return await connect(
                self._ports,
                address,
                self._identity.hello(),
                handler,
                self._nursery,
                expected_role=METASERVER,
            )
        raise TideError(
            Code.DISCONNECTED, f"no answer from {address} within {MEMBER_CONNECT_TIMEOUT_MS} ms"
        )

    def _wrong_server(self, server: int, peer: Peer) -> TideError:
        found = f"{peer.name} answers where {server_name(ServerId(server))} should be"
        if peer.remote.server == self._identity.server:
            return TideError(
                Code.INVALID,
                f"{found}, with the id of this very member: the address is this one's own, or two"
                " members have the same id. Correct the addresses, or stop the one whose folder is"
                " the copy",
            )
        return TideError(Code.INVALID, f"{found}: correct the addresses of the members")


def _drop(envelope: Envelope) -> None:
    """Until somebody wants them."""
