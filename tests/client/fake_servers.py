"""Scripted metaservers and chunkservers on the simulated network, for tests of the client."""

from collections.abc import Callable
from typing import Any

import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.base import Done, Message, Request
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.messages.meta import (
    Alive,
    CloseSession,
    KeepAlive,
    OpenSession,
    Release,
    ReportFailure,
    ResumeSession,
    SessionOpened,
)
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import Configuration, GetMember, MembersAre, MemberStatus
from tidefs.fs.ports import Ports
from tidefs.fs.rpc import Identity, Incoming, Mutation, Peer, serve
from tidefs.tests.sim.network import HostNetwork, SimulatedNetwork
from tidefs.tests.sim.ports import SimulatedClock, SimulatedRandomness
from tidefs.tests.sim.postman import Postman
from tidefs.tests.sim.trace import Trace
from tidefs.tests.sim.wire import split

CLUSTER = "0123456789abcdef"

SILENCE = "silence"
"""An answer that never comes."""
CUT = "cut"
"""The connection is closed instead of an answer."""

Answer = Message | tuple[Message, bytes] | TideError | str
Rule = Callable[[Request[Any]], Answer | None]


class Group:
    """What the metaservers of a world agree on, or each for itself: see ``FakeMeta.view``."""

    def __init__(self, term: int = 0, leader: int = 0, commit_index: int = 0) -> None:
        self.term = term
        self.leader = leader
        self.commit_index = commit_index
        self.places: list[ServerPlace] = []

    def elect(self, meta: "FakeMeta | None") -> None:
        """It leads, in a new term; None: nobody knows who does."""
        self.term += 1
        self.leader = meta.server if meta is not None else 0

    def consist_of(self, *metas: "FakeMeta") -> None:
        """These are the members from now on."""
        self.commit_index += 1
        self.places = [meta.place for meta in metas]


