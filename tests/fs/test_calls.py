"""The protocol without a socket: two ends joined by hand, time by argument."""

import pytest
from tidefs.fs import calls
from tidefs.fs.calls import ERROR, HELLO, REPLY, REQUEST, Connection, Mutation, State
from tidefs.fs.codec import pack, unpack
from tidefs.fs.errors import Code, TideError
from tidefs.fs.frames import EMPTY, Frame, FrameReader
from tidefs.fs.handshake import Identity
from tidefs.fs.limits import WAITING_CALLS_MAX
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.chunk import ChunkData, Heartbeat, ReadChunk, Written
from tidefs.fs.messages.hello import ANY_CLUSTER, Hello

MS = 1_000_000
SERVER = Identity("sea", "chunkserver", 7, credits=3)
CLIENT = Identity("sea", "client", 0)
BEAT = Heartbeat(total_bytes=10, free_bytes=5)


class Ends:
    """A client and a server; ``flow`` carries what they have put out."""

    def __init__(self, hello=None, identity=SERVER, expected_role=None):
        self.client = Connection(
            "unix:/x", hello=hello or CLIENT.hello(), expected_role=expected_role
        )
        self.server = Connection("unix:/x#1", identity=identity)
        self.asked = []
        self.outcomes = []

    def flow(self, times=4):
        for _ in range(times):
            self.carry(self.client, self.server)
            self.carry(self.server, self.client)
        return self

    def carry(self, sender, receiver):
        for frame in taken(sender):
            asked = receiver.received(frame)
            if asked is not None:
                self.asked.append(asked)

    def ask(self, request=BEAT, *, now_ns=0, timeout_ms=1000, end=None, **more):
        return (end or self.client).request(
            now_ns,
            request,
            lambda outcome, payload: self.outcomes.append((outcome, bytes(payload))),
            timeout_ms=timeout_ms,
            **more,
        )


def taken(connection):
    """The frames that wait to be sent; they are gone from there."""
    data = b"".join(connection.out)
    connection.sent(len(data))
    reader = FrameReader()
    reader.buffer()[: len(data)] = data
    return list(reader.received(len(data)))


def frame_of(*header):
    return Frame(unpack(pack(header)), EMPTY)


def refusal(ends):
    """The error that ends the connection, and what the other side then gets to know."""
    with pytest.raises(TideError) as caught:
        ends.flow()
    return caught.value


def test_a_greeting():
    ends = Ends().flow()
    assert ends.client.state is ends.server.state is State.OPEN
    assert ends.client.remote.role == "chunkserver"
    assert ends.server.remote == CLIENT.hello()
    assert ends.client.name == "chunkserver 0000000000000007 at unix:/x"
    assert ends.server.name == "client at unix:/x#1"


def test_a_client_that_does_not_know_the_cluster_yet():
    ends = Ends(CLIENT._replace(cluster=ANY_CLUSTER).hello()).flow()
    assert ends.client.remote.cluster == "sea"


@pytest.mark.parametrize(
    ("hello", "code", "words"),
    [
        (Hello(1, 1, "lake", "client", 0), Code.WRONG_CLUSTER, "'lake', this chunkserver to 'sea'"),
        (Hello(2, 9, "sea", "client", 0), Code.WRONG_PROTOCOL, "speaks protocol versions 2 to 9"),
        (Hello(0, 0, "sea", "client", 0), Code.WRONG_PROTOCOL, "upgrade the older one"),
        (Hello(1, 1, "sea", "pirate", 0), Code.WRONG_ROLE, "'pirate' is not a role"),
    ],
)
def test_mismatches_are_refused_in_words(hello, code, words):
    ends = Ends(hello)
    error = refusal(ends)
    assert (error.code, words in error.detail) == (code, True)
    ends.server.refuse(error)
    with pytest.raises(calls.RefusedError) as caught:
        ends.carry(ends.server, ends.client)
    assert (caught.value.code, caught.value.detail) == (error.code, error.detail)


def test_a_server_of_another_role_than_was_looked_for():
    error = refusal(Ends(expected_role="metaserver"))
    assert error.code is Code.WRONG_ROLE
    assert "a metaserver was looked for, a chunkserver answered" in error.detail


