"""Connections to the members of the group, one each, kept for the next question; who they are."""

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from .errors import Code, TideError
from .handshake import Identity
from .limits import MEMBER_CONNECT_TIMEOUT_MS
from .members import Contact, Members
from .messages.hello import ANY_CLUSTER, METASERVER
from .messages.raft import GetMember, MembersAre, MemberStatus
from .ports import Ports
from .rpc import Handler, Incoming, Peer, connect

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What a member said of itself, and where."""

    peer: Peer
    address: str
    status: MemberStatus


class MemberLinks:
    """``handler`` answers what members ask on these connections, which live in ``nursery``; what
    they tell of the group goes to ``members``."""

    def __init__(
        self,
        ports: Ports,
        identity: Identity,
        members: Members,
        handler: Handler,
        nursery: trio.Nursery,
    ) -> None:
        self.trouble: dict[str, TideError] = {}
        """What is wrong with each address."""
        self.on_trouble: Callable[[], object] = lambda: None
        """Called when there is more of it."""
        self._ports = ports
        self._identity = identity
        self._members = members
        self._handler = handler
        self._nursery = nursery
        self._peers: dict[int, Peer] = {}
        self._loud = False
        self._told: set[tuple[str, Code]] = set()

    @property
    def cluster(self) -> str:
        """The id of the cluster that answered; ANY_CLUSTER as long as none did."""
        return self._identity.cluster

    async def ask(self, contact: Contact, timeout_ms: int) -> Answer | None:
        """Ask a member who it is; the connection ends when it does not answer in time.

        None: it cannot be asked, ``trouble`` says why.
        """
        reached = await self._reach(contact)
        if reached is None:
            return None
        peer, address = reached
        try:
            status = await peer.call(GetMember(), timeout_ms=timeout_ms)
        except TideError as error:
            peer.close("it does not say who leads")
            self.note(address, error)
            return None
        self._members.heard(status)
        return Answer(peer, address, status)

    # --- connections ---------------------------------------------------------------------------

    async def _reach(self, contact: Contact) -> tuple[Peer, str] | None:
        """A connection, kept or new, and at which address.

        An address may have passed on to another member, which took the place of one whose disk was
        lost. If nobody else is found, that one is asked: it knows of the others.
        """
        for address in contact.addresses:
            kept = self._kept(contact.server or self._members.server_at(address))
            if kept is not None:
                return kept, address
        heir: tuple[Peer, str] | None = None
        for address in contact.addresses:
            peer = self._kept(self._members.server_at(address))
            try:
                peer = peer or await self._connect(address)
            except TideError as error:
                self.note(address, error)
                continue
            if contact.server in (0, peer.remote.server):
                return peer, address
            heir = heir or (peer, address)
        return heir

    def _kept(self, server: int) -> Peer | None:
        peer = self._peers.get(server)
        return None if peer is None or peer.closed else peer

    def _handle(self, incoming: Incoming) -> Awaitable[None] | None:
        if not isinstance(incoming.request, MembersAre):
            return self._handler(incoming)
        if self._kept(incoming.peer.remote.server) is incoming.peer:
            self._members.heard(incoming.request.status)
        return None

    async def _connect(self, address: str) -> Peer:
        peer: Peer | None = None
        with trio.move_on_after(MEMBER_CONNECT_TIMEOUT_MS / 1000):
            peer = await connect(
                self._ports,
                address,
                self._identity.hello(),
                self._handle,
                self._nursery,
                expected_role=METASERVER,
            )
        if peer is None:
            raise TideError(
                Code.DISCONNECTED,
                f"no connection to {address} within {MEMBER_CONNECT_TIMEOUT_MS} ms",
            )
        return self._keep(peer, address)

    def _keep(self, peer: Peer, address: str) -> Peer:
        """Keep a new connection, unless there is one to that server."""
        cluster, server = peer.remote.cluster, peer.remote.server
        if self.cluster == ANY_CLUSTER:
            self._identity = self._identity._replace(cluster=cluster)
        elif cluster != self.cluster:
            peer.close("it belongs to another cluster")
            raise TideError(Code.WRONG_CLUSTER, f"{address}: {cluster!r}, not {self.cluster!r}")
        self._members.met(address, server)
        before = self._kept(server)
        if before is not None:
            peer.close("there is another connection to that server")
            return before
        self._peers[server] = peer
        return peer

    # --- trouble -------------------------------------------------------------------------------

    def note(self, address: str, error: TideError) -> None:
        """Something is wrong there."""
        self.trouble[address] = error
        if self._loud:
            self._tell(address, error)
        self.on_trouble()

    def speak_up(self) -> None:
        """From now on somebody should know of the trouble: each kind of it is logged, once."""
        self._loud = True
        for address, error in self.trouble.items():
            self._tell(address, error)

    def forget_trouble(self) -> None:
        """All is well."""
        self._loud = False
        self._told.clear()
        self.trouble.clear()

    def _tell(self, address: str, error: TideError) -> None:
        if (address, error.code) not in self._told:
            self._told.add((address, error.code))
            log.warning("metaserver at %s: %s", address, error)
