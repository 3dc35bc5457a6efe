"""The other members on the connections that they opened: who may speak, and as whom."""

import logging

import msgspec

from ..fs.errors import Code, TideError
from ..fs.handshake import Identity
from ..fs.ids import ServerId, server_name
from ..fs.limits import MEMBER_ALIVE_MS
from ..fs.messages.hello import METASERVER
from ..fs.ports.clock import Clock
from ..fs.rpc import Peer
from .directory import Directory

MS = 1_000_000

log = logging.getLogger(__name__)


class _Guest(msgspec.Struct, eq=False):
    """One process of another member. ``run`` tells it from others that claim the same id."""

    run: int
    peers: list[Peer]  # the newest last
    heard_ns: int
    doubted_ns: int = 0
    """When another process first claimed this one's id; 0: none has."""

    def living(self) -> list[Peer]:
        """Its open connections."""
        return [peer for peer in self.peers if not peer.closed]


class Guests:
    """Those who greeted this member. Only what they say is believed to be of who they are."""

    def __init__(self, identity: Identity, directory: Directory, clock: Clock) -> None:
        self._identity = identity
        self._directory = directory
        self._clock = clock
        self._guests: dict[int, _Guest] = {}

    def greet(self, peer: Peer, run: int) -> None:
        """``peer`` makes itself known, or says that it lives.

        WRONG_ROLE, WRONG_CLUSTER, FOREIGN_FOLDER or INVALID, in words, when it may not speak here;
        BUSY when it is not known yet whether it may.
        """
        server = self.check(peer)
        guest = self._guests.get(server)
        if guest is None or guest.run != run:
            self._check_alone(guest, peer)
            for before in guest.living() if guest else ():
                before.close("the other side has been started anew")
            self._guests = {one: known for one, known in self._guests.items() if known.living()}
            guest = self._guests[server] = _Guest(run, [], 0)
        if peer not in guest.peers:
            self._check_not_removed(server)
            guest.peers = [*guest.living(), peer]
        guest.heard_ns = self._clock.monotonic_ns()

    def check(self, peer: Peer) -> int:
        """The server id of a member on the other side; TideError when there is none."""
        speaker = peer.remote
        if speaker.role != METASERVER or speaker.server <= 0:
            raise TideError(
                Code.WRONG_ROLE, f"{peer.name} is no metaserver: it cannot be a member of the group"
            )
        if speaker.cluster != self._identity.cluster:
            raise TideError(
                Code.WRONG_CLUSTER,
                f"{peer.name} does not say that it belongs to {self._identity.cluster!r}",
            )
        if speaker.server == self._identity.server:
            raise TideError(
                Code.INVALID,
                f"two members have the same id, {_name(speaker.server)}: this one and {peer.name}."
                " Stop the one whose folder is the copy; a new member gets an id of its own",
            )
        return speaker.server

    def sender(self, peer: Peer) -> int:
        """Who told something on this connection. INVALID when it has not greeted."""
        guest = self._guests.get(peer.remote.server)
        if guest is None or peer not in guest.peers:
            raise TideError(Code.INVALID, f"{peer.name} speaks before it has greeted")
        guest.heard_ns = self._clock.monotonic_ns()
        return peer.remote.server

    def peer(self, server: int) -> Peer | None:
        """An open connection that this member made, if there is one."""
        guest = self._guests.get(server)
        living = guest.living() if guest else []
        return living[-1] if living else None

    def _check_not_removed(self, server: int) -> None:
        if self._directory.was_removed(server):
            raise TideError(
                Code.FOREIGN_FOLDER,
                f"metaserver {_name(server)} was removed from the group and must not come back: end"
                " it; to use its machine again, format a new folder, which gets a new id",
            )

    def _check_alone(self, other: _Guest | None, peer: Peer) -> None:
        """Only one process of an id may speak.

        A machine that lost its power closes no connection, so that one is open proves nothing. BUSY
        until it has been silent for long enough; INVALID when it is heard of meanwhile.
        """
        living = other.living() if other else []
        now_ns = self._clock.monotonic_ns()
        if not other or not living or now_ns - other.heard_ns >= MEMBER_ALIVE_MS * MS:
            return
        name = _name(peer.remote.server)
        if not other.doubted_ns:
            other.doubted_ns = now_ns
        if other.heard_ns <= other.doubted_ns:
            raise TideError(
                Code.BUSY,
                f"another process of metaserver {name} may still be alive: {living[-1].name}",
            )
        raise TideError(
            Code.INVALID,
            f"two processes say that they are metaserver {name}: {living[-1].name} and {peer.name}."
            " Stop the one whose folder is the copy; a new member gets an id of its own",
        )


def _name(server: int) -> str:
    return server_name(ServerId(server))
