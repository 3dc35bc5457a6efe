"""Notices: one way, no answer; first without a socket, then over real ones."""

import logging
from contextlib import asynccontextmanager

import pytest
import trio
from tidefs.fs import calls
from tidefs.fs.calls import NOTICE, REQUEST, BadNoticeError, Connection, State
from tidefs.fs.codec import pack, unpack
from tidefs.fs.errors import Code, TideError
from tidefs.fs.frames import EMPTY, Frame, FrameReader, encode
from tidefs.fs.handshake import Identity
from tidefs.fs.limits import NOTICE_BACKLOG_MAX_BYTES
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.chunk import Heartbeat as Beat
from tidefs.fs.messages.raft import Append, Heartbeat, TimeoutNow
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.network_real import RealNetwork, RealStream
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import connect, no_requests, serve

PORTS = Ports(RealClock(), RealRandomness(), None, RealNetwork())
NEAR, FAR = Identity("sea", "metaserver", 1), Identity("sea", "metaserver", 2, credits=2)
PULSE = Heartbeat(term=3, commit_index=7, round=1)
APPEND = Append(
    term=3, previous_index=6, previous_term=2, commit_index=6, count=1, records=[(3, 0, 5)]
)


# --- without a socket ------------------------------------------------------------------------


def ends():
    """Two greeted ends."""
    near = Connection("unix:/x", hello=NEAR.hello())
    far = Connection("unix:/x#1", identity=FAR)
    for sender, receiver in ((near, far), (far, near)):
        for frame in taken(sender):
            receiver.received(frame)
    assert near.state is far.state is State.OPEN
    return near, far


def taken(connection):
    data = b"".join(connection.out)
    connection.sent(len(data))
    reader = FrameReader()
    reader.buffer()[: len(data)] = data
    return list(reader.received(len(data)))


def frame_of(*header):
    return Frame(unpack(pack(header)), EMPTY)


def test_a_notice_arrives_with_its_payload_in_both_directions():
    near, far = ends()
    for sender, receiver in ((near, far), (far, near)):
        assert sender.tell(APPEND, [b"he", b"llo"])
        (frame,) = taken(sender)
        assert frame.header[0] == NOTICE
        told = receiver.received(frame)
        assert (told.request, bytes(told.payload), told.mutation) == (APPEND, b"hello", None)


def test_a_notice_takes_no_credit_and_leaves_nothing_to_answer():
    near, far = ends()
    for _ in range(10):
        near.tell(PULSE)
    told = [far.received(frame) for frame in taken(near)]
    assert len(told) == 10
    assert near.calling == far.serving == 0
    assert near.next_deadline() is None
    far.answer(told[0].number, Done())
    far.fail(told[1].number, TideError(Code.BUSY))
    assert not far.out


def test_a_notice_may_arrive_twice():
    near, far = ends()
    near.tell(PULSE)
    (frame,) = taken(near)
    assert far.received(frame).request == far.received(frame).request == PULSE


def test_notices_are_dropped_while_too_much_is_unsent(monkeypatch):
    monkeypatch.setattr(calls, "NOTICE_BACKLOG_MAX_BYTES", 1000)
    near, _ = ends()
    assert near.tell(APPEND, [bytes(2000)])
    unsent_bytes = near.unsent_bytes
    assert not near.tell(PULSE)
    assert near.unsent_bytes == unsent_bytes
    near.sent(1500)
    assert near.tell(PULSE)


def test_notices_to_a_closed_connection_are_dropped():
    near, _ = ends()
    near.close("the cable is cut")
    assert not near.tell(PULSE)
    assert not Connection("x", hello=NEAR.hello()).tell(PULSE)


def test_a_notice_that_fits_no_frame_leaves_no_trace():
    near, _ = ends()
    with pytest.raises(TideError) as caught:
        near.tell(APPEND, [bytes(5 << 20)])
    assert caught.value.code is Code.TOO_LARGE
    assert not near.out


@pytest.mark.parametrize(
    ("header", "code", "words"),
    [
        ((NOTICE, 0xFFFF, []), Code.UNKNOWN_METHOD, "method 65535 is no notice"),
        ((NOTICE, Beat.METHOD, [1, 2]), Code.UNKNOWN_METHOD, "is no notice"),
        ((NOTICE, PULSE.METHOD, [1, 2]), Code.MALFORMED, "Heartbeat: "),
        ((NOTICE, PULSE.METHOD, [1, 2, "x"]), Code.MALFORMED, "Heartbeat: "),
    ],
)
def test_a_bad_notice_is_refused_and_the_connection_goes_on(header, code, words):
    near, far = ends()
    with pytest.raises(BadNoticeError) as caught:
        far.received(frame_of(*header))
    assert caught.value.code is code
    assert words in caught.value.detail
    assert not far.out
    near.tell(PULSE)
    assert far.received(taken(near)[0]).request == PULSE


