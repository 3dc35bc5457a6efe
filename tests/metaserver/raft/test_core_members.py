"""Configurations: what follows from one, how the next is made, and who stands outside."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import MEMBERS_MAX
from tidefs.fs.messages.raft import AskReadIndex, Configuration, RequestVote, VoteReply
from tidefs.metaserver.raft.contract import Envelope, Role
from tidefs.metaserver.raft.membership import Membership, after_joint, is_same_group, plan_change

from .harness import MS, World, founding, places


def joint(voters, before, learners=(), removed=()):
    everybody = places({*voters, *before, *learners})
    return Configuration(list(voters), list(before), list(learners), everybody, list(removed))


def plan(now, voters, learners=()):
    return plan_change(now, voters, learners, places([*voters, *learners]))


# --- the next one


def test_voters_change_by_way_of_a_joint_configuration():
    now = founding((1, 2, 3))
    over = plan(now, (1, 4, 5))
    assert over == joint((1, 4, 5), (1, 2, 3))
    then = after_joint(over)
    assert (then.voters, then.voters_before, then.removed) == ([1, 4, 5], [], [2, 3])
    assert then.places == places((1, 4, 5))


def test_learners_come_and_go_at_once():
    now = founding((1,), (2, 3))
    then = plan(now, (1,), (3, 4))
    assert (then.voters_before, then.learners, then.removed) == ([], [3, 4], [2])


def test_a_learner_becomes_a_voter_and_a_voter_a_learner():
    now = founding((1, 2, 3), (4,))
    over = plan(now, (1, 2, 4), (3,))
    assert (over.voters_before, over.learners, over.removed) == ([1, 2, 3], [3], [])
    membership = Membership(3, over, (), index=9)
    assert membership.is_voter
    then = after_joint(over)
    assert (then.voters, then.learners, then.removed) == ([1, 2, 4], [3], [])


def test_who_was_removed_before_stays_so():
    now = Configuration([1, 2, 3], [], [5], places((1, 2, 3, 5)), [7, 8])
    assert plan(now, (1, 2, 4)).removed == [7, 8, 5]
    assert after_joint(plan(now, (1, 2, 4))).removed == [7, 8, 5, 3]


def test_new_places_of_the_same_members():
    now = founding((1, 2, 3))
    moved = [place for place in places((1, 2))] + [now.places[2].__class__(3, "elsewhere", [])]
    then = plan_change(now, (1, 2, 3), (), moved)
    assert then.voters_before == []
    assert not is_same_group(now, then)
    assert is_same_group(then, plan_change(then, (3, 2, 1), (), list(reversed(moved))))


@pytest.mark.parametrize(
    ("voters", "learners", "where", "words"),
    [
        ((), (), (), "without voters"),
        ((), (1,), (1,), "without voters"),
        ((1, 2), (), (1, 2), "2 voters survive no more failures than 1"),
        ((1, 2, 2), (), (1, 2, 2), "listed twice"),
        ((1, 2, 3), (3,), (1, 2, 3), "listed twice"),
        ((1, 2, 9), (), (1, 2, 9), "was removed"),
        ((1, 2, 3), (9,), (1, 2, 3, 9), "was removed"),
        ((1, 2, 3), (), (1, 2), "exactly one place"),
        ((1, 2, 3), (), (1, 2, 3, 4), "exactly one place"),
        ((1, 2, 0), (), (1, 2, 0), "0 is not the id"),
        ((1,), range(10, 10 + MEMBERS_MAX), (1,), "are too many"),
    ],
)
def test_groups_that_must_not_be(voters, learners, where, words):
    now = Configuration([1, 2, 3], [], [], places((1, 2, 3)), [9])
    with pytest.raises(TideError) as caught:
        plan_change(now, voters, list(learners), places(where))
    assert caught.value.code is Code.INVALID
    assert words in caught.value.detail


# --- majorities


@pytest.mark.parametrize(
    ("configuration", "values", "agreed"),
    [
        (founding((1,)), {1: 5}, 5),
        (founding((1, 2, 3)), {1: 5, 2: 4, 3: 0}, 4),
        (founding((1, 2, 3), (4,)), {1: 5, 2: 0, 3: 0, 4: 5}, 0),
        (joint((1, 2), (3, 4)), {1: 5, 2: 5, 3: 5, 4: 1}, 1),
        (joint((1, 2, 3), (3, 4, 5)), {1: 9, 2: 9, 3: 7, 4: 6, 5: 0}, 6),
        (founding((1, 2, 3, 4, 5)), {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}, 3),
    ],
)
def test_what_a_majority_has_reached(configuration, values, agreed):
    membership = Membership(1, configuration, (), index=1)
    assert membership.agreed(values.__getitem__) == agreed


def test_a_roll_back_ends_at_what_is_applied():
    membership = Membership(1, founding((1, 2, 3)), (), index=4)
    membership.appended(6, joint((1, 4, 5), (1, 2, 3)))
    membership.appended(8, founding((1, 4, 5)))
    assert not membership.truncated_from(9)
    assert membership.truncated_from(7)
    assert (membership.index, membership.is_joint) == (6, True)
    membership.committed(6)
    with pytest.raises(AssertionError):
        membership.truncated_from(5)


def test_nobody_is_removed_by_a_record_that_may_be_rolled_back():
    gone = Configuration([1], [], [], places((1,)), [2])
    membership = Membership(1, founding((1,), (2,)), (), index=4)
    membership.appended(5, gone)
    assert not membership.is_removed(2)
    membership.committed(5)
    assert membership.is_removed(2)


# --- outside


def test_who_leaves_is_told_that_it_is_over():
    world = World().start()
    world.elect(1)
    world.run(200 * MS)
    world[1].change((1,))
    world.run(100 * MS)
    for server in (2, 3):
        assert world[server].core.configuration.voters == [1]
        assert world[server].core.configuration.voters_before == []
        assert world[server].core.role is Role.LEARNER
        assert world[server].applied_index == world[1].applied_index
    assert world[1].core.progress() == {}
    assert world[1].core.deadline_ns is None


def test_who_leaves_and_does_not_answer_is_given_up():
    world = World().start()
    world.elect(1)
    world.run(200 * MS)
    world.isolate(3)
    world[1].change((1,))
    world.run(2_000 * MS)
    assert world[1].core.deadline_ns is None
    assert world[2].core.role is Role.LEARNER
    world.heal()
    world.run(2_000 * MS)
    assert world[3].core.elections == 0
    assert world[1].core.term == 1


def test_who_has_the_only_long_log_stands_though_it_is_leaving():
    """Thesis 4.2.2: the one that is to be alone never got the record that says so."""
    world = World().start()
    world.elect(2)
    world.run(200 * MS)
    world[2].change((1,))
    world.deliver_all(2, 3)
    world.deliver_all(2, 1)
    world.deliver_all(3, 2)
    world.deliver_all(1, 2)
    world.deliver_all(2, 3)
    world.network.drop_all()
    assert world[3].core.configuration.voters == [1]
    assert world[1].core.configuration.voters_before == [1, 2, 3]
    for server in (2, 3):
        world[server].crash()
        world[server].start()
    world.run(5_000 * MS)
    assert world[1].leads
    assert world[1].core.configuration.voters == [1]


def test_a_learner_votes_when_a_newer_configuration_needs_it():
    """It may be a voter by now, and the record not have arrived; nobody else would ask it."""
    world = World((1, 2, 3), (4,)).start()
    world.elect(1)
    world.run(200 * MS)
    last = world[4].core.next_index - 1
    world.now_ns += 1_000 * MS
    world[4].step(Envelope(3, 4, RequestVote(5, last, 1, False, False)))
    replies = [packet.envelope.message for packet in world.network.flying(4, 3)]
    assert replies == [VoteReply(5, False, True)]


def test_a_stranger_may_be_a_member_by_a_newer_configuration():
    world = World().start()
    world.elect(1)
    world.run(200 * MS)
    assert world[1].step(Envelope(9, 1, AskReadIndex(1, 3))) is None
    assert world.network.flying(1, 9)
