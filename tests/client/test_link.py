"""The link follows the leader: quickly, past members that are down, cut off, slow or replaced."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from tidefs.client.link import Who
from tidefs.client.metaclient import MetaClient
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.members import Readdress
from tidefs.fs.messages.meta import (
    GetAttributes,
    KeepAlive,
    Node,
    OpenSession,
    Removed,
    ResumeSession,
    Unlink,
)
from tidefs.tests.client.fake_servers import FakeMeta, Group, World, always, until

ATTRIBUTES = Attributes(5, Kind.FILE, 0o644, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1)
REMOVED = Removed(ATTRIBUTES, ATTRIBUTES)
ELECTION_S = 0.4


class House:
    """Some metaservers that make up a group, and a client that was told of the first ones."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.world = World(nursery)
        self.metas: dict[str, FakeMeta] = {}
        self.client: MetaClient

    async def add(self, *hosts: str, server: int = 0) -> list[FakeMeta]:
        for host in hosts:
            meta = self.metas[host] = await FakeMeta(self.world, host, server=server).start()
            meta.rules += [
                always(GetAttributes, Node(ATTRIBUTES)),
                always(Unlink, REMOVED),
                lambda request, meta=meta: self.refusal(meta, request),
            ]
            first = next(iter(self.metas.values()))
            meta.alive, meta.sessions = first.alive, first.sessions
        self.world.group.consist_of(*self.metas.values())
        return [self.metas[host] for host in hosts]

    def refusal(self, meta: FakeMeta, request: object) -> TideError | None:
        leads = meta.view.leader == meta.server
        return None if leads else TideError(Code.NOT_LEADER, "not I")

    def remove(self, *hosts: str) -> None:
        for host in hosts:
            self.metas.pop(host).stop()
        self.world.group.consist_of(*self.metas.values())

    def elect(self, host: str | None) -> None:
        self.world.group.elect(self.metas[host] if host is not None else None)

    def cut_off(self, host: str, *others: str) -> None:
        """Nothing gets through between them, and nobody is told."""
        for other in others:
            self.world.network.block(host, other, hold=False)
            self.world.network.block(other, host, hold=False)

    async def works(self) -> float:
        """Until a request is answered; how long that took, in seconds."""
        start = trio.current_time()
        await self.client.call(GetAttributes(5))
        return trio.current_time() - start


@asynccontextmanager
async def house_of(
    *hosts: str, told: tuple[str, ...] = (), readdress: Readdress | None = None
) -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        house = House(nursery)
        await house.add(*hosts)
        house.elect(hosts[0])
        addresses = [f"tcp:{host}:1" for host in told or hosts]
        ports = house.world.ports("client")
        house.client = MetaClient(ports, addresses, Who("client", 42), readdress)
        nursery.start_soon(house.client.run)
        yield house
        await house.client.close()
        nursery.cancel_scope.cancel()


async def test_the_leader_is_found_by_way_of_a_follower(autojump_clock):
    async with house_of("a", "b", "c", told=("c",)) as house:
        await house.works()
        assert house.metas["a"].of(OpenSession)
        assert not house.metas["c"].requests


async def test_a_mount_outlives_all_members_that_it_was_told_of(autojump_clock):
    async with house_of("a", "b", told=("a",)) as house:
        await house.works()
        for new, old in (("c", "a"), ("d", "b"), ("e", "c")):
            await house.add(new)
            await trio.sleep(5)
            house.remove(old)
            if house.world.group.leader not in [meta.server for meta in house.metas.values()]:
                house.elect(new)
            await house.works()
        house.remove("d")
        house.elect("e")
        await house.works()
        assert list(house.metas) == ["e"]
        assert house.client.session == 100


async def test_all_members_are_replaced_sooner_than_it_would_have_asked(autojump_clock):
    """The leader tells of it."""
    async with house_of("a", "b", "c") as house:
        await house.works()
        (leader, *_) = house.metas.values()
        await house.add("d", "e", "f")
        leader.tell_members()
        await trio.sleep(0.1)
        house.remove("a", "b", "c")
        house.elect("e")
        with trio.fail_after(1):
            await house.works()
        assert house.client.session == 100


