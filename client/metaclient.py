"""The metaservers, seen from here: one server that answers, with retries and failover inside.

One task keeps a *link*: a connection to the leader on which this client's session is open. When it
breaks, the task tries the addresses in turn until a leader takes the session up again; every
request waits for that and is then sent again.

A mutation keeps its (session, slot, sequence) through all repetitions, so it happens once, and its
slot is given back only when it was answered. A caller that gives up (cancelled, or the time-out of
a soft mount) leaves a mutation that was sent to a background task, which repeats it until it is
answered: the slot must not be used before.

When the session expired, what was never sent, or was refused for that reason the first and only
time it was sent, has certainly not happened and goes out again in the new session. A mutation that
may have been executed unseen ends with SESSION_EXPIRED: repeating it here could do it twice, and
only the caller knows whether that does harm.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import trio

from ..fs.backoff import Backoff
from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.limits import (
    CALL_TIMEOUT_MS,
    FIRST_LINK_TIMEOUT_MS,
    RELEASE_BATCH_MS,
    RELEASES_MAX,
    SESSION_KEEPALIVE_MS,
)
from ..fs.messages.base import METHODS, Message, Request
from ..fs.messages.hello import ANY_CLUSTER, CLIENT, METASERVER
from ..fs.messages.meta import (
    Change,
    CloseSession,
    Compound,
    Create,
    Entry,
    KeepAlive,
    Open,
    OpenSession,
    Release,
    ResumeSession,
)
from ..fs.ports import Ports
from ..fs.rpc import Identity, Mutation, Peer, connect, no_requests
from .session import OpenInodes, Session

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Message)

MAYBE_DONE = frozenset({Code.TIMED_OUT, Code.DISCONNECTED, Code.NOT_LEADER, Code.UNAVAILABLE})
"""After these, a mutation may have been executed or may yet be."""

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


class _Link:
    """A connection to the leader with the session open on it. ``ended`` when either is gone."""

    def __init__(self, peer: Peer, session: Session) -> None:
        self.peer = peer
        self.session = session
        self.ended = trio.Event()


class _Mutation:
    """A mutation on its way."""

    def __init__(self, session: Session, mutation: Mutation) -> None:
        self.session = session
        self.mutation = mutation
        self.sent = False
        self.maybe_done = False


class MetaClient:
    """Implements ``MetaServers``. ``run`` must be running."""

    def __init__(self, ports: Ports, addresses: Sequence[str], who: Who) -> None:
        assert addresses, "at least one metaserver"
        self._ports = ports
        self._addresses = list(addresses)
        self._who = who
        self.cluster = ANY_CLUSTER
        self._session: Session | None = None
        self._session_id = 0
        self._nonce = b""
        self._keepalive_ms = SESSION_KEEPALIVE_MS
        self._opens = OpenInodes()
        self._link: _Link | None = None
        self._nursery: trio.Nursery | None = None
        self._closed = False
        self._ever_linked = False
        self._trouble: dict[str, TideError] = {}
        self._hopeless: TideError | None = None
        self._link_waiters = trio.lowlevel.ParkingLot()
        self._slot_waiters = trio.lowlevel.ParkingLot()
        self._something_closed = trio.Event()

    # --- life ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the session alive until ``close`` or cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._keep_link)
            nursery.start_soon(self._keep_releasing)
        self._nursery = None

    async def wait_linked(self, timeout_ms: int = FIRST_LINK_TIMEOUT_MS) -> None:
        """Return when a leader has taken the session.

        TideError when that cannot be (the wrong cluster, a bad address), or DISCONNECTED after
        ``timeout_ms``, saying for each address what is wrong with it.
        """
        with trio.move_on_after(timeout_ms / 1000):
            await self._linked()
            return
        raise TideError(Code.DISCONNECTED, self._describe_trouble())

    async def close(self) -> None:
        """End the session, if a server can be reached quickly, and everything that runs here."""
        self._closed = True
        if self._link is not None:
            session = self._link.session.id
            try:
                await self._link.peer.call(CloseSession(session), timeout_ms=CALL_TIMEOUT_MS)
            except TideError as error:
                log.warning("session %d was not closed, it will expire: %s", session, error)
        self._link_waiters.unpark_all()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    # --- what the vfs asks (MetaServers) -------------------------------------------------

    @property
    def session(self) -> int:
        """The session's id; 0 before the first one."""
        return self._session_id

    async def call(self, request: Request[R], payload: Sequence[Buffer] = ()) -> R:
        """The reply, or a final TideError."""
        reply, _ = await self.exchange(request, payload)
        return reply

    async def exchange(
        self, request: Request[R], payload: Sequence[Buffer] = ()
    ) -> tuple[R, memoryview]:
        """The reply with its payload, or a final TideError."""
        if self._who.timeout_ms is None:
            return await self._answered(request, payload)
        with trio.move_on_after(self._who.timeout_ms / 1000):
            return await self._answered(request, payload)
        raise TideError(
            Code.TIMED_OUT,
            f"{type(request).__name__} within {self._who.timeout_ms} ms"
            f" (this mount is soft); {self._describe_trouble()}",
        )

    def opened(self, inode: int) -> None:
        """Count one opening."""
        self._opens.opened(inode)

    def released(self, inode: int) -> None:
        """One opening ended."""
        self._opens.released(inode)
        if self._opens.to_release:
            self._something_closed.set()

    def reserved(self, inode: int, index: int, handle: int) -> None:
        """Keep this chunk reserved through restarts of the server."""
        if self._session is not None:
            self._session.reserved.add((inode, index, handle))

    def committed(self, inode: int, index: int, handle: int) -> None:
        """No longer."""
        if self._session is not None:
            self._session.reserved.discard((inode, index, handle))

    # --- one request ---------------------------------------------------------------------

    async def _answered(
        self, request: Request[R], payload: Sequence[Buffer]
    ) -> tuple[R, memoryview]:
        carry = self._change if is_change(request) else self._repeat
        if not opens(request):
            return await carry(request, payload)
        since = self._opens.begin_opening()
        try:
            reply, reply_payload = await carry(request, payload)
            inode = request.inode if isinstance(request, Open) else _made(reply)
            while self._opens.crossed(since, inode):
                since = self._opens.begin_opening()
                try:
                    await self._reopen(inode)
                finally:
                    self._opens.end_opening()
        finally:
            self._opens.end_opening()
        return reply, reply_payload

    async def _reopen(self, inode: int) -> None:
        """Have the leader note, once more, that the inode is open."""
        try:
            await self._repeat(Open(inode, 0), ())
        except TideError as error:
            if error.code is not Code.STALE_HANDLE:  # gone meanwhile: its user will be told
                raise

    async def _repeat(self, request: Request[R], payload: Sequence[Buffer]) -> tuple[R, memoryview]:
        backoff = Backoff(self._ports.randomness)
        while True:
            link = await self._linked()
            try:
                return await link.peer.exchange(request, payload=payload)
            except TideError as error:
                await self._recover(link, error, backoff)

    async def _change(self, request: Request[R], payload: Sequence[Buffer]) -> tuple[R, memoryview]:
        change = await self._take_slot()
        try:
            answer = await self._carry(change, request, payload)
            if change.maybe_done and opens(request):
                # The answer was kept in the log; that the file is open, in the memory of the
                # leader that gave it.
                await self._reopen(_made(answer[0]))
        except trio.Cancelled:
            if change.sent and self._nursery is not None and not self._closed:
                copied = [bytes(buffer) for buffer in payload]
                self._nursery.start_soon(self._carry_to_the_end, change, request, copied)
            else:
                self._give_back(change)
            raise
        except BaseException:
            self._give_back(change)
            raise
        self._give_back(change)
        return answer

    async def _carry(
        self, change: _Mutation, request: Request[R], payload: Sequence[Buffer]
    ) -> tuple[R, memoryview]:
        backoff = Backoff(self._ports.randomness)
        while True:
            link = await self._linked()
            if link.session is not change.session:
                if change.maybe_done:
                    raise TideError(
                        Code.SESSION_EXPIRED,
                        f"{type(request).__name__}: the session ended before it was answered;"
                        " it may have been done or not",
                    )
                anew = await self._take_slot()
                change.session, change.mutation = anew.session, anew.mutation
                continue
            change.sent = True
            try:
                return await link.peer.exchange(request, payload=payload, mutation=change.mutation)
            except TideError as error:
                change.maybe_done |= error.code in MAYBE_DONE
                await self._recover(link, error, backoff)

    async def _carry_to_the_end(
        self, change: _Mutation, request: Request[Any], payload: Sequence[Buffer]
    ) -> None:
        try:
            await self._carry(change, request, payload)
        except TideError as error:
            log.info("%s, which nobody waits for any more: %s", type(request).__name__, error)
        finally:
            self._give_back(change)

    async def _recover(self, link: _Link, error: TideError, backoff: Backoff) -> None:
        """Return when the request should be sent again; what is final is raised."""
        if error.code is Code.DISCONNECTED:
            # Also when the connection was closed before the request got onto it.
            link.peer.close(error.detail)
            link.ended.set()
            await trio.lowlevel.checkpoint()
        elif error.code is Code.NOT_LEADER:
            link.peer.close("it is not the leader any more")
            link.ended.set()
            await trio.sleep(backoff.next_ms() / 1000)
        elif error.code is Code.SESSION_EXPIRED:
            self._expire(link.session)
            await trio.lowlevel.checkpoint()
        elif error.code in (Code.BUSY, Code.UNAVAILABLE, Code.TIMED_OUT):
            # After TIMED_OUT the keep-alive finds out whether the connection is of any use.
            await trio.sleep(backoff.next_ms(error.delay_ms) / 1000)
        else:
            raise error

    # --- slots ---------------------------------------------------------------------------

    async def _take_slot(self) -> _Mutation:
        while True:
            session = (await self._linked()).session
            mutation = session.take()
            if mutation is not None:
                return _Mutation(session, mutation)
            await self._slot_waiters.park()

    def _give_back(self, change: _Mutation) -> None:
        change.session.give_back(change.mutation)
        self._slot_waiters.unpark()

    # --- the link ------------------------------------------------------------------------

    async def _linked(self) -> _Link:
        while True:
            if self._closed:
                raise TideError(Code.DEVICE_ERROR, "the file system is being unmounted")
            if self._hopeless is not None:
                raise self._hopeless
            link = self._link
            if link is not None and not link.ended.is_set() and not link.peer.closed:
                return link
            await self._link_waiters.park()

    async def _keep_link(self) -> None:
        peer: Peer | None = None
        while True:
            link = await self._find_link(peer)
            log.info("session %d is open at %s", link.session.id, link.peer.name)
            self._trouble.clear()
            self._ever_linked = True
            self._session_id = link.session.id
            self._link = link
            assert self._nursery is not None
            self._nursery.start_soon(_end_with_peer, link)
            self._link_waiters.unpark_all()
            self._slot_waiters.unpark_all()
            await self._keep_alive(link)
            peer = None if link.peer.closed else link.peer

    async def _find_link(self, peer: Peer | None) -> _Link:
        """A link on ``peer`` if there is one that lives, else on whoever is the leader."""
        backoff = Backoff(self._ports.randomness)
        if peer is not None:
            try:
                return _Link(peer, await self._session_on(peer))
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

    async def _link_at(self, address: str) -> _Link:
        assert self._nursery is not None
        hello = Identity(self.cluster, CLIENT, 0).hello()
        peer = await connect(
            self._ports, address, hello, no_requests, self._nursery, expected_role=METASERVER
        )
        try:
            link = _Link(peer, await self._session_on(peer))
        except BaseException:
            peer.close("no session there")
            raise
        self.cluster = peer.remote.cluster
        return link

    async def _session_on(self, peer: Peer) -> Session:
        """Take the session up on a connection, or open one."""
        while True:
            if self._session is None:
                self._nonce = self._nonce or self._ports.randomness.bytes(16)
                request = OpenSession(self._nonce, self._who.host, self._who.pid)
                opened = await peer.call(request)
                self._nonce = b""
                self._session = Session(opened.session, opened.slots)
                self._keepalive_ms = min(SESSION_KEEPALIVE_MS, max(opened.lease_ms // 3, 1))
                self._opens.forget_closed()
                if not self._opens.all():
                    return self._session
            session = self._session
            try:
                await peer.call(
                    ResumeSession(session.id, self._opens.all(), sorted(session.reserved))
                )
            except TideError as error:
                if error.code is not Code.SESSION_EXPIRED:
                    raise
                self._expire(session)
            else:
                return session

    def _expire(self, session: Session) -> None:
        """The server has forgotten the session: the link is to be made anew, with a new one."""
        if self._session is session:
            log.warning("session %d has expired", session.id)
            self._session = None
        if self._link is not None and self._link.session is session:
            self._link.ended.set()

    async def _keep_alive(self, link: _Link) -> None:
        """Return when the link has ended."""
        while not link.ended.is_set():
            with trio.move_on_after(self._keepalive_ms / 1000):
                await link.ended.wait()
                return
            try:
                await link.peer.call(KeepAlive(link.session.id), timeout_ms=self._keepalive_ms)
            except TideError as error:
                if error.code is Code.SESSION_EXPIRED:
                    self._expire(link.session)
                elif error.code is not Code.BUSY:
                    log.warning("%s: %s", link.peer.name, error)
                    link.peer.close(f"the session is not kept alive: {error}")
                    link.ended.set()

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
            self._link_waiters.unpark_all()

    def _describe_trouble(self) -> str:
        if not self._trouble:
            return "the metaserver takes too long"
        return "no metaserver takes the session: " + "; ".join(
            str(error) if address in error.detail else f"{address}: {error}"
            for address, error in self._trouble.items()
        )

    # --- releases ------------------------------------------------------------------------

    async def _keep_releasing(self) -> None:
        while True:
            await self._something_closed.wait()
            await trio.sleep(RELEASE_BATCH_MS / 1000)
            try:
                link = await self._linked()
                batch = self._opens.next_batch(RELEASES_MAX)
                if batch:
                    await link.peer.call(Release(batch))
                    self._opens.acknowledged(batch)
            except TideError as error:
                # A batch is made anew for each try: some may be open again by then.
                log.debug("a Release will be repeated: %s", error)
            if not self._opens.to_release:
                self._something_closed = trio.Event()


async def _end_with_peer(link: _Link) -> None:
    await link.peer.wait_closed()
    link.ended.set()


def is_change(request: Request[Any]) -> bool:
    """Whether the request is, or contains, a mutation."""
    if isinstance(request, Compound):
        return any(issubclass(METHODS[step.method], Change) for step in request.steps)
    return isinstance(request, Change)


def opens(request: Request[Any]) -> bool:
    """Whether the server counts an inode as open after this."""
    return isinstance(request, Open) or (isinstance(request, Create) and request.open)


def _made(reply: object) -> int:
    assert isinstance(reply, Entry), reply
    return reply.attributes.inode