class World:
    """One simulated network, in fair weather unless the test says otherwise."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.postman = Postman()
        self.network = SimulatedNetwork(self.postman, "world", Trace(), split)
        self.nursery = nursery
        self.group = Group()
        nursery.start_soon(self.postman.run_forever)

    def ports(self, host: str) -> Ports:
        network = self.network.attach(host)
        return Ports(SimulatedClock(), SimulatedRandomness(host), None, network)  # type: ignore[arg-type]


class Fake:
    """One server. Rules are asked in turn for an answer, the last one added first."""

    def __init__(
        self, world: World, host: str, role: str, server: int, cluster: str = CLUSTER
    ) -> None:
        self.host = host
        self.address = f"tcp:{host}:1"
        self.server = server
        self.requests: list[Request[Any]] = []
        self.mutations: list[Mutation | None] = []
        self.payloads: list[bytes] = []
        self.rules: list[Rule] = [self.default]
        self._world = world
        self._identity = Identity(cluster, role, server)
        self._network: HostNetwork | None = None
        self._peers: list[Peer] = []
        self._scope = trio.CancelScope()

    @property
    def place(self) -> ServerPlace:
        return ServerPlace(self.server, self.host, [self.address])

    async def start(self) -> "Fake":
        ports = self._world.ports(self.host)
        self._network = ports.network  # type: ignore[assignment]
        listener = await ports.network.listen(self.address)
        self._scope = trio.CancelScope()
        self._world.nursery.start_soon(self._serve, ports, listener)
        return self

    async def _serve(self, ports: Ports, listener: Any) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                await serve(
                    ports, listener, self._identity, self.handle, nursery, self._peers.append
                )

    def stop(self) -> None:
        """As kill -9."""
        self._scope.cancel()
        assert self._network is not None
        self._network.kill(machine=False)

    def cut(self) -> None:
        """Break every connection."""
        for peer in self._peers:
            peer.close("cut")
        self._peers.clear()

    def handle(self, incoming: Incoming) -> None:
        request = incoming.request
        if isinstance(request, GetMember):
            self.answer_member(incoming)
            return
        self.requests.append(request)
        self.mutations.append(incoming.mutation)
        self.payloads.append(bytes(incoming.payload))
        for rule in reversed(self.rules):
            answer = rule(request)
            if answer is None:
                continue
            if isinstance(answer, TideError):
                incoming.fail(answer)
            elif isinstance(answer, tuple):
                incoming.reply(answer[0], [answer[1]])
            elif isinstance(answer, Message):
                incoming.reply(answer)
            elif answer == CUT:
                incoming.peer.close("cut")
            return
        incoming.fail(TideError(Code.UNKNOWN_METHOD, type(request).__name__))

    def answer_member(self, incoming: Incoming) -> None:
        incoming.fail(TideError(Code.UNKNOWN_METHOD, "GetMember"))

    def default(self, request: Request[Any]) -> Answer | None:
        return None

    def of(self, kind: type[Request[Any]]) -> list[Any]:
        """The requests of one kind that came."""
        return [request for request in self.requests if isinstance(request, kind)]

    def mutations_of(self, kind: type[Request[Any]]) -> list[Mutation | None]:
        pairs = zip(self.requests, self.mutations, strict=True)
        return [mutation for request, mutation in pairs if isinstance(request, kind)]


class FakeMeta(Fake):
    """A metaserver that knows about sessions and answers the rest by its rules.

    The first one that is started leads, until another one is elected.
    """

    def __init__(
        self,
        world: World,
        host: str = "meta",
        cluster: str = CLUSTER,
        *,
        view: Group | None = None,
        server: int = 0,
    ) -> None:
        server = server or int.from_bytes(host.encode()[:7])
        super().__init__(world, host, METASERVER, server, cluster)
        self.view = world.group if view is None else view
        """What it knows of the group: a world of its own when it is cut off."""
        self.silent = False
        """It stands still: no answer to anything, and its connections stay open."""
        self.asked = 0
        """How often it was asked who it is."""
        self.sessions: dict[bytes, int] = {}
        self.alive: set[int] = set()
        self.slots = 4

    async def start(self) -> "FakeMeta":
        if not self.view.term:
            self.view.elect(self)
        await super().start()
        return self

    def handle(self, incoming: Incoming) -> None:
        if not self.silent:
            super().handle(incoming)

    def answer_member(self, incoming: Incoming) -> None:
        self.asked += 1
        incoming.reply(self.status())

    def tell_members(self) -> None:
        """As a leader does when they have changed."""
        for peer in self._peers:
            peer.tell(MembersAre(self.status()))

    def status(self) -> MemberStatus:
        view = self.view
        role = "leader" if view.leader == self.server else "follower"
        configuration = Configuration([p.server for p in view.places], [], [], view.places, [])
        numbers = (view.term, view.leader, view.commit_index, 0, 0, 0, 0, 0, 0)
        return MemberStatus(
            CLUSTER, self.server, self.host, 1, role, *numbers, configuration=configuration, lag=[]
        )

    def default(self, request: Request[Any]) -> Answer | None:
        if isinstance(request, OpenSession):
            session = self.sessions.setdefault(request.nonce, 100 + len(self.sessions))
            self.alive.add(session)
            return SessionOpened(session, 12_000, self.slots)
        if isinstance(request, ResumeSession | KeepAlive):
            if request.session not in self.alive:
                return TideError(Code.SESSION_EXPIRED, str(request.session))
            return Alive(12_000)
        if isinstance(request, CloseSession):
            self.alive.discard(request.session)
            return Done()
        if isinstance(request, Release | ReportFailure):
            return Done()
        return None


def once(kind: type[Request[Any]], answer: Answer, times: int = 1) -> Rule:
    """A rule for the first requests of a kind."""
    left = times

    def rule(request: Request[Any]) -> Answer | None:
        nonlocal left
        if isinstance(request, kind) and left:
            left -= 1
            return answer
        return None

    return rule


def always(kind: type[Request[Any]], answer: Answer) -> Rule:
    return lambda request: answer if isinstance(request, kind) else None


async def until(condition: Callable[[], object]) -> None:
    """Wait, in virtual time, for what a server has seen."""
    while not condition():  # noqa: ASYNC110 - the servers are not told who waits
        await trio.sleep(0.01)
