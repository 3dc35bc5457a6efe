"""A group of metaservers at work: elected, served, killed, replaced; nothing promised is lost."""

import pytest
import trio
from tidefs.fs.config import Size
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages import meta, raft
from tidefs.fs.messages.places import ServerPlace

from .group_live import LiveGroup
from .live import eventually, until


@pytest.fixture
async def group(tmp_path, nursery):
    return await LiveGroup(tmp_path, nursery, 3).start()


async def test_one_is_elected_and_serves(group):
    leader = await group.leader()
    client = await group.client()
    await client.create("file")
    assert await client.names() == {"file"}
    await group.agree()
    for member in group.members.values():
        status = await member.status()
        assert status.leader == leader.server
        assert status.configuration.voters == [1, 2, 3]
        assert status.role == ("leader" if member is leader else "follower")


async def test_a_group_of_one_leads_itself(tmp_path, nursery):
    group = await LiveGroup(tmp_path, nursery, 1).start()
    client = await group.client()
    await client.create("file")
    member = group.members[1]
    await member.stop(crash=True)
    await member.start()
    assert await client.names() == {"file"}
    assert (await member.status()).configuration.voters == [1]


async def test_when_the_leader_dies_another_one_has_everything(group):
    client = await group.client()
    for number in range(6):
        await client.create(f"f{number}")
        leader = await group.leader()
        await leader.stop(crash=True)
        await client.create(f"g{number}")
        await leader.start()
    assert await client.names() == {f"{c}{n}" for c in "fg" for n in range(6)}
    await group.agree()


async def test_everybody_loses_power_at_once(group):
    client = await group.client()
    await client.create("before")
    for member in group.up():
        await member.stop(crash=True)
    for member in group.members.values():
        await member.start()
    assert await client.names() == {"before"}
    await client.create("after")
    await group.agree()


async def test_who_does_not_lead_says_who_does(group):
    leader = await group.leader()
    follower = group.others(leader)[0]
    with pytest.raises(TideError) as caught:
        await follower.ask(meta.GetStatus())
    assert caught.value.code is Code.NOT_LEADER
    assert f"metaserver {leader.server:016x} on here does" in caught.value.detail


async def test_a_follower_answers_strong_reads(group):
    client = await group.client()
    for number in range(20):
        await client.create(f"f{number}")
        for follower in group.others(await group.leader()):
            found = await follower.ask(meta.Lookup(1, f"f{number}".encode()))
            assert found.attributes.inode
    with pytest.raises(TideError) as caught:
        await group.others(await group.leader())[0].ask(meta.Lookup(1, b"missing"))
    assert caught.value.code is Code.NO_ENTRY


async def test_alone_it_answers_nothing_but_is_there(group):
    leader = await group.leader()
    for other in group.others(leader):
        await other.stop()

    async def stepped_down():
        return (await leader.status()).role != "leader"

    await eventually(stepped_down)
    for request in (meta.Lookup(1, b"file"), meta.GetStatus(), raft.TransferLeadership(0)):
        code = Code.DISCONNECTED
        while code is Code.DISCONNECTED:  # its last term may be ending just now
            with pytest.raises(TideError) as caught:
                await leader.ask(request)
            code = caught.value.code
        assert code in (Code.NOT_LEADER, Code.UNAVAILABLE)


async def test_who_was_away_catches_up(group):
    client = await group.client()
    away = group.others(await group.leader())[0]
    await away.stop()
    for number in range(50):
        await client.create(f"f{number}")
    await away.start()
    await group.agree()


async def test_who_was_away_for_long_gets_a_snapshot(tmp_path, nursery):
    group = LiveGroup(tmp_path, nursery, 3, checkpoint_entries=50, log_segment=Size(8_192))
    await group.start()
    client = await group.client()
    away = group.others(await group.leader())[0]
    await away.stop()
    for number in range(400):
        await client.create(f"f{number}")
    leader = await group.leader()
    assert (await leader.status()).first_index > 100
    await away.start()
    await group.agree()
    status = await away.status()
    assert status.first_index > 100
    assert status.snapshot_ns > 0
    assert dict((await away.ask(raft.GetMetrics())).values)["snapshots_installed_total"] >= 1
    assert dict((await leader.ask(raft.GetMetrics())).values)["snapshots_sent_total"] >= 1


