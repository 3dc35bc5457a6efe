"""The RPC shell over real sockets, Unix and TCP."""

import logging
from contextlib import asynccontextmanager

import pytest
import trio
from tidefs.fs import calls, rpc
from tidefs.fs.calls import REQUEST
from tidefs.fs.errors import Code, TideError
from tidefs.fs.frames import PREFIX, FrameReader, encode
from tidefs.fs.handshake import Identity
from tidefs.fs.limits import FRAME_PAYLOAD_MAX_BYTES
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.chunk import ChunkData, Heartbeat, ReadChunk, SyncChunk, Written
from tidefs.fs.ports import Ports
from tidefs.fs.ports.clock import RealClock
from tidefs.fs.ports.network_real import RealNetwork
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.fs.rpc import Mutation, connect, no_requests, serve

PORTS = Ports(RealClock(), RealRandomness(), None, RealNetwork())
SERVER = Identity("sea", "chunkserver", 7)
CLIENT = Identity("sea", "client", 0)
BEAT = Heartbeat(total_bytes=10, free_bytes=5)


@pytest.fixture(params=["unix", "tcp"])
def address(request, tmp_path):
    return f"unix:{tmp_path}/s" if request.param == "unix" else "tcp:127.0.0.1:0"


@asynccontextmanager
async def serving(address, handler, identity=SERVER, on_open=None):
    """A server; gives its address and the nursery."""
    async with trio.open_nursery() as nursery:
        listener = await PORTS.network.listen(address)
        nursery.start_soon(serve, PORTS, listener, identity, handler, nursery, on_open)
        yield listener.address, nursery
        nursery.cancel_scope.cancel()
    listener.close()


@asynccontextmanager
async def joined(address, handler, client_handler=no_requests, **more):
    """A server and a client of it; gives the client's peer and the nursery."""
    async with serving(address, handler, **more) as (there, nursery):
        yield await connect(PORTS, there, CLIENT.hello(), client_handler, nursery), nursery


def answers(incoming):
    """The handler of most tests."""
    request = incoming.request
    if isinstance(request, ReadChunk):
        incoming.reply(ChunkData(version=request.version), [bytes(incoming.payload)[::-1]])
    elif isinstance(request, SyncChunk):
        raise TideError(Code.NO_CHUNK, f"chunk {request.handle}")
    else:
        incoming.reply(Done())


async def failed(code, awaitable):
    with pytest.raises(TideError) as caught:
        await awaitable
    assert caught.value.code is code, caught.value
    return caught.value.detail


async def test_calls(address):
    async with joined(address, answers) as (peer, _):
        assert peer.remote.role == "chunkserver"
        assert await peer.call(BEAT) == Done()
        reply, payload = await peer.exchange(ReadChunk(1, 2, 3, 4), payload=[b"abc", b"def"])
        assert (reply, bytes(payload)) == (ChunkData(version=2), b"fedcba")
        assert await failed(Code.NO_CHUNK, peer.call(SyncChunk(5, 1))) == "chunk 5"


async def test_many_at_once_answered_in_any_order(address):
    waiting = []

    def keeps(incoming):
        waiting.append(incoming)
        if len(waiting) == 200:
            for kept in reversed(waiting):
                kept.reply(ChunkData(version=kept.request.handle))

    found = {}
    async with joined(address, keeps) as (peer, _), trio.open_nursery() as nursery:

        async def one(number):
            found[number] = (await peer.call(ReadChunk(number, 0, 0, 0))).version

        for number in range(200):
            nursery.start_soon(one, number)
    assert found == {number: number for number in range(200)}


async def test_more_than_the_credits_at_once(address):
    """Nobody sees BUSY: the caller's side waits."""
    most = 0

    async def slow(incoming):
        nonlocal most
        most = max(most, incoming.peer._connection.serving)
        await trio.lowlevel.checkpoint()
        incoming.reply(Done())

    async with (
        joined(address, slow, identity=SERVER._replace(credits=4)) as (peer, _),
        trio.open_nursery() as nursery,
    ):
        for _ in range(50):
            nursery.start_soon(peer.call, BEAT)
    assert most == 4


