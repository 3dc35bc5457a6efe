"""The lease and ReadIndex where time, losses and restarts are against them."""

import pytest
from tidefs.fs.messages.raft import (
    AskReadIndex,
    Heartbeat,
    ReadIndex,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from tidefs.metaserver.raft.contract import Envelope, Role
from tidefs.metaserver.raft.reads import LeaderReads, Rounds, lease_ns

from .harness import MS, TIMING, Read, World

LEASE_NS = lease_ns(TIMING)


def led():
    world = World().start()
    world.elect(1)
    world.run(210 * MS)
    assert not world.network.flying()
    return world


# --- the lease


def test_a_lease_is_shorter_than_the_patience_of_voters_by_any_clock():
    slowest_ns = TIMING.election_min_ns * (TIMING.drift_parts - 1) // TIMING.drift_parts
    assert 0 < LEASE_NS == slowest_ns - TIMING.drift_ns


def test_a_lease_counts_from_the_beginning_of_a_round():
    world = led()
    world.now_ns = world[1].core.deadline_ns
    began_ns = world.now_ns
    world[1].tick()
    world.run(40 * MS)
    assert world[1].core.lease_until_ns == began_ns + LEASE_NS


def test_answers_out_of_order_do_not_shorten_a_lease():
    rounds = Rounds()
    for at_ns in (10, 20, 30):
        rounds.begin(at_ns)
    rounds.confirm(2)
    assert rounds.confirmed_ns == 20
    rounds.confirm(1)
    assert rounds.confirmed_ns == 20
    rounds.confirm(3)
    assert rounds.confirmed_ns == 30


def test_no_lease_before_a_record_of_the_own_term_is_committed():
    world = World().start()
    world.now_ns = world.due_ns(world[1])
    world[1].tick()
    while not world[1].leads:
        world.deliver_all()
    assert world[1].core.lease_until_ns == 0
    for packet in world.network.flying(1, 2):
        if isinstance(packet.envelope.message, Heartbeat):
            world.deliver(packet)
    world.deliver_all(2, 1)
    assert world[1].core.lease_until_ns == 0
    world.settle()
    assert world[1].lease_holds


def test_no_lease_while_handing_over_and_none_afterwards_in_that_term():
    """A TimeoutNow may arrive however late, and whoever gets it needs nobody's patience."""
    world = led()
    world[1].transfer(3)
    late = [packet.envelope for packet in world.network.flying(1, 3)]
    assert [type(envelope.message) for envelope in late] == [TimeoutNow]
    world.isolate(3)
    assert world[1].core.lease_until_ns == 0
    world.run(3 * TIMING.election_min_ns)
    assert world[1].leads
    assert world[1].core.lease_until_ns == 0
    world[1].read(7)
    world.settle()
    assert world[1].reads == [Read(7, 2)]
    world.heal()
    world[3].step(late[0])
    world.settle()
    assert world[3].leads


def test_a_handing_over_that_never_was_told_costs_no_lease():
    world = led()
    world.isolate(3)
    world[1].propose(b"what 3 lacks")
    world[1].transfer(3)
    assert world[1].core.lease_until_ns == 0
    world.run(2 * TIMING.election_min_ns + 100 * MS)
    assert world[1].leads
    assert world[1].lease_holds
    world[1].propose(b"goes on")


@pytest.mark.parametrize("restarted", [True, False])
def test_who_keeps_a_lease_alive_gives_no_vote(restarted):
    """Not even after a restart, not even in a term that it has heard of already."""
    world = led()
    if restarted:
        world[2].crash()
        world[2].start()
    ask = RequestVote(world[2].core.term + 1, 99, 1, False, False)
    world[2].step(Envelope(3, 2, ask))
    # Now it learns of that term in another way.
    world[2].step(Envelope(3, 2, AskReadIndex(ask.term, 1)))
    assert world[2].core.term == ask.term
    world[2].step(Envelope(3, 2, ask))
    said = [packet.envelope.message for packet in world.network.flying(2, 3)]
    assert not any(isinstance(message, VoteReply) and message.granted for message in said)


# --- a leader's reads


def test_one_round_at_a_time_for_all_reads_that_wait():
    reads = LeaderReads()
    for number in range(3):
        reads.add((1, number))
    assert reads.want_round
    reads.bind(1, 10)
    reads.add((1, 9))
    assert not reads.want_round
    assert [answer.read_index for answer in reads.confirmed(1)] == [10, 10, 10]
    assert reads.want_round


def test_reads_are_answered_in_words_when_the_leader_steps_down():
    world = led()
    world.isolate(1)
    world.wait(LEASE_NS - 20 * MS)
    world[1].read(5)
    world.now_ns += 20 * MS
    world[1].read_index(7)
    world.run(TIMING.election_min_ns + 100 * MS)
    assert not world[1].leads
    assert Read(7, None) in world[1].reads


# --- a follower's reads


def test_a_follower_reads_what_is_committed_without_waiting_for_a_heartbeat():
    world = led()
    before_ns = world.now_ns
    world[1].propose(b"x")
    world.settle()
    assert world[3].core.commit_index < world[1].core.commit_index
    world[3].read(7)
    world.settle()
    assert world.now_ns == before_ns
    assert world[3].reads == [Read(7, world[1].core.commit_index)]


@pytest.mark.parametrize("lost", [AskReadIndex, ReadIndex])
def test_a_lost_question_or_answer_is_repeated(lost):
    world = led()
    world[3].read(7)
    if lost is ReadIndex:
        world.deliver_all(3, 1)
    for packet in world.network.flying():
        if isinstance(packet.envelope.message, lost):
            packet.gone = True
    world.run(3 * TIMING.heartbeat_ns)
    assert world[3].reads == [Read(7, 2)]


def test_a_question_that_nobody_answers_ends():
    world = led()
    world.network.cut.add((3, 1))
    world[3].read(7)
    world.run(TIMING.election_min_ns + 10 * MS)
    assert world[3].reads == [Read(7, None)]


def test_without_a_leader_a_read_is_refused_at_once():
    world = World().start()
    world[2].read(7)
    assert world[2].reads == [Read(7, None)]


def test_who_asks_one_that_does_not_lead_is_told_so():
    world = led()
    world[2].step(Envelope(3, 2, AskReadIndex(1, 5)))
    assert [packet.envelope.message for packet in world.network.flying(2, 3)] == [
        ReadIndex(1, 5, -1)
    ]


def test_a_question_from_before_a_restart_is_not_answered_after_it():
    """The answer may be older than the read."""
    world = led()
    world[3].read(7)
    world.deliver_all(3, 1)
    late = [packet.envelope for packet in world.network.flying(1, 3)]
    world[3].crash()
    world[3].start()
    world.run(60 * MS)
    world.network.drop_all()
    world[3].read(8)
    for envelope in late:
        world[3].step(envelope)
    assert world[3].reads == []


def test_a_joining_member_knows_its_leader_and_forgets_it():
    world = led()
    world.add(4).start()
    world[1].change((1, 2, 3), (4,))
    world.run(200 * MS)
    assert (world[4].core.leader, world[4].core.role) == (1, Role.LEARNER)
    world[4].read(7)
    world.settle()
    assert world[4].reads == [Read(7, world[1].core.commit_index)]
    world.isolate(4)
    world.run(3 * TIMING.election_min_ns)
    assert (world[4].core.leader, world[4].core.elections) == (0, 0)
    assert world[4].core.deadline_ns is None


def test_timeout_now_of_an_earlier_term_is_late():
    world = led()
    world.elect(2)
    before = world[3].core.term
    world[3].step(Envelope(1, 3, TimeoutNow(1)))
    assert (world[3].core.term, world[3].core.role) == (before, Role.FOLLOWER)
