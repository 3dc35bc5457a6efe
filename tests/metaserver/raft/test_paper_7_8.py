"""Raft, extended version, sections 7 and 8; thesis 3.10, 6.2, 6.4 and 9.6: a test each."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.raft import (
    Append,
    AskReadIndex,
    Heartbeat,
    ReadIndex,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from tidefs.metaserver.raft.contract import Envelope, HardState, Kind, Role

from .fake_log import Checkpoint
from .harness import MS, TIMING, Read, World, founding
from .test_paper_5_elections import impatient, said, with_logs
from .test_paper_5_logs import append, bodies, led, terms
from .test_paper_6_members import catch_up, exchange, grown


def lease_ends(server):
    """Its clock has come to the end of the lease."""
    server.world.now_ns += max(0, server.running.lease_until_ns - server.now_ns)
    assert not server.lease_holds


def behind(world, server):
    """This one misses records that the leader's log does not have any more."""
    world.isolate(server)
    world[1].propose(b"a", b"b", b"c")
    world.settle()
    world[1].compact(world[1].applied_index)
    world.heal()
    world.run(3 * TIMING.heartbeat_ns)


# --- 7


def test_a_checkpoint_stands_for_the_log_before_it():
    """7: each server drops the prefix by itself, and goes on, also after a restart."""
    world = led()
    world[1].propose(b"a", b"b")
    world.settle()
    world.run(2 * TIMING.heartbeat_ns)
    for server in world.up():
        server.compact(server.applied_index)
        assert not server.disk.records
    world[1].propose(b"c")
    world.run(2 * TIMING.heartbeat_ns)
    assert {tuple(bodies(server)) for server in world.up()} == {(b"a", b"b", b"c")}
    for server in world.up():
        server.crash()
        server.start()
    world.run(3_000 * MS)
    world.leader().propose(b"d")
    world.run(200 * MS)
    assert bodies(world[2]) == [b"a", b"b", b"c", b"d"]


def test_the_consistency_check_works_for_the_first_record_behind_a_checkpoint():
    """7: index and term of the last record that it stands for are kept."""
    world = led()
    world[1].propose(b"a")
    world.settle()
    world.run(2 * TIMING.heartbeat_ns)
    last, term = world[2].disk.last_index, world[2].disk.term_at(world[2].disk.last_index)
    world[2].compact(last)
    append(world, 2, term, (last, term), [term])
    assert world[2].disk.last_index == last + 1


def test_the_configuration_is_part_of_a_checkpoint():
    """7: the latest one as of its last record; its own record may be gone."""
    world = grown(4)
    catch_up(world, 4)
    world[4].compact(world[4].applied_index)
    world[4].crash()
    world[4].start()
    assert world[4].running.configuration.learners == [4]
    assert world[4].running.configuration.voters == [1, 2, 3]


def test_who_needs_what_is_not_in_the_log_any_more_needs_a_snapshot():
    """7: the leader finds out, and does not wait for it."""
    world = led()
    behind(world, 3)
    assert world[1].running.progress()[3].needs_snapshot
    assert not world[1].running.progress()[2].needs_snapshot
    world[1].propose(b"d")
    world.settle()
    assert bodies(world[1])[-1] == b"d"


def test_after_the_snapshot_the_log_goes_on_behind_it():
    """7: and what came meanwhile is sent as always."""
    world = led()
    behind(world, 3)
    checkpoint = world[1].disk.checkpoint
    world[1].propose(b"d")
    world.settle()
    assert world[3].install(checkpoint)
    world.run(3 * TIMING.heartbeat_ns)
    assert bodies(world[3]) == [b"a", b"b", b"c", b"d"]
    assert not world[1].running.progress()[3].needs_snapshot
    world[3].crash()
    world[3].start()
    world.run(3 * TIMING.heartbeat_ns)
    assert bodies(world[3]) == [b"a", b"b", b"c", b"d"]