async def test_an_overloaded_server_answers_busy(address):
    kept = []
    async with joined(address, kept.append, identity=SERVER._replace(credits=2)) as (peer, _):
        peer._connection._credits = 100  # a caller that does not keep to what it was given
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.call, BEAT)
            nursery.start_soon(peer.call, BEAT)
            await until(lambda: len(kept) == 2)
            with pytest.raises(TideError) as caught:
                await peer.call(BEAT)
            for incoming in kept:
                incoming.reply(Done())
    assert caught.value.code is Code.BUSY
    assert caught.value.delay_ms > 0


async def until(condition):
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_large_payloads_both_ways_at_once(address):
    payload = bytes(range(256)) * (FRAME_PAYLOAD_MAX_BYTES // 256)

    async def one(peer, number):
        reply, back = await peer.exchange(
            ReadChunk(1, number, 0, 0), payload=[payload[number:], payload[:number]]
        )
        assert reply.version == number
        assert bytes(back[::-1]) == payload[number:] + payload[:number]

    async with joined(address, answers) as (peer, _), trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(one, peer, number)


async def test_a_server_calls_its_client_back(address):
    async def calls_back(incoming):
        assert incoming.peer.remote.role == "client"
        _, payload = await incoming.peer.exchange(ReadChunk(1, 1, 0, 0), payload=[b"abc"])
        incoming.reply(ChunkData(version=5), [payload, b"!"])

    async with joined(address, calls_back, answers) as (peer, _):
        _, payload = await peer.exchange(ReadChunk(0, 0, 0, 0))
        assert bytes(payload) == b"cba!"


async def test_a_server_calls_first(address):
    opened = []
    async with joined(address, no_requests, answers, on_open=opened.append) as (_, _):
        (peer,) = opened
        assert await peer.call(BEAT) == Done()
        assert await failed(Code.NO_CHUNK, peer.call(SyncChunk(5, 1))) == "chunk 5"


async def test_posts(address):
    outcomes = []
    done = trio.Event()

    def take(outcome, payload):
        outcomes.append((outcome, bytes(payload)))
        if len(outcomes) == 2:
            done.set()

    async with joined(address, answers) as (peer, _):
        peer.post(ReadChunk(1, 2, 3, 4), payload=[b"abc"], done=take)
        peer.post(SyncChunk(5, 1), done=take)
        with trio.fail_after(10):
            await done.wait()
        assert outcomes[0] == (ChunkData(version=2), b"cba")
        assert outcomes[1][0].code is Code.NO_CHUNK
        peer.close("enough")
        peer.post(BEAT, done=take)
        assert outcomes[2][0].code is Code.DISCONNECTED


async def test_an_error_in_a_callback_of_post_hurts_nobody(address, caplog):
    def breaks(outcome, payload):
        raise RuntimeError("oops")

    async with joined(address, answers) as (peer, _):
        peer.post(BEAT, done=breaks)
        assert await peer.call(BEAT) == Done()
    assert "handling the reply to Heartbeat" in caplog.text
    assert "RuntimeError: oops" in caplog.text


async def test_mutations(address):
    seen = []

    def handler(incoming):
        seen.append(incoming.mutation)
        incoming.reply(Done())

    async with joined(address, handler) as (peer, _):
        await peer.call(BEAT, mutation=Mutation(1, 2, 3))
        await peer.call(BEAT)
    assert seen == [Mutation(1, 2, 3), None]


async def test_deadlines(address):
    kept = []
    async with joined(address, kept.append) as (peer, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failed, Code.TIMED_OUT, peer.call(BEAT, timeout_ms=60))
            nursery.start_soon(failed, Code.TIMED_OUT, peer.call(BEAT, timeout_ms=20))
            nursery.start_soon(failed, Code.TIMED_OUT, peer.call(BEAT, timeout_ms=40))
        detail = await failed(Code.TIMED_OUT, peer.call(BEAT, timeout_ms=1))
        assert detail == f"Heartbeat to {peer.name} within 1 ms"
        for incoming in kept:
            incoming.reply(Done())  # too late, and harmless
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.call, BEAT)
            await until(lambda: len(kept) == 5)
            kept[4].reply(Done())


