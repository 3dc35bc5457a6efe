"""Messages that no member in its right mind sends: refused in words, and nothing changes."""

import pytest
from tidefs.fs.codec import pack
from tidefs.fs.errors import Code
from tidefs.fs.messages.raft import (
    Append,
    AppendReply,
    AskReadIndex,
    Configuration,
    Heartbeat,
    HeartbeatReply,
    ReadIndex,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from tidefs.metaserver.raft.contract import TERM_MAX, Envelope, Kind, Record

from .harness import MS, World

INVALID, MALFORMED = Code.INVALID, Code.MALFORMED
NOBODY = pack(Configuration([], [], [], [], []))


def records(*pairs, kind=Kind.ENTRY, body=b"x"):
    return tuple(Record(term, index, body, kind) for term, index in pairs)


def append(term, previous, previous_term, *found, count=None, commit=0, **what):
    made = records(*found, **what)
    count = len(made) if count is None else count
    return Append(term, previous, previous_term, commit, count, []), made


BAD = {
    "a term of zero": (Heartbeat(0, 0, 1), (), MALFORMED, "term 0"),
    "a negative term": (TimeoutNow(-3), (), MALFORMED, "term -3"),
    "a term that no chunk version can hold": (
        RequestVote(TERM_MAX + 1, 9, 1, False, False),
        (),
        MALFORMED,
        "term 2147483648",
    ),
    "fewer records than it says": (*append(1, 2, 1, (1, 3), count=2), MALFORMED, "1 records"),
    "a hole between records": (*append(1, 2, 1, (1, 3), (1, 5)), MALFORMED, "record 5 in place"),
    "a hole behind the previous one": (*append(1, 2, 1, (1, 4)), MALFORMED, "record 4 in place"),
    "terms that fall": (*append(2, 2, 1, (2, 3), (1, 4)), MALFORMED, "behind one of 2"),
    "an older term than the previous one's": (*append(3, 2, 2, (1, 3)), MALFORMED, "behind one"),
    "a record of a term to come": (*append(1, 2, 1, (1, 3), (2, 4)), MALFORMED, "while it is 1"),
    "a record of no term": (*append(1, 0, 0, (0, 1)), MALFORMED, "of term 0"),
    "a previous record of no term": (*append(1, 2, 0, (1, 3)), MALFORMED, "record 2 is of term 0"),
    "a term of no record": (*append(1, 0, 1, (1, 1)), MALFORMED, "record 0 is of term 1"),
    "a negative commit index": (*append(1, 2, 1, commit=-1), MALFORMED, "negative"),
    "members that cannot be read": (
        *append(1, 2, 1, (1, 3), kind=Kind.MEMBERS, body=b"\xff"),
        MALFORMED,
        "Configuration",
    ),
    "a group of nobody": (
        *append(1, 2, 1, (1, 3), kind=Kind.MEMBERS, body=NOBODY),
        MALFORMED,
        "group of nobody",
    ),
    "records with something else": (
        Heartbeat(1, 0, 1),
        records((1, 3)),
        MALFORMED,
        "with a Heartbeat",
    ),
    "a candidate that has seen the future": (
        RequestVote(2, 9, 2, False, False),
        (),
        MALFORMED,
        "stands for term 2",
    ),
    "a negative index": (AppendReply(1, True, -1, 0, 0), (), MALFORMED, "negative"),
    "a negative round": (HeartbeatReply(1, -1, 0), (), MALFORMED, "negative"),
    "a negative read": (ReadIndex(1, 1, -2), (), MALFORMED, "negative"),
    "another committed record": (*append(2, 1, 1, (2, 2)), INVALID, "record 2, a committed one"),
    "another committed record before": (*append(2, 2, 2, (2, 3)), INVALID, "a committed one"),
    "more than this disk ever had": (Heartbeat(1, 90, 1), (), INVALID, "lost what it promised"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_by_a_follower(what):
    message, found, code, words = BAD[what]
    world = World().start()
    world.elect(1)
    world.run(210 * MS)
    assert world[2].running.commit_index == 2
    # The harness asserts that nothing has changed.
    refusal = world[2].step(Envelope(1, 2, message, found))
    assert refusal is not None
    assert refusal.code is code
    assert words in refusal.detail


@pytest.mark.parametrize(
    ("envelope", "code", "words"),
    [
        (Envelope(2, 3, Heartbeat(9, 0, 1)), INVALID, "a message for 0000000000000003"),
        (Envelope(1, 1, Heartbeat(9, 0, 1)), INVALID, "two members have the id"),
        (Envelope(0, 1, Heartbeat(9, 0, 1)), MALFORMED, "0 is not the id"),
        (Envelope(2, 1, Heartbeat(1, 0, 1)), INVALID, "in which another one leads"),
        (Envelope(2, 1, Append(1, 0, 0, 0, 0, [])), INVALID, "in which another one leads"),
        (Envelope(2, 1, AppendReply(1, True, 9, 0, 0)), INVALID, "confirms record 9"),
        (Envelope(2, 1, HeartbeatReply(1, 99, 0)), INVALID, "answers round 99"),
    ],
)
def test_refused_by_a_leader(envelope, code, words):
    world = World().start()
    world.elect(1)
    refusal = world[1].step(envelope)
    assert refusal is not None
    assert refusal.code is code
    assert words in refusal.detail
    assert world[1].leads


def test_a_second_leader_of_a_term_is_refused_by_its_followers():
    world = World().start()
    world.elect(1)
    assert world[2].step(Envelope(3, 2, Heartbeat(1, 0, 1))) is not None
    assert world[2].running.leader == 1


@pytest.mark.parametrize(
    "message",
    [
        VoteReply(1, False, True),
        VoteReply(1, True, False),
        AppendReply(1, True, 1, 0, 0),
        AppendReply(1, False, 1, 0, 0),
        HeartbeatReply(1, 0, 1),
        ReadIndex(1, 99, 1),
        AskReadIndex(1, 99),
    ],
)
def test_from_strangers_and_late_it_does_no_harm(message):
    """Who is not in the configuration here may be in a newer one."""
    world = World().start()
    world.elect(1)
    world.run(210 * MS)
    for server in (1, 2):
        before = world[server].running.commit_index
        assert world[server].step(Envelope(77, server, message)) is None
        assert (world[server].running.term, world[server].running.commit_index) == (1, before)
    assert world[1].leads
