"""A metaserver that holds its answers back, and who waits for them: for tests of flights."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing
from tidefs.client.answers import Answer
from tidefs.client.link import Who
from tidefs.client.metaclient import MetaClient
from tidefs.fs.messages.meta import (
    Content,
    CreateUnnamed,
    GetAttributes,
    Node,
    Open,
    SetXattr,
    Unlink,
)
from tidefs.tests.client.fake_servers import (
    FakeMeta,
    World,
    always,
    until,
)
from tidefs.tests.client.test_metaclient import (
    ATTRIBUTES,
    CREATE,
    ENTRY,
    REMOVED,
)

GET = GetAttributes(5)
NODE = Node(ATTRIBUTES)
OPEN = Open(5, 0)
CONTENT = Content(ATTRIBUTES, False)
UNNAMED = CreateUnnamed(1, 0o600, 0, 0, 0, True)


class Holding(FakeMeta):
    """Answers what it is told to hold only when the test says so."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.holds: tuple[type, ...] = ()
        self.held = []
        self.rules += [
            always(GetAttributes, NODE),
            always(Unlink, REMOVED),
            always(Open, CONTENT),
            always(type(CREATE), ENTRY),
            always(CreateUnnamed, NODE),
            always(SetXattr, NODE),
        ]

    def handle(self, incoming):
        if not isinstance(incoming.request, self.holds):
            super().handle(incoming)
            return
        self.requests.append(incoming.request)
        self.mutations.append(incoming.mutation)
        self.payloads.append(b"")
        self.held.append(incoming)


@asynccontextmanager
async def linked(timeout_ms: int | None = None) -> AsyncIterator[tuple[Holding, MetaClient]]:
    """A server, and a client that has its session there."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        meta = await Holding(world).start()
        client = MetaClient(world.ports("client"), [meta.address], Who("client", 42, timeout_ms))
        nursery.start_soon(client.run)
        await client.wait_linked()
        yield meta, client
        await client.close()
        nursery.cancel_scope.cancel()


class Heard:
    """What flights were told."""

    def __init__(self):
        self.all = []

    def of(self, coming):
        assert type(coming) is Answer
        coming.when_told(self.all.append)
        return coming

    async def wait(self, count=1):
        await until(lambda: len(self.all) >= count)
        assert len(self.all) == count
        return self.all[-1]


def still_waits(coming):
    if type(coming) is Answer:
        return False
    coming.close()
    return True


class Settled:
    def __init__(self, client):
        self._client = client
        self.done = False

    async def wait(self):
        await self._client.settled()
        self.done = True