# --- members -----------------------------------------------------------------------------------


async def test_a_leader_tells_whom_it_serves_who_the_members_are_until_it_is_none_itself(group):
    leader = await group.leader()
    told = []
    peer = await leader.connect(lambda incoming: told.append(incoming.request.status))
    new = [await group.newcomer(n) for n in (4, 5, 6)]
    change = raft.ChangeMembers([one.place for one in new], [1, 2, 3])
    await (await group.leader()).ask(change, timeout_ms=15_000)
    with trio.fail_after(10):
        await peer.wait_closed()
    assert sorted(told[0].configuration.learners) == [4, 5, 6]
    assert any(one.configuration.voters_before for one in told), "while it is joint"
    new_ones, at_the_end = told[-2:]
    assert new_ones.commit_index < at_the_end.commit_index, "it did not wait for its own end"
    for one in (new_ones, at_the_end):
        assert {place.server for place in one.configuration.places} == {4, 5, 6}


async def test_grow_to_five_and_shrink_to_one(group):
    client = await group.client()
    await client.create("file")
    new = [await group.newcomer(n) for n in (4, 5)]
    assert (await new[0].status()).role == "joining"
    await group.ask_leader(raft.ChangeMembers([one.place for one in new], []))
    await group.agree()
    assert sorted((await new[0].status()).configuration.voters) == [1, 2, 3, 4, 5]
    await group.ask_leader(raft.ChangeMembers([], [1, 2]))
    for gone in (1, 2):
        await group.members[gone].stop()
    await client.create("more")
    await group.ask_leader(raft.ChangeMembers([], [3, 4]))
    for gone in (3, 4):
        await group.members[gone].stop()
    assert await client.names() == {"file", "more"}
    assert (await new[1].status()).configuration.voters == [5]


async def test_a_lost_disk_is_replaced_by_a_new_member(group):
    client = await group.client()
    for number in range(20):
        await client.create(f"f{number}")
    lost = group.others(await group.leader())[0]
    await lost.stop()
    new = await group.newcomer(9)
    change = raft.ChangeMembers([new.place], [lost.server])
    await group.ask_leader(change)
    await group.ask_leader(change)  # again: it is done already
    await group.agree()
    status = await new.status()
    assert status.configuration.removed == [lost.server]
    assert 9 in status.configuration.voters
    assert len(await client.names()) == 20


async def test_changes_that_would_hurt_are_refused(group):
    async def refused(add, remove):
        with pytest.raises(TideError) as caught:
            await (await group.leader()).ask(raft.ChangeMembers(add, remove))
        return caught.value

    newcomer = group.members[1].place
    assert (await refused([], [1])).code is Code.INVALID
    assert (await refused([], [1, 2, 3])).code is Code.INVALID
    assert (await refused([newcomer, newcomer], [])).code is Code.INVALID
    leader = await group.leader()
    down = group.others(leader)[0]
    await down.stop()
    up = [member.server for member in group.up()]

    async def known_to_be_down():
        status = await leader.ask(meta.GetStatus())
        return [s.state for s in status.servers if s.server == down.server] == ["down"]

    await eventually(known_to_be_down)
    error = await refused([], [server for server in up])
    assert error.code is Code.UNAVAILABLE
    assert f"{down.server:016x} on here is not" in error.detail


async def test_a_learner_that_never_comes_up_can_be_taken_away(group):
    places = [ServerPlace(n, "here", [f"unix:/nowhere/{n}"]) for n in (8, 9)]
    leader = await group.leader()
    peer = await leader.connect()
    outcome = []

    async def add():
        try:
            await peer.call(raft.ChangeMembers(places, []))
        except TideError as error:
            outcome.append(error)

    group.nursery.start_soon(add)

    async def learners():
        return (await leader.status()).configuration.learners == [8, 9]

    await eventually(learners)
    assert not outcome
    await group.ask_leader(raft.ChangeMembers([], [8, 9]))
    await until(lambda: outcome)
    assert outcome[0].code is Code.INVALID
    assert "removed before it had caught up" in outcome[0].detail
    assert (await leader.status()).configuration.learners == []


