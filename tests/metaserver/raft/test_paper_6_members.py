"""Raft, extended version, section 6, and thesis 4.2: one test for each sentence on members."""

import pytest
from tidefs.fs.codec import decode
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.raft import Configuration, Heartbeat, RequestVote, VoteReply
from tidefs.metaserver.raft.contract import Envelope, Kind, Role

from .harness import JOINING, MS, TIMING, World
from .test_paper_5_elections import impatient, patience_over, said
from .test_paper_5_logs import bodies, led


def grown(*spares, voters=(1, 2, 3)):
    """A group that 1 leads, and servers that wait to be asked in."""
    world = World(voters)
    for spare in spares:
        world.add(spare)
    world.start()
    world.elect(1)
    world.run(2 * TIMING.heartbeat_ns)
    world.settle()
    return world


def catch_up(world, *learners):
    """They become learners, and get the log."""
    world[1].change(world[1].running.configuration.voters, learners)
    world.run(3 * TIMING.heartbeat_ns)
    world.settle()


def logged(server):
    """The configurations in its log: (voters, voters before) of each."""
    found = [record for record in server.disk.records if record.kind is Kind.MEMBERS]
    return [
        (one.voters, one.voters_before)
        for one in (decode(Configuration, record.body) for record in found)
    ]


def exchange(world, leader, follower):
    """What the leader has said to it arrives, and its answers."""
    world.deliver_all(leader, follower)
    world.deliver_all(follower, leader)


# --- 6, two phases


def test_a_change_goes_through_a_joint_configuration():
    """6: C_old,new first; when that is committed, C_new; both are records of the log."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    world[1].change((1, 2, 3, 4, 5))
    world.settle()
    assert logged(world[1])[-2:] == [
        ([1, 2, 3, 4, 5], [1, 2, 3]),
        ([1, 2, 3, 4, 5], []),
    ]
    world.run(2 * TIMING.heartbeat_ns)
    assert logged(world[5]) == logged(world[1])


def test_a_configuration_is_in_force_as_soon_as_it_is_in_the_log():
    """6: committed or not, at the leader and at each follower."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    world[1].change((1, 2, 3, 4, 5))
    assert world[1].running.configuration.voters_before == [1, 2, 3]
    assert world[1].running.commit_index < world[1].running.next_index - 1
    world.deliver_all(1, 2)
    assert world[2].running.configuration.voters_before == [1, 2, 3]
    assert world[3].running.configuration.voters_before == []


def test_who_loses_a_configuration_again_goes_back_to_the_one_before():
    """6: a server uses the latest one in its log; when that is replaced, it is another."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    world.isolate(1)
    world[1].change((1, 2, 3, 4, 5))
    assert world[1].running.configuration.voters_before
    world.run(2_000 * MS)
    assert world.leader().server in (2, 3)
    world.heal()
    world.run(2_000 * MS)
    assert world[1].running.configuration.voters == [1, 2, 3]
    assert world[1].running.configuration.voters_before == []


@pytest.mark.parametrize(
    ("answering", "committed"),
    [((2,), False), ((4, 5), False), ((2, 4), True), ((4, 2), True), ((2, 3), False)],
)
def test_while_joint_a_decision_needs_a_majority_of_each(answering, committed):
    """6: of {1, 2, 3}, and of {1, 4, 5}."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    world[1].change((1, 4, 5))
    joint = world[1].running.next_index - 1
    for follower in answering:
        exchange(world, 1, follower)
    assert (world[1].running.commit_index >= joint) is committed


@pytest.mark.parametrize(
    ("granting", "elected"), [((2,), False), ((4, 5), False), ((2, 4), True), ((2, 3), False)]
)
def test_while_joint_an_election_needs_a_majority_of_each(granting, elected):
    """6: the same majorities, for votes."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    world[1].change((1, 4, 5))
    for other in (2, 3, 4, 5):
        world.deliver_all(1, other)
    world.network.drop_all()
    world[1].crash()
    world[1].start()
    impatient(world, 1)
    for kind in (True, False):
        term = world[1].running.term
        for voter in granting:
            world[1].step(Envelope(voter, 1, VoteReply(term + kind, kind, True)))
    assert world[1].leads is elected


def test_any_server_of_either_configuration_may_lead_while_it_is_joint():
    """6: also one that is in the old one alone."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    world[1].change((3, 4, 5))
    for other in (2, 3, 4, 5):
        world.deliver_all(1, other)
    world.network.drop_all()
    world[1].crash()
    impatient(world, 2)
    world.settle()
    world.run(3_000 * MS)
    leader = world.leader()
    assert leader is not None
    assert leader.running.configuration.voters == [3, 4, 5]
    assert leader.running.configuration.voters_before == []