def test_a_snapshot_replaces_a_log_that_contradicts_it():
    """7: what is there of other leaders goes."""
    world = with_logs([1, 1, 1], [1, 1, 1], [1, 2, 2, 2, 2, 2, 2, 2])
    world.isolate(3)
    world.elect(1)
    world.settle()
    world[1].compact(world[1].applied_index)
    assert world[3].install(world[1].disk.checkpoint)
    assert world[3].applied == world[1].applied
    assert not world[3].disk.records


def test_a_snapshot_that_brings_nothing_new_changes_nothing():
    """7: it may come twice, or late; what is behind its last record stays, it was promised."""
    world = led()
    world[1].propose(b"a", b"b")
    world.settle()
    world[1].compact(3)
    world[1].propose(b"c")
    world.settle()
    before = list(world[2].disk.records)
    assert not world[2].install(world[1].disk.checkpoint)
    assert world[2].disk.records == before


def test_a_member_that_waits_for_a_snapshot_and_finds_the_log_elsewhere_needs_none():
    """7: another one who leads may still have it all."""
    world = led()
    behind(world, 3)
    world[1].crash()
    world.run(2_000 * MS)
    assert world.leader().server == 2
    assert bodies(world[3]) == [b"a", b"b", b"c"]


def test_a_joining_server_learns_its_group_from_a_snapshot():
    """7: the configuration is in it."""
    world = grown(4)
    world[1].propose(b"a")
    world.settle()
    world[1].compact(world[1].applied_index)
    catch_up(world, 4)
    assert world[1].running.progress()[4].needs_snapshot
    world[1].compact(world[1].applied_index)
    assert world[4].install(world[1].disk.checkpoint)
    assert world[4].running.configuration.learners == [4]
    world[1].propose(b"b")
    world.run(3 * TIMING.heartbeat_ns)
    assert bodies(world[4]) == [b"a", b"b"]


# --- 8


def test_a_new_leader_begins_with_a_record_of_its_own_term():
    """8: a leader does not know what is committed until one of its own is; a record that does
    nothing finds out."""
    world = led()
    assert world[1].disk.records[0].kind is Kind.NOOP
    world.isolate(1)
    world.run(2_000 * MS)
    leader = world.leader()
    assert leader.server != 1
    own = [record for record in leader.disk.records if record.term == leader.running.term]
    assert own[0].kind is Kind.NOOP
    assert leader.running.commit_index >= own[0].index


def test_the_founding_configuration_is_logged_behind_it_once():
    """Section 7 needs it in the state; it comes to be there through the log."""
    world = led()
    assert [record.kind for record in world[1].disk.records] == [Kind.NOOP, Kind.MEMBERS]
    assert world[1].configuration == founding((1, 2, 3))
    world.isolate(1)
    world.run(2_000 * MS)
    assert [record.kind for record in world.leader().disk.records].count(Kind.MEMBERS) == 1


def test_a_leader_that_was_deposed_answers_no_read():
    """8 and thesis 6.4: another one may have committed more; it asks a majority first."""
    world = led()
    world.isolate(1)
    lease_ends(world[1])
    world[1].read(7)
    world.run(3_000 * MS)
    assert world.leader().server != 1
    world.leader().propose(b"x")
    world.heal()
    world.run(1_000 * MS)
    assert world[1].reads == [Read(7, None)]


# --- thesis 6.4: ReadIndex


def test_a_read_waits_for_a_round_of_heartbeats_that_began_after_it():
    """Thesis 6.4, step 3: answers to earlier rounds prove nothing."""
    world = led()
    world.now_ns = world.due_ns(world[1])
    world[1].tick()
    world.deliver_all(sender=1)
    before = world.network.flying(receiver=1)
    world.now_ns += TIMING.election_min_ns
    world[1].read_index(7)
    for packet in before:
        world.deliver(packet)
    assert not world[1].lease_holds
    assert world[1].reads == []
    world.settle()
    assert world[1].reads == [Read(7, world[1].running.commit_index)]


