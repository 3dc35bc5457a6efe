"""Raft, extended version, sections 5.3 to 5.6: one test for each sentence on replication."""

import pytest
from tidefs.fs.errors import TideError
from tidefs.fs.messages.raft import Append, AppendReply, Heartbeat
from tidefs.metaserver.raft.contract import Envelope, Kind, Record

from .harness import MS, TIMING, World
from .monitor import Silent
from .test_paper_5_elections import impatient, said, with_logs


def led(voters=(1, 2, 3)):
    """A group that 1 leads, all up to date; messages do not go by themselves."""
    world = World(voters).start()
    world.elect(1)
    world.run(2 * TIMING.heartbeat_ns)
    assert world[1].leads
    world.settle()
    return world


def bodies(server):
    """What it has applied, but for the records of the group itself."""
    return [record.body for record in server.applied if record.kind is Kind.ENTRY]


def terms(server):
    return [record.term for record in server.disk.records]


def append(world, to, term, previous, records, commit=0, sender=1):
    """An Append that says so, as if it had come from ``sender``."""
    message = Append(term, *previous, commit, len(records), [])
    found = [Record(one, index, b"%d" % one) for index, one in enumerate(records, previous[0] + 1)]
    return world[to].step(Envelope(sender, to, message, tuple(found)))


def replies(world, sender, receiver):
    return said(world, sender, receiver, AppendReply)


# --- 5.3


def test_a_proposal_goes_to_all_at_once_and_is_applied_when_a_majority_has_it():
    """5.3: the leader logs it, sends it in parallel, and applies it when it is safe."""
    world = led()
    world[1].propose(b"x")
    assert said(world, 1, 2, Append)
    assert said(world, 1, 3, Append)
    assert bodies(world[1]) == []
    world.deliver_all(1, 2)
    assert bodies(world[1]) == []
    world.deliver_all(2, 1)
    assert bodies(world[1]) == [b"x"]


@pytest.mark.parametrize(("members", "needed"), [(3, 1), (5, 2)])
def test_a_majority_and_no_less_commits(members, needed):
    """5.3: followers on whose disks it must be, beside the leader's."""
    world = led(tuple(range(1, members + 1)))
    world[1].propose(b"x")
    for follower in range(2, 2 + needed):
        assert bodies(world[1]) == []
        world.deliver_all(1, follower)
        world.deliver_all(follower, 1)
    assert bodies(world[1]) == [b"x"]


def test_a_slow_follower_holds_up_nobody():
    """5.3: one that is down, or slow, is sent its records again and again, in the background."""
    world = led()
    world[3].crash()
    for number in range(5):
        world[1].propose(b"%d" % number)
        world.settle()
    assert len(bodies(world[1])) == 5
    world[3].start()
    world.run(3 * TIMING.heartbeat_ns)
    assert len(bodies(world[3])) == 5


def test_an_append_is_repeated_until_it_arrives():
    """5.3: for ever, even after the client was answered."""
    world = led()
    world[1].propose(b"x")
    for _ in range(20):
        for packet in world.network.flying(1, 3):
            if isinstance(packet.envelope.message, Append):
                packet.gone = True
        world.run(20 * MS)
    world.run(3 * TIMING.heartbeat_ns)
    assert bodies(world[3]) == [b"x"]


def test_what_stands_before_a_committed_record_is_committed_too():
    """5.3: also records of earlier leaders."""
    world = with_logs([1, 2], [1, 2], [1, 2])
    world.elect(1)
    world.settle()
    assert bodies(world[1]) == [b"1", b"2"]


def test_followers_learn_what_is_committed_with_the_next_message():
    """5.3: each Append and heartbeat says it, and they apply in the order of the log."""
    world = led()
    world[1].propose(b"x", b"y")
    world.deliver_all(1, 2)
    assert bodies(world[2]) == []
    world.settle()
    world.run(2 * TIMING.heartbeat_ns)
    assert bodies(world[2]) == [b"x", b"y"]
    assert world[2].applied == world[1].applied


def test_nothing_is_committed_that_the_follower_may_have_from_somebody_else():
    """5.3 with Figure 2, point 5 of AppendEntries: only up to what was checked."""
    world = with_logs([1, 1], [1, 1], [1, 1, 2], monitor=Silent())
    append(world, 3, 3, (1, 1), [1], commit=3)
    assert world[3].running.commit_index == 2


def test_a_heartbeat_speaks_of_nothing_that_its_receiver_may_not_have():
    """5.3: the leader has not checked the logs of 3 yet, which ends with another one's record."""
    world = with_logs([1, 3], [1, 3], [1, 1])
    world.isolate(3)
    world.elect(1)
    world.settle()
    assert world[1].running.commit_index == 4
    world.heal()
    world.wait(TIMING.heartbeat_ns)
    assert [beat.commit_index for beat in said(world, 1, 3, Heartbeat)] == [0]
    assert [beat.commit_index for beat in said(world, 1, 2, Heartbeat)] == [4]