@pytest.mark.parametrize("header", [(NOTICE,), (NOTICE, 1), (NOTICE, [], []), (NOTICE, 1, [], 4)])
def test_a_notice_of_the_wrong_shape_ends_the_connection(header):
    _, far = ends()
    with pytest.raises(TideError) as caught:
        far.received(frame_of(*header))
    assert caught.value.code is Code.MALFORMED
    assert not isinstance(caught.value, BadNoticeError)


def test_a_notice_before_the_greeting_ends_the_connection():
    far = Connection("x", identity=FAR)
    with pytest.raises(TideError, match="not a greeting"):
        far.received(frame_of(NOTICE, PULSE.METHOD, PULSE))


def test_a_notice_in_place_of_a_welcome_that_was_lost_is_lost_as_well():
    near = Connection("unix:/x", hello=NEAR.hello())
    far = Connection("unix:/x#1", identity=FAR)
    far.received(taken(near)[0])
    (welcome,) = taken(far)
    assert far.tell(PULSE)
    (notice,) = taken(far)
    assert near.received(notice) is None
    near.received(welcome)
    assert near.state is State.OPEN


def test_who_asks_a_notice_is_told_so():
    _, far = ends()
    assert far.received(frame_of(REQUEST, 1, PULSE.METHOD, 1, PULSE)) is None
    assert taken(far)[0].header[2] == Code.UNKNOWN_METHOD
    assert far.serving == 0


# --- over real sockets -----------------------------------------------------------------------


@pytest.fixture(params=["unix", "tcp"])
def address(request, tmp_path):
    return f"unix:{tmp_path}/s" if request.param == "unix" else "tcp:127.0.0.1:0"


@asynccontextmanager
async def joined(address, handler, near_handler=no_requests):
    """Two peers, the one that connected and the one that accepted."""
    accepted = []
    async with trio.open_nursery() as nursery:
        listener = await PORTS.network.listen(address)
        nursery.start_soon(serve, PORTS, listener, FAR, handler, nursery, accepted.append)
        near = await connect(PORTS, listener.address, NEAR.hello(), near_handler, nursery)
        await until(lambda: accepted)
        yield near, accepted[0]
        nursery.cancel_scope.cancel()
    listener.close()


async def until(condition):
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


@pytest.fixture
def sends(monkeypatch):
    """How many system calls have sent something."""
    counted = []
    real = RealStream.send_nowait

    def send_nowait(stream, buffers):
        counted.append(len(buffers))
        return real(stream, buffers)

    monkeypatch.setattr(RealStream, "send_nowait", send_nowait)
    return counted


async def test_notices_both_ways(address):
    far_got, near_got = [], []

    def takes(incoming):
        far_got.append((incoming.request, bytes(incoming.payload), incoming.is_notice))
        incoming.reply(Done())

    async with joined(address, takes, lambda incoming: near_got.append(incoming.request)) as peers:
        near, far = peers
        assert near.tell(APPEND, [b"hello"])
        assert far.tell(PULSE)
        await until(lambda: far_got and near_got)
        assert await near.call(Beat(1, 2)) == Done()
    assert far_got[0] == (APPEND, b"hello", True)
    assert far_got[1][2] is False
    assert near_got == [PULSE]


async def test_a_notice_has_left_when_tell_returns(address, sends):
    """A leader's entries must be on their way before it waits for its own disk."""
    got = []
    async with joined(address, lambda incoming: got.append(incoming.request)) as (near, _):
        del sends[:]
        assert near.tell(APPEND, [b"hello"])
        assert near._connection.unsent_bytes == 0
        assert len(sends) == 1
        await until(lambda: got)


async def test_notices_that_are_told_together_share_a_system_call(address, sends):
    got = []
    async with joined(address, lambda incoming: got.append(incoming.request)) as (near, _):
        del sends[:]
        for _ in range(4):
            assert near.tell(PULSE, more=True)
        assert not sends
        assert near.tell(PULSE)
        assert len(sends) == 1
        await until(lambda: len(got) == 5)
        assert len(sends) == 1


