"""What bad input gets from a member: refused in words, logged once, nothing harmed.

The member that is looked at is the second of three, with a driver and a disk. The first one, which
leads, and the third one are only voices.
"""

import pytest
import trio
from tidefs.fs.calls import NOTICE
from tidefs.fs.codec import checksum, pack
from tidefs.fs.errors import Code, TideError
from tidefs.fs.frames import encode
from tidefs.fs.handshake import Identity
from tidefs.fs.messages.hello import METASERVER
from tidefs.fs.messages.raft import (
    Append,
    AppendReply,
    Configuration,
    Greet,
    Heartbeat,
    HeartbeatReply,
    OfferSnapshot,
    ReadIndex,
    RequestVote,
    SnapshotPiece,
    TimeoutNow,
    VoteReply,
)
from tidefs.fs.rpc import connect, no_requests
from tidefs.metaserver.raft.contract import TERM_MAX, Envelope, Kind, Record, Role
from tidefs.tests.metaserver.members import TestMember, place, until
from tidefs.tests.metaserver.real_members import CLUSTER, Member, warnings

TERM = 5
LEADER, MEMBER, OTHER = 1, 2, 3
PATIENT_MS = 60_000


@pytest.fixture
async def member(tmp_path, nursery):
    """It follows the leader, and has two records."""
    places = [place(n, f"unix:{tmp_path}/{n}") for n in (LEADER, MEMBER, OTHER)]
    member = Member(MEMBER, places[1].addresses[0], places, nursery, election_ms=PATIENT_MS)
    await member.start()
    member.leader = TestMember(LEADER, places[0].addresses[0], places, cluster=CLUSTER)
    async with member.leader.living():
        await until(lambda: MEMBER in member.leader.group.connected())
        await until(lambda: LEADER in member.group.connected())
        await append(member, noop(1), noop(2))
        yield member
        await still_well(member)


def noop(index, term=TERM):
    return Record(term, index, b"", Kind.NOOP)


async def append(member, *records, previous=(0, 0), commit_index=0):
    """The answer to an Append of the leader."""
    heard = member.leader.heard
    heard.clear()
    message = Append(TERM, *previous, commit_index, len(records), [])
    member.leader.group.send([Envelope(LEADER, MEMBER, message, records)])
    await until(lambda: any(isinstance(one.message, AppendReply) for one in heard))
    return next(one.message for one in heard if isinstance(one.message, AppendReply))


async def still_well(member):
    """It follows the same leader in the same term, and takes the next record."""
    core, last_index = member.driver.core, member.last_index
    assert (core.term, core.leader) == (TERM, LEADER)
    assert core.role in (Role.FOLLOWER, Role.LEARNER)
    answer = await append(member, noop(last_index + 1), previous=(last_index, TERM))
    assert (answer.accepted, answer.index) == (True, last_index + 1)
    assert member.last_index == last_index + 1


async def speaking_as(member, server, run=7):
    """A connection to the member that has greeted as ``server``."""
    hello = Identity(CLUSTER, METASERVER, server).hello()
    peer = await connect(member.ports, member.address, hello, no_requests, member.nursery)
    await peer.call(Greet(run))
    return peer


async def tell(peer, *notices, payload=b""):
    """Tell all of them, three times, and wait until they were heard."""
    for _ in range(3):
        for notice in notices:
            assert peer.tell(notice, [payload] if payload else ())
        await peer.call(Greet(7))
        await trio.testing.wait_all_tasks_blocked()


def said_once(caplog, words):
    said = warnings(caplog, words)
    assert len(said) == 1, warnings(caplog)
    return said[0]


async def test_a_member_of_another_cluster(member, caplog):
    hello = Identity("lake", METASERVER, OTHER).hello()
    for _ in range(3):
        with pytest.raises(TideError) as caught:
            await connect(member.ports, member.address, hello, no_requests, member.nursery)
        assert caught.value.code is Code.WRONG_CLUSTER
        assert "belongs to cluster 'lake', this metaserver to 'cluster'" in caught.value.detail
    said_once(caplog, "belongs to cluster 'lake'")