def test_a_new_leader_ends_the_change_that_it_finds():
    """6: with C_old,new committed, it is C_new that comes next, whoever leads."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    world[1].change((1, 2, 3, 4, 5))
    for other in (2, 3, 4, 5):
        world.deliver_all(1, other)
    world.network.drop_all()
    world[1].crash()
    world.run(3_000 * MS)
    assert logged(world.leader())[-1] == ([1, 2, 3, 4, 5], [])


def test_neither_can_decide_alone():
    """6, Figure 10: at no time are there two majorities that do not share a server."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    world.partition((1, 2, 3), (4, 5))
    world[1].change((1, 4, 5))
    world[1].propose(b"x")
    world.run(2_000 * MS)
    assert b"x" not in bodies(world[1])
    world.heal()
    world.run(3_000 * MS)
    leader = world.leader()
    assert leader.running.configuration.voters == [1, 4, 5]
    assert leader.running.configuration.voters_before == []


# --- 6, three more issues


def test_new_servers_come_without_a_vote_first():
    """6 and thesis 4.2.1: they get the log, and nobody waits for them."""
    world = grown(4, 5)
    world[1].propose(b"x")
    world.settle()
    world.isolate(5)
    world[1].change((1, 2, 3), (4, 5))
    world[1].propose(b"y")
    world.run(3 * TIMING.heartbeat_ns)
    assert bodies(world[1]) == bodies(world[4]) == [b"x", b"y"]
    assert bodies(world[5]) == []
    assert world[4].running.role is Role.LEARNER


def test_a_learner_never_stands_and_its_reply_counts_for_nothing():
    """Thesis 4.2.1: neither for a leader nor for a record."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    for voter in (2, 3):
        world[voter].crash()
    world[1].propose(b"x")
    world.settle()
    assert bodies(world[1]) == []
    world[1].crash()
    elections = [world[server].running.elections for server in (4, 5)]
    world.run(5_000 * MS)
    assert [world[server].running.elections for server in (4, 5)] == elections
    assert world.leader() is None


def test_a_server_without_a_group_never_stands_and_never_votes():
    """Joining: it does not know yet to whom it belongs."""
    world = World()
    world.add(4, JOINING)
    world.start()
    patience_over(world)
    world[4].step(Envelope(1, 4, RequestVote(1, 0, 0, False, False)))
    assert not any(reply.granted for reply in said(world, 4, 1, VoteReply))
    world.run(5_000 * MS)
    assert world[4].running.elections == 0


def test_a_leader_that_leaves_leads_until_that_is_committed():
    """6: it manages a group that does not have it, and does not count itself for a majority."""
    world = grown(4)
    catch_up(world, 4)
    world[1].change((2, 3, 4))
    for other in (2, 3):
        exchange(world, 1, other)
    assert logged(world[1])[-1] == ([2, 3, 4], [])
    last = world[1].running.next_index - 1
    assert world[1].leads
    exchange(world, 1, 2)
    assert world[1].leads
    assert world[1].running.commit_index < last
    exchange(world, 1, 3)
    assert not world[1].leads
    assert world[1].running.commit_index == last
    world.run(3_000 * MS)
    assert world.leader().server in (2, 3, 4)
    assert world[1].running.role is Role.LEARNER


def test_who_was_removed_stands_until_that_is_committed():
    """Thesis 4.2.2: 4 alone is the new group, and does not have the record that says so; only who
    has it, and is not in the group any more, can bring it there."""
    world = grown(4)
    catch_up(world, 4)
    world[1].change((4,))
    for other in (4, 2):
        exchange(world, 1, other)
    world.network.drop_all(1, 4)
    world.deliver_all(1, 2)
    world[1].crash()
    assert logged(world[2])[-1] == ([4], [])
    assert logged(world[4])[-1] == ([4], [1, 2, 3])
    assert world.run(5_000 * MS, lambda: world[4].leads)
    assert logged(world[4])[-1] == ([4], [])


def test_a_removed_server_does_not_disturb():
    """6 and thesis 4.2.3: who hears from a leader ignores who asks for a vote, and its term."""
    world = grown(4)
    catch_up(world, 4)
    world.isolate(3)
    world[1].change((1, 2, 4))
    world.run(500 * MS)
    assert world[1].running.configuration.voters_before == []
    world.heal()
    term = world[1].running.term
    for voter in (1, 2, 4):
        world[voter].step(Envelope(3, voter, RequestVote(99, 99, 98, False, False)))
    world.run(5_000 * MS)
    assert world[1].leads
    assert world[1].running.term == term


def test_who_heard_from_a_leader_within_the_shortest_time_out_gives_no_vote():
    """6, end: it does not even take note of the term. The leader's own wish is another matter."""
    world = led()
    term = world[2].running.term
    world[2].step(Envelope(3, 2, RequestVote(term + 1, 99, term, False, False)))
    assert world[2].running.term == term
    assert not any(reply.granted for reply in said(world, 2, 3, VoteReply))
    world[2].step(Envelope(3, 2, RequestVote(term + 1, 99, term, False, True)))
    assert [reply.granted for reply in said(world, 2, 3, VoteReply)][-1]


