"""The metaservers, seen from here: one server that answers, with retries and failover inside.

A request is sent on the *link* (see `link.py`). When that breaks, it waits for the next one and is
sent again.

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
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import trio

from ..fs.backoff import Backoff
from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.limits import (
    CALL_TIMEOUT_MS,
    FIRST_LINK_TIMEOUT_MS,
    RELEASE_BATCH_MS,
    RELEASES_MAX,
)
from ..fs.members import Readdress
from ..fs.messages.base import Message, Notice, Request
from ..fs.messages.locks import LocksGranted
from ..fs.messages.meta import CloseSession, CreateUnnamed, Open, Release
from ..fs.messages.promises import Recall
from ..fs.ports import Ports
from .counters import Counters
from .flights import Failure, Flights
from .link import Link, LinkKeeper, Who
from .requests import MAYBE_DONE, PATIENT, is_change, opened_inode, opens, unpromised
from .servers import SessionEvents
from .session import OpenInodes
from .slots import PendingChange, Slots, over

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Message)


class MetaClient:
    """Implements ``MetaServers``. ``run`` must be running."""

    def __init__(
        self,
        ports: Ports,
        addresses: Sequence[str],
        who: Who,
        readdress: Readdress | None = None,
    ) -> None:
        self._ports = ports
        self._timeout_ms = who.timeout_ms
        self._nursery: trio.Nursery | None = None
        self._closed = False
        self.counters = Counters()
        self.recalls = 0
        """Counts what may have ended promises: recalls, and new connections."""
        self._opens = OpenInodes()
        self._links = LinkKeeper(ports, addresses, who, self._opens, self, readdress)
        self._slots = Slots(self._links)
        self._flights = Flights(self._links, self._opens, self._slots, self)
        self._events: SessionEvents | None = None
        self._something_closed = trio.Event()
        self._refusals: dict[Backoff, TideError] = {}
        """Why requests that will be sent again are not answered now."""

    @property
    def cluster(self) -> str:
        """The id of the cluster that answered."""
        return self._links.cluster

    @property
    def trouble(self) -> str:
        """What keeps requests from being answered now, for a person; empty: nothing."""
        link = self._links.current
        if link is None or link.ended.is_set():
            return self._links.describe_trouble()
        return "; ".join(dict.fromkeys(map(str, self._refusals.values())))

    # --- life ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the session alive until ``close`` or cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._timeout_ms is None:  # else each request needs a task that ends it in time
                    self._flights.nursery = nursery
                nursery.start_soon(self._links.keep, nursery)
                nursery.start_soon(self._keep_releasing)
        finally:
            self._nursery = self._flights.nursery = None

    async def wait_linked(self, timeout_ms: int = FIRST_LINK_TIMEOUT_MS) -> None:
        """Return when a leader has taken the session.

        TideError when that cannot be (the wrong cluster, a bad address), or DISCONNECTED after
        ``timeout_ms``, saying for each address what is wrong with it.
        """
        with trio.move_on_after(timeout_ms / 1000):
            await self._links.wait()
            return
        raise TideError(Code.DISCONNECTED, self._links.describe_trouble())

    async def close(self) -> None:
        """End the session, if a server can be reached quickly, and everything that runs here."""
        self._closed = True
        link = self._links.current
        if link is not None:
            session = link.session.id
            try:
                await link.peer.call(CloseSession(session), timeout_ms=CALL_TIMEOUT_MS)
            except TideError as error:
                log.warning("session %d was not closed, it will expire: %s", session, error)
        self._links.close()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    # --- what the vfs asks (MetaServers) -------------------------------------------------

    @property
    def session(self) -> int:
        """The session's id; 0 before the first one."""
        return self._links.session_id

    @property
    def lease_until_ns(self) -> int:
        """Until then the session lives."""
        return self._links.lease_until_ns

    def listen(self, events: SessionEvents) -> None:
        """Tell ``events`` what happens to the session."""
        self._events = events

    async def settled(self) -> None:
        """Return when no change is under way any more whose caller gave up before this."""
        await self._slots.settled()

    async def renew(self, session: int) -> None:
        """Return when that session is known to live, with a new lease; SESSION_EXPIRED."""
        if self._timeout_ms is None:
            await self._renew(session)
            return
        with trio.move_on_after(self._timeout_ms / 1000):
            await self._renew(session)
            return
        raise self._too_late("the session's lease")

    async def _renew(self, session: int) -> None:
        backoff = Backoff(self._ports.randomness)
        while True:
            link = await self._links.wait()
            if link.session.id != session:
                raise over(session)
            try:
                await self._links.renew(link)
            except TideError as error:
                await self._recover(link, error, backoff)
            else:
                return

    async def call(
        self, request: Request[R], payload: Sequence[Buffer] = (), *, session: int | None = None
    ) -> R:
        """The reply, or a final TideError."""
        reply, _ = await self.exchange(request, payload, session=session)
        return reply

    async def exchange(
        self, request: Request[R], payload: Sequence[Buffer] = (), *, session: int | None = None
    ) -> tuple[R, memoryview]:
        """The reply with its payload, or a final TideError."""
        if self._timeout_ms is None or isinstance(request, PATIENT):
            return await self._answered(request, payload, session)
        with trio.move_on_after(self._timeout_ms / 1000):
            return await self._answered(request, payload, session)
        raise self._too_late(type(request).__name__)

    def start(self, request: Request[R]) -> Awaitable[R]:
        """As ``call``; an Answer where no task is needed."""
        return self._flights.take_off(request, lambda reply, _: reply) or self._late(request)

    def start_exchange(self, request: Request[R]) -> Awaitable[tuple[R, memoryview]]:
        """As ``start``, with the reply's payload."""
        return self._flights.take_off(request, lambda *both: both) or self._late_exchange(request)

    async def _late(self, request: Request[R]) -> R:
        reply, _ = await self._late_exchange(request)
        return reply

    async def _late_exchange(self, request: Request[R]) -> tuple[R, memoryview]:
        recalls = self.recalls
        reply, payload = await self.exchange(request)
        return (reply if self.recalls == recalls else unpromised(reply)), payload

    def _too_late(self, what: str) -> TideError:
        return TideError(
            Code.TIMED_OUT,
            f"{what} within {self._timeout_ms} ms (this mount is soft);"
            f" {self._links.describe_trouble()}",
        )

    def opened(self, inode: int) -> None:
        """Count one opening."""
        self._opens.opened(inode)

    def released(self, inode: int, *, known: bool = True) -> None:
        """One opening ended."""
        self._opens.released(inode, known=known)
        if self._opens.to_release:
            self._something_closed.set()

    def reserved(self, inode: int, index: int, handle: int) -> None:
        """Keep this chunk reserved through restarts of the server."""
        if self._links.session is not None:
            self._links.session.reserved.add((inode, index, handle))

    def committed(self, inode: int, index: int, handle: int) -> None:
        """No longer."""
        if self._links.session is not None:
            self._links.session.reserved.discard((inode, index, handle))

    # --- what the link tells (LinkEvents) ------------------------------------------------

    def linked(self) -> None:
        """There is a new link."""
        self.recalls += 1
        self._slots.changed()
        if self._events is not None:
            self._events.linked()

    def expired(self, session: int) -> None:
        """That session is over."""
        if self._events is not None:
            self._events.expired(session)

    def claims(self) -> list[int]:
        """What the session takes along."""
        return [] if self._events is None else self._events.claims()

    def told(self, request: Request[Any]) -> Awaitable[None] | None:
        """A notice, or a request."""
        if isinstance(request, LocksGranted):
            if self._events is not None:
                self._events.granted(request)
        elif isinstance(request, Recall):
            self.recalls += 1
            self.counters.recalls += len(request.inodes)
            if self._events is not None:
                return self._events.recalled(request.inodes)
        elif not isinstance(request, Notice):
            raise TideError(Code.UNKNOWN_METHOD, type(request).__name__)
        return None

    # --- one request ---------------------------------------------------------------------

    async def _answered(
        self, request: Request[R], payload: Sequence[Buffer], session: int | None
    ) -> tuple[R, memoryview]:
        carry = self._change if is_change(request) else self._repeat
        if not opens(request):
            return await carry(request, payload, session)
        assert session is None, "what is opened is opened again by who has it open"
        since = self._opens.begin_opening()
        try:
            answer = await carry(request, payload, None)
            await self.keep_open(since, opened_inode(request, answer[0]))
        finally:
            self._opens.end_opening()
        return answer

    async def keep_open(self, since: int, inode: int) -> None:
        """What was just opened stays open, also when a Release for it was under way."""
        while self._opens.crossed(since, inode):
            since = self._opens.begin_opening()
            try:
                await self._reopen(inode)
            finally:
                self._opens.end_opening()

    async def _reopen(self, inode: int) -> bool:
        """Have the leader note, once more, that the inode is open; whether it is still there."""
        try:
            await self._repeat(Open(inode, 0), (), None)
        except TideError as error:
            if error.code is not Code.STALE_HANDLE:  # gone meanwhile: its user will be told
                raise
            return False
        return True

    async def _repeat(
        self,
        request: Request[R],
        payload: Sequence[Buffer],
        session: int | None,
        failure: Failure | None = None,
    ) -> tuple[R, memoryview]:
        """``failure``: what became of it when it was sent before."""
        backoff = Backoff(self._ports.randomness)
        sent = failure is not None
        try:
            if failure is not None:
                await self._recover(*failure, backoff)
            while True:
                link = await self._links.wait()
                if session not in (None, link.session.id):
                    raise over(session)
                sent = True
                try:
                    self.counters.asks(request)
                    return await link.peer.exchange(request, payload=payload)
                except TideError as error:
                    await self._recover(link, error, backoff)
        except trio.Cancelled:
            if sent and isinstance(request, Open):  # the server may count it as open
                self.unwanted(request.inode)
            raise

    async def _change(
        self, request: Request[R], payload: Sequence[Buffer], session: int | None
    ) -> tuple[R, memoryview]:
        change = await self._slots.take(session)
        return await self._answered_change(change, request, payload, session)

    async def _answered_change(
        self,
        change: PendingChange,
        request: Request[R],
        payload: Sequence[Buffer],
        session: int | None,
        failure: Failure | None = None,
    ) -> tuple[R, memoryview]:
        is_there, is_unnamed = True, isinstance(request, CreateUnnamed)
        try:
            answer = await self._carry(change, request, payload, session, failure)
            if change.maybe_done and opens(request):
                # The answer was kept in the log; that the file is open, in the memory of the
                # leader that gave it.
                is_there = await self._reopen(opened_inode(request, answer[0]))
        except trio.Cancelled:
            if change.sent and self._nursery is not None and not self._closed:
                copied = [bytes(buffer) for buffer in payload]
                self._slots.leave_alone(change)
                self._nursery.start_soon(self._carry_to_the_end, change, request, copied, session)
            else:
                self._slots.give_back(change)
            raise
        except BaseException:
            self._slots.give_back(change)
            raise
        self._slots.give_back(change)
        if is_unnamed and not is_there:
            # Without a name, and open to nobody that the new leader knew of, it was reaped. No
            # application has seen it.
            return await self._change(request, payload, session)
        return answer

    async def _carry(
        self,
        change: PendingChange,
        request: Request[R],
        payload: Sequence[Buffer],
        session: int | None,
        failure: Failure | None = None,
    ) -> tuple[R, memoryview]:
        backoff = Backoff(self._ports.randomness)
        if failure is not None:
            await self._recover(*failure, backoff)
        while True:
            link = await self._links.wait()
            if link.session is not change.session:
                if change.maybe_done:
                    raise TideError(
                        Code.SESSION_EXPIRED,
                        f"{type(request).__name__}: the session ended before it was answered;"
                        " it may have been done or not",
                    )
                anew = await self._slots.take(session)
                change.session, change.mutation = anew.session, anew.mutation
                continue
            change.sent = True
            try:
                self.counters.asks(request)
                return await link.peer.exchange(request, payload=payload, mutation=change.mutation)
            except TideError as error:
                change.maybe_done |= error.code in MAYBE_DONE
                await self._recover(link, error, backoff)

    async def _carry_to_the_end(
        self,
        change: PendingChange,
        request: Request[Any],
        payload: Sequence[Buffer],
        session: int | None,
    ) -> None:
        try:
            reply, _ = await self._carry(change, request, payload, session)
            if opens(request):
                self.unwanted(opened_inode(request, reply))
        except TideError as error:
            log.info("%s, which nobody waits for any more: %s", type(request).__name__, error)
        finally:
            self._slots.give_back(change)

    async def _recover(self, link: Link, error: TideError, backoff: Backoff) -> None:
        """Return when the request should be sent again; what is final is raised."""
        if error.code is Code.DISCONNECTED:
            # Also when the connection was closed before the request got onto it.
            link.end(error.detail)
            await trio.lowlevel.checkpoint()
        elif error.code is Code.NOT_LEADER:
            link.end("it is not the leader any more")
            await trio.lowlevel.checkpoint()
        elif error.code is Code.SESSION_EXPIRED:
            self._links.expire(link.session)
            await trio.lowlevel.checkpoint()
        elif error.code in (Code.BUSY, Code.UNAVAILABLE, Code.TIMED_OUT):
            # After TIMED_OUT the keep-alive finds out whether the connection is of any use.
            self._refusals[backoff] = error
            try:
                await trio.sleep(backoff.next_ms(error.delay_ms) / 1000)
            finally:
                del self._refusals[backoff]
        else:
            raise error

    # --- what flights ask (Carrier) --------------------------------------------------------

    async def carry_on(
        self, request: Request[R], change: PendingChange | None, failure: Failure
    ) -> tuple[R, memoryview]:
        """The final answer of what failed at the first try."""
        if change is None:
            return await self._repeat(request, (), None, failure)
        return await self._answered_change(change, request, (), None, failure)

    def unwanted(self, inode: int) -> None:
        """It was opened, or may have been, for somebody who gave up."""
        self.opened(inode)
        self.released(inode)

    # --- releases ------------------------------------------------------------------------

    async def _keep_releasing(self) -> None:
        while True:
            await self._something_closed.wait()
            await trio.sleep(RELEASE_BATCH_MS / 1000)
            try:
                link = await self._links.wait()
                batch = self._opens.next_batch(RELEASES_MAX)
                if batch:
                    await link.peer.call(Release(batch))
                    self._opens.acknowledged(batch)
            except TideError as error:
                # A batch is made anew for each try: some may be open again by then.
                log.debug("a Release will be repeated: %s", error)
            if not self._opens.to_release:
                self._something_closed = trio.Event()
