"""Sessions and slots: each mutation happens once, its answer is given as often as it is asked for
(RFC 8881 section 2.10.6)."""

import pytest
from tidefs.fs.attributes import Kind
from tidefs.fs.codec import pack, unpack
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import SESSION_LEASE_MS, SESSION_SLOTS
from tidefs.fs.messages.base import METHODS, Done, reply_type
from tidefs.fs.messages.meta import Change, Create, Rename, SetXattr, Unlink
from tidefs.metaserver.check import check
from tidefs.metaserver.effects import SessionEnded, SessionStarted
from tidefs.metaserver.entries import (
    INTERNAL_METHODS,
    AdmitServer,
    EndSession,
    Entry,
    FormatCluster,
    Noop,
    StartSession,
)
from tidefs.metaserver.kv_memory import MemoryKeyValue
from tidefs.metaserver.operations.table import OPERATIONS
from tidefs.metaserver.records import ServerRecord, SessionRecord
from tidefs.metaserver.state import State

CREATE = Create(1, b"file", Kind.FILE, 0o644, 1, 2, 0, True, True)


@pytest.fixture
def session(cluster):
    return cluster.session()


def code_of(reply):
    assert isinstance(reply, TideError), reply
    return reply.code


# --- slots


def test_a_repetition_gets_the_first_answer(cluster, session):
    first = cluster.apply(CREATE, session=session, slot=3, sequence=1)
    before = cluster.everything()
    again = cluster.apply(CREATE, session=session, slot=3, sequence=1)
    assert again == first
    assert cluster.effects == []
    assert cluster.everything() == before


def test_a_repetition_after_something_else(cluster, session):
    cluster.apply(CREATE, session=session, sequence=1)
    removed = cluster.apply(Unlink(1, b"file"), session=session, sequence=2)
    cluster.file()
    assert cluster.apply(Unlink(1, b"file"), session=session, sequence=2) == removed
    assert cluster.effects == []
    assert cluster.state.lookup(1, b"file")


def test_a_reply_with_parts_that_may_be_missing(cluster, session):
    cluster.file(b"a")
    cluster.file(b"b")
    for sequence, (name, new_name) in enumerate([(b"a", b"b"), (b"b", b"c")], 1):
        request = Rename(1, name, 1, new_name, 0)
        first = cluster.apply(request, session=session, sequence=sequence)
        assert cluster.apply(request, session=session, sequence=sequence) == first


def test_an_error_is_remembered_too(cluster, session):
    refused = cluster.apply(Unlink(1, b"file"), session=session, sequence=1)
    assert code_of(refused) == Code.NO_ENTRY
    cluster.file()
    again = cluster.apply(Unlink(1, b"file"), session=session, sequence=1)
    assert again.args == refused.args
    assert cluster.state.lookup(1, b"file")


def test_an_older_one_is_stale(cluster, session):
    cluster.apply(CREATE, session=session, sequence=5)
    again = cluster.apply(Unlink(1, b"file"), session=session, sequence=4)
    assert code_of(again) == Code.STALE_SEQUENCE
    assert cluster.state.slot(session, 0).sequence == 5


def test_the_same_number_for_another_request(cluster, session):
    cluster.apply(CREATE, session=session, sequence=1)
    other = cluster.apply(Unlink(1, b"file"), session=session, sequence=1)
    assert code_of(other) == Code.MALFORMED
    assert cluster.state.lookup(1, b"file")


def test_slots_and_sessions_are_apart(cluster, session):
    other = cluster.session(b"m" * 16)
    cluster.apply(CREATE, session=session, slot=0, sequence=1)
    for where in [(session, 1), (other, 0)]:
        again = cluster.apply(CREATE, session=where[0], slot=where[1], sequence=1)
        assert code_of(again) == Code.EXISTS


def test_what_a_slot_says(cluster, session):
    assert cluster.state.slot(session, 0) is None
    assert cluster.state.slot(session, -1) is None
    assert cluster.state.slot(-1, 0) is None
    reply = cluster.apply(CREATE, session=session, sequence=7)
    record = cluster.state.slot(session, 0)
    assert (record.sequence, record.method, record.answer()) == (7, Create.METHOD, reply)


