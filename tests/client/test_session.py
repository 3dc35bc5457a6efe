"""Slots and open inodes of a session."""

from tidefs.client.session import OpenInodes, Session


def test_a_slot_is_used_by_one_mutation_at_a_time_with_rising_sequences():
    session = Session(7, 2)
    first, second = session.take(), session.take()
    assert {first.slot, second.slot} == {0, 1}
    assert session.take() is None
    session.give_back(first)
    again = session.take()
    assert again == first._replace(sequence=first.sequence + 1)


def test_a_release_waits_for_a_whole_round():
    opens = OpenInodes()
    opens.opened(5)
    opens.opened(5)
    opens.released(5)
    assert not opens.to_release
    opens.released(5)
    assert opens.to_release
    assert opens.next_batch(10) == []
    assert opens.next_batch(10) == [5]
    assert opens.all() == [5], "until it is acknowledged"
    opens.acknowledged([5])
    assert opens.all() == []
    assert not opens.to_release


def test_opened_again_before_the_batch_is_not_released():
    opens = OpenInodes()
    opens.opened(5)
    opens.released(5)
    opens.next_batch(10)
    opens.opened(5)
    assert opens.next_batch(10) == []


def test_closed_again_while_a_release_is_under_way_is_released_once_more():
    opens = OpenInodes()
    opens.opened(5)
    opens.released(5)
    opens.next_batch(10)
    assert opens.next_batch(10) == [5]
    opens.opened(5)
    opens.released(5)
    opens.acknowledged([5])
    assert opens.all() == [5]
    assert opens.next_batch(10) == []
    assert opens.next_batch(10) == [5]


def test_an_opening_learns_that_a_release_crossed_it():
    opens = OpenInodes()
    opens.opened(5)
    opens.released(5)
    opens.next_batch(10)
    since = opens.begin_opening()
    assert opens.next_batch(10) == [5]
    assert opens.crossed(since, 5)
    assert not opens.crossed(opens.begin_opening(), 5), "opened again after that batch"
    assert not opens.crossed(since, 6)


def test_batches_are_bounded():
    opens = OpenInodes()
    for inode in range(10):
        opens.opened(inode)
        opens.released(inode)
    opens.next_batch(4)
    assert opens.next_batch(4) == [0, 1, 2, 3]
    opens.acknowledged([0, 1, 2, 3])
    assert opens.next_batch(4) == [4, 5, 6, 7]
