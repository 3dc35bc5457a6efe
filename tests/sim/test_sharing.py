"""Counter files and journals that are known to be wrong."""

import pytest
from tidefs.tests.sim.appenders import Journal, Record, parse
from tidefs.tests.sim.conditions import ViolationError
from tidefs.tests.sim.tallies import Tally


@pytest.fixture
def tally():
    return Tally((b"t",), 2, on_chunks=False, flock=True, sync=False)


def test_counting(tally):
    one = tally.one_more(tally.empty, 0)
    tally.acknowledge(0, one)
    assert tally.see(one) == [1, 0]
    two = tally.one_more(one, 1)
    assert tally.see(two) == [1, 1]
    assert tally.see(one) == [1, 0]  # not acknowledged yet
    tally.acknowledge(1, two)
    with pytest.raises(ViolationError, match="acknowledged are"):
        tally.see(one)


def test_a_lost_update_is_seen(tally):
    mine, other = tally.one_more(tally.empty, 0), tally.one_more(tally.empty, 1)
    tally.acknowledge(0, mine)
    tally.acknowledge(1, other)
    for data in (mine, other, tally.empty):
        with pytest.raises(ViolationError):
            tally.see(data)


def test_what_nobody_counted_is_seen(tally):
    with pytest.raises(ViolationError):
        tally.see(tally.one_more(tally.empty, 0)[:-1])
    other = Tally((b"u",), 2, on_chunks=False, flock=True, sync=False)
    with pytest.raises(ViolationError):
        tally.see(other.one_more(other.empty, 1))


A, B, C = Record(0, 0), Record(0, 1), Record(1, 0)


@pytest.fixture
def journal():
    journal = Journal((b"j",), sync=False)
    for record in (A, B, C):
        journal.attempt(record, 50)
    journal.acknowledge([A, C])
    return journal


def packed(*records):
    return b"".join(record.pack(50) for record in records)


def test_records_are_found_again():
    assert parse(packed(A, C)) == ([A, C], 0)
    assert parse(packed(A)[:-1] + packed(C)) == ([C], 49)
    assert parse(bytes(7) + packed(C) + b"\xab") == ([C], 8)


def test_what_was_acknowledged_is_there_once(journal):
    journal.check(packed(A, C))
    journal.check(packed(C, A, B))
    journal.check(packed(A, C) + bytes(50))  # B, whose client died
    for wrong in (packed(A), packed(A, C, A), packed(A, C, Record(9, 9))):
        with pytest.raises(ViolationError, match="records twice"):
            journal.check(wrong)


def test_what_overlaps_is_seen(journal):
    with pytest.raises(ViolationError, match="missing"):
        journal.check(packed(A)[:40] + packed(C))


def test_gaps_and_disorder_are_seen(journal):
    with pytest.raises(ViolationError, match="belong to no record"):
        journal.check(packed(A) + bytes(1) + packed(C, B))
    with pytest.raises(ViolationError, match="another order"):
        journal.check(packed(B, C, A))