@pytest.mark.parametrize("term", [TERM_MAX + 1, (1 << 63) + 1, -1])
async def test_a_term_that_cannot_be(member, caplog, term):
    kinds = (
        RequestVote(term, 1000, 1, False, False),
        VoteReply(term, False, True),
        Append(term, 0, 0, 0, 0, []),
        AppendReply(term, True, 1, 0, 0),
        Heartbeat(term, 0, 1),
        HeartbeatReply(term, 1, 1),
        TimeoutNow(term),
        ReadIndex(term, 1, 1),
    )
    peer = await speaking_as(member, OTHER)
    await tell(peer, *kinds)
    for kind in kinds:
        text = said_once(caplog, f"{type(kind).__name__} of 0000000000000003 is refused")
        assert f"term {term}" in text


async def test_an_append_behind_what_is_not_there(member, caplog):
    """A hole is no fault of the sender's: the answer says where to go on."""
    answer = await append(member, noop(51), previous=(50, TERM))
    assert not answer.accepted
    assert (answer.index, answer.hint_index, answer.hint_term) == (50, 2, TERM)
    assert member.last_index == 2


async def test_an_append_from_who_does_not_lead(member, caplog):
    peer = await speaking_as(member, OTHER)
    await tell(peer, Append(TERM, 2, TERM, 0, 1, [(TERM, 1, 0)]), Heartbeat(TERM, 0, 9))
    assert "another one leads" in said_once(caplog, "Append of 0000000000000003 is refused")
    assert "another one leads" in said_once(caplog, "Heartbeat of 0000000000000003 is refused")
    assert member.last_index == 2


async def test_records_that_contradict_what_is_committed(member, caplog):
    await append(member, previous=(2, TERM), commit_index=2)
    other = Record(TERM - 1, 2, b"", Kind.NOOP)
    before = member.last_index
    message = Append(TERM, 1, 4, 2, 1, [])
    for _ in range(3):
        member.leader.group.send([Envelope(LEADER, MEMBER, message, [other])])
    await until(lambda: warnings(caplog, "Append of 0000000000000001 is refused"))
    assert "a committed one" in said_once(caplog, "Append of 0000000000000001 is refused")
    assert member.last_index == before


@pytest.mark.parametrize(
    ("records", "payload", "words"),
    [
        ([(TERM, 1, 0), (TERM, 0, 90)], b"x" * 89, "records of 90 bytes and brings 89"),
        ([(TERM, 0, 90), (TERM, 0, -1)], b"x" * 89, "a record of -1 bytes"),
        ([(TERM, 7, 89)], b"x" * 89, "the unknown kind 7"),
    ],
)
async def test_an_append_whose_parts_do_not_fit(member, caplog, records, payload, words):
    peer = await speaking_as(member, LEADER, member.leader.group._run)
    for _ in range(3):
        peer.tell(Append(TERM, 2, TERM, 0, len(records), records), [payload])
    await until(lambda: warnings(caplog, words))
    await peer.call(Greet(member.leader.group._run))
    peer.close("done")
    said_once(caplog, words)
    assert member.last_index == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([TERM, 2, TERM, 0, 1, [[TERM, 0]]], "Append: "),
        ([TERM, 2, TERM, 0, 1], "Append: "),
        (["five", 2, TERM, 0, 0, []], "Append: "),
    ],
)
async def test_an_append_of_another_shape(member, caplog, fields, words):
    peer = await speaking_as(member, OTHER)
    for _ in range(3):
        peer._connection._put(encode((NOTICE, Append.METHOD, fields)))
    await peer.call(Greet(7))
    assert "metaserver 0000000000000003" in said_once(caplog, words)


async def test_a_stream_that_is_cut_off_or_flipped(member, caplog):
    for cut in (True, False):
        peer = await speaking_as(member, OTHER)
        frame = b"".join(encode((NOTICE, Append.METHOD, [TERM, 2, TERM, 0, 0, []]), [b"abcdef"]))
        damaged = frame[:-3] if cut else frame[:-1] + b"!"
        peer._stream.send_nowait([damaged])
        peer._stream.close()
        await until(lambda: len(warnings(caplog, "closing the connection")) == 1)
        text = said_once(caplog, "closing the connection")
        assert ("in the middle of a frame" if cut else "was damaged on its way") in text
        caplog.clear()


