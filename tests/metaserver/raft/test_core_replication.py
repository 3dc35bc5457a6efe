"""What a leader sends to whom: probing, a pipeline, and what is lost on the way."""

import pytest
from tidefs.fs.limits import APPENDS_IN_FLIGHT_MAX, LOG_BATCH_MAX_ENTRIES
from tidefs.fs.messages.raft import Append, AppendReply, HeartbeatReply
from tidefs.metaserver.raft.contract import Envelope, Record
from tidefs.metaserver.raft.following import take_append
from tidefs.metaserver.raft.log_view import LogView
from tidefs.metaserver.raft.membership import Membership
from tidefs.metaserver.raft.replication import Follower
from tidefs.metaserver.raft.terms import Terms

from .harness import MS, TIMING, World, founding


def log_of(*terms, first=1):
    made = Terms(first, 1 if first > 1 else 0)
    for term in terms:
        made.append(term)
    return LogView(made)


def spans(follower, log, commit=0):
    """(previous, count) of what goes out now."""
    found = follower.appends(9, commit, log.last_index, 1)
    return [(append.previous_index, append.count) for append in found]


def more(log, count, term=9):
    log.append([Record(term, log.last_index + 1 + place, b"") for place in range(count)])


def in_pipeline(log):
    follower = Follower(log, 0)
    spans(follower, log)
    assert not follower.appended(AppendReply(9, False, log.last_index, 0, 0))
    assert spans(follower, log) == [(0, log.last_index)]
    assert follower.appended(AppendReply(9, True, log.last_index, 0, 0))
    return follower


def led():
    world = World().start()
    world.elect(1)
    world.run(210 * MS)
    assert not world.network.flying()
    return world


# --- a pipeline


def test_one_append_at_a_time_until_the_logs_agree():
    log = log_of(1, 1)
    follower = Follower(log, 0)
    more(log, 1)
    assert spans(follower, log) == [(2, 1)]
    more(log, 1)
    assert spans(follower, log) == []
    assert follower.appended(AppendReply(9, True, 3, 0, 0))
    assert spans(follower, log) == [(3, 1)]


def test_then_none_waits_for_the_one_before():
    log = log_of(1)
    follower = in_pipeline(log)
    for last in range(2, 6):
        more(log, 1)
        assert spans(follower, log) == [(last - 1, 1)]


def test_a_pipeline_has_an_end():
    log = log_of(1)
    follower = in_pipeline(log)
    for _ in range(APPENDS_IN_FLIGHT_MAX):
        more(log, 1)
        assert len(spans(follower, log)) == 1
    more(log, 2)
    assert spans(follower, log) == []
    assert follower.appended(AppendReply(9, True, 2, 0, 0))
    assert spans(follower, log) == [(APPENDS_IN_FLIGHT_MAX + 1, 2)]


def test_an_append_has_a_limit():
    log = log_of(1)
    follower = in_pipeline(log)
    more(log, LOG_BATCH_MAX_ENTRIES + 3)
    assert spans(follower, log) == [(1, LOG_BATCH_MAX_ENTRIES), (1 + LOG_BATCH_MAX_ENTRIES, 3)]


def test_a_probe_that_goes_in_pieces_is_not_sent_again():
    """The sender may cut it by size: the first piece is answered before the others."""
    log = log_of(1, 1)
    follower = Follower(log, 0)
    more(log, 6)
    assert spans(follower, log) == [(2, 6)]
    assert follower.appended(AppendReply(9, True, 4, 0, 0))
    assert spans(follower, log) == []
    more(log, 1)
    assert spans(follower, log) == [(8, 1)]


# --- going back


@pytest.mark.parametrize(
    ("ours", "hint", "tried"),
    [
        # The follower's log is shorter: go where it ends.
        ((1, 1, 1, 5, 5), (2, 1), 2),
        # It has records of a term that this one never had (figure 7, f): skip them all at once.
        ((1, 1, 1, 4, 4, 5, 5), (6, 3), 3),
        # This one has a term that the follower never had: its hint is below that already.
        ((1, 1, 4, 4, 4, 4), (3, 2), 2),
    ],
)
def test_going_back_a_term_at_a_time(ours, hint, tried):
    log = log_of(*ours)
    follower = Follower(log, 0)
    more(log, 1)
    assert spans(follower, log) == [(len(ours), 1)]
    assert not follower.appended(AppendReply(9, False, len(ours), *hint))
    assert spans(follower, log)[0][0] == tried