async def test_a_short_deadline_behind_a_long_one(address):
    async with joined(address, lambda incoming: None) as (peer, _):
        peer.post(BEAT, timeout_ms=60_000, done=lambda outcome, payload: None)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(10):
            await failed(Code.TIMED_OUT, peer.call(BEAT, timeout_ms=10))


async def test_a_cancelled_call_leaves_the_connection_alone(address):
    kept = []
    async with joined(address, kept.append) as (peer, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.call, BEAT)
                await until(lambda: kept)
                scope.cancel()
        assert peer._connection.calling == 0
        kept.pop().reply(Done())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.call, BEAT)
            await until(lambda: kept)
            kept.pop().reply(Done())


async def test_a_handler_that_breaks_is_logged_and_answered(address, caplog):
    def breaks(incoming):
        raise RuntimeError("oops")

    async def breaks_later(incoming):
        await trio.lowlevel.checkpoint()
        raise RuntimeError("oops")

    for handler in (breaks, breaks_later):
        caplog.clear()
        async with joined(address, handler) as (peer, _):
            detail = await failed(Code.INTERNAL, peer.call(BEAT))
            assert detail == "Heartbeat: RuntimeError: oops"
            assert await failed(Code.INTERNAL, peer.call(BEAT)) == detail
        assert "Heartbeat from client at" in caplog.text
        assert 'raise RuntimeError("oops")' in caplog.text


async def test_a_reply_that_is_too_large_fails_that_call_only(address):
    def too_large(incoming):
        if isinstance(incoming.request, ReadChunk):
            incoming.reply(Written(serial=1), [bytes(FRAME_PAYLOAD_MAX_BYTES + 1)])
        else:
            incoming.reply(Done())

    async with joined(address, too_large) as (peer, _):
        assert "the limit is" in await failed(Code.TOO_LARGE, peer.call(ReadChunk(0, 0, 0, 0)))
        assert await peer.call(BEAT) == Done()


async def test_a_request_that_is_too_large(address):
    async with joined(address, answers) as (peer, _):
        await failed(Code.TOO_LARGE, peer.call(BEAT, payload=[bytes(FRAME_PAYLOAD_MAX_BYTES + 1)]))
        assert await peer.call(BEAT) == Done()


async def test_a_broken_connection_fails_its_calls_and_no_others(address):
    kept = []
    async with serving(address, kept.append) as (there, nursery):
        one = await connect(PORTS, there, CLIENT.hello(), no_requests, nursery)
        other = await connect(PORTS, there, CLIENT.hello(), no_requests, nursery)
        async with trio.open_nursery() as calls:
            calls.start_soon(failed, Code.DISCONNECTED, one.call(BEAT))
            calls.start_soon(other.call, BEAT)
            await until(lambda: len(kept) == 2)
            peers = [incoming.peer for incoming in kept]
            one.close("the cable is cut")
            assert one.closed
            await until(lambda: any(peer.closed for peer in peers))
            for incoming in kept:
                incoming.reply(Done())
        await one.wait_closed()
        assert "the cable is cut" in await failed(Code.DISCONNECTED, one.call(BEAT))


async def test_the_other_side_goes_away(address):
    def goes(incoming):
        incoming.peer.close("enough")

    async with joined(address, goes) as (peer, _):
        assert "the other side closed" in await failed(Code.DISCONNECTED, peer.call(BEAT))
        await peer.wait_closed()


async def test_what_was_answered_before_closing_arrives(address):
    def last(incoming):
        incoming.reply(Done())
        incoming.peer.close("enough")

    async with joined(address, last) as (peer, _):
        assert await peer.call(BEAT) == Done()
        await peer.wait_closed()