async def test_the_leadership_is_handed_over(group):
    client = await group.client()
    await client.create("file")
    for number in range(4):
        leader = await group.leader()
        to = group.others(leader)[0]
        await leader.ask(raft.TransferLeadership(to.server))
        assert await group.leader() is to
        await client.create(f"file{number}")
    leader = await group.leader()
    await leader.ask(raft.TransferLeadership(0))
    assert await group.leader() is not leader
    leader = await group.leader()
    await leader.ask(raft.TransferLeadership(leader.server))
    assert await group.leader() is leader
    with pytest.raises(TideError) as caught:
        await leader.ask(raft.TransferLeadership(77))
    assert caught.value.code is Code.INVALID


async def test_the_leader_can_remove_itself(group):
    client = await group.client()
    leader = await group.leader()
    new = await group.newcomer(4)
    await group.ask_leader(raft.ChangeMembers([new.place], [leader.server]))
    await leader.stop()
    await client.create("file")
    assert await client.names() == {"file"}


# --- what is told ------------------------------------------------------------------------------


async def test_status_tells_of_each_member(group):
    leader = await group.leader()
    status = await leader.ask(meta.GetStatus())
    states = {s.server: s.state for s in status.servers if s.role == "metaserver"}
    assert states.pop(leader.server) == "leader"
    assert set(states.values()) == {"follower"}
    down = group.others(leader)[0]
    await down.stop()

    async def told():
        problems = (await leader.ask(meta.GetStatus())).problems
        return any(
            f"{down.server:016x} on here is down" in problem for problem in problems
        ) and any("2 of 3 metaservers are up" in problem for problem in problems)

    await eventually(told)


async def test_metrics_have_names(group):
    client = await group.client()
    await client.create("file")
    for member in group.up():
        values = dict((await member.ask(raft.GetMetrics())).values)
        assert values["raft_term"] >= 1
        assert values["log_syncs_total"] >= 1
        assert values["entries_applied_total"] >= 1
        assert values["log_last_index"] >= values["raft_commit_index"] >= 1
    leaders = [dict((await m.ask(raft.GetMetrics())).values)["raft_leads"] for m in group.up()]
    assert sum(leaders) == 1


async def test_it_is_ready_before_anybody_leads(tmp_path, nursery):
    group = LiveGroup(tmp_path, nursery, 3)
    member = group.members[1]
    await member.format()
    with trio.fail_after(5):
        await member.start()
    status = await member.status()
    assert status.leader == 0
    assert status.role in ("follower", "pre-candidate")


# --- all of it at once -------------------------------------------------------------------------


async def _keep_creating(client, prefix, created, stopping):
    number = 0
    while not stopping.is_set():
        name = f"{prefix}-{number}"
        await client.create(name)
        created.append(name)
        number += 1


async def test_everything_happens_under_load(tmp_path, nursery):
    options = {"checkpoint_entries": 100, "log_segment": Size(8_192)}
    group = await LiveGroup(tmp_path, nursery, 3, **options).start()
    created, stopping = [], trio.Event()

    async def more(count=40):
        wanted = len(created) + count
        await until(lambda: len(created) >= wanted)

    async with trio.open_nursery() as load:
        for one in range(3):
            load.start_soon(_keep_creating, await group.client(), f"c{one}", created, stopping)
        await more()
        new = [await group.newcomer(n) for n in (4, 5)]
        await group.ask_leader(raft.ChangeMembers([one.place for one in new], []))
        await more()
        killed = await group.leader()
        await killed.stop(crash=True)
        await more(200)
        await killed.start()
        await group.ask_leader(raft.TransferLeadership(0))
        await more()
        gone = [one.server for one in group.up()[:2]]
        await group.ask_leader(raft.ChangeMembers([], gone))
        for server in gone:
            await group.members.pop(server).stop()
        await more()
        lost = group.others(await group.leader())[0]
        await group.members.pop(lost.server).stop()
        await more(200)
        fresh = await group.newcomer(9)
        await group.ask_leader(raft.ChangeMembers([fresh.place], [lost.server]))
        await more()
        for member in group.up():
            await member.stop(crash=True)
        for member in list(group.members.values()):
            await member.start()
        await more()
        stopping.set()
    client = await group.client()
    assert await client.names() == set(created)
    assert len(created) == len(set(created))
    await group.agree()
