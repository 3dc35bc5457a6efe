"""The leader's tables and planners: pure, so tried without a server."""

import random

from hypothesis import given
from hypothesis import strategies as st
from tidefs.fs.limits import GIB, MIB
from tidefs.fs.messages.chunk import ChunkReport
from tidefs.fs.messages.places import ServerPlace
from tidefs.metaserver.awaited import Awaited
from tidefs.metaserver.chunkservers import Chunkservers, Damage, Replica
from tidefs.metaserver.handles import HandleSupply, VersionCounter
from tidefs.metaserver.leases import Leases
from tidefs.metaserver.opens import OpenFiles
from tidefs.metaserver.placement import Candidate, place
from tidefs.metaserver.reclaim import Garbage, Known, Reclaimer
from tidefs.metaserver.records import ChunkRecord, SessionRecord
from tidefs.metaserver.repair import CopyOrder, need_of, next_copies
from tidefs.metaserver.reservations import Reservations

MS = 10**6


# --- leases --------------------------------------------------------------------------------------


def test_a_lease_outlasts_what_the_client_was_told():
    leases = Leases(10_000)
    leases.renew(1, 0)
    assert leases.expire(10_000 * MS) == []
    assert leases.next_deadline_ns() == 10_150 * MS
    assert leases.expire(10_150 * MS) == [1]
    assert not leases.is_alive(1)
    assert leases.unended() == [1]
    leases.renew(1, 10_151 * MS)
    assert not leases.is_alive(1), "its end is on its way"
    leases.end(1)
    assert leases.unended() == []


def test_who_is_given_up_is_refused_at_once_and_over_when_its_client_knows():
    leases = Leases(10_000)
    leases.give_up(1)
    leases.renew(1, 0)
    leases.give_up(1)
    assert not leases.is_alive(1)
    leases.renew(1, 5_000 * MS)
    assert not leases.is_alive(1)
    assert leases.expire(10_149 * MS) == []
    assert leases.expire(10_150 * MS) == [1]
    assert leases.unended() == [1]
    leases.end(1)
    leases.renew(1, 11_000 * MS)
    assert leases.is_alive(1), "numbers of sessions are not used again, but nothing is kept of one"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 500)), max_size=40))
def test_leases_expire_in_their_order(steps):
    leases = Leases(1_000)
    now, deadlines = 0, {}
    for session, pause in steps:
        now += pause * MS
        due = {s for s, deadline in deadlines.items() if deadline <= now}
        assert set(leases.expire(now)) == due
        for ended in due:
            del deadlines[ended]
            leases.end(ended)
        leases.renew(session, now)
        deadlines[session] = now + 1_060 * MS
        assert leases.next_deadline_ns() == min(deadlines.values())


# --- open files ----------------------------------------------------------------------------------


def record(session, *, promises=False):
    return SessionRecord(session, bytes(16), "here", 1, 0, promises)


def test_an_inode_is_open_until_the_last_session_has_let_go():
    opens = OpenFiles()
    opens.open(1, 10)
    opens.open(1, 10)
    opens.open(2, 10)
    opens.open(2, 11)
    assert opens.release(1, [10, 99]) == []
    assert opens.end(2) == [10, 11]
    assert not opens.is_open(10)
    assert opens.end(2) == []


def test_who_resumes_has_open_what_it_says_and_nothing_else():
    opens = OpenFiles()
    assert opens.resume(1, [10]) == []
    assert opens.resume(1, [11]) == [10]
    assert opens.is_open_in(1, 11)


def test_nothing_is_settled_before_all_sessions_have_told():
    awaited = Awaited([record(1), record(2, promises=True)])
    opens = OpenFiles(awaited)
    awaited.heard(1)
    assert not opens.settled
    awaited.heard(2)
    awaited.heard(9)
    assert opens.settled


def test_promises_are_those_of_sessions_that_want_them():
    awaited = Awaited([record(1), record(2, promises=True)])
    assert awaited.promised_to_others(1)
    assert not awaited.promised_to_others(2), "it knows its own"
    awaited.heard(2)
    assert not awaited.promised_to_others(1)
    awaited = Awaited([record(2, promises=True), record(3, promises=True)])
    assert awaited.promised_to_others(2)


# --- handles -------------------------------------------------------------------------------------


def test_handles_are_asked_for_before_they_run_out():
    asked = []
    supply = HandleSupply(lambda: asked.append(True), low=3)
    supply.add(100, 5)
    assert [supply.take() for _ in range(2)] == [100, 101]
    assert asked == []
    assert supply.take() == 102
    assert len(asked) == 1
    assert supply.take() == 103
    assert len(asked) == 1, "once is enough"
    supply.add(200, 5)
    assert [supply.take() for _ in range(2)] == [104, 200]