def test_a_server_of_another_cluster_that_does_not_mind():
    error = refusal(Ends(identity=SERVER._replace(cluster="lake"), hello=CLIENT.hello()))
    assert error.code is Code.WRONG_CLUSTER


@pytest.mark.parametrize("header", [(REQUEST, 1, 2, 3, []), (REPLY, 1, []), (HELLO,), (77, 1), 5])
def test_what_is_no_greeting_ends_the_connection(header):
    server = Connection("x", identity=SERVER)
    with pytest.raises(TideError) as caught:
        server.received(Frame(unpack(pack(header)), EMPTY))
    assert caught.value.code is Code.MALFORMED


def test_replies_in_any_order_with_payloads_both_ways():
    ends = Ends().flow()
    ends.ask(ReadChunk(1, 2, 3, 4), payload=[b"ab", b"c"])
    ends.ask(BEAT, end=ends.server)
    ends.ask(BEAT, mutation=Mutation(5, 6, 7))
    ends.flow()
    beat, read = ends.asked[1], ends.asked[0]
    assert (read.request, bytes(read.payload), read.mutation) == (
        ReadChunk(1, 2, 3, 4),
        b"abc",
        None,
    )
    assert beat.mutation == Mutation(5, 6, 7)
    from_server = ends.asked[2]
    ends.client.answer(from_server.number, Done())
    ends.server.answer(beat.number, Done())
    ends.server.answer(read.number, ChunkData(version=9), [b"data"])
    assert (ends.client.calling, ends.server.serving) == (2, 0)
    ends.flow()
    assert sorted(ends.outcomes, key=str) == [
        (ChunkData(version=9), b"data"),
        (Done(), b""),
        (Done(), b""),
    ]
    assert ends.client.calling == ends.server.calling == ends.client.serving == 0


def test_an_error_reply():
    ends = Ends().flow()
    ends.ask()
    ends.flow()
    ends.server.fail(ends.asked[0].number, TideError(Code.BUSY, "later", delay_ms=30))
    ends.flow()
    ((error, _),) = ends.outcomes
    assert (error.code, error.detail, error.delay_ms) == (Code.BUSY, "later", 30)


def test_only_the_first_answer_counts():
    ends = Ends().flow()
    ends.ask()
    ends.flow()
    ends.server.answer(1, Done())
    ends.server.answer(1, Done())
    ends.server.fail(1, TideError(Code.BUSY))
    assert len(taken(ends.server)) == 1


def test_more_than_the_credits_wait_their_turn():
    ends = Ends().flow()
    for _ in range(5):
        ends.ask()
    ends.flow()
    assert [asked.number for asked in ends.asked] == [1, 2, 3]
    ends.server.answer(2, Done())
    ends.flow()
    assert [asked.number for asked in ends.asked] == [1, 2, 3, 4]
    ends.server.fail(4, TideError(Code.NO_CHUNK))
    ends.flow()
    assert len(ends.asked) == 5


def test_what_is_asked_comes_behind_what_was_answered_before():
    """Promises rest on that. What waits for a credit lets later answers pass, and nothing else."""
    ends = Ends().flow()

    def answer():
        call = ends.ask()
        ends.carry(ends.client, ends.server)
        ends.server.answer(ends.asked.pop().number, Done())
        ends.client.forget(call)

    def kinds():
        return [frame.header[0] for frame in taken(ends.server)]

    answer()
    first = ends.ask(end=ends.server)
    for _ in range(2):
        answer()
        ends.ask(end=ends.server)
    assert kinds() == [REPLY, REQUEST] * 3
    ends.ask(end=ends.server)
    answer()
    assert kinds() == [REPLY]
    ends.server.forget(first)
    ends.server.release_held()
    answer()
    assert kinds() == [REQUEST, REPLY]


def test_a_caller_that_ignores_its_credits_is_told_to_wait():
    ends = Ends().flow()
    ends.client._credits = 100
    for _ in range(4):
        ends.ask()
    ends.flow()
    ((error, _),) = ends.outcomes
    assert error.code is Code.BUSY
    assert error.delay_ms > 0


