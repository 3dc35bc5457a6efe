"""What is looked at from inside of the members is noticed when it is wrong."""

import pytest
from tidefs.tests.sim import determinism
from tidefs.tests.sim.conditions import ViolationError
from tidefs.tests.sim.group_watch import GroupWatch
from tidefs.tests.sim.trace import Trace


def watched(*steps):
    """Each step: (host, what of the watch, arguments)."""

    async def main() -> GroupWatch:
        watch = GroupWatch(Trace())
        for host, name, *arguments in steps:
            determinism.HOST.set(host)
            getattr(watch, name)(*arguments)
        return watch

    return determinism.run(main, 1)


def test_the_leader_of_the_highest_term_is_the_leader():
    watch = watched(("a", "leads", 1), ("b", "leads", 3), ("a", "leads", 1), ("b", "leads", 3))
    assert (watch.leader, watch.term, watch.elections) == ("b", 3, 2)


def test_two_leaders_in_one_term():
    with pytest.raises(ViolationError, match="two leaders in term 3: a and b"):
        watched(("a", "leads", 3), ("b", "leads", 3))


def test_the_same_entry_is_applied_everywhere_and_again_after_a_restart():
    watched(*((host, "applied", 7, 0xAB) for host in ("a", "b", "a", "c")))


def test_another_entry_at_an_index():
    with pytest.raises(ViolationError, match="index 7: c applied another entry than a did"):
        watched(("a", "applied", 7, 1), ("b", "applied", 7, 1), ("c", "applied", 7, 2))
