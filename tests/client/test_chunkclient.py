"""The chunkclient: failover and hedging of reads, the chain, what is reported, what is final."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tidefs.client.chunkclient import ChunkClient
from tidefs.client.connections import Connections
from tidefs.client.counters import Counters
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CONNECT_TIMEOUT_MS, READ_HEDGE_MS
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.chunk import (
    ChunkData,
    CloneChunk,
    Cloned,
    ReadChunk,
    SyncChunk,
    WriteChunk,
    Written,
)
from tidefs.fs.messages.hello import CHUNKSERVER
from tidefs.fs.messages.meta import ReportFailure
from tidefs.fs.messages.places import ChunkPlace, ServerPlace
from tidefs.tests.client.fake_servers import CLUSTER, CUT, SILENCE, Fake, World, always, once

DATA = b"0123456789"
READ = (ChunkData(3), DATA)
WRITTEN = Written(1)


class Reports:
    """The metaservers, as far as a chunkclient needs them."""

    session = 500

    def __init__(self) -> None:
        self.reports: list[ReportFailure] = []
        self.counters = Counters()

    async def call(self, request: Any, payload: Any = ()) -> Done:
        self.reports.append(request)
        return Done()


class Cluster:
    def __init__(self, world: World, servers: list[Fake], host: str = "client") -> None:
        self.world = world
        self.servers = servers
        self.reports = Reports()
        ports = world.ports(host)
        self.connections = Connections(ports, host, CLUSTER, world.nursery)
        self.client = ChunkClient(ports, self.reports, self.connections, host)

    def place(self, *, handle: int = 9, fresh: bool = False) -> ChunkPlace:
        return ChunkPlace(0, handle, 3, [server.place for server in self.servers], fresh)

    async def read(self, **more: Any) -> bytes:
        return b"".join(await self.client.read(self.place(**more), 0, len(DATA)))


@asynccontextmanager
async def cluster(count: int, host: str = "client") -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        servers = [
            await Fake(world, f"chunk-{n}", CHUNKSERVER, 0xABC00 + n).start() for n in range(count)
        ]
        for server in servers:
            server.rules += [
                always(ReadChunk, READ),
                always(WriteChunk, WRITTEN),
                always(SyncChunk, Done()),
            ]
        yield Cluster(world, servers, host)
        nursery.cancel_scope.cancel()


async def test_a_short_answer_is_filled_with_zeros(autojump_clock):
    async with cluster(1) as c:
        assert b"".join(await c.client.read(c.place(), 5, 15)) == DATA + bytes(5)
        assert c.servers[0].of(ReadChunk) == [ReadChunk(9, 3, 5, 15)]


async def test_too_long_an_answer_is_refused(autojump_clock):
    async with cluster(1) as c:
        with pytest.raises(TideError) as failed:
            await c.client.read(c.place(), 0, 3)
        assert failed.value.code is Code.MALFORMED


async def test_reads_are_spread_by_chunk_and_prefer_this_machine(autojump_clock):
    async with cluster(3) as c:
        for handle in range(6):
            await c.read(handle=handle)
        assert [len(server.of(ReadChunk)) for server in c.servers] == [2, 2, 2]
    async with cluster(3, host="chunk-1") as c:
        for handle in range(6):
            await c.read(handle=handle)
        assert [len(server.of(ReadChunk)) for server in c.servers] == [0, 6, 0]


@pytest.mark.parametrize(
    "trouble",
    [CUT, *(TideError(code) for code in (Code.BAD_CHECKSUM, Code.NO_CHUNK, Code.STALE_VERSION,
                                         Code.DEVICE_ERROR))],
    ids=str,
)  # fmt: skip
async def test_another_replica_answers_when_the_first_cannot(autojump_clock, trouble):
    async with cluster(3) as c:
        for server in c.servers[:2]:
            server.rules.append(always(ReadChunk, trouble))
        assert await c.read() == DATA


async def test_a_slow_replica_is_hedged(autojump_clock):
    async with cluster(2) as c:
        c.servers[1].rules.append(always(ReadChunk, SILENCE))
        start = trio.current_time()
        assert await c.read() == DATA
        assert trio.current_time() - start == pytest.approx(READ_HEDGE_MS / 1000, abs=0.1)


async def test_a_dead_replica_is_asked_last_for_a_while(autojump_clock):
    async with cluster(2) as c:
        c.world.network.set_down("chunk-1")
        assert await c.read() == DATA
        await trio.sleep(CONNECT_TIMEOUT_MS / 1000)
        start = trio.current_time()
        assert await c.read() == DATA
        assert trio.current_time() - start < 0.1


async def test_all_replicas_failing_gives_the_error_that_may_heal(autojump_clock):
    async with cluster(2) as c:
        c.servers[0].rules.append(always(ReadChunk, TideError(Code.DEVICE_ERROR, "disk")))
        c.servers[1].rules.append(always(ReadChunk, TideError(Code.BAD_CHECKSUM, "rot")))
        with pytest.raises(TideError) as failed:
            await c.read()
        assert failed.value.code is Code.BAD_CHECKSUM
        assert "disk" in str(failed.value)
        c.servers[1].stop()
        with pytest.raises(TideError) as failed:
            await c.read()
        assert failed.value.code is Code.UNAVAILABLE


async def test_no_replica_known(autojump_clock):
    async with cluster(0) as c:
        for attempt in (c.read(), c.client.write(c.place(), 0, [b"x"])):
            with pytest.raises(TideError) as failed:
                await attempt
            assert failed.value.code is Code.UNAVAILABLE


async def test_a_write_goes_to_the_primary_with_the_rest_as_its_chain(autojump_clock):
    async with cluster(3) as c:
        await c.client.write(c.place(fresh=True), 7, [b"ab", b"cd"])
        await c.client.write(c.place(), 7, [b"ef"])
        primary = c.servers[0]
        chain = [server.place for server in c.servers[1:]]
        assert primary.of(WriteChunk) == [
            WriteChunk(9, 3, 7, True, 0, chain),
            WriteChunk(9, 3, 7, False, 0, chain),
        ]
        assert primary.payloads == [b"abcd", b"ef"]
        assert [m.session for m in primary.mutations] == [500, 500]
        assert primary.mutations[0].sequence < primary.mutations[1].sequence
        assert c.servers[1].requests == []


async def test_a_write_is_sent_again_once_with_the_same_id_when_the_connection_breaks(
    autojump_clock,
):
    async with cluster(1) as c:
        c.servers[0].rules.append(once(WriteChunk, CUT))
        await c.client.write(c.place(), 0, [b"x"])
        assert len(c.servers[0].mutations) == 2
        assert len(set(c.servers[0].mutations)) == 1
        assert c.reports.reports == []


@pytest.mark.parametrize("trouble", [CUT, SILENCE, TideError(Code.NO_CHUNK),
                                     TideError(Code.NO_SPACE), TideError(Code.DEVICE_ERROR)],
                         ids=str)  # fmt: skip
async def test_a_failed_primary_is_reported(autojump_clock, trouble):
    async with cluster(3) as c:
        c.servers[0].rules.append(always(WriteChunk, trouble))
        with pytest.raises(TideError) as failed:
            await c.client.write(c.place(), 0, [b"x"])
        assert failed.value.code is Code.REPLICA_FAILED
        assert c.reports.reports == [ReportFailure(9, 3, [0xABC00])]


async def test_an_unreachable_primary_is_reported(autojump_clock):
    async with cluster(2) as c:
        c.servers[0].stop()
        start = trio.current_time()
        with pytest.raises(TideError) as failed:
            await c.client.write(c.place(), 0, [b"x"])
        assert failed.value.code is Code.REPLICA_FAILED
        assert c.reports.reports == [ReportFailure(9, 3, [0xABC00])]
        assert trio.current_time() - start < CONNECT_TIMEOUT_MS / 1000


async def test_the_servers_that_the_primary_names_are_reported(autojump_clock):
    async with cluster(3) as c:
        error = TideError(
            Code.REPLICA_FAILED, "chunk 9: tcp:a:77: broken: 00000000000abc01 00000000000abc02"
        )
        c.servers[0].rules.append(always(WriteChunk, error))
        with pytest.raises(TideError):
            await c.client.write(c.place(), 0, [b"x"])
        assert c.reports.reports == [ReportFailure(9, 3, [0xABC01, 0xABC02])]


async def test_a_full_disk_with_no_elsewhere_is_final(autojump_clock):
    async with cluster(1) as c:
        c.servers[0].rules += [
            always(WriteChunk, TideError(Code.NO_SPACE, "full")),
            always(SyncChunk, TideError(Code.NO_SPACE, "full")),
        ]
        for attempt in (c.client.write(c.place(), 0, [b"x"]), c.client.sync(c.place(), 3)):
            with pytest.raises(TideError) as failed:
                await attempt
            assert failed.value.code is Code.NO_SPACE
        assert c.reports.reports == []
        with pytest.raises(TideError) as failed:
            await c.client.write(c.place(fresh=True), 0, [b"x"])
        assert failed.value.code is Code.REPLICA_FAILED


async def test_what_another_layout_would_not_mend_is_final(autojump_clock):
    async with cluster(2) as c:
        c.servers[0].rules.append(always(WriteChunk, TideError(Code.INVALID, "no such offset")))
        with pytest.raises(TideError) as failed:
            await c.client.write(c.place(), 0, [b"x"])
        assert failed.value.code is Code.INVALID
        assert c.reports.reports == []


async def test_a_busy_server_is_given_time(autojump_clock):
    async with cluster(1) as c:
        c.servers[0].rules.append(once(WriteChunk, TideError(Code.BUSY, "", delay_ms=50), 5))
        await c.client.write(c.place(), 0, [b"x"])
        assert len(set(c.servers[0].mutations)) == 1
        assert len(c.servers[0].mutations) == 6


async def test_a_sync_asks_every_replica_and_reports_all_that_failed(autojump_clock):
    async with cluster(3) as c:
        await c.client.sync(c.place(), 2)
        assert [server.of(SyncChunk) for server in c.servers] == [[SyncChunk(9, 3, 2)]] * 3
        c.servers[1].rules.append(always(SyncChunk, TideError(Code.DEVICE_ERROR, "disk")))
        c.servers[2].stop()
        with pytest.raises(TideError) as failed:
            await c.client.sync(c.place(), 2)
        assert failed.value.code is Code.REPLICA_FAILED
        assert c.reports.reports == [ReportFailure(9, 3, [0xABC01, 0xABC02])]


async def test_a_sync_tells_when_every_replica_lost_bytes_and_only_then(autojump_clock):
    async with cluster(2) as c:
        lost = TideError(Code.OUT_OF_ORDER, "the machine crashed")
        c.servers[0].rules.append(always(SyncChunk, lost))
        with pytest.raises(TideError) as failed:
            await c.client.sync(c.place(), 3)
        assert failed.value.code is Code.REPLICA_FAILED
        c.servers[1].rules.append(always(SyncChunk, lost))
        with pytest.raises(TideError) as failed:
            await c.client.sync(c.place(), 3)
        assert failed.value.code is Code.OUT_OF_ORDER
        assert c.reports.reports == [ReportFailure(9, 3, [0xABC00])]


def source_on(c: Cluster) -> ChunkPlace:
    return ChunkPlace(5, 7, 2, [c.servers[0].place], fresh=False)


async def test_a_clone_is_made_by_every_replica(autojump_clock):
    async with cluster(3) as c:
        for server in c.servers:
            server.rules += [
                always(CloneChunk, Cloned(1)),
                once(CloneChunk, TideError(Code.BUSY, delay_ms=50)),
            ]
        await c.client.clone(c.place(fresh=True), source_on(c), 1000)
        wanted = CloneChunk(9, 3, 7, 2, 1000, [c.servers[0].place])
        assert [server.of(CloneChunk) for server in c.servers] == [[wanted] * 2] * 3
        with pytest.raises(TideError) as failed:
            await c.client.clone(ChunkPlace(0, 9, 3, [], fresh=True), source_on(c), 1000)
        assert failed.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("trouble", [CUT, TideError(Code.NO_SPACE)], ids=str)
async def test_a_clone_that_failed_is_not_asked_for_again(autojump_clock, trouble):
    """It would replace what was written in its place meanwhile."""
    async with cluster(2) as c:
        c.servers[0].rules.append(always(CloneChunk, Cloned(1)))
        c.servers[1].rules.append(always(CloneChunk, trouble))
        with pytest.raises(TideError) as failed:
            await c.client.clone(c.place(fresh=True), source_on(c), 1000)
        assert failed.value.code in (Code.DISCONNECTED, Code.NO_SPACE)
        assert [len(server.of(CloneChunk)) for server in c.servers] == [1, 1]


async def test_clones_that_differ_are_of_no_use(autojump_clock):
    async with cluster(2) as c:
        for digest, server in enumerate(c.servers):
            server.rules.append(always(CloneChunk, Cloned(digest)))
        with pytest.raises(TideError) as failed:
            await c.client.clone(c.place(fresh=True), source_on(c), 1000)
        assert failed.value.code is Code.LAYOUT_CHANGED


async def test_one_connection_for_many_callers_made_anew_when_broken(autojump_clock):
    async with cluster(1) as c:
        place = c.servers[0].place
        peers = []

        async def get() -> None:
            peers.append(await c.connections.to(place))

        async with trio.open_nursery() as callers:
            for _ in range(5):
                callers.start_soon(get)
        assert len(set(map(id, peers))) == 1
        peers[0].close("test")
        assert await c.connections.to(place) is not peers[0]


async def test_addresses_are_tried_in_turn_and_unix_only_on_this_machine(autojump_clock):
    async with cluster(1) as c:
        server = c.servers[0]
        there = ServerPlace(server.server, "chunk-0", ["unix:/run/x", "tcp:gone:1", server.address])
        assert not (await c.connections.to(there)).closed
        elsewhere = ServerPlace(5, "chunk-0", ["unix:/run/x"])
        with pytest.raises(TideError) as failed:
            await c.connections.to(elsewhere)
        assert "/run/x" not in str(failed.value)
        here = ServerPlace(5, "client", ["unix:/run/x", "tcp:gone:1"])
        with pytest.raises(TideError) as failed:
            await c.connections.to(here)
        assert "/run/x" in str(failed.value)
        assert "gone" in str(failed.value)


async def test_another_server_at_the_address_is_not_taken(autojump_clock):
    async with cluster(1) as c:
        with pytest.raises(TideError) as failed:
            await c.connections.to(ServerPlace(0xDEF, "h", [c.servers[0].address]))
        assert failed.value.code is Code.DISCONNECTED
        assert "00000000000abc00" in str(failed.value)