async def test_a_notice_of_which_more_were_to_follow_leaves_anyway(address):
    got = []
    async with joined(address, lambda incoming: got.append(incoming.request)) as (near, _):
        near.tell(PULSE, more=True)
        await until(lambda: got)


async def test_notices_that_a_handler_tells_go_with_the_answers_of_its_pass(address, sends):
    answers = []

    def tells_back(incoming):
        incoming.peer.tell(TimeoutNow(term=incoming.request.term))

    async with joined(address, tells_back, answers.append) as peers:
        near, _ = peers
        del sends[:]
        for term in range(6):
            near.tell(TimeoutNow(term=term), more=term < 5)
        await until(lambda: len(answers) == 6)
        assert len(sends) == 2
    assert [incoming.request.term for incoming in answers] == list(range(6))


async def test_notices_to_one_that_does_not_read_are_dropped_and_those_after_it_arrive(address):
    """The other side is only slow: what was taken arrives, in order; no memory piles up."""
    gate = trio.Event()
    got = []

    async with joined(address, lambda incoming: got.append(incoming.request)) as (near, far):
        real, body = far._receive, bytes(1 << 20)
        far._receive = lambda: gate.is_set() and real()
        told = [
            near.tell(Append(1, index, 1, 0, 1, [(1, 0, len(body))]), [body]) for index in range(64)
        ]
        assert 8 <= sum(told) < 64
        assert near._connection.unsent_bytes <= NOTICE_BACKLOG_MAX_BYTES + 2 * len(body)
        assert not near.tell(PULSE)
        gate.set()
        far._read()
        await until(lambda: len(got) == sum(told))
        assert [append.previous_index for append in got] == [n for n in range(64) if told[n]]
        assert near.tell(PULSE)


async def test_an_error_about_a_notice_is_logged_once_and_answered_never(address, caplog):
    served = []

    def refuses(incoming):
        served.append(incoming.request)
        raise TideError(Code.INVALID, f"term {incoming.request.term} is not for me")

    async with joined(address, refuses) as (near, far):
        for term in range(5):
            near.tell(TimeoutNow(term=term))
        await until(lambda: len(served) == 5)
        near._connection._put(encode((NOTICE, 0xFFFF, [])))
        near._connection._put(encode((NOTICE, 0xFFFE, [])))
        near.tell(TimeoutNow(term=9))
        await until(lambda: len(served) == 6)
        assert not far._connection.unsent_bytes
        assert not near.closed
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 2
    assert "TimeoutNow is dropped: term 0 is not for me: invalid argument" in warnings[0]
    assert "metaserver 0000000000000001" in warnings[0]
    assert "a notice is dropped: method 65535 is no notice" in warnings[1]


async def test_what_is_wrong_with_a_peer_is_not_said_again_when_it_comes_back(address, caplog):
    served = []

    def refuses(incoming):
        served.append(incoming.request)
        raise TideError(Code.INVALID, "not for me")

    async with trio.open_nursery() as nursery:
        listener = await PORTS.network.listen(address)
        nursery.start_soon(serve, PORTS, listener, FAR, refuses, nursery)
        for server in (1, 1, 3):
            hello = NEAR._replace(server=server).hello()
            near = await connect(PORTS, listener.address, hello, no_requests, nursery)
            served.clear()
            near.tell(PULSE)
            await until(lambda: served)
            near.close("done")
        nursery.cancel_scope.cancel()
    listener.close()
    assert len([record for record in caplog.records if "not for me" in record.getMessage()]) == 2


async def test_a_handler_of_a_notice_that_breaks_hurts_nobody(address, caplog):
    served = []

    async def breaks_later(incoming):
        served.append(incoming)
        raise KeyError("oops")

    async with joined(address, breaks_later) as (near, _):
        near.tell(PULSE)
        near.tell(PULSE)
        await until(lambda: len(served) == 2)
        assert not near.closed
    assert "Heartbeat from metaserver 0000000000000001" in caplog.text
    assert "oops" in caplog.text


async def test_tell_on_a_connection_that_just_broke_says_nothing_and_ends_it(address):
    async with joined(address, no_requests) as (near, far):
        far._stream.close()
        with trio.fail_after(10):
            while near.tell(PULSE):
                await trio.lowlevel.checkpoint()
            await near.wait_closed()