def test_many_reads_share_a_round():
    """Thesis 6.4: one round answers all that came before it."""
    world = led()
    lease_ends(world[1])
    before = world.monitor.happened["Heartbeat"]
    world[1].held = True
    for token in range(100):
        world[1].read_index(token)
    world[1].held = False
    world[1].work()
    world.settle()
    assert len(world[1].reads) == 100
    assert world.monitor.happened["Heartbeat"] - before <= 4


def test_a_read_waits_until_enough_is_applied():
    """Thesis 6.4, step 4: the state may be behind what is committed."""
    world = led()
    world.isolate(3)
    world[1].propose(b"x")
    world.settle()
    world.heal()
    committed = world[1].running.commit_index
    assert world[3].applied_index < committed
    world[3].read(7)
    world.settle()
    world.run(2 * TIMING.heartbeat_ns)
    assert world[3].reads == [Read(7, committed)]
    assert world[3].applied_index >= committed


def test_a_leader_that_has_committed_nothing_yet_answers_no_read():
    """Thesis 6.4, step 1: it has all that is committed, but does not know which that is."""
    world = led()
    world[1].propose(b"x")
    world.deliver_all(1, 2)
    world[1].crash()
    world.network.drop_all()
    impatient(world, 2)
    for _ in range(2):
        world.deliver_all(2, 3)
        world.deliver_all(3, 2)
    assert world[2].leads
    world[2].read(7)
    for packet in world.network.flying(2, 3):
        if isinstance(packet.envelope.message, Heartbeat):
            world.deliver(packet)
    world.deliver_all(3, 2)
    assert world[2].reads == []
    world.run(500 * MS)
    assert world[2].reads[0].read_index >= 3


def test_followers_ask_the_leader():
    """Thesis 6.4, end: it finds out as for itself, and answers with the index."""
    world = led()
    lease_ends(world[1])
    world[2].read(7)
    assert said(world, 2, 1, AskReadIndex)
    world.deliver_all(2, 1)
    assert not said(world, 1, 2, ReadIndex)
    world.settle()
    assert world[2].reads == [Read(7, world[1].running.commit_index)]


def test_a_question_that_is_lost_is_asked_again_or_given_up():
    """Liveness: nobody waits for ever."""
    world = led()
    world[2].read(7)
    world.network.drop_all()
    world.run(1_000 * MS)
    assert [read.token for read in world[2].reads] == [7]


def test_who_knows_no_leader_says_so():
    """Then the caller asks somebody else."""
    world = World().start()
    world[2].read(7)
    assert world[2].reads == [Read(7, None)]


# --- thesis 6.4.1: leases


def test_a_lease_counts_from_when_the_round_began():
    """Thesis 6.4.1: not from when the answers came; followers count from when they heard."""
    world = led()
    began_ns = world.now_ns = world.due_ns(world[1])
    world[1].tick()
    world.now_ns += 40 * MS
    world.settle()
    until_ns = world[1].running.lease_until_ns
    assert began_ns < until_ns < began_ns + TIMING.election_min_ns


def test_a_lease_is_shorter_than_a_time_out_by_what_clocks_may_differ():
    """Thesis 6.4.1: by the allowance for drift."""
    world = led()
    world.run(1_000 * MS)
    began_ns = world.now_ns = world.due_ns(world[1])
    world[1].tick()
    world.settle()
    longest_ns = TIMING.election_min_ns * (TIMING.drift_parts - 1) // TIMING.drift_parts
    assert world[1].running.lease_until_ns <= began_ns + longest_ns - TIMING.drift_ns


def test_a_minority_gives_no_lease():
    """Thesis 6.4.1: a majority must have answered."""
    world = led((1, 2, 3, 4, 5))
    lease_ends(world[1])
    for other in (3, 4, 5):
        world[other].crash()
    world[1].tick()
    world.settle()
    assert not world[1].lease_holds


def test_who_restarts_keeps_the_lease_that_it_gave():
    """Thesis 6.4.1: it does not remember whom it has heard, so it waits."""
    world = led()
    for voter in (2, 3):
        world[voter].crash()
        world[voter].start()
    assert world[1].lease_holds
    world[2].step(Envelope(3, 2, RequestVote(9, 99, 8, False, False)))
    assert not any(reply.granted for reply in said(world, 2, 3, VoteReply))


