"""Members of a group for tests: what each hears, over sockets of this machine."""

from contextlib import asynccontextmanager

import trio
from tidefs.fs.handshake import Identity
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import Greet
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import serve
from tidefs.metaserver.directory import Directory
from tidefs.metaserver.group import Group

CLUSTER = "sea"
HOST = "here"


def place(server, *addresses):
    return ServerPlace(server, HOST, list(addresses))


class TestMember:
    """One member: a listener and a group, and nothing behind them."""

    __test__ = False

    def __init__(self, server, address, configured=(), *, cluster=CLUSTER, ports=None):
        self.server = server
        self.address = address
        self.identity = Identity(cluster, METASERVER, server)
        self.ports = ports or Ports(RealClock(), RealRandomness(), None, RealNetwork())
        self.directory = Directory(server, HOST, configured)
        self.heard = []
        self.peers = []
        self.others = {}
        """What else is asked: request type -> handler."""

    @property
    def place(self):
        return place(self.server, self.address)

    def handle(self, incoming):
        if incoming.is_notice:
            self.heard.append(self.group.received(incoming))
            return None
        if isinstance(incoming.request, Greet):
            return self.group.greeted(incoming)
        return self.others[type(incoming.request)](incoming)

    def messages(self):
        return [envelope.message for envelope in self.heard]

    @asynccontextmanager
    async def living(self):
        """Until the block ends, as if the process was killed then."""
        async with trio.open_nursery() as nursery:
            listener = await self.ports.network.listen(self.address)
            self.group = Group(self.ports, self.identity, self.directory, nursery)
            self.group.deliver = self.heard.append
            nursery.start_soon(
                serve,
                self.ports,
                listener,
                self.identity,
                self.handle,
                nursery,
                self.peers.append,
            )
            self.nursery = nursery
            try:
                yield self
            finally:
                listener.close()
                nursery.cancel_scope.cancel()


def members_of(folder, count):
    """So many members below a folder for their sockets, each told of all."""
    places = [place(n, f"unix:{folder}/{n}.sock") for n in range(1, count + 1)]
    return [TestMember(one.server, one.addresses[0], places) for one in places]


async def until(condition, within_s=20):
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)  # also where time is virtual, and passes only while all wait
