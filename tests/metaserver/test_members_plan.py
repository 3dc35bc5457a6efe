"""What a change of members comes to, and which are refused in which words."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import Configuration
from tidefs.metaserver.members_plan import check_majority, plan_change


def place(server, address=None):
    return ServerPlace(server, f"host{server}", [address or f"tcp:h:{server}"])


def group(*voters, learners=(), removed=()):
    places = [place(server) for server in (*voters, *learners)]
    return Configuration(list(voters), [], list(learners), places, list(removed))


def refused(now, add, remove, code=Code.INVALID):
    with pytest.raises(TideError) as caught:
        plan_change(now, add, remove)
    assert caught.value.code is code
    return caught.value.detail


def test_grow_shrink_and_replace():
    plan = plan_change(group(1, 2, 3), [place(4), place(5)], [])
    assert plan.voters == [1, 2, 3, 4, 5]
    assert plan.new == [4, 5]
    assert [p.server for p in plan.places] == plan.voters
    plan = plan_change(group(1, 2, 3), [], [1, 3])
    assert plan == ([2], [], [place(2)], [])
    plan = plan_change(group(1, 2, 3), [place(9)], [2])
    assert plan.voters == [1, 3, 9]
    assert plan.new == [9]


def test_the_step_before_lets_nobody_go():
    now = group(1, 2, 3, learners=[7])
    step = plan_change(now, [place(9)], [2]).as_learners(now)
    assert step.voters == [1, 2, 3]
    assert step.learners == [7, 9]
    assert [p.server for p in step.places] == [1, 2, 3, 7, 9]


def test_what_is_done_already_is_nothing_to_do():
    assert plan_change(group(1, 2, 3), [place(2)], []) is None
    assert plan_change(group(1, 3, 9, removed=[2]), [place(9)], [2]) is None
    assert plan_change(group(1, 2, 3), [], []) is None


def test_a_learner_that_never_got_a_vote_can_be_removed():
    now = group(1, 2, 3, learners=[9])
    assert plan_change(now, [], [9]) == ([1, 2, 3], [], now.places[:3], [])
    plan = plan_change(now, [place(9)], [3])
    assert (plan.voters, plan.learners, plan.new) == ([1, 2, 9], [], [9])


def test_a_member_may_move():
    plan = plan_change(group(1, 2, 3), [place(2, "tcp:new:1")], [])
    assert plan.voters == [1, 2, 3]
    assert plan.places[1].addresses == ["tcp:new:1"]
    assert plan.new == []


@pytest.mark.parametrize(
    ("now", "add", "remove", "words"),
    [
        (group(1, 2, 3), [place(4)], [], "would have 4 members: an even number"),
        (group(1, 2, 3), [], [3], "would have 2 members: an even number"),
        (group(1), [], [1], "the last metaserver"),
        (group(1, 2, 3), [], [1, 2, 3], "the last metaserver"),
        (group(1, 2, 3), [place(4), place(4)], [], "added twice"),
        (group(1, 2, 3), [], [3, 3], "removed twice"),
        (group(1, 2, 3), [place(3)], [3], "to be added and to be removed"),
        (group(1, 2, 3), [], [8], "0000000000000008 is not a member; there are"),
        (group(1, 2, 3, removed=[8]), [place(8)], [3], "removed once and cannot come back"),
        (group(1, 2, 3), [place(0)], [3], "no server id"),
        (group(1, 2, 3), [place(1 << 63)], [3], "no server id"),
        (group(1, 2, 3), [ServerPlace(4, "h", [])], [3], "needs an address"),
        (group(*range(1, 10)), [place(10), place(11)], [], "9 can be at most"),
    ],
)
def test_refusals_say_why(now, add, remove, words):
    assert words in refused(now, add, remove)


def test_a_majority_of_those_that_are_left_must_be_up():
    now = group(1, 2, 3, 4, 5)
    check_majority([1, 2, 3], {1, 2}, now)
    with pytest.raises(TideError) as caught:
        check_majority([1, 2, 3], {1, 5}, now)
    assert caught.value.code is Code.UNAVAILABLE
    assert "2 of the 3 metaservers" in caught.value.detail
    assert "0000000000000003 on host3 are not" in caught.value.detail
