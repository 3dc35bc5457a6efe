"""The order of writes, and repetitions."""

import pytest
from tidefs.chunkserver import replication
from tidefs.chunkserver.replication import Answers, Orders
from tidefs.fs.errors import Code, TideError


def refused(call, *arguments) -> Code:
    with pytest.raises(TideError) as caught:
        call(*arguments)
    return caught.value.code


def test_serials_begin_at_one_with_each_version_and_have_no_gaps():
    orders = Orders()
    orders.begin(7, 10)
    orders.check(7, 10, 1)
    assert [orders.take(7, 10) for _ in range(3)] == [1, 2, 3]
    assert refused(orders.check, 7, 10, 3) is Code.OUT_OF_ORDER
    assert refused(orders.check, 7, 10, 5) is Code.OUT_OF_ORDER
    orders.check(7, 10, 4)
    orders.check(7, 10, 0)
    orders.begin(7, 11)
    assert refused(orders.check, 7, 10, 4) is Code.OUT_OF_ORDER
    assert orders.take(7, 11) == 1


def test_a_repeated_grant_does_not_count_anew():
    orders = Orders()
    orders.begin_unless_known(7, 10)
    orders.take(7, 10)
    orders.begin_unless_known(7, 10)
    assert orders.take(7, 10) == 2
    orders.begin_unless_known(7, 11)
    assert orders.take(7, 11) == 1


def test_who_does_not_know_what_came_before_takes_nothing():
    orders = Orders()
    assert refused(orders.check, 7, 10, 0) is Code.OUT_OF_ORDER
    orders.begin(7, 10)
    orders.end(7)
    assert refused(orders.check, 7, 10, 1) is Code.OUT_OF_ORDER
    orders.end(7)


def test_what_is_forgotten_is_as_after_a_restart(monkeypatch):
    monkeypatch.setattr(replication, "CHUNKS_MAX", 2)
    orders = Orders()
    for handle in (1, 2):
        orders.begin(handle, 10)
    orders.check(1, 10, 1)
    orders.begin(3, 10)
    assert refused(orders.check, 2, 10, 1) is Code.OUT_OF_ORDER
    orders.check(1, 10, 1)


def test_answers_are_remembered_up_to_a_bound():
    answers: Answers[str] = Answers(count_max=2)
    for number in range(3):
        answers.put((number, 0), str(number))
    assert answers.get((0, 0)) is None
    assert answers.get((2, 0)) == "2"


def test_a_token_is_refused_once_a_higher_one_was_seen():
    orders = Orders()
    orders.begin(7, 10)
    orders.check_fence(7, 10, 5)
    orders.take(7, 10, 5)
    orders.take(7, 10, 9)
    orders.take(7, 10, 6)  # what is counted was checked before
    with pytest.raises(TideError, match="with: 9") as caught:
        orders.check_fence(7, 10, 8)
    assert caught.value.code is Code.FENCED
    orders.check_fence(7, 10, 9)
    orders.check_fence(7, 10, 0)  # who holds no lock
    orders.check_fence(8, 10, 1)  # another chunk


def test_a_token_counts_for_one_version_and_tells_why_at_older_ones():
    orders = Orders()
    orders.begin(7, 10)
    orders.take(7, 10, 9)
    orders.begin(7, 11)
    orders.check_fence(7, 11, 8)  # its grant is newer than what was seen
    orders.take(7, 11, 8)
    assert refused(orders.check_fence, 7, 11, 7) is Code.FENCED
    assert refused(orders.check_fence, 7, 10, 8) is Code.FENCED
    orders.check_fence(7, 10, 9)
    orders.check_fence(7, 12, 1)  # that version is not known here
