"""The link to the metaservers: a connection to the leader, with this client's session open on it.

One task keeps it. When it breaks, the task searches for the leader, which takes the session up
again (ResumeSession, which says what the session holds), or opens a new one when it is over.
"""

import logging
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple, Protocol

import trio

from ..fs.backoff import Backoff
from ..fs.errors import Code, TideError
from ..fs.leader_search import LeaderSearch
from ..fs.leader_watch import Leader
from ..fs.limits import CALL_TIMEOUT_MS, SESSION_KEEPALIVE_MS
from ..fs.members import Members, Readdress
from ..fs.messages.base import Done, Request
from ..fs.messages.hello import ANY_CLUSTER, CLIENT
from ..fs.messages.meta import Alive, KeepAlive, OpenSession
from ..fs.ports import Ports
from ..fs.rpc import Identity, Incoming, Peer
from .session import OpenInodes, Session, resumption

log = logging.getLogger(__name__)

HOPELESS = frozenset(
    {Code.WRONG_CLUSTER, Code.WRONG_PROTOCOL, Code.WRONG_ROLE, Code.INVALID, Code.BAD_CONFIG}
)
"""From every address at the first try: no retry will help."""

NS_PER_MS = 1_000_000

SHORT_MS = 1_000
"""A link that did not live longer than that is no reason to search without a pause."""


class Who(NamedTuple):
    """What a session is known by in messages to people, and how patient it is."""

    host: str
    pid: int
    timeout_ms: int | None = None
    """None: repeat for ever ("hard"). Else every request ends in TIMED_OUT after so long."""
    promises: bool = False
    """Whether the session wants to be promised what it is told."""


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


class LinkEvents(Protocol):
    """What the keeper tells, at once: none of these waits."""

    def linked(self) -> None:
        """There is a new link. What was told on the one before may have been missed."""
        ...

    def expired(self, session: int) -> None:
        """That session is over, and all that it held."""
        ...

    def claims(self) -> list[int]:
        """The inodes whose exclusive promises the session takes to a new link."""
        ...

    def told(self, request: Request[Any]) -> Awaitable[None] | None:
        """A metaserver has sent a notice, or a request: UNKNOWN_METHOD for what is neither. A
        request is answered when what is returned was awaited; None: at once."""
        ...


