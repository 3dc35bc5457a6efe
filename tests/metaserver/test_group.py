"""The connections between members: made, kept, made again; who is refused on them, and how."""

import contextlib
import logging

import pytest
from tidefs.fs.calls import NOTICE
from tidefs.fs.errors import Code, TideError
from tidefs.fs.frames import encode
from tidefs.fs.handshake import Identity
from tidefs.fs.limits import FRAME_PAYLOAD_MAX_BYTES, NOTICE_BACKLOG_MAX_BYTES
from tidefs.fs.messages.raft import (
    Append,
    Configuration,
    Greet,
    Heartbeat,
    HeartbeatReply,
    RequestVote,
)
from tidefs.fs.rpc import connect, no_requests
from tidefs.metaserver import group as group_module
from tidefs.metaserver.raft.contract import Envelope, Kind, Record
from tidefs.tests.metaserver.members import TestMember, members_of, place, until

PULSE = Heartbeat(term=3, commit_index=7, round=1)


def records(*bodies, first_index=8, term=3):
    return [Record(term, index, body) for index, body in enumerate(bodies, first_index)]


def append(count, previous_index=7):
    return Append(3, previous_index, 2, 6, count, [])


@contextlib.asynccontextmanager
async def living(*members):
    async with contextlib.AsyncExitStack() as stack:
        for member in members:
            await stack.enter_async_context(member.living())
        yield members


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def connected(*members):
    for member in members:
        await until(lambda member=member: len(member.group.connected()) == len(members) - 1)