def test_messages_of_a_removed_member_are_refused_in_words():
    """It was told, or not; its folder must be formatted anew."""
    world = grown(4)
    catch_up(world, 4)
    world[1].change((1, 2, 4))
    world.run(500 * MS)
    refusal = world[1].step(Envelope(3, 1, Heartbeat(99, 0, 1)))
    assert refusal.code is Code.INVALID
    assert "removed" in str(refusal)


# --- thesis 4.1: one change at a time


def test_one_change_at_a_time():
    """Thesis 4.3: the next one begins when the last one is committed."""
    world = grown(4, 5)
    catch_up(world, 4, 5)
    world[1].change((1, 2, 3, 4, 5))
    with pytest.raises(TideError) as caught:
        world[1].change((1, 2, 3))
    assert caught.value.code is Code.BUSY


def test_no_change_before_a_record_of_the_own_term_is_committed():
    """The bug of thesis 4.1's single-server changes, found later: a leader must know first what is
    committed."""
    world = World()
    world.add(4)
    world.start()
    impatient(world, 1)
    for _ in range(2):
        world.deliver_all(sender=1)
        world.deliver_all(receiver=1)
    assert world[1].leads
    with pytest.raises(TideError) as caught:
        world[1].change((1, 2, 3), (4,))
    assert caught.value.code is Code.BUSY


@pytest.mark.parametrize(
    ("voters", "learners", "why"),
    [
        ((), (), "voter"),
        ((1, 2), (), "odd"),
        ((1, 2, 2), (), "twice"),
        ((1, 2, 3), (3,), "twice"),
        ((1, 2, 0), (), "0"),
    ],
)
def test_groups_that_must_not_be(voters, learners, why):
    """Nobody, an even number, duplicates."""
    world = grown()
    with pytest.raises(TideError, match=why) as caught:
        world[1].change(voters, learners)
    assert caught.value.code is Code.INVALID


def test_who_was_removed_never_comes_back():
    """An id is a disk: who lost it, or was sent away, comes back as somebody else."""
    world = grown(4)
    catch_up(world, 4)
    world[1].change((1, 2, 4))
    world.run(500 * MS)
    with pytest.raises(TideError, match="removed") as caught:
        world[1].change((1, 2, 3))
    assert caught.value.code is Code.INVALID


def test_a_group_may_shrink_to_one_and_grow_again():
    """6: the same steps; alone it needs nobody."""
    world = grown(4, 5)
    world[1].change((1,))
    world.run(500 * MS)
    for server in (2, 3):
        world[server].crash()
    world[1].propose(b"x")
    assert bodies(world[1]) == [b"x"]
    catch_up(world, 4, 5)
    world[1].change((1, 4, 5))
    world.run(500 * MS)
    assert bodies(world[5]) == [b"x"]
    world[1].crash()
    world.run(3_000 * MS)
    assert world.leader().server in (4, 5)