class LinkKeeper:
    """Keeps the link, and tells ``events``."""

    def __init__(
        self,
        ports: Ports,
        addresses: Sequence[str],
        who: Who,
        opens: OpenInodes,
        events: LinkEvents,
        readdress: Readdress | None = None,
    ) -> None:
        self.session: Session | None = None
        """The one that is alive, as far as is known."""
        self.session_id = 0
        """Of the latest one."""
        self.lease_until_ns = 0
        """Until then the session lives, whatever happens; by this machine's monotonic clock."""
        self._ports = ports
        self._members = Members(addresses, who.host)
        self._who = who
        self._opens = opens
        self._events = events
        self._readdress = readdress
        self._search: LeaderSearch | None = None
        self._link: Link | None = None
        self._nonce = b""
        self._keepalive_ms = SESSION_KEEPALIVE_MS
        self._closed = False
        self._ever_linked = False
        self._hopeless: TideError | None = None
        self._waiters = trio.lowlevel.ParkingLot()

    async def wait(self) -> Link:
        """A link that lives; TideError when there will be none."""
        while True:
            if self._closed:
                raise TideError(Code.DEVICE_ERROR, "the file system is being unmounted")
            if self._hopeless is not None:
                raise self._hopeless
            link = self.now
            if link is not None:
                return link
            await self._waiters.park()

    @property
    def now(self) -> Link | None:
        """A link that lives, if there is one."""
        link = self._link
        if self._closed or link is None or link.ended.is_set() or link.peer.closed:
            return None
        return link

    @property
    def current(self) -> Link | None:
        """The latest link; it may have ended."""
        return self._link

    def close(self) -> None:
        """Nobody shall wait for a link any more."""
        self._closed = True
        self._waiters.unpark_all()

    @property
    def cluster(self) -> str:
        """The id of the cluster that answered; ANY_CLUSTER as long as none did."""
        return ANY_CLUSTER if self._search is None else self._search.cluster

    async def keep(self, nursery: trio.Nursery) -> None:
        """Keep one, for ever. The connections live in ``nursery``."""
        search = self._search = LeaderSearch(
            self._ports,
            Identity(ANY_CLUSTER, CLIENT, 0),
            self._members,
            self._handle,
            nursery,
            self._give_up_if_hopeless,
            self._readdress,
        )
        pace = Backoff(self._ports.randomness)
        peer: Peer | None = None
        while True:
            link = await self._find_link(search, peer)
            log.info("session %d is open at %s", link.session.id, link.peer.name)
            self._ever_linked = True
            self.session_id = link.session.id
            self._link = link
            began_ns = self._ports.clock.monotonic_ns()
            nursery.start_soon(_end_with_peer, link)
            self._waiters.unpark_all()
            self._events.linked()
            await self._keep_alive(link)
            peer = None if link.peer.closed else link.peer
            if self._ports.clock.monotonic_ns() - began_ns < SHORT_MS * 10**6:
                await trio.sleep(pace.next_ms() / 1000)
            else:
                pace.reset()

    def _handle(self, incoming: Incoming) -> Awaitable[None] | None:
        busy = self._events.told(incoming.request)
        if busy is not None:
            return _reply_after(incoming, busy)
        incoming.reply(Done())
        return None

    async def _find_link(self, search: LeaderSearch, peer: Peer | None) -> Link:
        """A link on ``peer`` if there is one that lives, else on whoever leads."""
        if peer is not None:
            try:
                return Link(peer, await self._session_on(peer))
            except TideError as error:
                log.warning("%s: %s", peer.name, error)
                peer.close("no session there")
        return await search.find(self._take)

    async def _take(self, leader: Leader) -> Link:
        return Link(leader.peer, await self._session_on(leader.peer))

    async def _session_on(self, peer: Peer) -> Session:
        """Take the session up on a connection, or open one."""
        while True:
            if self.session is None:
                self._nonce = self._nonce or self._ports.randomness.bytes(16)
                who = self._who
                request = OpenSession(self._nonce, who.host, who.pid, who.promises)
                asked_ns = self._ports.clock.monotonic_ns()
                opened = await peer.call(request)
                self._nonce = b""
                self.session = Session(opened.session, opened.slots)
                self.lease_until_ns = asked_ns + opened.lease_ms * NS_PER_MS
                self._keepalive_ms = min(SESSION_KEEPALIVE_MS, max(opened.lease_ms // 3, 1))
                self._opens.forget_closed()
                if not self._opens.all():
                    return self.session
            session = self.session
            try:
                for piece in resumption(session, self._opens.all(), self._events.claims()):
                    await self._alive(session, peer.call(piece))
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
            self.lease_until_ns = 0
            self._events.expired(session.id)
        if self._link is not None and self._link.session is session:
            self._link.ended.set()

    async def renew(self, link: Link, timeout_ms: int = CALL_TIMEOUT_MS) -> None:
        """Renew the lease of a link's session. SESSION_EXPIRED when it is over, and what else may
        befall a request."""
        await self._alive(
            link.session, link.peer.call(KeepAlive(link.session.id), timeout_ms=timeout_ms)
        )

    async def _alive(self, session: Session, answer: Awaitable[Alive]) -> None:
        """Wait for the answer to what is asked now, and note for how long the session lives."""
        asked_ns = self._ports.clock.monotonic_ns()
        lease_ms = (await answer).lease_ms
        if self.session is session:
            self.lease_until_ns = max(self.lease_until_ns, asked_ns + lease_ms * NS_PER_MS)

    async def _keep_alive(self, link: Link) -> None:
        """Return when the link has ended."""
        while not link.ended.is_set():
            with trio.move_on_after(self._keepalive_ms / 1000):
                await link.ended.wait()
                return
            try:
                await self.renew(link, self._keepalive_ms)
            except TideError as error:
                if error.code is Code.SESSION_EXPIRED:
                    self.expire(link.session)
                elif error.code is Code.DISCONNECTED:
                    link.ended.set()  # who closed it has said why
                elif error.code is not Code.BUSY:
                    log.warning("%s: %s", link.peer.name, error)
                    link.end(f"the session is not kept alive: {error}")

    # --- trouble -------------------------------------------------------------------------

    def _give_up_if_hopeless(self) -> None:
        assert self._search is not None
        trouble = self._search.trouble
        if not self._ever_linked and all(
            address in trouble and trouble[address].code in HOPELESS
            for address in self._members.configured
        ):
            self._hopeless = next(iter(trouble.values()))
            self._waiters.unpark_all()

    def describe_trouble(self) -> str:
        """What is wrong with each address, for a person."""
        if self._search is None or not self._search.trouble:
            return "the metaserver takes too long"
        return "no metaserver takes the session: " + "; ".join(
            str(error) if address in error.detail else f"{address}: {error}"
            for address, error in self._search.trouble.items()
        )


async def _reply_after(incoming: Incoming, busy: Awaitable[None]) -> None:
    await busy
    incoming.reply(Done())


async def _end_with_peer(link: Link) -> None:
    await link.peer.wait_closed()
    link.ended.set()