def test_a_follower_refuses_what_has_a_hole_before_it():
    """5.3, the consistency check: it does not have the record before these."""
    world = with_logs([1], [1], [1])
    append(world, 2, 2, (3, 1), [2])
    (reply,) = replies(world, 2, 1)
    assert not reply.accepted
    assert reply.index == 3
    assert terms(world[2]) == [1]


def test_a_follower_refuses_what_follows_another_record_than_its_own():
    """5.3, the consistency check: the index is there, of another term."""
    world = with_logs([1, 1], [1, 1], [1, 2])
    append(world, 3, 3, (2, 1), [3])
    (reply,) = replies(world, 3, 1)
    assert not reply.accepted
    assert terms(world[3]) == [1, 2]


def test_records_that_contradict_the_leaders_are_replaced_with_all_behind_them():
    """5.3: conflicting records go, up to the end."""
    world = with_logs([1, 1], [1, 1], [1, 2, 2, 2])
    append(world, 3, 3, (1, 1), [1])
    assert terms(world[3]) == [1, 1]
    (reply,) = replies(world, 3, 1)
    assert reply.accepted
    assert reply.index == 2


def test_records_that_agree_stay_though_the_append_ends_before_them():
    """Figure 2, point 3 of AppendEntries: only a conflict removes anything; this may be late."""
    world = with_logs([1, 2, 2], [1, 2, 2], [1, 2, 2])
    append(world, 2, 2, (0, 0), [1, 2])
    append(world, 2, 2, (1, 1), [])
    assert terms(world[2]) == [1, 2, 2]
    assert [reply.accepted for reply in replies(world, 2, 1)] == [True, True]
    assert [reply.index for reply in replies(world, 2, 1)] == [2, 1]


def test_a_leader_replaces_nothing_of_its_own():
    """5.3, Leader Append-Only: it makes the others' logs like its own, and only adds to that."""
    world = with_logs([1, 1, 1], [1, 2, 2, 2], [1])
    before = list(world[2].disk.records)
    world.elect(2)
    world.settle()
    assert world[2].disk.records[:4] == before
    assert terms(world[1]) == terms(world[2]) == terms(world[3])


@pytest.mark.parametrize("length", [20, 2000])
def test_conflicts_are_passed_over_a_term_at_a_time(length):
    """5.3, end: as many rounds as terms differ, however many records do."""
    world = with_logs([1] + [5] * length, [1] + [5] * length, [1] + [2] * length + [3] * length)
    world[3].held = True
    world.elect(1)
    world[3].held = False
    world[3].work()
    world.settle()
    world.run(2 * TIMING.heartbeat_ns)
    assert terms(world[3]) == terms(world[1])
    assert world.monitor.happened["AppendReply"] < 30


def test_a_follower_that_has_the_log_from_its_disk_is_not_sent_it_again():
    """5.3: the leader begins at its own end, and goes back only as far as it must."""
    world = with_logs([1] * 50, [1] * 50, [1] * 50)
    world.elect(1)
    sent = sum(
        len(record.records)
        for record in (packet.envelope for packet in world.network.flying())
        if isinstance(record.message, Append)
    )
    assert sent == 0
    world.run(2 * TIMING.heartbeat_ns)
    assert terms(world[3]) == terms(world[1])


# --- 5.4.2


def test_no_record_of_an_earlier_term_is_committed_by_counting():
    """5.4.2, Figure 8 (c): a majority has it, and it may still be replaced."""
    world = with_logs([1, 2], [1, 2], [1, 2], [1, 3], [1, 3], voters=(1, 2, 3, 4, 5))
    for voter in (4, 5):
        world[voter].crash()
    for packet in _until_leading(world):
        packet.gone = True
    leader = world[1]
    term = leader.running.term
    for voter in (2, 3):
        leader.step(Envelope(voter, 1, AppendReply(term, True, 2, 0, 0)))
    assert leader.running.commit_index == 0


def test_a_record_of_its_own_term_commits_all_before_it():
    """5.4.2, Figure 8 (e): by Log Matching, whoever has that one has all."""
    world = with_logs([1, 2], [1, 2], [1, 2], [1, 3], [1, 3], voters=(1, 2, 3, 4, 5))
    for voter in (4, 5):
        world[voter].crash()
    _until_leading(world)
    world.settle()
    assert bodies(world[1]) == [b"1", b"2"]
    world[1].crash()
    for voter in (4, 5):
        world[voter].start()
    impatient(world, 5)
    world.settle()
    assert not world[5].leads


def _until_leading(world):
    """1 becomes the leader; what it says as such is on its way."""
    impatient(world, 1)
    for _ in range(2):
        world.deliver_all(sender=1)
        for other in world.servers:
            world.deliver_all(sender=other, receiver=1)
    assert world[1].leads
    return world.network.flying(sender=1)


