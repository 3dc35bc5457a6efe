"""A group of one: what it promises at once, and when it is not alone any more."""

import pytest
from tidefs.fs.codec import decode
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.raft import Append, Configuration
from tidefs.metaserver.raft.contract import TERM_MAX, Begin, HardState, Kind, Role
from tidefs.metaserver.raft.core import Member
from tidefs.metaserver.raft.terms import Terms

from .harness import MS, TIMING, World, founding


def begin(**what):
    given = {
        "server": 7,
        "hard_state": HardState(0, 0),
        "terms": Terms(),
        "applied_index": 0,
        "configuration": founding((7,)),
        "later": (),
        "timing": TIMING,
        "now_ns": 5,
        "below": lambda bound: 0,
    }
    return Begin(**(given | what))


def terms_of(*terms):
    made = Terms()
    for term in terms:
        made.append(term)
    return made


def work(member):
    """Perform all duties; every Ready there was."""
    done = []
    while ready := member.ready():
        done.append(ready)
        member.advance(ready, 9)
    return done


def test_it_leads_as_soon_as_its_vote_is_on_the_disk():
    member = Member(begin(hard_state=HardState(3, 7)))
    assert member.role is Role.CANDIDATE
    ready = member.ready()
    assert (ready.hard_state, ready.records, ready.messages) == (HardState(4, 7), (), [])
    member.advance(ready, 6)
    assert (member.role, member.leader, member.term) == (Role.LEADER, 7, 4)
    assert member.deadline_ns is None


def test_it_logs_its_founding_once():
    member = Member(begin())
    records = [record for ready in work(member) for record in ready.records]
    assert [(record.index, record.kind) for record in records] == [
        (1, Kind.NOOP),
        (2, Kind.MEMBERS),
    ]
    assert decode(Configuration, records[1].body) == founding((7,))
    again = begin(
        hard_state=HardState(1, 7),
        terms=terms_of(1, 1),
        applied_index=1,
        later=[(2, founding((7,)))],
    )
    records = [record for ready in work(Member(again)) for record in ready.records]
    assert [(record.index, record.kind) for record in records] == [(3, Kind.NOOP)]


@pytest.mark.parametrize(("logged", "kinds"), [(True, [0]), (False, [0, 1])])
def test_a_folder_of_before_groups_were_logged(logged, kinds):
    """Something was applied, but no configuration among it."""
    old = begin(terms=terms_of(1, 2), applied_index=2, hard_state=HardState(2, 7), logged=logged)
    records = [record for ready in work(Member(old)) for record in ready.records]
    assert [record.kind for record in records] == [[Kind.NOOP, Kind.MEMBERS][at] for at in kinds]


def test_what_the_log_holds_is_committed_when_it_leads():
    member = Member(begin(terms=terms_of(1, 1, 1), applied_index=1, hard_state=HardState(1, 7)))
    assert [ready.committed_index for ready in work(member)] == [1, 4]


def test_a_proposal_is_committed_with_its_own_ready():
    member = Member(begin())
    work(member)
    member.propose([b"a"], 10)
    member.propose([b"b", b"c"], 10)
    (ready,) = work(member)
    assert [record.body for record in ready.records] == [b"a", b"b", b"c"]
    assert ready.committed_index == ready.records[-1].index
    assert member.lease_until_ns > 1 << 62


def test_what_found_no_room_never_was_there():
    member = Member(begin())
    work(member)
    member.propose([b"a", b"b"], 10)
    next_index = member.next_index
    member.abandon(member.ready(), 11)
    assert (member.ready(), member.role) == (None, Role.LEADER)
    assert member.propose([b"c"], 12)[0].index == next_index - 2
    assert len(work(member)) == 1


def test_a_disk_that_is_full_at_the_start_is_tried_again_later():
    member = Member(begin())
    member.advance(member.ready(), 6)
    member.abandon(member.ready(), 7)
    assert (member.role, member.ready()) == (Role.FOLLOWER, None)
    with pytest.raises(TideError) as caught:
        member.propose([b"x"], 8)
    assert caught.value.code is Code.NOT_LEADER
    member.tick(member.deadline_ns)
    work(member)
    assert (member.role, member.term, member.commit_index) == (Role.LEADER, 2, 2)


def test_a_vote_that_found_no_room_is_not_counted():
    member = Member(begin())
    ready = member.ready()
    member.abandon(ready, 6)
    assert member.role is not Role.LEADER
    again = member.ready()
    assert again.hard_state == ready.hard_state
    member.advance(again, 7)
    assert member.role is Role.LEADER


def test_at_the_last_term_it_stands_no_more():
    member = Member(begin(hard_state=HardState(TERM_MAX, 7)))
    assert member.ready() is None
    member.tick(member.deadline_ns)
    assert (member.term, member.role, member.elections) == (TERM_MAX, Role.FOLLOWER, 0)


@pytest.mark.parametrize(
    "configurations",
    [
        [founding((7, 8, 9))],
        [Configuration([7], [7, 8, 9], [], [], []), Configuration([7], [], [], [], [])],
    ],
)
def test_who_may_not_be_alone_waits_for_others(configurations):
    """The last one may be rolled back, and somebody hold a lease by the one before."""
    first, *rest = configurations
    member = Member(
        begin(
            terms=terms_of(1, 1, 1),
            hard_state=HardState(1, 0),
            applied_index=1,
            configuration=first,
            later=list(enumerate(rest, 2)),
        )
    )
    assert (member.role, member.ready()) == (Role.FOLLOWER, None)
    assert member.deadline_ns == 5 + TIMING.election_min_ns


def test_its_learners_get_only_what_is_on_its_disk():
    """Else it could not forget what found no room."""
    world = World((1,)).start()
    world.add(2).start()
    world[1].change((1,), (2,))
    world.run(200 * MS)
    assert world[2].applied_index == world[1].applied_index == 3
    world[1].disk.full = True
    world[1].propose(b"no room")
    sent = [packet.envelope.message for packet in world.network.flying(1, 2)]
    assert not any(isinstance(message, Append) and message.count for message in sent)
    world[1].disk.full = False
    world[1].propose(b"room")
    world.run(200 * MS)
    assert [record.body for record in world[2].applied[3:]] == [b"room"]
    assert (world[1].core.term, world[2].core.term) == (1, 1)


def test_a_learner_that_found_no_room_was_never_added():
    world = World((1,)).start()
    world.add(2).start()
    world[1].disk.full = True
    world[1].change((1,), (2,))
    assert world[1].core.configuration.learners == []
    assert world[1].leads
    assert world[1].core.progress() == {}
    world[1].disk.full = False
    world[1].propose(b"goes on")
    world[1].change((1,), (2,))
    world.run(200 * MS)
    assert world[2].applied_index == world[1].applied_index


def test_growing_that_found_no_room_ends_the_term():
    """The others may have got the record that makes them voters."""
    world = World((1,)).start()
    for server in (2, 3):
        world.add(server).start()
    world[1].change((1,), (2, 3))
    world.run(200 * MS)
    world[1].disk.full = True
    world[1].change((1, 2, 3))
    assert not world[1].leads
    assert world[1].core.configuration.voters == [1]
    world[1].disk.full = False
    world.run(2_000 * MS)
    assert world[1].leads
    assert world[1].core.term == 2
    world[1].change((1, 2, 3))
    world.run(200 * MS)
    assert world[1].core.configuration.voters_before == []
    assert world[3].applied_index == world[1].applied_index