async def test_a_removed_member(member, caplog):
    early = await speaking_as(member, OTHER)
    one = Configuration(
        voters=[LEADER],
        voters_before=[],
        learners=[MEMBER],
        places=[member.leader.place, member.place],
        removed=[OTHER],
    )
    body = pack(one)
    answer = await append(
        member, Record(TERM, 3, body, Kind.MEMBERS), previous=(2, TERM), commit_index=3
    )
    assert answer.accepted
    await until(lambda: member.group._directory.was_removed(OTHER))
    # On a connection that it has, consensus refuses it; on a new one, it is not even greeted.
    await tell(early, RequestVote(TERM + 9, 1000, TERM, False, False))
    assert "was removed" in said_once(caplog, "RequestVote of 0000000000000003 is refused")
    for _ in range(3):
        with pytest.raises(TideError) as caught:
            await speaking_as(member, OTHER)
        assert caught.value.code is Code.FOREIGN_FOLDER
        assert "was removed from the group and must not come back" in caught.value.detail
    said_once(caplog, "metaserver 0000000000000003 was removed")


async def test_one_with_the_same_id(member, caplog):
    for _ in range(3):
        with pytest.raises(TideError) as caught:
            await speaking_as(member, MEMBER)
        assert caught.value.code is Code.INVALID
    assert "two members have the same id, 0000000000000002" in said_once(caplog, "is refused")


async def test_a_second_process_of_the_leader(member, caplog):
    async def refused():
        with pytest.raises(TideError) as caught:
            await speaking_as(member, LEADER, run=8)
        return caught.value.code

    assert await refused() is Code.BUSY, "the first one may be dead"
    await append(member)
    for _ in range(3):
        assert await refused() is Code.INVALID
    said_once(caplog, "two processes say that they are metaserver 0000000000000001")


async def test_a_client_that_speaks_like_a_member(member, caplog):
    hello = Identity(CLUSTER, "client", 0).hello()
    peer = await connect(member.ports, member.address, hello, no_requests, member.nursery)
    for _ in range(3):
        peer.tell(RequestVote(TERM + 1, 1000, TERM, False, False))
        with pytest.raises(TideError) as caught:
            await peer.call(Greet(7))
        assert caught.value.code is Code.WRONG_ROLE
    said_once(caplog, "speaks before it has greeted")
    said_once(caplog, "is no metaserver")


# --- snapshots -------------------------------------------------------------------------------


async def offered(member, data, digest, server=LEADER):
    """What a snapshot of that content and that checksum gets: the last answer."""
    peer = await speaking_as(member, server, member.leader.group._run if server == LEADER else 7)
    offer = OfferSnapshot(index=100, term=TERM, length=len(data), checksum=digest)
    assert (await peer.call(offer)).offset == 0
    piece = SnapshotPiece(index=100, offset=0, checksum=checksum(data))
    return (await peer.call(piece, payload=[data])).offset


async def test_a_snapshot_that_is_not_what_its_checksum_says(member, caplog):
    assert await offered(member, b"not a state", 12345) == 0
    text = said_once(caplog, "thrown away and begun anew")
    assert "metaserver 0000000000000001" in text
    assert "of 100 " in text
    assert not member.disk.exists("checkpoints")
    assert member.last_index == 2


async def test_a_snapshot_that_holds_no_state(member, caplog):
    data = b"not a state at all"
    with pytest.raises(TideError) as caught:
        await offered(member, data, checksum(data))
    assert caught.value.code in (Code.CORRUPT, Code.MALFORMED)
    assert member.last_index == 2


async def test_a_snapshot_from_who_does_not_lead(member, caplog):
    with pytest.raises(TideError) as caught:
        await offered(member, b"abc", checksum(b"abc"), server=OTHER)
    assert caught.value.code is Code.NOT_LEADER
    assert "0000000000000001 leads, as far as is known" in caught.value.detail
    assert not member.disk.exists("incoming")