# --- 5.5


def test_the_same_append_twice_changes_nothing():
    """5.5: all messages may be repeated."""
    world = with_logs([1], [1], [1])
    for _ in range(2):
        append(world, 2, 2, (1, 1), [2, 2])
    assert terms(world[2]) == [1, 2, 2]
    assert [(one.accepted, one.index) for one in replies(world, 2, 1)] == [(True, 3), (True, 3)]


def test_a_crash_after_the_work_and_before_the_answer_is_met_by_a_repetition():
    """5.5: the leader does not know, sends it again, and is told."""
    world = led()
    world[2].held = True
    world.isolate(3)
    world[1].propose(b"x")
    world.deliver_all(1, 2)
    for _ in range(3):
        world[2].do_duty()
    assert not replies(world, 2, 1)
    world[2].crash()
    world[2].start()
    world.run(3 * TIMING.heartbeat_ns)
    assert bodies(world[1]) == [b"x"]


@pytest.mark.parametrize("duties", range(6))
@pytest.mark.parametrize("torn", [0, 1])
def test_a_follower_may_crash_between_any_two_duties(duties, torn):
    """5.5: what it had promised it keeps, the rest comes again."""
    world = led()
    world[2].held = True
    world[1].propose(b"x", b"y")
    world.deliver_all(1, 2)
    for _ in range(duties):
        world[2].do_duty()
    world[2].crash(torn)
    world[2].start()
    world.run(4 * TIMING.heartbeat_ns)
    assert bodies(world[2]) == [b"x", b"y"]


@pytest.mark.parametrize("duties", range(6))
@pytest.mark.parametrize("torn", [0, 1])
def test_a_leader_may_crash_between_any_two_duties(duties, torn):
    """5.5: what nobody was told of is there or not; the group goes on in either case."""
    world = led()
    world[1].held = True
    world[1].propose(b"x", b"y")
    for _ in range(duties):
        world[1].do_duty()
    world[1].crash(torn)
    world.run(2_000 * MS)
    world[1].start()
    world.run(2_000 * MS)
    leader = world.leader()
    leader.propose(b"z")
    world.run(200 * MS)
    assert bodies(world[1]) == bodies(world[2]) == bodies(world[3])
    assert bodies(world[1])[-1] == b"z"


# --- thesis 10.2.1


def test_a_leader_sends_before_its_own_disk_has_it_and_does_not_count_itself():
    """Thesis 10.2.1: the followers' disks may be the majority that commits it."""
    world = led((1, 2, 3, 4, 5))
    world[1].held = True
    world[1].propose(b"x")
    world[1].do_duty()
    assert said(world, 1, 2, Append)
    before = world[1].running.commit_index
    for follower in (2, 3):
        world.deliver_all(1, follower)
        world.deliver_all(follower, 1)
    assert world[1].running.commit_index == before
    world.deliver_all(1, 4)
    world.deliver_all(4, 1)
    world[1].held = False
    world[1].work()
    assert bodies(world[1]) == [b"x"]


# --- 5.6


def test_time_is_for_liveness_not_for_safety():
    """5.6: messages slower than every time-out elect nobody for long, and harm nothing."""
    world = World(latency_ns=lambda: 700 * MS).start()
    world.run(20_000 * MS)
    world.network.latency_ns = lambda: 1 * MS
    assert world.run(5_000 * MS, lambda: world.leader() is not None)


# --- bad input (Raft assumes honest members; these come from the future, or from a broken one)


@pytest.mark.parametrize(
    ("message", "records", "word"),
    [
        (Append(1 << 31, 0, 0, 0, 0, []), (), "term"),
        (Append(2, 1, 1, 0, 2, []), (Record(2, 2, b""), Record(2, 4, b"")), ""),
        (Append(2, 1, 1, 0, 2, []), (Record(2, 2, b""),), ""),
        (Append(2, 1, 1, 0, 1, []), (Record(3, 2, b""),), ""),
        (Append(2, 1, 1, 0, 2, []), (Record(2, 2, b""), Record(1, 3, b"")), ""),
        (Append(-1, 1, 1, 0, 0, []), (), "term"),
        (Append(2, -1, 0, 0, 0, []), (), ""),
    ],
)
def test_what_cannot_be_is_refused_in_words(message, records, word):
    """A term out of range, holes, terms that fall, records of another number than it says."""
    world = with_logs([1], [1], [1])
    refusal = world[2].step(Envelope(1, 2, message, records))
    assert isinstance(refusal, TideError)
    assert word in str(refusal)
    assert terms(world[2]) == [1]


def test_a_message_for_somebody_else_is_refused():
    """A directory of another member, or a wrong address."""
    world = World().start()
    assert world[2].step(Envelope(1, 3, Heartbeat(1, 0, 1)))
    assert world[2].step(Envelope(2, 2, Heartbeat(1, 0, 1)))
    assert world[2].running.term == 0