async def test_members_that_are_told_of_in_the_middle_of_a_search_are_asked(autojump_clock):
    async with house_of("a", "b", "c") as house:
        await house.works()
        house.elect(None)
        house.metas["a"].cut()
        await trio.sleep(1)
        asked = {host: house.metas.pop(host) for host in ("a", "b", "c")}
        await house.add("d")
        house.elect("d")
        for meta in asked.values():
            meta.silent = True
        asked["b"].tell_members()
        with trio.fail_after(3):
            await house.works()


async def test_who_took_the_place_of_a_member_is_asked_for_the_others(autojump_clock):
    """All others are gone, and it answers at the address of one that was known."""
    async with house_of("a", "b", "c") as house:
        await house.works()
        await trio.sleep(5)
        house.remove("a", "b", "c")
        house.elect(None)
        await trio.sleep(5)
        await house.add("b", server=7)
        await house.add("d", "e")
        house.elect("e")
        with trio.fail_after(3):
            await house.works()
        assert house.metas["b"].asked < 30


async def test_addresses_are_had_anew_when_everybody_that_was_known_is_gone(autojump_clock):
    looked_at_s = []

    async def look() -> list[str]:
        looked_at_s.append(trio.current_time())
        return [f"tcp:{host}:1" for host in house.metas]

    async with house_of("a", "b", "c", readdress=look) as house:
        await house.works()
        await trio.sleep(5)
        house.remove("a", "b", "c")
        house.elect(None)
        gone_s = trio.current_time()
        await trio.sleep(10)
        await house.add("d", "e", "f")
        house.elect("f")
        with trio.fail_after(3):
            await house.works()
        assert looked_at_s[0] >= gone_s + 1
        assert 9 <= len(looked_at_s) <= 13


async def test_who_is_no_member_any_more_is_not_asked(autojump_clock):
    async with house_of("a", "b", told=("a",)) as house:
        await house.works()
        before = house.metas.pop("b")
        house.world.group.consist_of(house.metas["a"])
        await trio.sleep(10)
        asked = before.asked
        house.elect(None)
        house.metas["a"].cut()
        await trio.sleep(10)
        assert before.asked == asked


async def test_a_new_leader_is_followed_as_soon_as_there_is_one(autojump_clock):
    """Beside the election, hardly any time passes without service."""
    async with house_of("a", "b", "c") as house:
        await house.works()
        for dead, heir in (("a", "b"), ("b", "c"), ("c", "a")):
            await trio.sleep(3)
            house.metas[dead].stop()
            house.elect(None)

            async def elect(heir: str = heir) -> None:
                await trio.sleep(ELECTION_S)
                house.elect(heir)

            async with trio.open_nursery() as both:
                both.start_soon(elect)
                took_s = await house.works()
            assert ELECTION_S < took_s < ELECTION_S + 0.1
            await house.metas[dead].start()


async def test_who_does_not_answer_a_connection_attempt_holds_up_nobody(autojump_clock):
    async with house_of("a", "b", "c", "d") as house:
        house.cut_off("client", "a", "b")
        house.elect("d")
        start = trio.current_time()
        await house.works()
        assert trio.current_time() - start < 0.2


async def test_a_leader_that_lost_its_office_in_silence_is_left(autojump_clock):
    """It stands still, or the network is cut: its connection stays open."""
    async with house_of("a", "b", "c") as house:
        await house.works()
        house.cut_off("a", "client")

        async def elect() -> None:
            await trio.sleep(ELECTION_S)
            house.elect("b")

        async with trio.open_nursery() as both:
            both.start_soon(elect)
            took_s = await house.works()
        assert took_s < 1.5


async def test_a_change_under_way_is_sent_again_with_its_numbers(autojump_clock):
    async with house_of("a", "b", "c") as house:
        await house.works()
        house.metas["a"].silent = True
        async with trio.open_nursery() as both:
            both.start_soon(house.client.call, Unlink(1, b"name"))
            both.start_soon(house.client.call, GetAttributes(6))
            await trio.sleep(ELECTION_S)
            house.elect("c")
        (mutation,) = house.metas["c"].mutations_of(Unlink)
        assert (mutation.session, mutation.sequence) == (100, 1)
        assert house.metas["c"].of(GetAttributes) == [GetAttributes(6)]


