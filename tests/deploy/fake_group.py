"""A scripted group of metaservers behind real Unix sockets, in a thread: for tests of commands."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.messages.base import Done, Message, Request
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.messages.meta import GetStatus, ServerStatus, Status
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import (
    ChangeMembers,
    Configuration,
    Digest,
    GetDigest,
    GetMember,
    GetMetrics,
    MemberStatus,
    Metrics,
    TransferLeadership,
)
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Incoming, serve

CLUSTER = "0123456789abcdef"

Rule = Callable[["FakeMember", Request[Any]], Message | TideError | None]
"""What a member answers; None: nothing, for ever."""


class FakeMember:
    """One metaserver. ``rules`` come first, then what a good one answers."""

    def __init__(self, group: "FakeGroup", server: int) -> None:
        self.group = group
        self.server = server
        self.address = f"unix:{group.folder}/{server:x}.sock"
        self.applied = 100
        self.match = 100
        self.digest = 7
        self.spare_bytes = 0
        self.claims: str | None = None  # to be in this role, whatever the group says
        self.term: int | None = None
        self.rules: dict[type[Request[Any]], Rule] = {}
        self.asked: list[Request[Any]] = []
        self.scope = trio.CancelScope()

    @property
    def id(self) -> str:
        return f"{self.server:016x}"

    @property
    def place(self) -> ServerPlace:
        return ServerPlace(self.server, "here", [self.address])

    def stop(self) -> None:
        """As if it was killed."""
        trio.from_thread.run_sync(self.scope.cancel, trio_token=self.group.token)

    def status(self) -> MemberStatus:
        group = self.group
        leads = group.leader == self.server
        voter = self.server in group.voters
        role = "leader" if leads else "follower" if voter else "joining"
        return MemberStatus(
            cluster=CLUSTER,
            server=self.server,
            host="here",
            pid=4_000_000 + self.server,
            role=self.claims or role,
            term=self.term or group.term,
            leader=group.leader,
            commit_index=100,
            applied_index=self.applied,
            first_index=50,
            last_index=100,
            checkpoint_index=60,
            snapshot_ns=0,
            elections=1,
            configuration=group.configuration() if voter else Configuration([], [], [], [], []),
            lag=[
                (one.server, one.match, 5)
                for one in group.members
                if leads and one.server != self.server
            ],
            spare_bytes=self.spare_bytes,
        )

    def handle(self, incoming: Incoming) -> None:
        request = incoming.request
        if not isinstance(request, GetMember):
            self.asked.append(request)
        rule = self.rules.get(type(request))
        answer = rule(self, request) if rule else self._answer(request)
        if isinstance(answer, TideError):
            incoming.fail(answer)
        elif answer is not None:
            incoming.reply(answer)

    def _answer(self, request: Request[Any]) -> Message | TideError:
        if isinstance(request, GetMember):
            return self.status()
        if isinstance(request, GetDigest):
            return Digest(self.applied, self.digest)
        if isinstance(request, GetMetrics):
            return Metrics([("raft_term", float(self.group.term)), ("elections_total", 1.5)])
        if self.group.leader != self.server:
            return TideError(Code.NOT_LEADER, "another one leads")
        return self._answer_as_leader(request)

    def _answer_as_leader(self, request: Request[Any]) -> Message | TideError:
        if isinstance(request, ChangeMembers):
            for one in request.remove:
                if one not in [*self.group.voters, *self.group.removed]:
                    return TideError(Code.INVALID, f"{one} is not a member")
            self.group.change(request)
            return Done()
        if isinstance(request, TransferLeadership):
            self.group.elect(request.server)
            return Done()
        if isinstance(request, GetStatus):
            return self.group.cluster_status()
        return TideError(Code.UNKNOWN_METHOD, type(request).__name__)


class FakeGroup:
    """Members 1, 2, ... of which the first leads; ``with`` it they answer."""

    def __init__(self, folder: Path, size: int, joining: int = 0) -> None:
        self.folder = folder
        self.members: list[FakeMember] = []
        self.members = [FakeMember(self, number) for number in range(1, size + joining + 1)]
        self.voters = [one.server for one in self.members[:size]]
        self.removed: list[int] = []
        self.leader = 1
        self.term = 3
        self.token: trio.lowlevel.TrioToken | None = None
        self._up = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=[self._run])

    def __enter__(self) -> "FakeGroup":
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *error: object) -> None:
        trio.from_thread.run_sync(self._end.cancel, trio_token=self.token)
        self._thread.join()

    def elect(self, server: int) -> None:
        """It leads, in a new term; 0: nobody does."""
        self.term += 1
        self.leader = server

    def change(self, request: ChangeMembers) -> None:
        """As one that was committed."""
        self.voters = [one for one in self.voters if one not in request.remove]
        self.voters += [one.server for one in request.add if one.server not in self.voters]
        self.removed += request.remove

    def configuration(self) -> Configuration:
        places = [one.place for one in self.members if one.server in self.voters]
        return Configuration(list(self.voters), [], [], places, list(self.removed))

    def cluster_status(self) -> Status:
        servers = [
            ServerStatus(
                role=METASERVER,
                server=one,
                host="here",
                addresses=[],
                pid=1,
                state="leader" if one == self.leader else "follower",
                total_bytes=0,
                free_bytes=0,
                chunks=0,
            )
            for one in self.voters
        ]
        return Status(
            cluster=CLUSTER,
            term=self.term,
            applied_index=100,
            sessions=0,
            inodes=1,
            stored_bytes=0,
            replicas_wanted=1,
            chunks=0,
            chunks_missing_copies=0,
            servers=servers,
            problems=[],
        )

    async def _run(self) -> None:
        self.token = trio.lowlevel.current_trio_token()
        ports = Ports(RealClock(), RealRandomness(), RealDisk("/"), RealNetwork())
        with trio.CancelScope() as self._end:
            async with trio.open_nursery() as nursery:
                for one in self.members:
                    await nursery.start(self._serve, ports, one)
                self._up.set()
                await trio.sleep_forever()

    async def _serve(
        self, ports: Ports, one: FakeMember, *, task_status: trio.TaskStatus[None]
    ) -> None:
        identity = Identity(CLUSTER, METASERVER, one.server)
        with one.scope:
            async with trio.open_nursery() as nursery:
                listener = await ports.network.listen(one.address)
                task_status.started()
                try:
                    await serve(ports, listener, identity, one.handle, nursery)
                finally:
                    listener.close()
