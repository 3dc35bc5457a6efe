"""A Ready that finds no room: what is forgotten, what is not said, and who leads then."""

import pytest
from tidefs.fs.messages.raft import Append, AppendReply, TimeoutNow, VoteReply
from tidefs.metaserver.raft.contract import Envelope, Record

from .harness import MS, TIMING, World


def led():
    world = World().start()
    world.elect(1)
    world.run(210 * MS)
    assert not world.network.flying()
    return world


def said(world, sender, receiver):
    return [packet.envelope.message for packet in world.network.flying(sender, receiver)]


def test_a_leader_hands_over_and_forgets():
    world = led()
    world[1].disk.full = True
    world[1].propose(b"x")
    assert not world[1].leads
    assert world[1].core.next_index == 3
    assert any(isinstance(message, TimeoutNow) for message in said(world, 1, 2))
    world.settle()
    leader = world.leader()
    assert leader is not None
    assert leader.server == 2
    # It was sent before the disk was asked, so it is not lost.
    assert [record.body for record in leader.disk.records].count(b"x") == 1


def test_it_does_not_stand_for_two_of_the_longest_time_outs():
    world = led()
    world[1].disk.full = True
    began_ns = world.now_ns
    world[1].propose(b"x")
    world[1].disk.full = False
    world.isolate(1)
    assert world[1].core.deadline_ns >= began_ns + 4 * TIMING.election_min_ns
    elections = world[1].core.elections
    world.run(4 * TIMING.election_min_ns - 10 * MS)
    assert world[1].core.elections == elections
    # Not even when it is asked to.
    world[1].step(Envelope(2, 1, TimeoutNow(world[1].core.term)))
    assert world[1].core.elections == elections


def test_but_it_votes():
    world = led()
    world[1].disk.full = True
    world[1].propose(b"x")
    world.isolate(3)
    world.settle()
    assert world[2].leads


def test_a_follower_forgets_and_says_nothing():
    world = led()
    world[3].disk.full = True
    world[1].propose(b"x")
    world.settle()
    assert world[1].core.commit_index == 3
    assert (world[3].core.next_index, world[3].core.leader) == (3, 1)
    assert world[1].core.progress()[3].match_index == 2
    world[3].disk.full = False
    world.run(3 * TIMING.heartbeat_ns)
    assert world[3].core.commit_index == 3


def test_what_came_meanwhile_is_not_promised_either():
    """The records of the Ready that is out have no room, so those behind them have no place."""
    world = led()
    world[3].disk.full = True
    world[3].held = True
    world[1].propose(b"a")
    world.deliver_all(1, 3)
    world[3].do_duty()
    world[1].propose(b"b")
    world.deliver_all(1, 3)
    world.network.drop_all()
    while not world[3].at_rest:
        world[3].do_duty()
    world[3].disk.full = False
    world[3].held = False
    world[3].work()
    assert not [one for one in said(world, 3, 1) if isinstance(one, AppendReply)]
    assert world[3].core.next_index == 3


def test_what_was_committed_must_be_heard_again():
    world = led()
    world.isolate(3)
    world[1].propose(b"x")
    world.settle()
    world.heal()
    world[3].disk.full = True
    commits = Append(1, 2, 1, 3, 1, [])
    world[3].held = True
    world[3].step(Envelope(1, 3, commits, tuple(world[1].disk.records[2:])))
    assert world[3].core.commit_index == 3
    world[3].held = False
    world[3].work()
    assert world[3].core.commit_index == world[3].applied_index == 2


@pytest.mark.parametrize("tears", [True, False])
def test_a_term_that_found_no_room_is_stored_before_it_is_spoken_of(tears):
    """With records that find none; whether the term itself got to the disk or not."""
    world = led()
    world[3].disk.full, world[3].tears = True, tears
    world[3].step(Envelope(2, 3, Append(5, 2, 1, 2, 1, []), (Record(5, 3, b"x"),)))
    assert world[3].disk.hard_state.term == 5
    assert not [one for one in said(world, 3, 2) if isinstance(one, AppendReply)]


def test_reads_of_an_abandoned_ready_are_answered():
    world = led()
    world[1].held = True
    world[1].disk.full = True
    world[1].read(7)
    world[1].core.read(8, world[1].now_ns)
    world.monitor.read_asked(world[1], 8)
    world[1].propose(b"x")
    world[1].held = False
    world[1].work()
    assert {read.token for read in world[1].reads} == {7, 8}


def test_no_vote_is_given_by_a_ready_that_was_abandoned():
    world = led()
    world[3].disk.full, world[3].tears = True, False
    world[3].held = True
    world[3].step(Envelope(1, 3, Append(1, 2, 1, 2, 1, []), (Record(1, 3, b"x"),)))
    # Its vote is in the same Ready as a record that finds no room.
    world[2].core.step(Envelope(1, 2, TimeoutNow(1)), world[2].now_ns)
    world[2].work()
    world.deliver_all(2, 3)
    world[3].held = False
    world[3].work()
    granted = [one for one in said(world, 3, 2) if isinstance(one, VoteReply) and one.granted]
    assert granted == [] or world[3].disk.hard_state == (2, 2)