def test_late_refusals_change_nothing():
    log = log_of(1, 1, 1)
    follower = in_pipeline(log)
    more(log, 2)
    spans(follower, log)
    assert not follower.appended(AppendReply(9, False, 2, 0, 0))
    assert not follower.needs_snapshot
    more(log, 1)
    assert spans(follower, log) == [(5, 1)]


def test_late_answers_do_not_take_anything_back():
    log = log_of(1, 1, 1)
    follower = in_pipeline(log)
    assert not follower.appended(AppendReply(9, True, 1, 0, 0))
    assert follower.match_index == 3


def test_a_follower_never_sends_its_leader_back_behind_what_is_committed():
    """Up to there the logs agree, whatever the terms of later records look like."""
    log = log_of(1, 2, 2, 5)
    membership = Membership(2, founding((1, 2, 3)), (), index=1)
    message = Append(9, 4, 1, 3, 0, [])
    reply = take_append(log, membership, 3, message, (), ())
    assert reply == AppendReply(9, False, 4, 3, 2)


# --- what is not in the log any more


def test_who_needs_what_is_gone_needs_a_snapshot():
    log = log_of(1, 1, 1, first=100)
    follower = Follower(log, 0)
    spans(follower, log)
    follower.appended(AppendReply(9, False, 102, 0, 0))
    assert spans(follower, log) == []
    assert follower.needs_snapshot
    # One that has enough, perhaps of somebody else, is asked without being trusted.
    follower.beaten(HeartbeatReply(9, 1, 200))
    assert spans(follower, log) == [(102, 0)]
    assert follower.needs_snapshot
    assert not follower.appended(AppendReply(9, False, 102, 5, 1))
    assert follower.needs_snapshot
    follower.beaten(HeartbeatReply(9, 2, 99))
    assert spans(follower, log) == [(99, 0)]
    assert follower.appended(AppendReply(9, True, 99, 0, 0))
    assert not follower.needs_snapshot
    assert spans(follower, log) == [(99, 3)]


def test_a_pipeline_that_the_log_has_left_behind_needs_a_snapshot():
    log = log_of(1, 1)
    follower = in_pipeline(log)
    more(log, 5)
    log.terms.drop_before(6)
    assert spans(follower, log) == []
    assert follower.needs_snapshot


# --- losses


@pytest.mark.parametrize("lost", [Append, AppendReply])
@pytest.mark.parametrize("how_many", [1, 3])
def test_what_is_lost_is_sent_again_within_two_heartbeats(lost, how_many):
    world = led()
    for _ in range(how_many):
        world[1].propose(b"x")
        if lost is AppendReply:
            world.deliver_all(1, 3)
        for packet in world.network.flying():
            if 3 in packet.envelope[:2]:
                assert isinstance(packet.envelope.message, lost)
                packet.gone = True
    last = world[1].running.next_index - 1
    world.run(2 * TIMING.heartbeat_ns + 10 * MS)
    assert world[1].running.progress()[3].match_index == last
    assert world[3].running.commit_index == last


def test_a_late_append_takes_nothing_back():
    """The network may deliver it after its successors, which were answered already."""
    world = led()
    world[1].propose(b"early")
    early = world.network.flying(1, 3)[0].envelope
    world[1].propose(b"late")
    world.settle()
    last = world[3].disk.last_index
    assert world[3].step(early) is None
    assert world[3].disk.last_index == last


def test_answers_that_wait_for_one_sync_are_one():
    world = led()
    world[3].held = True
    for body in (b"a", b"b", b"c"):
        world[1].propose(body)
    world.deliver_all(1, 3)
    world[3].held = False
    world[3].work()
    replies = [packet.envelope.message for packet in world.network.flying(3, 1)]
    assert [reply.index for reply in replies] == [5]


def test_promises_in_an_old_term_are_not_made_any_more():
    world = led()
    world[3].held = True
    world[1].propose(b"a")
    world.deliver_all(1, 3)
    world[3].step(Envelope(2, 3, Append(2, 2, 1, 2, 0, [])))
    world[3].held = False
    world[3].work()
    assert world.network.flying(3, 1) == []
