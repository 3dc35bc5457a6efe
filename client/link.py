"""The link to the metaservers: a connection to the leader, with this client's session open on it.

One task keeps it. When it breaks, the task tries the addresses in turn until a leader takes the
session up again (ResumeSession, which says what the session holds) or, when the session is over,
opens a new one.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from ..fs.backoff import Backoff
from ..fs.errors import Code, TideError
from ..fs.limits import SESSION_KEEPALIVE_MS
from ..fs.messages.hello import ANY_CLUSTER, CLIENT, METASERVER
from ..fs.messages.meta import KeepAlive, OpenSession, ResumeSession
from ..fs.ports import Ports
from ..fs.rpc import Identity, Peer, connect, no_requests
from .session import OpenInodes, Session

log = logging.getLogger(__name__)

HOPELESS = frozenset(
    {Code.WRONG_CLUSTER, Code.WRONG_PROTOCOL, Code.WRONG_ROLE, Code.INVALID, Code.BAD_CONFIG}
)
"""From every address at the first try: no retry will help."""


class Who(NamedTuple):
    """What a session is known by in messages to people, and how patient it is."""

    host: str
    pid: int
    timeout_ms: int | None = None
    """None: repeat for ever ("hard"). Else every request ends in TIMED_OUT after so long."""


class Link:
    """A connection to the leader with the session open on it. ``ended`` when either is gone."""

    def __init__(self, peer: Peer, session: Session) -> None:
        self.peer = peer
        self.session = session
        self.ended = trio.Event()

    def end(self, reason: str) -> None:
        """The connection is of no use any more."""
        self.peer.close(reason)
        self.ended.set()


class LinkKeeper:
    """Keeps the link. ``on_link`` is called whenever there is a new one."""

    def __init__(
        self,
        ports: Ports,
        addresses: Sequence[str],
        who: Who,
        opens: OpenInodes,
        on_link: Callable[[], object],
    ) -> None:
        assert addresses, "at least one metaserver"
        self.cluster = ANY_CLUSTER
        self.session: Session | None = None
        """The one that is alive, as far as is known."""
        self.session_id = 0
        """Of the latest one."""
        self._ports = ports
        self._addresses = list(addresses)
        self._who = who
        self._opens = opens
        self._on_link = on_link
        self._nursery: trio.Nursery | None = None
        self._link: Link | None = None
        self._nonce = b""
        self._keepalive_ms = SESSION_KEEPALIVE_MS
        self._closed = False
        self._ever_linked = False
        self._trouble: dict[str, TideError] = {}
        self._hopeless: TideError | None = None
        self._waiters = trio.lowlevel.ParkingLot()

    async def wait(self) -> Link:
        """A link that lives; TideError when there will be none."""
        while True:
            if self._closed:
                raise TideError(Code.DEVICE_ERROR, "the file system is being unmounted")
            if self._hopeless is not None:
                raise self._hopeless
            link = self._link
            if link is not None and not link.ended.is_set() and not link.peer.closed:
                return link
            await self._waiters.park()

    @property
    def current(self) -> Link | None:
        """The latest link; it may have ended."""
        return self._link

    def close(self) -> None:
        """Nobody shall wait for a link any more."""
        self._closed = True
        self._waiters.unpark_all()

    async def keep(self, nursery: trio.Nursery) -> None:
        """Keep one, for ever. The connections live in ``nursery``."""
        self._nursery = nursery
        peer: Peer | None = None
        while True:
            link = await self._find_link(peer)
            log.info("session %d is open at %s", link.session.id, link.peer.name)
            self._trouble.clear()
            self._ever_linked = True
            self.session_id = link.session.id
            self._link = link
            nursery.start_soon(_end_with_peer, link)
            self._waiters.unpark_all()
            self._on_link()
            await self._keep_alive(link)
            peer = None if link.peer.closed else link.peer

    async def _find_link(self, peer: Peer | None) -> Link:
        """A link on ``peer`` if there is one that lives, else on whoever is the leader."""
        backoff = Backoff(self._ports.randomness)
        if peer is not None:
            try:
                return Link(peer, await self._session_on(peer))
            except TideError as error:
                log.warning("%s: %s", peer.name, error)
                peer.close("no session there")
        while True:
            for address in list(self._addresses):
                try:
                    link = await self._link_at(address)
                except TideError as error:
                    self._note_trouble(address, error)
                else:
                    self._addresses.remove(address)
                    self._addresses.insert(0, address)
                    return link
            self._give_up_if_hopeless()
            await trio.sleep(backoff.next_ms() / 1000)

    async def _link_at(self, address: str) -> Link:
        assert self._nursery is not None
        hello = Identity(self.cluster, CLIENT, 0).hello()
        peer = await connect(
            self._ports, address, hello, no_requests, self._nursery, expected_role=METASERVER
        )
        try:
            link = Link(peer, await self._session_on(peer))
        except BaseException:
            peer.close("no session there")
            raise
        self.cluster = peer.remote.cluster
        return link

    async def _session_on(self, peer: Peer) -> Session:
        """Take the session up on a connection, or open one."""
        while True:
            if self.session is None:
                self._nonce = self._nonce or self._ports.randomness.bytes(16)
                request = OpenSession(self._nonce, self._who.host, self._who.pid)
                opened = await peer.call(request)
                self._nonce = b""
                self.session = Session(opened.session, opened.slots)
                self._keepalive_ms = min(SESSION_KEEPALIVE_MS, max(opened.lease_ms // 3, 1))
                self._opens.forget_closed()
                if not self._opens.all():
                    return self.session
            session = self.session
            try:
                await peer.call(
                    ResumeSession(session.id, self._opens.all(), sorted(session.reserved))
                )
            except TideError as error:
                if error.code is not Code.SESSION_EXPIRED:
                    raise
                self.expire(session)
            else:
                return session

    def expire(self, session: Session) -> None:
        """The server has forgotten the session: the link is to be made anew, with a new one."""
        if self.session is session:
            log.warning("session %d has expired", session.id)
            self.session = None
        if self._link is not None and self._link.session is session:
            self._link.ended.set()

    async def _keep_alive(self, link: Link) -> None:
        """Return when the link has ended."""
        while not link.ended.is_set():
            with trio.move_on_after(self._keepalive_ms / 1000):
                await link.ended.wait()
                return
            try:
                await link.peer.call(KeepAlive(link.session.id), timeout_ms=self._keepalive_ms)
            except TideError as error:
                if error.code is Code.SESSION_EXPIRED:
                    self.expire(link.session)
                elif error.code is not Code.BUSY:
                    log.warning("%s: %s", link.peer.name, error)
                    link.end(f"the session is not kept alive: {error}")

    # --- trouble -------------------------------------------------------------------------

    def _note_trouble(self, address: str, error: TideError) -> None:
        before = self._trouble.get(address)
        if before is None or before.code is not error.code:
            log.log(
                logging.DEBUG if error.code is Code.NOT_LEADER else logging.WARNING,
                "metaserver at %s: %s", address, error,
            )  # fmt: skip
        self._trouble[address] = error

    def _give_up_if_hopeless(self) -> None:
        if not self._ever_linked and all(e.code in HOPELESS for e in self._trouble.values()):
            self._hopeless = next(iter(self._trouble.values()))
            self._waiters.unpark_all()

    def describe_trouble(self) -> str:
        """What is wrong with each address, for a person."""
        if not self._trouble:
            return "the metaserver takes too long"
        return "no metaserver takes the session: " + "; ".join(
            str(error) if address in error.detail else f"{address}: {error}"
            for address, error in self._trouble.items()
        )


async def _end_with_peer(link: Link) -> None:
    await link.peer.wait_closed()
    link.ended.set()