@pytest.mark.parametrize(
    ("slot", "sequence"), [(SESSION_SLOTS, 1), (-1, 1), (0, 0), (0, -1), (1 << 63, 1)]
)
def test_slots_that_are_none(cluster, session, slot, sequence):
    reply = cluster.apply(CREATE, session=session, slot=slot, sequence=sequence)
    assert code_of(reply) == Code.MALFORMED
    assert cluster.state.totals.inodes == 1


def test_a_session_that_is_none(cluster, session):
    for number in (99, -1, 1 << 63):
        assert code_of(cluster.apply(CREATE, session=number, sequence=1)) == Code.SESSION_EXPIRED
    cluster.do(EndSession(session, True))
    assert code_of(cluster.apply(CREATE, session=session, sequence=1)) == Code.SESSION_EXPIRED
    assert cluster.state.totals.inodes == 1


def test_a_client_may_not_speak_for_the_leader(cluster, session):
    reply = cluster.apply(EndSession(session, True), session=session, sequence=1)
    assert code_of(reply) == Code.UNKNOWN_METHOD
    assert cluster.state.session(session)


# --- malformed entries


@pytest.mark.parametrize(
    ("method", "fields", "code"),
    [
        (0x0FFF, [], Code.UNKNOWN_METHOD),
        (0x0101, [1, b"a"], Code.UNKNOWN_METHOD),
        (Unlink.METHOD, [], Code.MALFORMED),
        (Unlink.METHOD, [1, b"a", 3], Code.MALFORMED),
        (Unlink.METHOD, ["1", b"a"], Code.MALFORMED),
        (Unlink.METHOD, [1, "a"], Code.MALFORMED),
        (Unlink.METHOD, [1, None], Code.MALFORMED),
        (Unlink.METHOD, [1.5, b"a"], Code.MALFORMED),
        (Create.METHOD, [1, b"a", 77, 0, 0, 0, 0, True, True], Code.MALFORMED),
        (SetXattr.METHOD, [1, b"a", [b"x"], 0], Code.MALFORMED),
    ],
)
def test_fields_that_are_wrong(cluster, session, method, fields, code):
    cluster.index += 1
    entry = Entry(cluster.index, 1, cluster.now, session, 0, 1, method, fields, b"")
    assert code_of(cluster.apply_entry(entry)) == code
    assert cluster.state.totals.applied_index == cluster.index


def test_entries_come_in_order(cluster):
    with pytest.raises(AssertionError):
        cluster.state.apply(Entry(cluster.index + 2, 1, 0, 0, 0, 0, Noop.METHOD, [], b""))


def test_every_change_has_its_operation_and_its_reply():
    changes = {number for number, request in METHODS.items() if issubclass(request, Change)}
    assert set(OPERATIONS) == changes | INTERNAL_METHODS
    for number in OPERATIONS:
        assert reply_type(METHODS[number])


def test_an_entry_travels(cluster):
    cluster.file()
    for entry in cluster.log:
        assert Entry(*unpack(pack(entry))) == entry


# --- sessions


def test_a_session_starts(cluster):
    reply = cluster.do(StartSession(b"0123456789abcdef", "here", 42))
    assert reply.session == cluster.index
    assert (reply.lease_ms, reply.slots) == (SESSION_LEASE_MS, SESSION_SLOTS)
    assert cluster.effects == [SessionStarted(reply.session)]
    record = SessionRecord(reply.session, b"0123456789abcdef", "here", 42, cluster.now)
    assert cluster.state.sessions() == [record]
    assert cluster.state.session(reply.session) == record
    assert cluster.state.session(-1) is None


def test_a_repeated_start(cluster):
    first = cluster.do(StartSession(b"n" * 16, "here", 42))
    assert cluster.do(StartSession(b"n" * 16, "here", 42)) == first
    assert cluster.effects == []


