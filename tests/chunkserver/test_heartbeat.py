"""How the metaserver learns what is here, whichever leads."""

import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.handshake import Identity
from tidefs.fs.limits import MIB
from tidefs.fs.messages.chunk import SyncChunk, WriteChunk
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.rpc import serve


async def test_after_a_broken_connection_it_registers_again_and_reports_everything(open_house):
    async with open_house(1) as house:
        (server,) = house.servers
        client = await house.client(server)
        await client.call(WriteChunk(7, 1, 0, True, 0, []), payload=[b"x"])
        first = house.metaserver.peers[server.server]
        house.metaserver.complete.clear()
        first.close("a bad day")
        await house.metaserver.until(lambda: server.server in house.metaserver.complete)
        assert house.metaserver.peers[server.server] is not first
        assert list(house.metaserver.reports[server.server]) == [7]


async def test_it_finds_the_one_that_leads(open_house):
    async with open_house(0) as house:
        asked = trio.Event()

        def follower(incoming) -> None:
            asked.set()
            raise TideError(Code.NOT_LEADER, "ask another one")

        address = f"unix:{house.folder}/follower.sock"
        listener = await house.ports.network.listen(address)
        identity = Identity("test", METASERVER, 2)
        house.nursery.start_soon(serve, house.ports, listener, identity, follower, house.nursery)
        house.metaservers = [f"unix:{house.folder}/nobody.sock", address, *house.metaservers]
        await house.add()
        await asked.wait()
        await house.metaserver.until(lambda: house.metaserver.complete)
        listener.close()


async def test_damage_is_reported_once_it_is_met(open_house):
    async with open_house(1) as house:
        (server,) = house.servers
        client = await house.client(server)
        await client.call(WriteChunk(7, 1, 0, True, 0, []), payload=[b"x" * 100_000])
        await client.call(SyncChunk(7, 1))
        path = server.folder / "chunks/07/0000000000000007"
        with path.open("r+b") as file:
            file.seek(65_536 + 10)
            file.write(b"y")
        await server.stop()
        server.scrub = 100 * MIB
        await server.start()
        await house.metaserver.until(lambda: house.metaserver.bad)
        (report,) = house.metaserver.bad
        assert (report.handle, report.version, report.offset) == (7, 1, 0)
