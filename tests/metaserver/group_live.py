"""A group of metaservers in this process, over real sockets, and clients that follow its leader."""

import itertools

import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.config import Duration
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.messages import meta, raft
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Mutation
from tidefs.metaserver.config import MemberConfig
from tidefs.metaserver.format import format_folder

from .live import CLUSTER, Metaserver, until

SENT_AGAIN = (Code.NOT_LEADER, Code.UNAVAILABLE, Code.DISCONNECTED, Code.BUSY, Code.TIMED_OUT)


class Member(Metaserver):
    """One of the group. Its disk outlives it."""

    def __init__(self, folder, server, founders, nursery, **options):
        super().__init__(
            folder,
            nursery,
            server=server,
            listen=[address_of(folder, server)],
            host="here",
            members=[
                MemberConfig(server=n, host="here", addresses=[address_of(folder, n)])
                for n in founders
            ],
            raft_heartbeat=Duration(20),
            election_timeout=Duration(100),
            session_lease=Duration(5_000),
            **options,
        )
        self.server = server
        self.address = address_of(folder, server)
        self.place = ServerPlace(server, "here", [self.address])
        self.running = False

    async def format(self, *, join=False):
        founders = None if join else self.config.founders("test")
        identity = Identity(CLUSTER, "metaserver", self.server)
        await format_folder(self.disk, identity, "data", founders)
        return self

    async def start(self):
        await super().start()
        self.running = True
        return self

    async def stop(self, *, crash=False):
        self.running = False
        await super().stop(crash=crash)

    async def ask(self, request, timeout_ms=5_000):
        """Ask it something on a connection of its own."""
        peer = await self.connect()
        try:
            return await peer.call(request, timeout_ms=timeout_ms)
        finally:
            peer.close("asked")

    async def status(self):
        while True:
            try:
                return await self.ask(raft.GetMember())
            except TideError as error:
                if error.code is not Code.DISCONNECTED:
                    raise  # else it has just stopped to lead, and closed its connections


def address_of(folder, server):
    return f"unix:{folder}/meta-{server}.sock"


class LiveGroup:
    """Its members by number; the first ``count`` found it."""

    def __init__(self, folder, nursery, count, **options):
        self.folder = folder
        self.nursery = nursery
        self.options = options
        self.founders = list(range(1, count + 1))
        self.members = {n: self._member(n) for n in self.founders}

    def _member(self, server):
        return Member(self.folder, server, self.founders, self.nursery, **self.options)

    async def start(self):
        for member in self.members.values():
            await member.format()
            await member.start()
        return self

    async def newcomer(self, server):
        """A further member that waits to be added."""
        self.members[server] = member = self._member(server)
        await member.format(join=True)
        return await member.start()

    def up(self):
        return [member for member in self.members.values() if member.running]

    def others(self, member):
        return [other for other in self.up() if other is not member]

    async def leader(self):
        """Who leads, as soon as somebody does and serves."""
        with trio.fail_after(20):
            for pause_ms in itertools.chain([0, 1, 5], itertools.repeat(10)):
                await trio.sleep(pause_ms / 1000)
                for member in self.up():
                    if (await member.status()).role != "leader":
                        continue
                    try:
                        await member.ask(meta.GetStatus())
                    except TideError as error:
                        if error.code not in SENT_AGAIN:
                            raise
                    else:
                        return member
        raise AssertionError

    async def agree(self):
        """Wait until all that are up have applied the same, and its digest is the same."""
        with trio.fail_after(20):
            while True:
                found = [await member.ask(raft.GetDigest()) for member in self.up()]
                if len({one.applied_index for one in found}) == 1:
                    assert len({one.digest for one in found}) == 1, found
                    return
                await trio.sleep(0.01)

    async def ask_leader(self, request, timeout_ms=15_000):
        """As a command does it: whoever leads, as often as needed."""
        with trio.fail_after(30):
            while True:
                leader = await self.leader()
                try:
                    return await leader.ask(request, timeout_ms)
                except TideError as error:
                    if error.code not in SENT_AGAIN:
                        raise
                await trio.sleep(0.01)

    async def client(self):
        client = GroupClient(self)
        await client.open_session()
        return client


class GroupClient:
    """A session that goes on at the next leader, and sends again what was not answered."""

    def __init__(self, group):
        self.group = group
        self.peer = None
        self.session = 0
        self.sequence = 0
        self.nonce = RealRandomness().bytes(16)

    async def open_session(self):
        opened = await self.call(meta.OpenSession(self.nonce, "here", 1))
        self.session = opened.session

    async def call(self, request, mutation=None):
        """The answer of whoever leads, for as long as it takes."""
        with trio.fail_after(30):
            while True:
                try:
                    if self.peer is None:
                        await self._connect()
                    return await self.peer.call(request, mutation=mutation, timeout_ms=3_000)
                except TideError as error:
                    if error.code not in SENT_AGAIN:
                        raise
                    if self.peer is not None:
                        self.peer.close("looking for the leader")
                        self.peer = None
                await trio.sleep(0.01)

    async def _connect(self):
        leader = await self.group.leader()
        peer = await leader.connect()
        if self.session:
            await peer.call(meta.ResumeSession(self.session, [], []))
        self.peer = peer

    async def change(self, request):
        self.sequence += 1
        return await self.call(request, Mutation(self.session, 0, self.sequence))

    async def create(self, name):
        request = meta.Create(1, name.encode(), Kind.FILE, 0o644, 0, 0, 0, True, False)
        return (await self.change(request)).attributes.inode

    async def names(self):
        found, cookie = set(), 0
        while True:
            listing = await self.call(meta.ReadDirectory(1, cookie, 1_000))
            found |= {entry.name.decode() for entry in listing.entries}
            if listing.end:
                return found
            cookie = listing.entries[-1].cookie


__all__ = ["GroupClient", "LiveGroup", "Member", "until"]