async def test_changes_refused_by_who_is_not_the_leader_any_more_keep_their_numbers(
    autojump_clock,
):
    async with house_of("a", "b") as house:
        await house.works()
        house.elect("b")
        async with trio.open_nursery() as callers:
            for inode in range(10):
                callers.start_soon(house.client.call, Unlink(inode, b"name"))
        assert house.metas["b"].of(Unlink)
        refused = house.metas["a"].mutations_of(Unlink)
        done = house.metas["b"].mutations_of(Unlink)
        assert len(set(done)) == len(done) == 10
        assert set(refused) <= set(done)


async def test_a_leader_that_is_busy_is_not_left_as_long_as_others_name_it(autojump_clock):
    async with house_of("a", "b", "c") as house:
        await house.works()
        house.metas["a"].silent = True

        async def wake_up() -> None:
            await trio.sleep(3)
            house.metas["a"].silent = False

        async with trio.open_nursery() as both:
            both.start_soon(wake_up)
            with trio.move_on_after(2.9):
                await house.works()
        await house.works()
        assert not house.metas["b"].requests + house.metas["c"].requests
        assert len(house.metas["a"].of(OpenSession) + house.metas["a"].of(ResumeSession)) == 1


async def test_a_silent_leader_that_nobody_names_is_left(autojump_clock, caplog):
    async with house_of("a", "b", "c") as house:
        await house.works()
        house.metas["a"].silent = True
        house.elect(None)
        start = trio.current_time()
        async with trio.open_nursery() as both:
            both.start_soon(house.works)
            await until(lambda: "is left" in caplog.text)
            assert 1.5 < trio.current_time() - start < 3
            house.elect("b")


@pytest.mark.parametrize("told", [("a", "b", "c"), ("a",)])
async def test_who_only_thinks_that_it_leads_does_not_hold_a_client(autojump_clock, told):
    """It is cut off from the others and has not noticed; it answers nothing but who it is."""
    async with house_of("a", "b", "c", told=told) as house:
        await house.works()
        deluded = house.metas["a"]
        world = house.world.group
        deluded.view = Group(world.term, deluded.server, world.commit_index)
        deluded.rules.append(always(ResumeSession, TideError(Code.UNAVAILABLE, "cut off")))
        deluded.rules.append(always(GetAttributes, "silence"))
        house.elect("b")
        assert await house.works() < 1.5
        assert house.client.session == 100
        house.metas["b"].stop()
        house.elect(None)
        async with trio.open_nursery() as both:
            both.start_soon(house.works)
            await trio.sleep(ELECTION_S)
            house.elect("c")
        assert not deluded.of(ResumeSession)


async def test_a_quiet_mount_notices_too(autojump_clock):
    async with house_of("a", "b", "c") as house:
        await house.works()
        house.cut_off("a", "client")
        house.elect("c")
        await trio.sleep(6)
        assert house.metas["c"].of(ResumeSession)
        assert await house.works() < 0.1


async def test_the_only_metaserver_is_waited_for_while_it_is_busy(autojump_clock):
    async with house_of("a") as house:
        await house.works()
        house.metas["a"].silent = True
        with trio.move_on_after(3.5):
            await house.works()
        house.metas["a"].silent = False
        await house.works()
        assert not house.metas["a"].of(ResumeSession)


async def test_nothing_is_asked_of_a_leader_that_answers(autojump_clock):
    async with house_of("a", "b", "c") as house:
        await house.works()
        before = sum(meta.asked for meta in house.metas.values())
        end = trio.current_time() + 20
        while trio.current_time() < end:
            await house.works()
        asked = sum(meta.asked for meta in house.metas.values()) - before
        assert asked <= 6
        assert house.metas["a"].of(KeepAlive)


async def test_a_session_that_holds_much_is_resumed_in_pieces(autojump_clock):
    async with house_of("a", "b") as house:
        await house.works()
        for inode in range(1, 100_001):
            house.client.opened(inode << 40)
        for index in range(25_000):
            house.client.reserved(1 << 62, index, 1 << 62 | index)
        house.elect("b")
        await house.works()
        pieces = house.metas["b"].of(ResumeSession)
        assert [piece.more for piece in pieces] == [True] * 9 + [False]
        told = [inode for piece in pieces for inode in piece.open_inodes]
        assert told == [inode << 40 for inode in range(1, 100_001)]
        assert sum(len(piece.reserved) for piece in pieces) == 25_000
