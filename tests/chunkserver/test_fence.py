"""Only the leader that a chunkserver registered with gives orders, no earlier one ever again."""

import pytest
import trio
from tidefs.chunkserver import fence
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.chunk import CopyChunk, DeleteChunks, SetVersion, WriteChunk
from tidefs.fs.messages.hello import METASERVER

CHUNK = 7
TERM = 5


async def test_orders_on_any_other_connection_are_refused_with_the_term(open_house):
    async with open_house(1) as house:
        (server,) = house.servers
        client = await house.client(server)
        await client.call(WriteChunk(CHUNK, 1, 0, True, 0, []), payload=[b"x"])
        stranger = await house.client(server, METASERVER)
        for order in (
            SetVersion(CHUNK, 1, 2, -1),
            DeleteChunks([(CHUNK, 9)]),
            CopyChunk(CHUNK, 9, [server.place]),
        ):
            with pytest.raises(TideError) as failed:
                await stranger.call(order)
            assert failed.value.code is Code.NOT_LEADER
            assert "of term 1" in str(failed.value)
        leader = house.metaserver.peers[server.server]
        await leader.call(SetVersion(CHUNK, 1, 2, -1))
        await leader.call(DeleteChunks([(CHUNK, 2)]))


async def test_an_order_right_behind_the_registration_waits_until_the_term_is_kept(open_house):
    async with open_house(0) as house:
        outcomes = []
        news = trio.Event()

        def order(peer):
            def done(outcome, payload):
                outcomes.append(outcome)
                news.set()

            peer.post(DeleteChunks([(CHUNK, 1)]), done=done)

        house.metaserver.on_register = order
        house.metaserver.term = TERM
        await house.add()
        await news.wait()
        assert outcomes == [Done()]
        assert (house.servers[0].folder / "term").read_text() == f"{TERM}\n"


async def test_after_a_restart_no_leader_of_an_earlier_term_is_believed(open_house, caplog):
    async with open_house(0) as house:
        metaserver = house.metaserver
        metaserver.term = TERM
        await house.add()
        (server,) = house.servers
        await metaserver.until(lambda: metaserver.complete)
        await server.kill()
        metaserver.peers.clear()
        metaserver.term = TERM - 1
        metaserver.asked = 0
        await server.start()
        await metaserver.until(lambda: metaserver.asked >= 3)
        assert not metaserver.peers
        metaserver.term = TERM + 1
        await metaserver.until(lambda: metaserver.peers)


async def test_who_registers_it_under_an_earlier_term_gives_no_orders(open_house):
    """What it said when it was asked does not count."""
    async with open_house(0) as house:
        metaserver = house.metaserver
        metaserver.term = TERM
        await house.add()
        (server,) = house.servers
        await metaserver.until(lambda: metaserver.complete)
        outcomes = []

        def order(peer):
            def done(outcome, payload):
                outcomes.append(outcome)

            peer.post(DeleteChunks([(CHUNK, 1)]), done=done)
            metaserver.claimed = metaserver.term = TERM + 1

        metaserver.on_register = order
        metaserver.claimed = TERM
        metaserver.term = TERM - 1
        metaserver.peers.pop(server.server).close("another election")
        await metaserver.until(lambda: len(outcomes) == 2)
        refused, done = outcomes
        assert isinstance(refused, TideError)
        assert done == Done()


async def test_the_leader_before_gives_no_orders_any_more(open_house, tools):
    async with open_house(0) as house:
        before, heir = house.metaserver, tools.Metaserver(house)
        heir.server, heir.leads = 2, False
        house.metaservers.append(f"unix:{house.folder}/heir.sock")
        await house.listen(heir, house.metaservers[-1])
        await house.add()
        (server,) = house.servers
        await before.until(lambda: before.complete)
        before.leads, heir.leads = False, True
        heir.term = before.term + 1
        await heir.until(lambda: heir.complete)
        assert before.peers[server.server].closed
        assert before.asker is not None
        if not before.asker.closed:
            with pytest.raises(TideError) as failed:
                await before.asker.call(DeleteChunks([(CHUNK, 1)]))
            assert failed.value.code is Code.NOT_LEADER
            assert "of term 2" in str(failed.value)
        assert await heir.peers[server.server].call(DeleteChunks([(CHUNK, 1)])) == Done()


async def test_a_full_disk_keeps_nobody_from_registering(open_house, monkeypatch, caplog):
    async def write(disk, term):
        raise TideError(Code.NO_SPACE, "term.new")

    monkeypatch.setattr(fence, "_write", write)
    async with open_house(1) as house:
        (server,) = house.servers
        leader = house.metaserver.peers[server.server]
        assert await leader.call(DeleteChunks([(CHUNK, 1)])) == Done()
        assert "until the next start only" in caplog.text