async def test_three_members_find_each_other_and_talk(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    members = members_of(tmp_path, 3)
    async with living(*members):
        await connected(*members)
        for member in members:
            others = [other.server for other in members if other is not member]
            member.group.send([Envelope(member.server, other, PULSE) for other in others])
        await until(lambda: all(len(member.heard) == 2 for member in members))
    for member in members:
        assert {e.sender for e in member.heard} == {1, 2, 3} - {member.server}
        assert {(e.receiver, e.message) for e in member.heard} == {(member.server, PULSE)}


async def test_an_append_brings_its_records(tmp_path):
    one, two = members_of(tmp_path, 2)
    sent = [*records(b"abc", b"", bytes(70_000)), Record(3, 11, b"conf", Kind.MEMBERS)]
    async with living(one, two):
        await connected(one, two)
        one.group.send([Envelope(1, 2, append(4), sent)])
        one.group.send([Envelope(1, 2, append(0))])
        await until(lambda: len(two.heard) == 2)
    assert two.heard[0] == Envelope(1, 2, append(4), sent)
    assert not two.heard[1].records


async def test_what_is_sent_together_arrives_in_order(tmp_path):
    one, two = members_of(tmp_path, 2)
    async with living(one, two):
        await connected(one, two)
        one.group.send([Envelope(1, 2, Heartbeat(1, 0, n)) for n in range(50)])
        await until(lambda: len(two.heard) == 50)
    assert [message.round for message in two.messages()] == list(range(50))


async def test_what_is_sent_together_shares_a_system_call(tmp_path, monkeypatch):
    one, two = members_of(tmp_path, 2)
    async with living(one, two):
        await connected(one, two)
        stream = one.group._links[2].peer._stream
        real, counted = stream.send_nowait, []
        monkeypatch.setattr(stream, "send_nowait", lambda out: counted.append(1) or real(out))
        one.group.send([Envelope(1, 2, Heartbeat(1, 0, n)) for n in range(5)])
        assert len(counted) == 1, "and it has left before anything else is done"
        await until(lambda: len(two.heard) == 5)


async def test_sending_to_who_is_not_there_drops(tmp_path):
    one, two, three = members_of(tmp_path, 3)
    async with living(one, two):
        await until(lambda: one.group.connected() == [2])
        one.group.send([Envelope(1, to, PULSE) for to in (2, 3, 99)])
        await until(lambda: two.heard)
        async with three.living():
            await connected(one, two, three)
            assert not three.heard


async def test_a_member_that_comes_back_is_found_again_and_both_times_it_is_said_once(
    tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    one, two = members_of(tmp_path, 2)
    async with one.living():
        for _ in range(2):
            async with two.living():
                await until(lambda: one.group.connected() == [2] and two.group.connected() == [1])
                one.group.send([Envelope(1, 2, PULSE)])
                two.group.send([Envelope(2, 1, PULSE)])
                await until(lambda: one.heard and two.heard)
                one.heard.clear()
            await until(lambda: one.group.connected() == [])
            await until(lambda: "no connection to metaserver 0000000000000002" in caplog.text)
            one.group.send([Envelope(1, 2, PULSE)])
    lost = [text for text in warnings(caplog) if "no connection to metaserver" in text]
    assert len([text for text in lost if "0000000000000002" in text]) == 2
    assert caplog.text.count("connected to metaserver 0000000000000002 again") >= 1


async def test_a_configuration_makes_and_ends_links(tmp_path):
    one, two, three = members_of(tmp_path, 3)
    one.directory._configured.pop(3)
    two.directory._configured.pop(3)
    async with living(one, two, three):
        await until(lambda: one.group.connected() == [2])
        whole = Configuration([1, 2], [], [3], [one.place, two.place, three.place], [])
        one.group.learn(whole)
        one.group.learn(whole)
        await until(lambda: sorted(one.group.connected()) == [2, 3])
        one.group.learn(Configuration([1], [], [], [one.place, three.place], [2]))
        await until(lambda: one.group.connected() == [3])


async def test_addresses_of_the_file_come_before_those_of_the_log(tmp_path):
    one, two = members_of(tmp_path, 2)
    async with living(one, two):
        one.group.learn(
            Configuration([1, 2], [], [], [one.place, place(2, f"unix:{tmp_path}/old")], [])
        )
        assert one.directory.addresses(2) == (two.address, f"unix:{tmp_path}/old")
        await until(lambda: one.group.connected() == [2])


async def test_a_member_that_knows_nobody_is_heard_on_the_connection_made_to_it(tmp_path):
    """It joins: only the leader knows where it is."""
    leader = TestMember(1, f"unix:{tmp_path}/1", [place(2, f"unix:{tmp_path}/2")])
    joining = TestMember(2, f"unix:{tmp_path}/2")
    async with living(leader, joining):
        await until(lambda: leader.group.connected() == [2])
        leader.group.send([Envelope(1, 2, PULSE)])
        await until(lambda: joining.heard)
        answer = HeartbeatReply(term=3, round=1, last_index=0)
        joining.group.send([Envelope(2, 1, answer)])
        await until(lambda: leader.heard)
        assert leader.heard == [Envelope(2, 1, answer)]
        assert joining.group.connected() == []


async def test_a_link_that_is_silent_is_made_anew(tmp_path, monkeypatch):
    """As when packets vanish: no end of the stream tells that it is over."""
    monkeypatch.setattr(group_module, "LINK_SILENT_MAX_MS", 100)
    one, two = members_of(tmp_path, 2)
    async with living(one, two):
        await connected(one, two)
        first = one.group._links[2].peer
        for peer in two.peers:
            peer._receive = lambda: False
        await until(lambda: one.group._links[2].peer not in (first, None))
        assert first.closed


# --- bounds ----------------------------------------------------------------------------------


async def test_sending_never_blocks_and_memory_is_bounded(tmp_path):
    one, two = members_of(tmp_path, 2)
    async with living(one, two):
        await connected(one, two)
        deaf = two.peers[-1]
        deaf._receive = lambda: False
        body = bytes(1 << 20)
        for index in range(200):
            one.group.send([Envelope(1, 2, append(1, index), records(body, first_index=index + 1))])
        link = one.group._links[2].peer
        assert link._connection.unsent_bytes < NOTICE_BACKLOG_MAX_BYTES + 2 * len(body)
        del deaf._receive
        deaf._read()
        await until(lambda: link._connection.unsent_bytes == 0)
        await until(lambda: len(two.heard) > 5)
        one.group.send([Envelope(1, 2, PULSE)])
        await until(lambda: two.messages()[-1] == PULSE)


async def test_an_append_that_fits_no_frame_is_named_once(tmp_path, caplog):
    one, two = members_of(tmp_path, 2)
    async with living(one, two):
        await connected(one, two)
        huge = records(bytes(FRAME_PAYLOAD_MAX_BYTES + 1))
        for _ in range(3):
            one.group.send([Envelope(1, 2, append(1), huge), Envelope(1, 2, PULSE)])
        await until(lambda: len(two.heard) == 3)
    (warning,) = [text for text in warnings(caplog) if "too large" in text]
    assert "metaserver 0000000000000002" in warning
    assert "the limit is 4194304 bytes" in warning


# --- who is refused --------------------------------------------------------------------------


async def greeted_by(member, identity, run=5):
    """A connection to ``member`` that has greeted."""
    peer = await connect(
        member.ports, member.address, identity.hello(), no_requests, member.nursery
    )
    await peer.call(Greet(run))
    return peer


async def refused(member, identity, code, run=5):
    with pytest.raises(TideError) as caught:
        await greeted_by(member, identity, run)
    assert caught.value.code is code
    return caught.value.detail


@pytest.mark.parametrize(
    ("identity", "code", "words"),
    [
        (Identity("sea", "client", 0), Code.WRONG_ROLE, "is no metaserver"),
        (Identity("sea", "chunkserver", 9), Code.WRONG_ROLE, "is no metaserver"),
        (Identity("sea", "metaserver", 0), Code.WRONG_ROLE, "is no metaserver"),
        (Identity("", "metaserver", 9), Code.WRONG_CLUSTER, "does not say that it belongs to"),
        (Identity("lake", "metaserver", 9), Code.WRONG_CLUSTER, "'lake', this metaserver to 'sea'"),
        (Identity("sea", "metaserver", 1), Code.INVALID, "two members have the same id"),
    ],
)
async def test_strangers_are_refused_in_words_and_once(tmp_path, caplog, identity, code, words):
    (one,) = members_of(tmp_path, 1)
    async with one.living():
        for _ in range(3):
            assert words in await refused(one, identity, code)
        assert one.group._guests.peer(identity.server) is None
    if identity.cluster != "lake":  # that one does not get beyond the handshake
        assert len([text for text in warnings(caplog) if words in text]) == 1


async def test_a_removed_member_is_told_so(tmp_path, caplog):
    one, two, three = members_of(tmp_path, 3)
    async with living(one, two):
        for member in (one, two):
            member.group.learn(Configuration([1, 2], [], [], [one.place, two.place], [3]))
        async with three.living():
            await until(lambda: "was removed from the group" in caplog.text)
            await until(lambda: len(one.peers) > 4)
            assert three.group.connected() == []
            three.group.send([Envelope(3, 1, PULSE)])
        assert not one.heard
    said = [text for text in warnings(caplog) if "was removed from the group" in text]
    assert len([text for text in said if "is refused" in text]) == 2  # by one and by two
    assert len([text for text in said if "no connection to" in text]) == 2  # three, of both


async def test_a_member_removed_while_it_talks_is_heard_to_the_end(tmp_path):
    """A leader that removes itself must still learn that its followers know it."""
    one, two = members_of(tmp_path, 2)
    async with living(one, two):
        await connected(one, two)
        link = two.group._links[1].peer
        one.group.learn(Configuration([1], [], [], [one.place], [2]))
        await until(lambda: one.group.connected() == [])
        await link.call(Greet(two.group._run))
        two.group.send([Envelope(2, 1, PULSE)])
        await until(lambda: one.heard)
        one.group.send([Envelope(1, 2, PULSE)])
        await until(lambda: two.heard)


async def test_two_living_processes_with_one_id(tmp_path, caplog):
    one, two = members_of(tmp_path, 2)
    copy = TestMember(2, f"unix:{tmp_path}/copy", [one.place])
    async with living(one, two):
        await connected(one, two)
        async with copy.living():
            await until(lambda: "two processes say that they are" in caplog.text)
            peers = len(one.peers)
            await until(lambda: len(one.peers) > peers + 3)  # it goes on trying
            assert copy.group.connected() == []
            copy.group.send([Envelope(2, 1, RequestVote(99, 0, 0, False, False))])
            two.group.send([Envelope(2, 1, PULSE)])
            await until(lambda: one.heard)
            assert one.messages() == [PULSE]
        said = [text for text in warnings(caplog) if "two processes say" in text]
        assert len([text for text in said if "is refused" in text]) == 1
        assert "Stop the one whose folder is the copy" in said[0]


async def test_who_was_killed_may_come_back_at_once(tmp_path, caplog):
    """Its old connections are closed: there are no two of it."""
    one, two = members_of(tmp_path, 2)
    async with one.living():
        for _ in range(3):
            two = TestMember(2, two.address, [one.place])
            async with two.living():
                await until(lambda two=two: two.group.connected() == [1])
    assert "two processes" not in caplog.text


async def test_who_is_silent_gives_way_to_another_process(tmp_path, monkeypatch, caplog):
    """A machine that lost its power closes nothing; what starts there again is no copy."""
    (one,) = members_of(tmp_path, 1)
    two = Identity("sea", "metaserver", 2)
    now_ns = 10**12
    async with one.living():
        monkeypatch.setattr(one.ports.clock, "monotonic_ns", lambda: now_ns, raising=False)
        first = await greeted_by(one, two, run=1)
        now_ns += 500_000_000
        assert "may still be alive" in await refused(one, two, Code.BUSY, run=2)
        now_ns += 499_999_999
        await refused(one, two, Code.BUSY, run=2)
        now_ns += 1
        await greeted_by(one, two, run=2)
        await first.wait_closed()
    assert "two processes" not in caplog.text


async def test_who_is_heard_of_after_another_one_came_is_alive(tmp_path, monkeypatch):
    (one,) = members_of(tmp_path, 1)
    two = Identity("sea", "metaserver", 2)
    now_ns = 10**12
    async with one.living():
        monkeypatch.setattr(one.ports.clock, "monotonic_ns", lambda: now_ns, raising=False)
        first = await greeted_by(one, two, run=1)
        await refused(one, two, Code.BUSY, run=2)
        now_ns += 1
        first.tell(PULSE)
        await until(lambda: one.heard)
        assert "two processes" in await refused(one, two, Code.INVALID, run=2)
        assert not first.closed


async def test_somebody_else_answers_at_the_address_of_a_member(tmp_path, caplog):
    one, two = members_of(tmp_path, 2)
    one.directory._configured[3] = place(3, two.address)
    one.directory._configured[4] = place(4, one.address)
    async with living(one, two):
        await until(lambda: one.group.connected() == [2])
        await until(lambda: "of this very member" in caplog.text)
        await until(lambda: "0000000000000003 should be: correct the addresses" in caplog.text)
        assert one.group.connected() == [2]


async def test_the_refusal_of_one_address_is_said_though_another_one_is_dead(tmp_path, caplog):
    """It is what a person must know: a dead address behind it says nothing."""
    foreign = TestMember(2, f"unix:{tmp_path}/2.sock", cluster="another")
    both = place(2, foreign.address, f"unix:{tmp_path}/nobody.sock")
    first = TestMember(1, f"unix:{tmp_path}/1.sock", [both])
    async with first.living(), foreign.living():
        await until(lambda: warnings(caplog))
        with pytest.raises(TideError) as caught:
            await first.group.reach(2)
    assert "belongs to cluster 'sea', this metaserver to 'another'" in caught.value.detail
    assert any("belongs to cluster" in text for text in warnings(caplog))


async def test_who_has_not_greeted_is_not_believed(tmp_path, caplog):
    (one,) = members_of(tmp_path, 1)
    async with one.living():
        peer = await connect(
            one.ports,
            one.address,
            Identity("sea", "metaserver", 2).hello(),
            no_requests,
            one.nursery,
        )
        await greeted_by(one, Identity("sea", "metaserver", 2), run=1)
        peer.tell(PULSE)
        peer.tell(PULSE)
        await peer.call(Greet(1))
        assert not one.heard
        peer.tell(PULSE)
        await until(lambda: one.heard)
    (warning,) = warnings(caplog)
    assert "speaks before it has greeted" in warning


# --- what is refused -------------------------------------------------------------------------

OUTLINE = (3, 0, 3)


@pytest.mark.parametrize(
    ("message", "payload", "words"),
    [
        (Append(3, 7, 2, 6, 2, [OUTLINE]), b"abc", "announces 2 records and describes 1"),
        (Append(3, 7, 2, 6, 1, [OUTLINE]), b"ab", "records of 3 bytes and brings 2"),
        (Append(3, 7, 2, 6, 1, [OUTLINE]), b"abcd", "records of 3 bytes and brings 4"),
        (Append(3, 7, 2, 6, 0, []), b"abcd", "records of 0 bytes and brings 4"),
        (Append(3, 7, 2, 6, 2, [(3, 0, -3), (3, 0, 6)]), b"abc", "a record of -3 bytes"),
        (Append(3, 7, 2, 6, 1, [(3, 9, 3)]), b"abc", "the unknown kind 9"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words_and_hurts_nobody(
    tmp_path, caplog, message, payload, words
):
    (one,) = members_of(tmp_path, 1)
    async with one.living():
        peer = await greeted_by(one, Identity("sea", "metaserver", 2))
        for _ in range(3):
            peer.tell(message, [payload])
        peer.tell(PULSE)
        await until(lambda: one.heard)
        assert one.messages() == [PULSE]
        assert not peer.closed
    (warning,) = warnings(caplog)
    assert words in warning
    assert "metaserver 0000000000000002" in warning


async def test_a_notice_of_another_shape_is_refused(tmp_path, caplog):
    (one,) = members_of(tmp_path, 1)
    async with one.living():
        peer = await greeted_by(one, Identity("sea", "metaserver", 2))
        for _ in range(3):
            peer._connection._put(
                encode((NOTICE, Append.METHOD, [3, 7, 2, 6, 1, [[3, 0]]]), [b"x"])
            )
        peer.tell(PULSE)
        await until(lambda: one.heard)
    (warning,) = warnings(caplog)
    assert "Append: " in warning
    assert one.messages() == [PULSE]


async def test_requests_on_a_link_are_refused(tmp_path):
    """Who was connected to asks nothing on that connection; notices are all it says."""
    one, two = members_of(tmp_path, 2)
    async with living(one, two):
        await connected(one, two)
        with pytest.raises(TideError) as caught:
            await two.peers[-1].call(Greet(5))
        assert caught.value.code is Code.UNKNOWN_METHOD


async def test_links_end_with_their_nursery(tmp_path):
    one, two = members_of(tmp_path, 2)
    async with two.living():
        async with one.living():
            await connected(one, two)
        await until(lambda: two.group.connected() == [])