def test_a_session_ends(cluster, session):
    other = cluster.session(b"m" * 16)
    for slot in range(SESSION_SLOTS):
        cluster.apply(CREATE, session=session, slot=slot, sequence=1)
    cluster.apply(CREATE, session=other, sequence=1)
    cluster.do(EndSession(session, False))
    assert cluster.effects == [SessionEnded(session, False)]
    assert [record.session for record in cluster.state.sessions()] == [other]
    assert list(cluster.state.tables.sessions.all_slots()) == [other]
    cluster.do(EndSession(session, False))
    assert cluster.effects == []
    assert cluster.session() != session, "a new one under the old nonce"


def test_sessions_that_cannot_be(cluster):
    assert cluster.refused(StartSession(b"short", "here", 1)) == Code.INVALID
    assert cluster.refused(StartSession(b"n" * 17, "here", 1)) == Code.INVALID
    assert cluster.refused(StartSession(b"n" * 16, "x" * 256, 1)) == Code.INVALID


# --- the cluster


def test_a_state_before_it_is_formatted():
    state = State(MemoryKeyValue())
    assert state.totals.cluster == ""
    assert check(state) == []
    with pytest.raises(TideError) as caught:
        state.attributes(1)
    assert caught.value.code == Code.STALE_HANDLE


def test_format(cluster):
    totals = cluster.state.totals
    assert (totals.cluster, totals.replicas) == ("test", 3)
    root = cluster.state.attributes(1)
    assert (root.kind, root.mode, root.uid, root.gid) == (Kind.DIRECTORY, 0o755, 10, 20)
    assert (root.links, root.size, root.ctime_ns) == (2, 0, cluster.now)


def test_format_again(cluster):
    before = cluster.everything()
    cluster.do(FormatCluster("test", 2, 0o700, 0, 0))
    assert cluster.everything() == before
    assert cluster.state.totals.replicas == 3
    assert cluster.refused(FormatCluster("other", 3, 0o755, 0, 0)) == Code.EXISTS
    assert cluster.refused(FormatCluster("", 3, 0o755, 0, 0)) == Code.INVALID
    assert cluster.refused(FormatCluster("test", 0, 0o755, 0, 0)) == Code.INVALID
    assert cluster.refused(FormatCluster("test", 10, 0o755, 0, 0)) == Code.INVALID
    assert cluster.refused(FormatCluster("test", 3, 0o70755, 0, 0)) == Code.INVALID
    assert cluster.refused(FormatCluster("test", 3, 0o755, -1, 0)) == Code.INVALID


def test_servers(cluster):
    cluster.do(AdmitServer(7, "chunkserver", "here", ["unix:/a", "tcp:here:1"]))
    cluster.do(AdmitServer(5, "chunkserver", "there", []))
    cluster.do(AdmitServer(7, "chunkserver", "here", ["unix:/b"]))
    assert cluster.state.servers() == [
        ServerRecord(5, "chunkserver", "there", []),
        ServerRecord(7, "chunkserver", "here", ["unix:/b"]),
    ]
    assert cluster.refused(AdmitServer(0, "chunkserver", "", [])) == Code.INVALID
    assert cluster.refused(AdmitServer(1 << 63, "chunkserver", "", [])) == Code.INVALID


def test_applied_index_and_term(cluster):
    cluster.index += 1
    entry = Entry(cluster.index, 9, 5, 0, 0, 0, Noop.METHOD, [], b"")
    assert cluster.apply_entry(entry) == Done()
    totals = cluster.state.totals
    assert (totals.applied_index, totals.applied_term) == (cluster.index, 9)
    assert totals.time_ns > 5, "time does not go back"


def test_a_state_over_what_another_left(cluster, session):
    cluster.apply(CREATE, session=session, sequence=1)
    twin = State(cluster.state.tables.kv)
    assert twin.totals == cluster.state.totals
    assert twin.digest() == cluster.state.digest()
    assert twin.lookup(1, b"file") == cluster.state.lookup(1, b"file")