def test_versions_rise_within_a_term_and_with_it():
    early, late = VersionCounter(3), VersionCounter(4)
    versions = [early.next(), early.next(), late.next(), late.next()]
    assert versions == sorted(set(versions))


# --- reservations --------------------------------------------------------------------------------


def test_each_session_has_reservations_of_its_own():
    reservations = Reservations()
    first = reservations.reserve(1, 10, 0, 500)
    second = reservations.reserve(2, 10, 0, 501)
    assert reservations.at(1, 10, 0) is first is reservations.of(500)
    assert reservations.at(2, 10, 0) is second
    assert reservations.at(3, 10, 0) is None
    assert reservations.end(1) == [500]
    assert 500 not in reservations
    assert reservations.at(2, 10, 0) is second
    assert reservations.end(2) == [501]
    assert len(reservations) == 0


def test_what_one_has_committed_nobody_has_reserved_any_more():
    reservations = Reservations()
    reservations.reserve(1, 10, 0, 500)
    reservations.reserve(1, 10, 1, 501)
    reservations.reserve(2, 10, 0, 502)
    assert reservations.drop_at(10, 0) == [500, 502]
    assert reservations.drop_at(10, 0) == []
    assert reservations.at(1, 10, 0) is None
    assert reservations.keep_only(1, [500]) == [501]
    assert reservations.end(1) == []
    assert reservations.end(2) == []


# --- placement -----------------------------------------------------------------------------------


def candidates(count, hosts=None, free=10 * GIB):
    return [Candidate(n, f"h{n % (hosts or count)}", 20 * GIB, free) for n in range(1, count + 1)]


def test_copies_go_to_distinct_hosts_first():
    chance = random.Random(1)
    for _ in range(50):
        chosen = place(candidates(6, hosts=3), 4, chance.randrange)
        assert len(set(chosen)) == 4
        assert len({number % 3 for number in chosen[:3]}) == 3


def test_servers_without_room_are_left_out():
    full = Candidate(9, "h9", 20 * GIB, MIB)
    assert place([*candidates(2), full], 3, random.Random(1).randrange) != []
    for seed in range(20):
        assert 9 not in place([*candidates(2), full], 3, random.Random(seed).randrange)


def test_a_small_disk_is_full_when_a_twentieth_is_left():
    assert Candidate(1, "h", 100 * MIB, 5 * MIB).has_room
    assert not Candidate(1, "h", 100 * MIB, 4 * MIB).has_room
    assert not Candidate(1, "h", 0, 0).has_room


def test_more_room_draws_more_chunks():
    two = [Candidate(1, "a", 90 * GIB, 80 * GIB), Candidate(2, "b", 90 * GIB, 20 * GIB)]
    chance = random.Random(1)
    first = [place(two, 1, chance.randrange)[0] for _ in range(1_000)]
    assert 700 < first.count(1) < 900


def test_the_same_luck_gives_the_same_place():
    def draw(order):
        return place(order, 3, random.Random(5).randrange)

    assert draw(candidates(6)) == draw(candidates(6)[::-1])


# --- chunkservers --------------------------------------------------------------------------------


def known(*numbers):
    servers = Chunkservers(dead_ns=100)
    for number in numbers:
        servers.register(ServerPlace(number, f"h{number}", []), 1, 20 * GIB, 10 * GIB, 0)
        servers.report(number, [], last=True)
    return servers


def test_a_report_replaces_the_list_but_not_what_came_meanwhile():
    servers = known(1)
    servers.holds(1, 10, Replica(5, True))
    servers.holds(1, 11, Replica(5, True))
    servers.register(ServerPlace(1, "h1", []), 1, 0, 0, 0)
    assert servers.good(10, 5), "the old list is believed until the new one is whole"
    servers.report(1, [ChunkReport(10, 5, True)], last=False)
    servers.holds(1, 12, Replica(7, True))
    servers.report(1, [], last=True)
    assert [h for h in (10, 11, 12) if servers.holders(h)] == [10, 12]


def test_the_best_copies_that_are_up_are_good():
    servers = known(1, 2, 3)
    for number, version, clean in [(1, 5, True), (2, 4, True), (3, 6, False)]:
        servers.holds(number, 10, Replica(version, clean))
    assert [s.server for s in servers.good(10, 5)] == [1]
    servers.damaged(1, 10, Damage(5, 0))
    assert [s.server for s in servers.good(10, 5)] == [3]
    servers.disconnected(3, 50)
    assert [s.server for s in servers.good(10, 5)] == [1], "most of its blocks are right"
    assert servers.whole(10, 5) == []