@pytest.mark.parametrize("fast", [2, 3])
def test_nobody_else_leads_while_the_lease_holds(fast):
    """Thesis 6.4.1: with clocks as different as they may be."""
    world = World()
    widest = 1_000_000 // TIMING.drift_parts // 2 - 1
    world[1].clock_parts = -widest
    world[fast].clock_parts = widest
    world.start()
    world.elect(1)
    world.run(5_000 * MS)
    assert world[1].leads
    world.isolate(1)
    while world[1].lease_holds:
        assert world.leader() is world[1]
        world.run(1 * MS)
    assert world.run(2_000 * MS, lambda: world.leader() is not world[1])


# --- thesis 3.10: handing over


def test_the_target_gets_all_records_before_it_is_told_to_stand():
    """Thesis 3.10, step 2."""
    world = led()
    world.isolate(2)
    world[1].propose(b"x")
    world.settle()
    world.heal()
    world[1].transfer(2)
    assert not said(world, 1, 2, TimeoutNow)
    world.run(3 * TIMING.heartbeat_ns)
    assert world[2].leads
    assert bodies(world[2]) == [b"x"]


def test_a_leader_that_hands_over_takes_nothing_new():
    """Thesis 3.10, step 1."""
    world = led()
    world.isolate(2)
    world[1].transfer(2)
    with pytest.raises(TideError) as caught:
        world[1].propose(b"x")
    assert caught.value.code is Code.UNAVAILABLE
    assert not world[1].lease_holds


def test_the_target_stands_at_once_and_the_others_vote_for_it():
    """Thesis 3.10, step 3, and 4.2.3: without waiting, though all have just heard a leader."""
    world = led()
    world[1].transfer(2)
    began_ns = world.now_ns
    world.settle()
    assert world[2].leads
    assert world.now_ns == began_ns
    assert world[1].running.role is Role.FOLLOWER


def test_a_transfer_that_fails_is_given_up():
    """Thesis 3.10: then the leader takes proposals again."""
    world = led()
    world.isolate(2)
    world[1].transfer(2)
    world.run(4 * TIMING.election_min_ns)
    assert world[1].leads
    world[1].propose(b"x")
    world.settle()
    assert bodies(world[1]) == [b"x"]


@pytest.mark.parametrize("target", [1, 4, 9])
def test_only_another_voter_can_be_handed_the_leadership(target):
    """Not itself, a learner, a stranger."""
    world = grown(4)
    catch_up(world, 4)
    with pytest.raises(TideError) as caught:
        world[1].transfer(target)
    assert caught.value.code is Code.INVALID


def test_a_request_to_stand_that_comes_late_breaks_no_lease():
    """Thesis 3.10 and 6.4.1 together: votes for a transfer ignore leases, so a leader that has once
    asked for one must not trust its own any more."""
    world = led()
    world[1].transfer(2)
    (late,) = [p for p in world.network.flying(1, 2) if isinstance(p.envelope.message, TimeoutNow)]
    world.network.take(late)
    world.network.cut = {(1, 2)}
    world.run(4 * TIMING.election_min_ns)
    world.heal()
    world[1].propose(b"it goes on leading")
    world.run(2 * TIMING.heartbeat_ns)
    world.network.cut = {(2, 1)}
    world[2].step(late.envelope)
    world.settle()  # the monitor looks at the leases
    assert world[2].leads
    assert world[1].leads


# --- thesis 6.2 and 9.6


def test_a_leader_that_hears_no_majority_steps_down():
    """Thesis 6.2: within an election time-out, so that clients look elsewhere."""
    world = led()
    world.isolate(1)
    world.run(TIMING.election_min_ns + 2 * TIMING.heartbeat_ns)
    assert not world[1].leads
    assert world[1].running.leader == 0