def test_calls_that_wait_are_bounded():
    ends = Ends().flow()
    for _ in range(3 + WAITING_CALLS_MAX):
        ends.ask()
    with pytest.raises(TideError) as caught:
        ends.ask()
    assert caught.value.code is Code.BUSY


def test_a_backlog_holds_calls_back_and_answers_busy(monkeypatch):
    monkeypatch.setattr(calls, "SEND_BACKLOG_BUSY_BYTES", 1000)
    ends = Ends().flow()
    ends.ask(payload=[bytes(2000)])
    ends.ask()
    assert ends.client.unsent_bytes > 2000
    ends.client.sent(ends.client.unsent_bytes - 1)
    assert b"".join(ends.client.out)[:1] == b"\0"
    ends.client.sent(0)
    assert ends.client._held == {}


def test_what_was_sent_is_cut_off_at_any_byte():
    whole = b"".join(three().out)
    for count in range(len(whole) + 1):
        connection = three()
        connection.sent(count)
        assert b"".join(connection.out) == whole[count:]
        assert connection.unsent_bytes == len(whole) - count


def three():
    """A connection with three frames of several buffers to send."""
    ends = Ends().flow()
    for number in range(3):
        ends.ask(ReadChunk(number, 0, 0, 0), payload=[b"abc", b"d"])
    return ends.client


def test_a_server_with_a_backlog_answers_busy(monkeypatch):
    monkeypatch.setattr(calls, "SEND_BACKLOG_BUSY_BYTES", 1000)
    ends = Ends().flow()
    ends.ask()
    ends.ask()
    first, second = taken(ends.client)
    ends.server.received(first)
    ends.server.answer(1, Done(), [bytes(2000)])
    assert ends.server.received(second) is None
    ends.carry(ends.server, ends.client)
    assert ends.outcomes[0][0] == Done()
    assert ends.outcomes[1][0].code is Code.BUSY


def test_deadlines():
    ends = Ends().flow()
    ends.ask(timeout_ms=500)
    ends.ask(timeout_ms=100)
    ends.ask(timeout_ms=300)
    ends.ask(timeout_ms=50)  # held back: no credit
    assert ends.client.next_deadline() == 50 * MS
    ends.client.expire(49 * MS)
    assert not ends.outcomes
    ends.client.expire(100 * MS)
    assert [error.code for error, _ in ends.outcomes] == [Code.TIMED_OUT] * 2
    assert ends.outcomes[0][0].detail == (
        "Heartbeat to chunkserver 0000000000000007 at unix:/x within 50 ms"
    )
    ends.flow()
    ends.server.answer(2, Done())  # too late
    ends.server.answer(3, Done())
    ends.flow()
    assert len(ends.outcomes) == 3
    assert ends.client.next_deadline() == 500 * MS
    ends.server.answer(1, Done())
    ends.flow()
    assert ends.client.next_deadline() is None


def test_deadlines_of_answered_calls_do_not_pile_up():
    ends = Ends().flow()
    ends.ask(timeout_ms=1)
    for _ in range(2000):
        ends.ask(timeout_ms=1000)
        ends.flow(1)
        if ends.asked:
            ends.server.answer(ends.asked[-1].number, Done())
        ends.flow(1)
    assert len(ends.client._deadlines) < 500


def test_a_forgotten_call_frees_its_credit_and_its_answer_is_ignored():
    ends = Ends().flow()
    all_calls = [ends.ask() for _ in range(5)]
    ends.flow()
    ends.client.forget(all_calls[0])
    ends.client.forget(all_calls[4])
    ends.client.forget(all_calls[4])
    ends.server.answer(1, Done())
    ends.flow()
    assert not ends.outcomes
    assert [asked.number for asked in ends.asked] == [1, 2, 3, 4]