def test_who_says_nothing_is_silent():
    servers = known(1, 2)
    servers.heartbeat(1, 0, 0, 90)
    assert servers.silent(150) == [2]
    servers.disconnected(2, 150)
    assert servers.silent(150) == []


# --- repair --------------------------------------------------------------------------------------


def nobody(server):
    return False


def everybody(server):
    return True


def holding(versions):
    servers = known(*versions)
    for number, version in versions.items():
        servers.holds(number, 10, Replica(version, True))
    return servers


def test_a_chunk_with_all_its_copies_needs_nothing():
    servers = holding({1: 5, 2: 5, 3: 6})
    assert need_of(10, 5, servers.holders(10), 3, nobody) is None


def test_copies_that_are_stale_or_damaged_are_of_no_use():
    servers = holding({1: 5, 2: 4, 3: 5})
    servers.damaged(3, 10, Damage(5, 0))
    need = need_of(10, 5, servers.holders(10), 3, nobody)
    assert (need.copies, need.missing, need.useless, need.holders) == (1, 2, (2, 3), (1,))


def test_who_is_only_restarted_is_waited_for():
    servers = holding({1: 5, 2: 5, 3: 5})
    servers.disconnected(3, 0)
    assert need_of(10, 5, servers.holders(10), 3, everybody) is None
    need = need_of(10, 5, servers.holders(10), 3, nobody)
    assert (need.copies, need.missing, need.useless) == (2, 1, ())


def orders_for(needs, servers, running=None, total=4, each=2):
    return next_copies(needs, servers, running or {}, total, each, random.Random(1).randrange)


def test_the_chunk_with_fewest_copies_comes_first():
    servers = holding({1: 5, 2: 5})
    two = need_of(10, 5, servers.holders(10), 3, nobody)
    one = two._replace(copies=1, missing=2, handle=11, holders=(1,))
    none = two._replace(copies=0, missing=3, handle=12, holders=())
    orders = orders_for([two, one, none], candidates(4))
    assert [order.handle for order in orders] == [11, 11, 10]
    assert all(order.target in (3, 4) for order in orders if order.handle == 10)


def test_copies_under_way_bound_new_ones():
    servers = holding({1: 5, 2: 5})
    need = need_of(10, 5, servers.holders(10), 3, nobody)
    assert orders_for([need], candidates(3), {3: 2}) == []
    assert orders_for([need], candidates(3), {1: 2, 2: 2}) == []
    assert orders_for([need], candidates(3), {3: 1}) == [CopyOrder(10, 3, False)]


def test_a_useless_copy_is_replaced_when_there_is_no_other_place():
    servers = holding({1: 5, 2: 5, 3: 4})
    need = need_of(10, 5, servers.holders(10), 3, nobody)
    assert orders_for([need], candidates(3)) == [CopyOrder(10, 3, True)]
    assert orders_for([need], candidates(4)) == [CopyOrder(10, 4, False)]


# --- garbage -------------------------------------------------------------------------------------


def known_of(servers, record=None, *, reserved=False, granted=(), wanted=3):
    return Known(servers, lambda h: record, lambda h: reserved, lambda h: granted, wanted)


def test_what_nobody_knows_is_garbage_after_a_while():
    servers = holding({1: 5})
    reclaimer = Reclaimer(grace_ns=100)

    def garbage(now, *, reserved=False):
        return reclaimer.garbage_on(servers.get(1), [10], known_of(servers, reserved=reserved), now)

    assert garbage(0) == []
    assert garbage(99) == []
    assert garbage(99, reserved=True) == []
    assert garbage(150) == [], "it was reserved meanwhile: the time begins anew"
    assert garbage(250) == [Garbage(10, 5)]


RECORD = ChunkRecord(1, 0, 5, -1, 0)


def garbage_of(servers, **options):
    """The servers that may delete their copy."""
    known = known_of(servers, RECORD, **options)
    return [
        server.server for server in servers.up() if Reclaimer(0).garbage_on(server, [10], known, 0)
    ]


def test_copies_of_no_use_are_garbage_when_there_are_enough_others():
    servers = holding({1: 4, 2: 5, 3: 5, 4: 5})
    servers.damaged(4, 10, Damage(5, 0))
    assert garbage_of(servers, wanted=3) == []
    assert garbage_of(servers, wanted=2) == [1, 4]


def test_of_too_many_copies_the_one_on_the_fullest_server_goes():
    servers = holding({1: 5, 2: 5, 3: 5, 4: 5})
    servers.heartbeat(3, 20 * GIB, 1 * GIB, 0)
    assert garbage_of(servers, wanted=4) == []
    assert garbage_of(servers, wanted=2) == [3]
    assert garbage_of(servers, wanted=2, granted=(1, 3)) == [2]
    assert garbage_of(servers, wanted=2, granted=(1, 2, 3, 4)) == []