async def test_the_nursery_of_a_connection_ends(address):
    async with serving(address, lambda incoming: None) as (there, _):
        async with trio.open_nursery() as nursery:
            peer = await connect(PORTS, there, CLIENT.hello(), no_requests, nursery)
            nursery.cancel_scope.cancel()
        assert peer.closed
        assert "shutting down" in await failed(Code.DISCONNECTED, peer.call(BEAT))


async def test_a_slow_handler_outlives_its_connection(address):
    ended = trio.Event()

    async def slow(incoming):
        await incoming.peer.wait_closed()
        incoming.reply(Done())
        ended.set()

    async with joined(address, slow) as (peer, _):
        with trio.move_on_after(0):
            await peer.call(BEAT)
        peer.post(BEAT, done=lambda outcome, payload: None)
        await until(lambda: not peer._connection.out)
        peer.close("bye")
        with trio.fail_after(10):
            await ended.wait()


# --- mismatches --------------------------------------------------------------------------------


async def greeted_with(hello, address, nursery, **more):
    with pytest.raises(TideError) as caught:
        await connect(PORTS, address, hello, no_requests, nursery, **more)
    return caught.value


async def test_mismatches_are_refused_in_words_on_both_sides(address, caplog):
    async with serving(address, answers) as (there, nursery):
        for _ in range(3):
            error = await greeted_with(CLIENT._replace(cluster="lake").hello(), there, nursery)
            assert error.code is Code.WRONG_CLUSTER
        assert "the client belongs to cluster 'lake', this chunkserver to 'sea'" in error.detail
        error = await greeted_with(
            CLIENT.hello().__class__(5, 6, "sea", "client", 0), there, nursery
        )
        assert error.code is Code.WRONG_PROTOCOL
        error = await greeted_with(CLIENT.hello(), there, nursery, expected_role="metaserver")
        assert error.code is Code.WRONG_ROLE
        peer = await connect(PORTS, there, CLIENT.hello(), no_requests, nursery)
        assert await peer.call(BEAT) == Done()
    assert caplog.text.count("the client belongs to cluster 'lake'") == 1, "said by one side, once"


async def test_a_client_that_knows_no_cluster_takes_the_servers_word(address):
    async with serving(address, answers) as (there, nursery):
        hello = CLIENT._replace(cluster="").hello()
        peer = await connect(PORTS, there, hello, no_requests, nursery)
        assert peer.remote.cluster == "sea"


async def test_nobody_there(tmp_path):
    async with trio.open_nursery() as nursery:
        error = await greeted_with(CLIENT.hello(), f"unix:{tmp_path}/none", nursery)
    assert error.code is Code.DISCONNECTED


async def test_a_server_that_says_nothing(address, autojump_clock, monkeypatch):
    """The greeting is limited in time, on both sides."""
    async with trio.open_nursery() as nursery:
        listener = await PORTS.network.listen(address)

        async def silent(stream):
            await trio.sleep_forever()

        nursery.start_soon(listener.accept_forever, silent)
        error = await greeted_with(CLIENT.hello(), listener.address, nursery)
        assert error.code is Code.TIMED_OUT
        nursery.cancel_scope.cancel()
    listener.close()


async def test_a_client_that_says_nothing(address, autojump_clock):
    async with serving(address, answers) as (there, _):
        stream = await PORTS.network.connect(there)
        header = await last_words(stream)
        assert header[1] == Code.TIMED_OUT
        stream.close()


async def last_words(stream):
    """The header of the last frame before the other side closes."""
    reader, header = FrameReader(), None
    while True:
        count = stream.receive_nowait(reader.buffer())
        if count == 0:
            return header
        if count is None:
            await stream.wait_readable()
            continue
        for frame in reader.received(count):
            header = frame.header


# --- bad frames --------------------------------------------------------------------------------

