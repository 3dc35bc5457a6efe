"""Locks in histories that are known to be right and known to be wrong."""

from tidefs.tests.sim.history import History
from tidefs.tests.sim.linearizability import Operation, Verdict, check
from tidefs.tests.sim.lock_objects import BLOCKED, OK, Ended, Free, Holder, Holders, TryLock
from tidefs.tests.sim.objects import tree


def take(session, *, exclusive=True, whole=False, owner=0):
    return TryLock("k", session, owner, exclusive, whole)


def free(session, owner=0):
    return Free("k", session, owner)


def line(*operations):
    """One after the other: (what, answer)."""
    return [
        Operation("a", what, 10 * at, 10 * at + 5, answer)
        for at, (what, answer) in enumerate(operations)
    ]


def right(*operations):
    return check(operations, tree()) is Verdict.OK


def wrong(*operations):
    return check(operations, tree()) is Verdict.VIOLATION


def test_one_after_the_other():
    assert right(
        *line(
            (Holders("k"), ()),
            (take(1), 11),
            (take(1), 11),
            (take(2), BLOCKED),
            (Holders("k"), (Holder(1, 0, True, 11),)),
            (free(2), OK),
            (free(1), OK),
            (take(2, exclusive=False), 12),
            (take(1, exclusive=False), 13),
            (take(1), BLOCKED),
            (Holders("k"), (Holder(1, 0, False, 13), Holder(2, 0, False, 12))),
        )
    )


def test_two_have_it():
    assert wrong(*line((take(1), 1), (take(2), 2)))
    assert wrong(*line((take(1, exclusive=False), 1), (take(2), 2)))
    assert wrong(*line((take(1), 1), (take(1, owner=1), 2)))


def test_blocked_by_nobody():
    assert wrong(*line((take(1), 1), (free(1), OK), (take(2), BLOCKED)))


def test_tokens_rise():
    assert right(*line((take(1), 1), (free(1), OK), (take(2), 2)))
    assert wrong(*line((take(1), 2), (free(1), OK), (take(2), 2)))
    assert wrong(*line((take(1), 2), (take(1), 3)))


def test_flock_gives_up_what_it_had_before_it_tries():
    shared = [(take(1, exclusive=False), 1), (take(2, exclusive=False), 2)]
    tries = [(take(1, whole=True), BLOCKED), (Holders("k"), (Holder(2, 0, False, 2),))]
    assert right(*line(*shared, *tries))
    assert wrong(*line(*shared, (take(1), BLOCKED), tries[1]))


def test_a_lock_is_lost_only_with_its_session():
    assert wrong(*line((take(1), 1), (Holders("k"), ())))
    dies = Operation("a", Ended("k", 1), 7)
    assert right(dies, *line((take(1), 1), (Holders("k"), ())))
    assert right(dies, *line((take(1), 1), (take(2), 2)))
    assert wrong(dies, *line((take(1), 1), (take(2), 2), (free(1), OK)))


def test_not_before_its_session_can_have_ended():
    late = Operation("a", Ended("k", 1), 90)
    assert wrong(late, *line((take(1), 1), (take(2), 2)))


def test_an_answer_that_was_lost_may_be_any_token():
    lost = Operation("a", take(1), 1)
    assert right(lost, *line((take(2), BLOCKED), (Holders("k"), (Holder(1, 0, True, 5),))))
    assert right(lost, *line((take(2), 3)))


def test_locks_do_not_touch_each_other():
    assert right(*line((take(1), 1), (TryLock("l", 2, 0, True, False), 2)))


def test_what_nobody_asked_for_is_put_where_it_can_have_been():
    history = History()
    history.returned(history.call("a", take(1)), 1)
    last = history.now
    history.returned(history.call("b", take(2)), 2)
    history.happened_since(last, "a", Ended("k", 1), OK)
    assert right(*history.operations())
    assert wrong(*[one for one in history.operations() if not isinstance(one.what, Ended)])
