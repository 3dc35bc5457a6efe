"""A pause of the leader is not the silence of the others."""

from tidefs.metaserver.attention import Attention
from tidefs.metaserver.leases import Leases

S = 10**9


def test_time_that_is_looked_at_often_passes() -> None:
    attention = Attention(100 * S, 2 * S)
    assert [attention.look((100 + n) * S) for n in range(5)] == [(100 + n) * S for n in range(5)]


def test_a_pause_counts_for_no_more_than_a_moment() -> None:
    attention = Attention(0, 2 * S)
    assert attention.look(1 * S) == 1 * S
    assert attention.look(61 * S) == 3 * S
    assert attention.look(62 * S) == 4 * S


def test_it_never_goes_back() -> None:
    attention = Attention(10 * S, 2 * S)
    assert attention.look(9 * S) == 10 * S
    assert attention.look(11 * S) == 11 * S


def test_a_session_survives_a_pause_of_the_leader_and_not_its_own_silence() -> None:
    leases, attention = Leases(12_000), Attention(0, 2 * S)
    leases.renew(7, attention.look(0))
    assert leases.expire(attention.look(60 * S)) == []
    leases.renew(7, attention.look(60 * S))
    ended = [leases.expire(attention.look(second * S)) for second in range(61, 75)]
    assert [7] in ended
