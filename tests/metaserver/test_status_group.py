"""The group in the status: who is what, and the sentences about it."""

from tidefs.metaserver.raft.contract import Progress
from tidefs.metaserver.status_group import FAR_BEHIND_ENTRIES, GroupView

from .test_members_plan import group

SECOND = 10**9
NOW = 1_000 * SECOND


def view(configuration, progress, *, led_since_s=500):
    return GroupView(1, configuration, progress, 100_000, NOW - led_since_s * SECOND, NOW)


def member(match=100_000, *, silent_s=0, needs_snapshot=False):
    return Progress(match, match + 1, needs_snapshot, NOW - silent_s * SECOND)


def test_all_is_well():
    found = view(group(1, 2, 3), {2: member(), 3: member()})
    assert [found.state_of(server) for server in found.members()] == [
        "leader",
        "follower",
        "follower",
    ]
    assert found.problems() == []


def test_a_group_of_one_has_no_problems():
    assert view(group(1), {}).problems() == []


def test_one_of_three_is_down():
    found = view(group(1, 2, 3), {2: member(), 3: member(silent_s=30)})
    assert found.state_of(3) == "down"
    down, last = found.problems()
    assert "metaserver 0000000000000003 on host3 is down" in down
    assert "30 s" in down
    assert "2 of 3 metaservers are up: if one more goes down" in last


def test_one_of_five_is_down():
    others = {2: member(), 3: member(), 4: member(), 5: Progress(0, 1, False, 0)}
    found = view(group(1, 2, 3, 4, 5), others)
    assert len(found.problems()) == 1
    assert "for 500 s" in found.problems()[0]


def test_a_new_leader_gives_everybody_time():
    silent = Progress(0, 1, False, 0)
    found = view(group(1, 2, 3), {2: silent, 3: silent}, led_since_s=1)
    assert found.state_of(2) == "follower"
    assert found.problems() == []


def test_who_is_behind():
    others = {2: member(100_000 - FAR_BEHIND_ENTRIES - 1), 3: member(0, needs_snapshot=True)}
    behind, snapshot = view(group(1, 2, 3), others).problems()
    assert f"{FAR_BEHIND_ENTRIES + 1} entries behind" in behind
    assert "being sent a checkpoint" in snapshot


def test_a_learner_is_told_of():
    found = view(group(1, 2, 3, learners=[9]), {n: member() for n in (2, 3, 9)})
    assert found.state_of(9) == "learner"
    (sentence,) = found.problems()
    assert "0000000000000009 on host9 has the log and no vote" in sentence
