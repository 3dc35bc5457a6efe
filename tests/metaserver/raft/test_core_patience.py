"""Processes that were paused: a late look at the clock proves nothing about the others."""

from tidefs.fs.messages.raft import Heartbeat, HeartbeatReply, TimeoutNow
from tidefs.metaserver.raft.contract import Envelope, Role

from .harness import MS, TIMING, Duty, World


def led():
    world = World().start()
    world.elect(1)
    world.run(210 * MS)
    assert not world.network.flying()
    return world


def test_a_follower_that_was_paused_first_hears_what_lies_there():
    world = led()
    world.now_ns += 10 * TIMING.election_min_ns
    world[2].tick()
    assert world[2].core.role is Role.FOLLOWER
    assert world[2].core.leader == 1
    assert world[2].core.deadline_ns == world.now_ns + TIMING.heartbeat_ns
    world.now_ns = world[2].core.deadline_ns
    world[2].tick()
    assert world[2].core.role is Role.PRE_CANDIDATE


def test_it_is_forgiven_once():
    """A process that is always late must stand for election some day."""
    world = led()
    for _ in range(2):
        world.now_ns += 10 * TIMING.election_min_ns
        world[2].tick()
    assert world[2].core.role is Role.PRE_CANDIDATE


def test_a_leader_that_was_paused_asks_once_more():
    world = led()
    world.now_ns += 10 * TIMING.election_min_ns
    world[1].tick()
    assert world[1].leads
    assert not world[1].lease_holds
    world.settle()
    world.run(TIMING.election_min_ns)
    assert world[1].leads
    assert world[1].lease_holds


def test_it_steps_down_when_nobody_answers_then():
    world = led()
    world.isolate(1)
    for _ in range(2):
        world.now_ns += 10 * TIMING.election_min_ns
        world[1].tick()
    assert not world[1].leads


def test_a_leader_that_is_cut_off_steps_down_within_the_shortest_time_out():
    world = led()
    heard_ns = min(known.heard_ns for known in world[1].core.progress().values())
    world.isolate(1)
    world.run(heard_ns + TIMING.election_min_ns - world.now_ns)
    assert not world[1].leads


def test_all_that_were_paused_together_need_no_election():
    """A machine that slept with all of its members."""
    world = led()
    world.now_ns += 3_600_000 * MS
    world.run(1_000 * MS)
    assert world[1].leads
    assert [world[server].core.elections for server in (1, 2, 3)] == [1, 0, 0]


def test_votes_that_come_before_the_own_one_is_noted_wait_for_it():
    """The candidate's disk has its vote, but the driver has not come back to say so."""
    world = World().start()
    world.now_ns = world.due_ns(world[1])
    world[1].tick()
    world.deliver_all()
    world[1].held = True
    world.deliver_all()
    while world[1].duty is not Duty.MESSAGES:
        world[1].do_duty()
    world.deliver_all(1)
    world.deliver_all(2, 1)
    world.deliver_all(3, 1)
    assert world[1].core.role is Role.CANDIDATE
    world[1].held = False
    world[1].work()
    assert world[1].leads


def test_a_leader_of_an_earlier_term_is_not_heard():
    """It learns the term instead (section 5.1)."""
    world = led()
    world.elect(2)
    world.run(20 * MS)
    before_ns = world[3].core.deadline_ns
    world.now_ns += 10 * MS
    world[3].step(Envelope(1, 3, Heartbeat(1, 0, 9)))
    assert world[3].core.deadline_ns == before_ns
    answer = HeartbeatReply(2, 9, world[3].core.next_index - 1)
    assert [packet.envelope.message for packet in world.network.flying(3, 1)] == [answer]


def test_what_is_decided_while_the_disk_works_waits_for_the_next_time():
    """Only the hard state of the Ready that was done is on the disk, not the present one."""
    world = led()
    world[3].held = True
    world[1].propose(b"x")
    world.deliver_all(1, 3)
    world[3].do_duty()
    world[3].step(Envelope(1, 3, TimeoutNow(1)))
    assert world[3].core.term == 2
    while not world[3].at_rest:
        world[3].do_duty()
    assert world[3].disk.hard_state == (1, 1)
    assert world[3].core.role is Role.CANDIDATE
    world[3].held = False
    world[3].work()  # the harness sees that no vote is asked for before it is stored
    assert world[3].disk.hard_state == (2, 3)
    world.settle()
    assert world[3].leads
