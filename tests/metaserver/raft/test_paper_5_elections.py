"""Raft, extended version, sections 5.1, 5.2 and 5.4.1: one test for each sentence on elections."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.raft import Append, AppendReply, Heartbeat, RequestVote, VoteReply
from tidefs.metaserver.raft.contract import Envelope, HardState, Record, Role

from .harness import MS, TIMING, World


def said(world, sender, receiver, kind):
    """The messages of a kind on their way between two."""
    return [
        packet.envelope.message
        for packet in world.network.flying(sender, receiver)
        if isinstance(packet.envelope.message, kind)
    ]


def patience_over(world):
    """Time goes by, and nobody was told: all would give their vote now."""
    world.now_ns += 2 * TIMING.election_min_ns


def impatient(world, server):
    """Time goes on until this one asks whether it would be elected; nobody else is told."""
    patience_over(world)
    for _ in range(3):
        if world[server].running.role is Role.PRE_CANDIDATE:
            return
        world.now_ns = max(world.now_ns, world.due_ns(world[server]))
        world[server].tick()
    raise AssertionError(f"{server} does not stand")


def candidate(world, server):
    """All would elect this one; it asks them for their votes now, and nobody has got that yet."""
    impatient(world, server)
    world.deliver_all(sender=server)
    for other in world.servers:
        world.deliver_all(sender=other, receiver=server)
    assert world[server].running.role is Role.CANDIDATE
    return world[server]


def with_logs(*terms, voters=(1, 2, 3), monitor=None):
    """A group with these logs, one list of terms each, on the disks."""
    world = World(voters, monitor=monitor)
    for server, log in zip(voters, terms, strict=True):
        disk = world[server].disk
        disk.hard_state = HardState(max(map(max, terms)), 0)
        disk.write([Record(term, index, b"%d" % term) for index, term in enumerate(log, 1)])
        world.monitor.persisted(world[server], disk.records)
    return world.start()


def vote(world, voter, term, last_index, last_term, sender=1):
    """Whether it gives its vote to a candidate with such a log."""
    request = RequestVote(term, last_index, last_term, False, False)
    world[voter].step(Envelope(sender, voter, request))
    return [reply.granted for reply in said(world, voter, sender, VoteReply)]


# --- 5.1


def test_a_server_takes_over_a_higher_term():
    """5.1: who hears of a higher term than its own goes over to it, and stores it."""
    world = World().start()
    patience_over(world)
    vote(world, 2, 7, 0, 0)
    assert world[2].running.term == 7
    assert world[2].disk.hard_state.term == 7


@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.LEADER])
def test_who_finds_its_term_out_of_date_becomes_a_follower(role):
    """5.1: a candidate or a leader that hears of a higher term is a follower at once."""
    world = World().start()
    server = candidate(world, 1)
    if role is Role.LEADER:
        world.settle()
    assert server.running.role is role
    server.step(Envelope(2, 1, AppendReply(9, False, 0, 0, 0)))
    assert server.running.role is Role.FOLLOWER
    assert server.running.term == 9


def test_a_request_of_an_old_term_changes_nothing_and_is_answered_with_the_new_one():
    """5.1: requests with a stale term are rejected; the answer says what the term is."""
    world = with_logs([1], [1], [1])
    world.elect(1)
    assert world[2].running.term == 2
    world[2].step(Envelope(3, 2, Append(1, 0, 0, 0, 0, [])))
    world[2].step(Envelope(3, 2, RequestVote(1, 9, 0, False, False)))
    world[2].step(Envelope(3, 2, Heartbeat(1, 0, 1)))
    assert world[2].running.leader == 1
    replies = [packet.envelope.message for packet in world.network.flying(2, 3)]
    assert [reply.term for reply in replies] == [2, 2, 2]
    assert not replies[0].accepted
    assert not replies[1].granted


def test_at_most_one_leader_in_a_term():
    """5.1 and 5.2: two candidates of one term do not both win."""
    world = World().start()
    for server in (1, 2):
        impatient(world, server)
    world.settle()
    leaders = [server for server in world.up() if server.leads]
    assert len(leaders) <= 1  # and the monitor remembers all there ever were
    assert world.run(3_000 * MS, lambda: world.leader() is not None)


# --- 5.2


def test_servers_start_as_followers():
    """5.2: and nobody leads."""
    world = World().start()
    assert {server.running.role for server in world.up()} == {Role.FOLLOWER}
    assert {server.running.leader for server in world.up()} == {0}


def test_followers_stay_followers_as_long_as_they_hear_a_leader():
    """5.2: heartbeats of a leader keep everybody else from standing."""
    world = World().start()
    world.elect(1)
    before = [server.running.elections for server in world.up()]
    world.run(10_000 * MS)
    assert world[1].leads
    assert [server.running.elections for server in world.up()] == before
    assert world[1].running.term == 1


def test_a_leader_sends_heartbeats_though_there_is_nothing_to_say():
    """5.2: to all, at once, and again before anybody could lose patience."""
    world = World().start()
    world.elect(1)
    world.wait(TIMING.heartbeat_ns)
    assert said(world, 1, 2, Heartbeat)
    assert said(world, 1, 3, Heartbeat)
    assert 2 * TIMING.heartbeat_ns < TIMING.election_min_ns


def test_a_follower_that_hears_nothing_stands_for_election():
    """5.2: a new term, a vote for itself on its disk, and requests to all others."""
    world = World().start()
    server = candidate(world, 1)
    assert server.running.term == 1
    assert server.disk.hard_state == HardState(1, 1)
    for other in (2, 3):
        (request,) = [one for one in said(world, 1, other, RequestVote) if not one.pre]
        assert request == RequestVote(1, 0, 0, False, False)


@pytest.mark.parametrize(("members", "enough"), [(3, 1), (5, 2)])
def test_a_majority_of_votes_wins(members, enough):
    """5.2: of the whole group, its own included; one less does not."""
    world = World(range(1, members + 1)).start()
    server = candidate(world, 1)
    for voter in range(2, enough + 2):
        assert not server.leads
        server.step(Envelope(voter, 1, VoteReply(1, False, True)))
    assert server.leads


def test_one_voter_counts_once():
    """5.2: the network may double its reply."""
    world = World((1, 2, 3, 4, 5)).start()
    server = candidate(world, 1)
    for _ in range(3):
        server.step(Envelope(2, 1, VoteReply(1, False, True)))
    assert not server.leads


def test_votes_of_strangers_and_of_other_terms_do_not_count():
    """5.2: only those of the members, and for this election."""
    world = World(learners=(4,)).start()
    server = candidate(world, 1)
    server.step(Envelope(2, 1, VoteReply(0, False, True)))
    server.step(Envelope(4, 1, VoteReply(1, False, True)))
    server.step(Envelope(9, 1, VoteReply(1, False, True)))
    server.step(Envelope(2, 1, VoteReply(1, True, True)))
    assert not server.leads


def test_one_vote_a_term_first_come_first_served():
    """5.2: the second candidate of a term is refused, the first gets its vote again."""
    world = World().start()
    patience_over(world)
    assert vote(world, 2, 5, 0, 0, sender=1) == [True]
    assert vote(world, 2, 5, 0, 0, sender=3) == [False]
    assert vote(world, 2, 5, 0, 0, sender=1) == [True, True]


def test_a_vote_survives_a_crash():
    """5.2 and Figure 2: the vote is on stable storage before the reply goes out."""
    world = World().start()
    patience_over(world)
    assert vote(world, 2, 5, 0, 0, sender=1) == [True]
    world[2].crash()
    world[2].start()
    patience_over(world)
    assert vote(world, 2, 5, 0, 0, sender=3) == [False]


def test_a_vote_that_was_not_stored_was_not_given():
    """Figure 2: a crash before it is on the disk is a crash before the reply."""
    world = World().start()
    patience_over(world)
    world[2].held = True
    world[2].step(Envelope(1, 2, RequestVote(5, 0, 0, False, False)))
    world[2].do_duty()
    assert not said(world, 2, 1, VoteReply)
    world[2].crash()
    assert world[2].disk.hard_state == HardState(0, 0)


def test_a_candidate_gives_way_to_a_leader_of_its_term():
    """5.2: an Append of its own term, or of a later one, shows that another one has won."""
    world = World().start()
    server = candidate(world, 1)
    server.step(Envelope(2, 1, Append(1, 0, 0, 0, 0, [])))
    assert server.running.role is Role.FOLLOWER
    assert server.running.leader == 2


def test_a_candidate_ignores_a_leader_of_an_earlier_term():
    """5.2: it goes on being a candidate."""
    server = candidate(with_logs([1], [1], [1]), 1)
    server.step(Envelope(2, 1, Append(1, 1, 1, 1, 0, [])))
    assert server.running.role is Role.CANDIDATE
    assert server.running.commit_index == 0


def test_a_split_vote_is_over_after_another_time_out():
    """5.2: nobody has a majority; each candidate waits, and stands again in a new term."""
    world = World((1, 2, 3, 4, 5)).start()
    server = candidate(world, 1)
    server.step(Envelope(2, 1, VoteReply(1, False, False)))
    world.network.drop_all()
    world.elect(1)
    assert server.running.term > 1


def test_time_outs_are_random_within_a_fixed_range_and_drawn_anew_for_each_election():
    """5.2: from the shortest to twice as long."""
    world = World()
    drawn = []
    for server in world.servers.values():
        server.below = lambda bound: drawn.append(bound) or bound - 1
    world.start()
    first = len(drawn)
    assert first >= 3
    assert {world.due_ns(server) for server in world.up()} == {2 * TIMING.election_min_ns - 1}
    world.now_ns = world.due_ns(world[1])
    world[1].tick()
    assert len(drawn) > first
    assert world.due_ns(world[1]) > world.now_ns


# --- 5.4.1


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [
        (3, 3, True),  # the same
        (4, 3, True),  # longer
        (1, 4, True),  # shorter, of a later term
        (2, 3, False),  # shorter
        (9, 2, False),  # longer, of an earlier term
        (3, 2, False),
    ],
)
def test_a_voter_refuses_who_knows_less(last_index, last_term, granted):
    """5.4.1: the later last term is more up-to-date; in the same term the longer log is."""
    world = with_logs([1, 3, 3], [1, 3, 3], [1, 3, 3])
    patience_over(world)
    assert vote(world, 2, 9, last_index, last_term) == [granted]


def test_who_misses_a_committed_record_is_not_elected():
    """5.4.1: a majority has the record, and one of them is in every majority of votes."""
    world = with_logs([1, 2], [1, 2], [1])
    impatient(world, 3)
    world.settle()
    assert world[3].running.role is not Role.LEADER
    assert world.run(3_000 * MS, lambda: world.leader() is not None)
    assert world.leader().server != 3


def test_a_record_that_is_not_on_the_disk_yet_makes_nobody_less_strict():
    """5.4.1: what a voter has accepted counts when it compares logs, be it on its disk or not."""
    world = World().start()
    world.elect(1)
    world[2].held = True
    world[1].propose(b"x")
    world.deliver_all(1, 2)
    last = world[1].running.next_index - 1
    patience_over(world)
    world[2].step(Envelope(3, 2, RequestVote(9, last - 1, 1, False, False)))
    world[2].held = False
    world[2].work()
    assert [one.granted for one in said(world, 2, 3, VoteReply)] == [False]


# --- what every test here rests on


def test_who_does_not_lead_names_the_leader():
    """Section 8: a client that asks a follower is told who leads."""
    world = World().start()
    with pytest.raises(TideError) as caught:
        world[2].propose(b"x")
    assert caught.value.code is Code.NOT_LEADER
    world.elect(1)
    with pytest.raises(TideError, match="1") as caught:
        world[2].propose(b"x")
    assert caught.value.code is Code.NOT_LEADER


def test_before_the_first_term_a_refusal_is_a_refusal():
    """9.6: who has just started refuses a pre-vote; its term is 0 then, and nothing is wrong."""
    world = World().start()
    world[2].crash()
    impatient(world, 1)
    world[2].start()
    world.deliver_all(1, 2)
    (reply,) = said(world, 2, 1, VoteReply)
    assert reply == VoteReply(0, True, False)
    assert world[1].step(Envelope(2, 1, reply)) is None