GOOD = b"".join(encode((REQUEST, 1, BEAT.METHOD, 1000, BEAT)))
BAD = {
    "foreign": (b"GET / HTTP/1.1\r\n\r\n", "does not speak the TideFS protocol"),
    "checksum": (GOOD[:-1] + b"!", "damaged on its way"),
    "oversized": (PREFIX.pack(b"TIDE", 1, 1 << 30, 0), "the limit is"),
    "not msgpack": (PREFIX.pack(b"TIDE", 0, 0, 0x2D06800538D394C2), "not msgpack"),
    "no sense": (b"".join(encode([99, "x"])), "makes no sense"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_frame_ends_that_connection_only(address, kind, caplog):
    bad, words = BAD[kind]
    async with joined(address, answers) as (good, _):
        address = good._connection._address
        stream = await PORTS.network.connect(address)
        stream.send_nowait([*encode((0, CLIENT.hello())), bad])
        header = await last_words(stream)
        assert header[0] == 2, "a refusal"
        assert words in header[2]
        assert await good.call(BEAT) == Done()
        stream.close()
    assert words in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_truncated_frame_is_logged(address, caplog):
    async with joined(address, answers) as (good, _):
        stream = await PORTS.network.connect(good._connection._address)
        stream.send_nowait([*encode((0, CLIENT.hello())), GOOD[:-3]])
        stream.close()
        await until(lambda: "the stream ended in the middle of a frame" in caplog.text)
        assert await good.call(BEAT) == Done()


class Broken:
    """A stream that takes nothing any more, but still has something to read."""

    remote = "x"

    def __init__(self, *pieces):
        self._pieces = [b"".join(encode((0, CLIENT.hello()))), *pieces]
        self._closed = trio.Event()

    def receive_nowait(self, buffer):
        if not self._pieces:
            return None
        piece = self._pieces.pop(0)
        buffer[: len(piece)] = piece
        return len(piece)

    def send_nowait(self, buffers):
        raise TideError(Code.DISCONNECTED, "Broken pipe")

    async def wait_readable(self):
        await self._closed.wait()
        raise TideError(Code.DISCONNECTED, "closed by this side")

    def close(self):
        self._closed.set()


async def test_what_came_before_the_connection_broke_is_served():
    class One:
        async def accept_forever(self, handle):
            await handle(Broken(GOOD))

    seen = []
    async with trio.open_nursery() as nursery:
        await serve(PORTS, One(), SERVER, seen.append, nursery)
    (incoming,) = seen
    assert incoming.peer.closed
    assert incoming.peer._reason == "Broken pipe"


async def test_a_peer_that_does_not_read_is_cut_off(address, caplog, monkeypatch):
    monkeypatch.setattr(rpc, "SEND_BACKLOG_MAX_BYTES", 8 << 20)

    def much(incoming):
        incoming.reply(ChunkData(version=1), [bytes(1 << 20)])

    async with joined(address, much) as (good, _):
        stream = await PORTS.network.connect(good._connection._address)
        stream.send_nowait(encode((0, CLIENT.hello())))
        read = ReadChunk(1, 1, 1, 1)
        for number in range(1, 30):
            stream.send_nowait(encode((REQUEST, number, read.METHOD, 1000, read)))
        with trio.fail_after(10):
            await until(lambda: "does not read" in caplog.text)
        await good.call(read)
        stream.close()


async def test_a_caller_waits_while_too_much_is_unsent(address, monkeypatch):
    """Memory is bounded, and nothing is lost."""
    monkeypatch.setattr(calls, "SEND_BACKLOG_BUSY_BYTES", 4 << 20)
    most = 0

    async with joined(address, answers) as (peer, _), trio.open_nursery() as nursery:
        payload = [bytes(1 << 20)]

        async def one():
            nonlocal most
            with trio.fail_after(10):
                await peer.call(BEAT, payload=payload)
            most = max(most, peer._connection.unsent_bytes)

        for _ in range(64):
            nursery.start_soon(one)
        await trio.lowlevel.checkpoint()
        most = peer._connection.unsent_bytes
    assert most < 6 << 20
