"""Frames: any split of the stream gives the same frames, any damage an error."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidefs.fs import frames
from tidefs.fs.errors import Code, TideError
from tidefs.fs.frames import PREFIX, FrameReader, encode
from tidefs.fs.limits import (
    FRAME_HEADER_MAX_BYTES,
    FRAME_PAYLOAD_MAX_BYTES,
    LARGE_FRAME_BYTES,
    RECEIVE_BUFFER_BYTES,
)

headers = st.lists(st.integers(0, 1 << 63) | st.binary(max_size=20) | st.text(max_size=20))
payload_sizes = st.sampled_from(
    [0, 1, 100, LARGE_FRAME_BYTES - 1, LARGE_FRAME_BYTES, LARGE_FRAME_BYTES + 1, 100_000, 300_000]
)


def payload_of(size, seed=7):
    return bytes((seed + n) % 251 for n in range(251)) * (size // 251 + 1)


def feed(reader, data, step=RECEIVE_BUFFER_BYTES):
    """All frames of ``data``, at most ``step`` bytes at a time; a function may choose the step."""
    found = []
    data = memoryview(data)
    while data:
        buffer = reader.buffer()
        assert len(buffer) > 0
        count = min(step() if callable(step) else step, len(buffer), len(data))
        buffer[:count] = data[:count]
        data = data[count:]
        found += [(frame.header, bytes(frame.payload)) for frame in reader.received(count)]
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(headers, payload_sizes), max_size=12), st.data())
def test_any_split_gives_the_same_frames(parts, data):
    sent = [(header, payload_of(size, n)[:size]) for n, (header, size) in enumerate(parts)]
    stream = b"".join(b"".join(encode(*one[:1], [one[1]] if one[1] else [])) for one in sent)
    reader = FrameReader()
    steps = st.sampled_from([1, 7, 19, 20, 21, 1000, 32_768, 65_536, 200_000, 10**6])
    small = len(stream) < 5000

    def step():
        return max(data.draw(steps), 1 if small else 1000)

    assert feed(reader, stream, step) == sent
    reader.finish()


@pytest.mark.parametrize("size", [50, 30_000])
def test_more_small_frames_than_fit_the_buffer(size):
    """A frame that lies across the end of the buffer is moved to its beginning."""
    sent = [([n], bytes([n % 256]) * size) for n in range(3 * RECEIVE_BUFFER_BYTES // size)]
    stream = b"".join(b"".join(encode(header, [payload])) for header, payload in sent)
    reader = FrameReader()
    assert feed(reader, stream, 10**6) == sent
    reader.finish()


def test_byte_by_byte():
    sent = [([n, "x" * n], bytes(n)) for n in range(40)]
    stream = b"".join(b"".join(encode(header, [payload])) for header, payload in sent)
    assert feed(FrameReader(), stream, 1) == sent


@settings(max_examples=200, deadline=None)
@given(headers, st.binary(max_size=60), st.data())
def test_any_changed_byte_is_an_error(header, payload, data):
    stream = bytearray(b"".join(encode(header, [payload])))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    reader = FrameReader()

    def take():
        frames = feed(reader, stream)
        reader.finish()
        return frames

    with pytest.raises(TideError) as caught:
        take()
    assert caught.value.code in (Code.MALFORMED, Code.BAD_CHECKSUM)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_garbage_is_an_error(garbage):
    reader = FrameReader()

    def take():
        feed(reader, garbage)
        reader.finish()

    with pytest.raises(TideError):
        take()


def test_lengths_that_trade_a_byte_are_noticed():
    """The checksum covers the lengths: a byte cannot move from header to payload."""
    stream = b"".join(encode([1, 2], [b"\x03abc"]))
    magic, header_bytes, payload_bytes, digest = PREFIX.unpack_from(stream)
    moved = PREFIX.pack(magic, header_bytes + 1, payload_bytes - 1, digest) + stream[PREFIX.size :]
    with pytest.raises(TideError, match="damaged on its way"):
        feed(FrameReader(), moved)


def test_frames_before_a_bad_one_count():
    stream = b"".join(encode([1])) + b"".join(encode([2])) + b"GET / HTTP/1.1\r\n\r\n........"
    reader = FrameReader()
    buffer = reader.buffer()
    buffer[: len(stream)] = stream
    good = []
    with pytest.raises(TideError, match="does not speak the TideFS protocol"):
        good.extend(frame.header for frame in reader.received(len(stream)))
    assert good == [[1], [2]]


def test_a_foreign_protocol_is_recognised_by_its_first_bytes():
    with pytest.raises(TideError, match=r"it begins with b'GET '"):
        feed(FrameReader(), b"GET ")


def test_a_frame_that_is_announced_too_long():
    for lengths in ((FRAME_HEADER_MAX_BYTES + 1, 0), (10, FRAME_PAYLOAD_MAX_BYTES + 1)):
        with pytest.raises(TideError, match="the limit is") as caught:
            feed(FrameReader(), PREFIX.pack(frames.MAGIC, *lengths, 0))
        assert caught.value.code is Code.MALFORMED


def test_what_would_be_refused_is_not_sent():
    with pytest.raises(TideError, match="a header of") as caught:
        encode([bytes(FRAME_HEADER_MAX_BYTES)])
    assert caught.value.code is Code.TOO_LARGE
    with pytest.raises(TideError, match="a payload of"):
        encode([1], [bytes(FRAME_PAYLOAD_MAX_BYTES), b"x"])


@pytest.mark.parametrize("size", [1, PREFIX.size, PREFIX.size + 1, 50_000])
def test_a_stream_that_ends_in_a_frame(size):
    stream = b"".join(encode([1, b"abcdef"], [payload_of(60_000)[:60_000]]))[:size]
    reader = FrameReader()
    assert feed(reader, stream) == []
    with pytest.raises(TideError, match="the stream ended"):
        reader.finish()


def test_the_largest_frame():
    header = [bytes(FRAME_HEADER_MAX_BYTES - 10)]
    payload = payload_of(FRAME_PAYLOAD_MAX_BYTES)[:FRAME_PAYLOAD_MAX_BYTES]
    stream = b"".join(encode(header, [payload[:5], payload[5:]]))
    assert feed(FrameReader(), stream) == [(header, payload)]


def test_a_payload_is_neither_joined_nor_copied_when_sent():
    pieces = [b"abc", bytearray(b"def"), memoryview(b"ghi")]
    assert all(a is b for a, b in zip(encode([1], pieces)[1:], pieces, strict=True))


def test_a_large_payload_is_received_where_it_stays():
    """What comes behind the prefix goes straight into the memory that is handed on."""
    stream = b"".join(encode([1], [payload_of(100_000)[:100_000]]))
    reader = FrameReader()
    assert feed(reader, stream[:1000]) == []
    own = reader.buffer()
    assert len(own) == len(stream) - 1000
    own[:] = stream[1000:]
    (frame,) = reader.received(len(own))
    assert frame.payload.obj is own.obj


def test_a_kept_payload_survives_what_comes_later():
    reader = FrameReader()
    data = b"".join(encode([1], [b"first"]))
    reader.buffer()[: len(data)] = data
    (frame,) = reader.received(len(data))
    feed(reader, b"".join(encode([1], [b"other"])))
    assert bytes(frame.payload) == b"first"
