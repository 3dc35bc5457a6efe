"""The administrator: changes who belongs to the group of metaservers, while everything goes on.

It does what the cluster commands do, one thing at a time: finds the leader from any member, asks
it, and asks again until it hears that it was done. Whatever it asks for is within the rules, so
that in a healthy group it must be done in the end.
"""

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.base import Request
from tidefs.fs.messages.hello import ANY_CLUSTER, CLIENT
from tidefs.fs.messages.raft import ChangeMembers, GetMember, TransferLeadership
from tidefs.fs.ports import Ports
from tidefs.fs.rpc import Identity, Peer, connect, no_requests

from .cluster import Cluster, Process, Server
from .conditions import ViolationError

if TYPE_CHECKING:
    from tidefs.fs.messages.places import ServerPlace

MEMBERS_MOST = 5
ASK_TIMEOUT_MS = 8_000
PAUSE_S = 0.3
REFUSED_AT_START_S = 2.0
LINGER_MAX_S = 3.0
"""A member that was removed goes on running for a while, and must not disturb."""

KNOWN_AFTER_S = 5.0
"""Longer than clients and chunkservers need to hear of new members, or are cut off from all: who
knows none of the members any more cannot find them."""

TRY_AGAIN = frozenset(
    {Code.DISCONNECTED, Code.TIMED_OUT, Code.NOT_LEADER, Code.UNAVAILABLE, Code.BUSY}
)

MakeMember = Callable[[Cluster, int], Awaitable[Server]]
"""A new metaserver with that id on a host of its own, formatted to join, not started."""


class Admin(Process):
    """Asked by the nemesis, it does one thing at a time."""

    def __init__(self, cluster: Cluster, make_member: MakeMember) -> None:
        super().__init__(cluster, "admin")
        self._make_member = make_member
        self._random = random.Random(f"{cluster.seed} admin")
        self._next_id = 1 + max(member.place.server for member in cluster.metaservers)
        self._asked = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._peers: dict[str, Peer] = {}
        self._doing = "nothing"
        self._members_before = 0
        """How many there were before the change that is under way; 0: none is."""

    def start(self) -> None:
        """Begin to wait for work."""
        ports, scope = self.begin(self.no_disk())

        async def life() -> None:
            async with trio.open_nursery() as nursery:
                await self._work(ports, nursery)

        self.cluster.nursery.start_soon(self.live, scope, life)

    def ask(self) -> None:
        """Something is to be changed, if nothing is under way."""
        if self.idle:
            self._idle = trio.Event()
            self._asked.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._idle.is_set()

    async def wait_idle(self) -> None:
        """Until what was asked for is done."""
        await self._idle.wait()

    def doing(self) -> str:
        """What it waits for, for the reader of a failure."""
        return f"the administrator does {self._doing}"

    @property
    def can_spare_one(self) -> bool:
        """Whether a majority is left without any one, before and after what is under way."""
        members = self.cluster.metaservers
        fewest = min(len(members), self._members_before or len(members))
        return fewest >= 3 and not any(member.lost for member in members)

    async def _work(self, ports: Ports, nursery: trio.Nursery) -> None:
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            await self._something(ports, nursery)
            self._doing = "nothing"
            self._members_before = 0
            self._idle.set()

    # --- what there is to do -------------------------------------------------------------------

    async def _something(self, ports: Ports, nursery: trio.Nursery) -> None:
        members = list(self.cluster.metaservers)
        count = self._members_before = len(members)
        ways: list[tuple[int, int, bool]] = []  # how many to add, to remove; lose the disk
        if count < MEMBERS_MOST:
            ways.append((2, 0, False))
        if count > 3:
            ways.append((0, 2, False))
        if count >= 3:
            # Not of the only one: who was cut off just then would know nobody any more.
            ways += [(1, 1, False), (1, 1, True), (0, 0, False), (0, 0, False)]
        add, remove, lose = self._random.choice(ways)
        old = self._random.sample(members, remove)
        if not add and not remove:
            await self._transfer(ports, nursery, self._random.choice([None, *members]))
            return
        if lose:
            await self._lose_disk(old[0])
        new = [await self._new_member() for _ in range(add)]
        request = ChangeMembers(
            [member.place for member in new], [member.place.server for member in old]
        )
        self._doing = repr(request)
        self._note(self._doing)
        await self._until_done(ports, nursery, request)
        self._note(f"done: {self._doing}")
        for member in old:
            self._retire(member)
        await trio.sleep(KNOWN_AFTER_S)

    async def _transfer(self, ports: Ports, nursery: trio.Nursery, member: Server | None) -> None:
        """Tried once: it may not be possible now, and nothing depends on it."""
        request = TransferLeadership(member.place.server if member else 0)
        self._doing = repr(request)
        self._note(self._doing)
        for address in self._addresses():
            try:
                await self._call(ports, nursery, address, request)
            except TideError as error:
                self._note(f"{address}: {error}")
            else:
                return

    async def _lose_disk(self, member: Server) -> None:
        """Its disk is gone. On an empty one it must refuse to start: it could vote twice."""
        self._note(f"lose the disk of {member.host}")
        member.lose_disk()
        if self._random.random() < 0.5:
            member.start()
            await trio.sleep(REFUSED_AT_START_S)
            if member.up:
                raise ViolationError(f"{member.host} lives on an empty disk")

    async def _new_member(self) -> Server:
        member = await self._make_member(self.cluster, self._next_id)
        self._next_id += 1
        self.cluster.metaservers.append(member)
        member.start()
        return member

    def _retire(self, member: Server) -> None:
        self.cluster.metaservers.remove(member)
        member.retired = True

        def stop() -> None:
            if member.up:
                member.stop(machine=True)

        self.cluster.postman.after(self._random.uniform(0, LINGER_MAX_S), stop)

    # --- asking --------------------------------------------------------------------------------

    async def _until_done(self, ports: Ports, nursery: trio.Nursery, request: Request[Any]) -> None:
        while True:
            for address in self._addresses():
                try:
                    status = await self._call(ports, nursery, address, GetMember())
                    place = self._place(status.leader)
                    if place is None:
                        continue
                    await self._call(ports, nursery, place.addresses[0], request)
                except TideError as error:
                    if error.code not in TRY_AGAIN:
                        raise ViolationError(f"{request} failed with {error!r}") from None
                    self._note(f"not yet: {error}")
                else:
                    return
            await trio.sleep(PAUSE_S)

    def _addresses(self) -> list[str]:
        addresses = self.cluster.addresses()
        self._random.shuffle(addresses)
        return addresses

    def _place(self, server: int) -> "ServerPlace | None":
        places = [member.place for member in self.cluster.metaservers]
        return next((place for place in places if place.server == server), None)

    async def _call(
        self, ports: Ports, nursery: trio.Nursery, address: str, request: Request[Any]
    ) -> Any:
        peer = self._peers.get(address)
        if peer is None or peer.closed:
            hello = Identity(ANY_CLUSTER, CLIENT, 0).hello()
            peer = await connect(ports, address, hello, no_requests, nursery)
            self._peers[address] = peer
        return await peer.call(request, timeout_ms=ASK_TIMEOUT_MS)

    def _note(self, text: str) -> None:
        self.cluster.trace.note("admin", text)