def test_duplicated_and_reordered_frames_are_harmless():
    ends = Ends()
    (hello,) = taken(ends.client)
    ends.server.received(hello)
    ends.server.received(hello)
    (welcome,) = taken(ends.server)
    ends.client.received(welcome)
    ends.client.received(welcome)
    ends.ask()
    ends.ask()
    first, second = taken(ends.client)
    assert ends.server.received(second).number == 2
    assert ends.server.received(first).number == 1
    for frame in (first, second, first):
        assert ends.server.received(frame) is None
    ends.server.answer(1, Done())
    ends.server.answer(2, Done())
    for frame in taken(ends.server) * 2:
        ends.client.received(frame)
    assert ends.server.received(first) is None
    assert len(ends.outcomes) == 2
    ends.client.received(frame_of(REPLY, 999, []))
    ends.client.received(frame_of(ERROR, 999, 1, "", 0))


def test_a_number_from_before_the_window_is_not_served():
    server = Ends().flow().server
    assert server.received(frame_of(REQUEST, 10_000, BEAT.METHOD, 1, BEAT)) is not None
    assert server.received(frame_of(REQUEST, 1, BEAT.METHOD, 1, BEAT)) is None
    assert server.received(frame_of(REQUEST, 9_999, BEAT.METHOD, 1, BEAT)) is not None


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ((REQUEST, 1, 0xFFFF, 1, []), Code.UNKNOWN_METHOD),
        ((REQUEST, 1, BEAT.METHOD, 1, [1, "x"]), Code.MALFORMED),
        ((REQUEST, 1, BEAT.METHOD, 1, [1, 2, 3]), Code.MALFORMED),
        ((REQUEST, 1, BEAT.METHOD, 1, [1, 2], 1, 2), Code.MALFORMED),
        ((REQUEST, 1, BEAT.METHOD, 1, [1, 2], 1, 2, "x"), Code.MALFORMED),
    ],
)
def test_a_bad_request_is_answered(header, code):
    server = Ends().flow().server
    assert server.received(frame_of(*header)) is None
    (answer,) = taken(server)
    assert answer.header[:3] == [ERROR, 1, code]


@pytest.mark.parametrize(
    "header",
    [
        (REQUEST, 1, BEAT.METHOD),
        (REQUEST, "1", BEAT.METHOD, 1, [1, 2]),
        (REQUEST, 0, BEAT.METHOD, 1, [1, 2]),
        (REQUEST, 1, [], 1, [1, 2]),
        (REPLY, 1),
        (ERROR, 1, 2),
        (77, 1),
        ("x", 1),
        (),
        5,
        {},
    ],
)
def test_a_header_without_sense_ends_the_connection(header):
    server = Ends().flow().server
    with pytest.raises(TideError) as caught:
        server.received(Frame(unpack(pack(header)), EMPTY))
    assert caught.value.code is Code.MALFORMED
    assert "makes no sense" in caught.value.detail


def test_a_reply_of_the_wrong_shape_fails_that_call_only():
    ends = Ends().flow()
    ends.ask(BEAT)
    ends.ask(BEAT)
    ends.flow()
    ends.server.answer(1, Written(serial=5))
    ends.server.answer(2, Done())
    ends.flow()
    assert ends.outcomes[0][0].code is Code.MALFORMED
    assert ends.outcomes[1][0] == Done()


def test_an_error_code_of_a_newer_version():
    ends = Ends().flow()
    ends.ask()
    ends.client.received(frame_of(ERROR, 1, 5555, "new", "x"))
    assert ends.outcomes[0][0].code is Code.INTERNAL


def test_closing_fails_everything():
    ends = Ends().flow()
    for _ in range(5):
        ends.ask()
    ends.client.close("the cable is cut")
    ends.client.close("again")
    assert [error.code for error, _ in ends.outcomes] == [Code.DISCONNECTED] * 5
    assert ends.outcomes[0][0].detail.endswith("the cable is cut")
    with pytest.raises(TideError, match="the cable is cut") as caught:
        ends.ask()
    assert caught.value.code is Code.DISCONNECTED
    assert ends.client.next_deadline() is None


def test_what_does_not_fit_a_frame_leaves_no_trace():
    ends = Ends().flow()
    with pytest.raises(TideError) as caught:
        ends.ask(payload=[bytes(5 << 20)])
    assert caught.value.code is Code.TOO_LARGE
    assert ends.client.calling == 0
    assert not ends.client.out