def test_a_leader_that_hears_a_majority_goes_on():
    """Thesis 6.2: any majority."""
    world = led((1, 2, 3, 4, 5))
    for other in (4, 5):
        world[other].crash()
    world.run(5_000 * MS)
    assert world[1].leads


def test_a_pre_vote_changes_nothing_on_any_disk():
    """Thesis 9.6: neither a term nor a vote, at who asks and at who is asked."""
    world = World().start()
    world.now_ns = world.due_ns(world[1])
    world[1].tick()
    assert world[1].running.role is Role.PRE_CANDIDATE
    world.deliver_all(1, 2)
    (reply,) = said(world, 2, 1, VoteReply)
    assert reply.pre
    assert reply.granted
    assert {server.disk.hard_state for server in world.up()} == {HardState(0, 0)}


def test_who_was_cut_off_does_not_raise_the_term():
    """Thesis 9.6: it asks before, and nobody would elect it."""
    world = led()
    term = world[1].running.term
    world.isolate(3)
    world.run(20_000 * MS)
    assert world[3].running.term == term
    world.heal()
    world.run(1_000 * MS)
    assert world[1].leads
    assert world[1].running.term == term


def test_one_that_hears_the_leader_refuses_a_pre_vote():
    """Thesis 9.6: one broken link does not depose a leader."""
    world = led()
    world.network.cut = {(1, 3)}
    world.run(20_000 * MS)
    assert world[1].leads
    assert world[1].running.term == 1


def test_one_broken_link_does_not_keep_the_group_from_having_a_leader():
    """Thesis 9.6 and 6.2: the leader cannot reach one, the others are a majority with it."""
    world = led()
    world.network.cut = {(1, 3), (3, 1)}
    world.run(20_000 * MS)
    leader = world.leader()
    leader.propose(b"x")
    world.run(500 * MS)
    assert b"x" in bodies(leader)


# --- full disks (contract.py: abandon)


def test_a_follower_without_room_promises_nothing():
    """It hears of it again; the others go on."""
    world = led()
    world[2].disk.full = True
    world[1].propose(b"x")
    world.settle()
    world.run(200 * MS)
    assert bodies(world[1]) == bodies(world[3]) == [b"x"]
    world[2].disk.full = False
    world.run(1_000 * MS)
    assert bodies(world[2]) == [b"x"]


def test_a_leader_without_room_lets_another_one_lead():
    """Its records may be on other disks: it must not forget that it sent them."""
    world = led()
    world[1].disk.full = True
    world[1].propose(b"x")
    world.run(1_000 * MS)
    leader = world.leader()
    assert leader.server != 1
    leader.propose(b"y")
    world.run(200 * MS)
    world[1].disk.full = False
    world.run(1_000 * MS)
    assert bodies(world[1]) == bodies(leader)
    assert bodies(leader)[-1] == b"y"


def test_a_group_of_one_without_room_forgets_what_it_could_not_log():
    """Nobody else has seen it."""
    world = World((1,)).start()
    assert world[1].leads
    world[1].propose(b"x")
    world[1].disk.full = True
    world[1].propose(b"y")
    world[1].disk.full = False
    world[1].propose(b"z")
    assert bodies(world[1]) == [b"x", b"z"]
    assert terms(world[1]) == [world[1].running.term] * len(world[1].disk.records)


def test_a_follower_that_took_a_snapshot_before_a_crash_has_it_afterwards():
    """Contract: restored, then everything as from the start."""
    world = led()
    behind(world, 3)
    world[3].install(world[1].disk.checkpoint)
    world[3].crash()
    assert isinstance(world[3].disk.checkpoint, Checkpoint)
    world[3].start()
    assert bodies(world[3]) == [b"a", b"b", b"c"]
    exchange(world, 1, 3)


def test_appends_are_sent_in_a_row_without_waiting():
    """Thesis 10.2.1, pipelining."""
    world = led()
    for number in range(10):
        world[1].propose(b"%d" % number)
    assert len(said(world, 1, 2, Append)) == 10
    world.settle()
    assert len(bodies(world[1])) == 10
