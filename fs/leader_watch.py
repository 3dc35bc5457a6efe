"""Notice that a leader should be left.

That its connection lives says nothing: a network that was cut, or a machine that stands still,
leaves it open. When a call gets no answer for a moment, the leader *and* the others are asked. A
leader of a later term decides at once. One that is merely busy is not left: its followers still
name it.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

import trio

from .errors import TideError
from .ids import ServerId, server_name
from .limits import (
    LEADER_DOUBT_TIMEOUT_MS,
    LEADER_REFRESH_MS,
    LEADER_SILENT_MAX_MS,
    LEADER_TICK_MS,
    MEMBER_ANSWER_TIMEOUT_MS,
)
from .member_links import MemberLinks
from .members import Contact, Members
from .messages.raft import GetMember, MemberStatus
from .ports.clock import Clock
from .rpc import Peer

NS_PER_MS = 10**6

log = logging.getLogger(__name__)


class Leader(NamedTuple):
    """Who says that it leads. ``peer`` is closed as soon as it should be left."""

    peer: Peer
    address: str
    server: int
    term: int


class Watch:
    """Closes the connection to ``leader`` when it should be left."""

    def __init__(self, clock: Clock, links: MemberLinks, members: Members, leader: Leader) -> None:
        self._clock = clock
        self._links = links
        self._members = members
        self._leader = leader
        self._oldest_call = 0
        self._silent_since_ns: int | None = None

    async def run(self) -> None:
        """Until it is closed, here or elsewhere."""
        peer = self._leader.peer
        refreshed_ns = self._clock.monotonic_ns()
        while not peer.closed:
            with trio.move_on_after(LEADER_TICK_MS / 1000):
                await peer.wait_closed()
            now_ns = self._clock.monotonic_ns()
            if self._is_stuck():
                self._judge(await self._ask(self._others()), now_ns)
            elif now_ns - refreshed_ns >= LEADER_REFRESH_MS * NS_PER_MS:
                # Members come and go; and who is asked for nothing may be gone all the same.
                refreshed_ns = now_ns
                self._judge(await self._ask([]), now_ns)

    def _is_stuck(self) -> bool:
        """Whether a call is under way since the last tick, or the last question was in vain."""
        before, self._oldest_call = self._oldest_call, self._leader.peer.oldest_call
        return self._silent_since_ns is not None or self._oldest_call == before != 0

    def _others(self) -> list[Contact]:
        members = self._members
        contacts = members.contacts()
        return [one for one in contacts if members.server_of(one) != self._leader.server]

    async def _ask(self, others: list[Contact]) -> dict[int, MemberStatus]:
        """What the leader and some others say of themselves, in a moment; by server id."""
        said: dict[int, MemberStatus] = {}
        with trio.move_on_after(LEADER_DOUBT_TIMEOUT_MS / 1000):
            async with trio.open_nursery() as asking:

                async def ask_leader() -> None:
                    try:
                        status = await self._leader.peer.call(GetMember())
                    except TideError:
                        return
                    self._members.heard(status)
                    said[self._leader.server] = status

                async def ask_other(contact: Contact) -> None:
                    answer = await self._links.ask(contact, MEMBER_ANSWER_TIMEOUT_MS)
                    if answer is not None:
                        said[answer.status.server] = answer.status
                    if self._members.led_term > self._leader.term:
                        asking.cancel_scope.cancel()

                asking.start_soon(ask_leader)
                for contact in others:
                    asking.start_soon(ask_other, contact)
        return said

    def _judge(self, said: dict[int, MemberStatus], now_ns: int) -> None:
        leader, members = self._leader, self._members
        its_own = said.pop(leader.server, None)
        if members.led_term > leader.term:
            who = server_name(ServerId(members.led_by))
            self._leave(f"{who} leads, in term {members.led_term}")
        elif its_own is not None and not members.leads(its_own):
            self._leave("it does not lead any more")
        elif its_own is not None or self._is_named_by(said.values()) or not self._others():
            self._silent_since_ns = None
        elif self._silent_since_ns is None:
            self._silent_since_ns = now_ns
        elif now_ns - self._silent_since_ns >= LEADER_SILENT_MAX_MS * NS_PER_MS:
            self._leave("it does not answer, and no other member says that it leads")

    def _is_named_by(self, others: Iterable[MemberStatus]) -> bool:
        leader = self._leader
        return any((other.leader, other.term) == (leader.server, leader.term) for other in others)

    def _leave(self, reason: str) -> None:
        peer = self._leader.peer
        if not peer.closed:
            log.warning("%s is left: %s", peer.name, reason)
            peer.close(reason)
