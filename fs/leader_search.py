"""Find the metaserver that leads.

All members are asked side by side (GetMember), each at its own pace, until one says that it leads;
so nobody waits for who is down. Its connection is closed as soon as it should be left (see
``leader_watch``).
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from .backoff import Backoff
from .errors import Code, TideError
from .handshake import Identity
from .ids import ServerId, server_name
from .leader_watch import Leader, Watch
from .limits import (
    MEMBER_ANSWER_TIMEOUT_MS,
    SEARCH_EAGER,
    SEARCH_FIRST_MS,
    SEARCH_MAX_MS,
)
from .member_links import Answer, MemberLinks
from .members import LEADER, UNIX, Members, Readdress
from .messages.raft import MemberStatus
from .ports import Ports
from .ports.randomness import Randomness
from .rpc import Handler

T = TypeVar("T")

LET_UNIX_FIRST_MS = 20
"""So long an address waits of which it is not known whose it is."""

QUIET_MS = 1_000
"""Elections are nobody's business. When a search takes longer, somebody should know why."""


class LeaderSearch:
    """``handler`` answers what the metaservers ask; connections live in ``nursery``.

    ``on_trouble`` is called when ``trouble`` has grown. ``readdress`` is asked again and again in a
    search that takes long: all that are known may have been replaced meanwhile.
    """

    def __init__(
        self,
        ports: Ports,
        identity: Identity,
        members: Members,
        handler: Handler,
        nursery: trio.Nursery,
        on_trouble: Callable[[], object] = lambda: None,
        readdress: Readdress | None = None,
    ) -> None:
        self._clock = ports.clock
        self._randomness = ports.randomness
        self._members = members
        self._nursery = nursery
        self._readdress = readdress
        self._links = MemberLinks(ports, identity, members, handler, nursery)
        self._links.on_trouble = on_trouble

    @property
    def cluster(self) -> str:
        """The id of the cluster that answered; ANY_CLUSTER as long as none did."""
        return self._links.cluster

    @property
    def trouble(self) -> dict[str, TideError]:
        """What is wrong with each address, while a leader is searched for."""
        return self._links.trouble

    async def find(self, take: Callable[[Leader], Awaitable[T]]) -> T:
        """Search until somebody leads, and ``take`` returns without TideError: that outcome."""
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self._attend_to_a_long_one)
            outcome = await self._until_taken(take, tasks)
            tasks.cancel_scope.cancel()
        self._links.forget_trouble()
        return outcome

    async def _until_taken(self, take: Callable[[Leader], Awaitable[T]], tasks: trio.Nursery) -> T:
        search = _Round(self._links, self._members, self._randomness, tasks)
        while True:
            leader = await search.next()
            watch = Watch(self._clock, self._links, self._members, leader)
            self._nursery.start_soon(watch.run)
            try:
                return await take(leader)
            except TideError as error:
                leader.peer.close(str(error))
                self._links.note(leader.address, error)

    async def _attend_to_a_long_one(self) -> None:
        await trio.sleep(QUIET_MS / 1000)
        self._links.speak_up()
        while self._readdress is not None:
            addresses = await self._readdress()
            if addresses:
                self._members.configure(addresses)
            await trio.sleep(SEARCH_MAX_MS / 1000)


class _Round:
    """One search: a task for each contact, also for those that are learned meanwhile."""

    def __init__(
        self, links: MemberLinks, members: Members, randomness: Randomness, tasks: trio.Nursery
    ) -> None:
        self._links = links
        self._members = members
        self._randomness = randomness
        self._tasks = tasks
        self._asked: set[int | str] = set()
        self._claimed = trio.Event()
        self._leader: Leader | None = None
        self._ask_all()

    async def next(self) -> Leader:
        """The next who says that it leads, and is not contradicted."""
        self._forget()
        await self._claimed.wait()
        assert self._leader is not None
        return self._leader

    def _forget(self) -> None:
        self._leader = None
        self._claimed = trio.Event()

    def _ask_all(self) -> None:
        for contact in self._members.contacts():
            if contact.key not in self._asked:
                self._asked.add(contact.key)
                self._tasks.start_soon(self._ask, contact.key)

    async def _ask(self, key: int | str) -> None:
        pace = Backoff(
            self._randomness,
            first_ms=SEARCH_FIRST_MS,
            max_ms=SEARCH_MAX_MS,
            steady=SEARCH_EAGER,
        )
        if isinstance(key, str) and not key.startswith(UNIX) and self._members.any_unix:
            await trio.sleep(LET_UNIX_FIRST_MS / 1000)  # it may be the same member's
        while (contact := self._members.contact(key)) is not None:
            # Who is about to take us is left in peace: its watch looks after it.
            if self._leader is None or self._members.server_of(contact) != self._leader.server:
                answer = await self._links.ask(contact, MEMBER_ANSWER_TIMEOUT_MS)
                if answer is not None:
                    self._heard(answer)
            self._ask_all()  # also of those that were learned in another way
            await trio.sleep(pace.next_ms() / 1000)
        self._asked.discard(key)
        self._ask_all()

    def _heard(self, answer: Answer) -> None:
        peer, address, status = answer
        if not self._members.leads(status):
            self._links.note(address, _not_leading(status, self._members.led_term))
        elif self._leader is None:
            self._leader = Leader(peer, address, status.server, status.term)
            self._claimed.set()
        if self._leader is not None and self._leader.term < self._members.led_term:
            self._leader.peer.close(f"term {self._members.led_term} is led by another one")


def _not_leading(status: MemberStatus, led_term: int) -> TideError:
    if status.role == LEADER:
        what = f"its term {status.term} is over, {led_term} was led already"
    elif status.leader:
        what = f"it names {server_name(ServerId(status.leader))}"
    else:
        what = f"a {status.role} in term {status.term} that knows of no leader"
    return TideError(Code.NOT_LEADER, what)
