"""Real members on real connections: consensus, connections and snapshots, with nothing around."""

import pytest
import trio
from tidefs.metaserver import snapshots
from tidefs.metaserver.raft.contract import Role
from tidefs.tests.metaserver.members import place, until
from tidefs.tests.metaserver.real_members import Member, agree, fill, leader_of, started

PIECE_BYTES = 16 * 1024


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(snapshots, "SNAPSHOT_PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(snapshots, "SNAPSHOT_LOOK_MS", 10)


@pytest.fixture
async def group(tmp_path, nursery):
    """Three members; none of them runs."""
    places = [place(n, f"unix:{tmp_path}/{n}.sock") for n in (1, 2, 3)]
    return [Member(one.server, one.addresses[0], places, nursery) for one in places]


async def test_three_members_agree(group):
    leader = await started(*group)
    await fill(leader, 50)
    await agree(*group)
    assert all(len(member.names) == 50 for member in group)


async def test_a_member_that_was_away_gets_what_it_missed(group):
    *two, third = group
    leader = await started(*two)
    await fill(leader, 300)
    await third.start()
    await agree(*group)
    await third.stop()
    await fill(leader, 10, "later")
    await third.start()
    await agree(*group)
    assert third.pieces == 0


async def test_a_member_that_fell_behind_the_log_gets_a_snapshot_while_the_work_goes_on(
    group, nursery
):
    *two, third = group
    leader = await started(*two)
    await third.start()
    await fill(leader, 10)
    await agree(*group)
    await third.stop()
    await fill(leader, 100, "missed", size_bytes=3000)
    await leader.make_checkpoint()
    nursery.start_soon(fill, leader, 200, "meanwhile")
    await third.start()
    await until(lambda: third.driver.oplog.first_index > 1)
    assert third.pieces > 10
    await until(lambda: b"meanwhile199" in leader.names)
    await agree(*group)
    assert len(third.names) == 310


async def test_a_snapshot_survives_restarts_of_the_receiver(group):
    """It is killed again and again on the way, and every time goes on where it was."""
    *two, third = group
    leader = await started(*two)
    await fill(leader, 150, size_bytes=8000)
    await leader.make_checkpoint()
    total = (await leader.checkpoints.found())[0].manifest.length // PIECE_BYTES + 1
    lives = 0
    while third.pieces + 10 < total:
        lives += 1
        goal = min(third.pieces + 20, total - 5)
        await third.start()
        await until(lambda goal=goal: third.pieces >= goal)
        await third.stop()
    await third.start()
    await agree(*group)
    assert lives >= 2, "it was killed on the way"
    assert third.pieces < total + 8 * (lives + 1)


async def test_a_leader_that_dies_in_the_middle_of_a_snapshot_is_followed_by_the_next(group):
    *two, third = group
    leader = await started(*two)
    await fill(leader, 150, size_bytes=8000)
    await agree(*two)
    for member in two:
        await member.make_checkpoint()
    await third.start()
    await until(lambda: third.pieces > 20)
    await leader.stop()
    (other,) = [member for member in two if member is not leader]
    # A vote needs no snapshot; the first record of the new leader does, to be committed.
    assert await leader_of(other, third) is other
    await agree(other, third)
    await fill(other, 5, "more")
    await leader.start()
    await agree(*group)


async def test_one_joins_knowing_nobody_and_becomes_a_voter(tmp_path, nursery):
    one = Member(1, f"unix:{tmp_path}/1", [place(1, f"unix:{tmp_path}/1")], nursery)
    joining = [Member(n, f"unix:{tmp_path}/{n}", [], nursery) for n in (2, 3)]
    await started(one)
    await fill(one, 100, size_bytes=1000)
    await one.make_checkpoint()
    for member in joining:
        await member.start()
        assert member.driver.core.role is Role.LEARNER
    places = [member.place for member in (one, *joining)]
    with trio.fail_after(30):
        await one.driver.change_members([1], [2, 3], places)
        await agree(one, *joining)
        assert all(member.pieces for member in joining)
        await one.driver.change_members([1, 2, 3], [], places)
    await agree(one, *joining)
    await until(lambda: sorted(joining[1].group.connected()) == [1, 2])
    with trio.fail_after(30):
        await one.driver.transfer(3)
        await fill(await leader_of(joining[1]), 5, "new")
    await agree(one, *joining)


async def test_the_records_leave_before_the_leader_has_them_on_its_disk(group):
    """Raft's thesis, section 10.2.1: the disks of leader and followers work at the same time."""
    leader = await started(*group)
    await fill(leader, 1)
    await agree(*group)
    followers = [member for member in group if member is not leader]
    last_index = leader.last_index + 1
    leader.disk.sync_gate = trio.Event()
    async with trio.open_nursery() as filling:
        filling.start_soon(fill, leader, 1, "early")
        await until(lambda: all(f.last_index == last_index for f in followers))
        assert b"early0" not in leader.names
        leader.disk.sync_gate.set()
    await agree(*group)
