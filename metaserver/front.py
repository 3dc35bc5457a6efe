"""The handler of all connections of a member: what it answers itself, and what only a leader may.

Whoever answers from the state has just proved that nobody else leads (a lease, or a round of
heartbeats), so no reply is ever of the past.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, get_args

import trio

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.messages.base import Done, Request
from ..fs.messages.hello import METASERVER
from ..fs.messages.raft import (
    ChangeMembers,
    Digest,
    GetDigest,
    GetMember,
    GetMetrics,
    Greet,
    MembersAre,
    OfferSnapshot,
    RaftMessage,
    SnapshotPiece,
    TransferLeadership,
)
from ..fs.rpc import Incoming, Peer
from .driver import Driver
from .group import Group
from .member_status import MemberView
from .members_plan import name_of
from .raft.contract import Role
from .service_reads import READS
from .snapshot_receiver import SnapshotReceiver
from .term import Term

SOON_MS = 20
"""When to ask again: a leader is being elected, or has just been."""

Answering = Awaitable[None] | None


class Front:
    """One member's answers, whether it leads or not."""

    def __init__(
        self, driver: Driver, group: Group, receiver: SnapshotReceiver, view: MemberView
    ) -> None:
        self._driver = driver
        self._group = group
        self._view = view
        self._term: Term | None = None
        self._peers: dict[Peer, None] = {}  # in the order in which they came
        """Those of clients and chunkservers: they are closed when a term ends."""
        self._leads = trio.Event()
        self._handing_over = 0
        self._handed_over = trio.Event()
        self._own: dict[type[Request[Any]], Callable[[Incoming], Answering]] = {
            GetMember: self._get_member,
            GetMetrics: self._get_metrics,
            GetDigest: self._get_digest,
            Greet: group.greeted,
            OfferSnapshot: receiver.handle,
            SnapshotPiece: receiver.handle,
            ChangeMembers: self._change_members,
            TransferLeadership: self._transfer,
        }
        for notice in get_args(RaftMessage):
            self._own[notice] = self._deliver

    def handle(self, incoming: Incoming) -> Answering:
        """Answer a request, now or later. The handler for the RPC shell."""
        own = self._own.get(type(incoming.request))
        if own is not None:
            return own(incoming)
        term = self._term
        if term is not None:
            if term.leader.is_sure():
                later = term.service.handle(incoming)
                return None if later is None else term.during(later)
            return term.during(self._handle_confirmed(term, incoming))
        if type(incoming.request) in READS and self._driver.core.role is not Role.LEADER:
            return self._read(incoming)
        raise self._not_leader()

    # --- terms -------------------------------------------------------------------------------

    def lead(self, term: Term) -> None:
        """From now on requests are answered by this leader."""
        self._term = term
        self._leads.set()

    async def wait_leading(self) -> None:
        """Until this member leads for the first time."""
        await self._leads.wait()

    async def follow(self) -> None:
        """The term is over: who was served is to look for the next leader."""
        self._term = None
        while self._handing_over:
            await self._handed_over.wait()
        self._tell_members()  # it may be none itself any more
        reason = self._not_leader().detail
        for peer in [*self._peers]:
            peer.close(reason)

    async def keep_telling(self) -> None:
        """Tell who is served of each change of members as soon as it is in force. For ever."""
        driver = self._driver
        while True:
            told = driver.core.configuration
            await driver.until(lambda told=told: driver.core.configuration is not told)  # type: ignore[misc]
            if driver.core.role is Role.LEADER and driver.core.configuration != told:
                self._tell_members()

    def _tell_members(self) -> None:
        notice = MembersAre(self._view.status())
        for peer in self._peers:
            peer.tell(notice)

    async def hand_over(self) -> None:
        """Have somebody else lead, if this member does and somebody can."""
        if self._term is not None:
            with suppress(TideError):
                await self._term.members.transfer(0)

    def opened(self, peer: Peer) -> None:
        """Take note of a connection. Called by the RPC shell."""
        if peer.remote.role != METASERVER:
            self._peers[peer] = None

    async def watch(self, peer: Peer) -> None:
        """Until a connection ends; then take note that it did."""
        await peer.wait_closed()
        self._peers.pop(peer, None)
        if self._term is not None:
            self._term.service.gone(peer)

    def _not_leader(self) -> TideError:
        core, server = self._driver.core, self._view.server
        if core.role is Role.LEADER:
            return TideError(
                Code.UNAVAILABLE, f"{name_of(server)} has just been elected", delay_ms=SOON_MS
            )
        if core.leader:
            who = f"{name_of(core.leader, self._view.host_of(core.leader))} does"
            return TideError(Code.NOT_LEADER, f"{name_of(server)} does not lead, {who}")
        return TideError(
            Code.NOT_LEADER,
            f"{name_of(server)} does not lead, and does not know who does",
            delay_ms=SOON_MS,
        )

    # --- what needs a proof ------------------------------------------------------------------

    async def _handle_confirmed(self, term: Term, incoming: Incoming) -> None:
        await self._driver.confirm()
        if self._term is not term or self._driver.term != term.number:
            raise self._not_leader()
        later = term.service.handle(incoming)
        if later is not None:
            await later

    async def _read(self, incoming: Incoming) -> None:
        """A follower's strong read (thesis section 6.4)."""
        await self._driver.confirm()
        message, payload = READS[type(incoming.request)](self._driver.state, incoming.request)
        payloads: tuple[Buffer, ...] = (payload,) if payload else ()
        incoming.reply(message, payloads)

    # --- what every member answers -----------------------------------------------------------

    def _deliver(self, incoming: Incoming) -> None:
        self._driver.deliver(self._group.received(incoming))

    def _get_member(self, incoming: Incoming) -> None:
        incoming.reply(self._view.status())

    def _get_metrics(self, incoming: Incoming) -> None:
        incoming.reply(self._view.metrics())

    async def _get_digest(self, incoming: Incoming) -> None:
        self._driver.commit()
        found = await self._driver.store.digest()
        incoming.reply(Digest(found.applied_index, found.digest))

    # --- what only a leader does, beside serving ---------------------------------------------

    def _leading(self) -> Term:
        if self._term is None:
            raise self._not_leader()
        return self._term

    def _change_members(self, incoming: Incoming) -> Awaitable[None]:
        assert isinstance(incoming.request, ChangeMembers)
        term = self._leading()
        return term.during(_done(incoming, term.members.change(incoming.request, incoming.peer)))

    async def _transfer(self, incoming: Incoming) -> None:
        """Beyond the end of the term, which it brings about."""
        assert isinstance(incoming.request, TransferLeadership)
        term = self._leading()
        self._handing_over += 1
        try:
            await term.members.transfer(incoming.request.server)
            incoming.reply(Done())
        finally:
            self._handing_over -= 1
            self._handed_over.set()
            self._handed_over = trio.Event()


async def _done(incoming: Incoming, doing: Awaitable[None]) -> None:
    await doing
    incoming.reply(Done())
