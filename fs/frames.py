"""Frames: a byte stream cut into headers and raw payloads, and back. No socket in here.

A frame is a prefix of 20 bytes, a msgpack header and a raw payload::

    magic "TIDE" | u32 header bytes | u32 payload bytes | u64 checksum | header | payload

in network byte order. The checksum is xxh3-64 of header and payload, seeded with the two lengths,
so that no flipped bit anywhere goes unnoticed.

``encode`` never copies or joins a payload. ``FrameReader`` lends out memory to receive into. Small
frames are cut out of one buffer that is used again and again; a large one gets memory of its own
as soon as its prefix is known, and the rest of it is received right there.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from .codec import Buffer, checksum, checksum_of, pack, unpack
from .errors import Code, TideError
from .limits import (
    FRAME_HEADER_MAX_BYTES,
    FRAME_PAYLOAD_MAX_BYTES,
    LARGE_FRAME_BYTES,
    RECEIVE_BUFFER_BYTES,
)

MAGIC = b"TIDE"
PREFIX = struct.Struct("!4sIIQ")
EMPTY = memoryview(b"")


class Frame(msgspec.Struct, eq=False):
    """One frame: the unpacked header, and the payload (valid for as long as it is held)."""

    header: Any
    payload: memoryview


def encode(header: object, payload: Sequence[Buffer] = ()) -> list[Buffer]:
    """The buffers that make one frame. TOO_LARGE when the other side would refuse it."""
    packed = pack(header)
    header_bytes = len(packed)
    if not payload and header_bytes <= FRAME_HEADER_MAX_BYTES:
        return [PREFIX.pack(MAGIC, header_bytes, 0, checksum(packed, header_bytes << 32)) + packed]
    payload_bytes = sum(map(len, payload))
    _check_lengths(Code.TOO_LARGE, header_bytes, payload_bytes)
    digest = checksum_of((packed, *payload), header_bytes << 32 | payload_bytes)
    return [PREFIX.pack(MAGIC, header_bytes, payload_bytes, digest) + packed, *payload]


class FrameReader:
    """Turns received bytes into frames.

    Receive into ``buffer()``, then go through all of ``received(count)``; at the end of the
    stream call ``finish()``. A TideError from any of them is about the whole stream: there is no
    way to find the next frame behind a broken one.
    """

    def __init__(self) -> None:
        self._pool = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
        self._start = 0  # of what is in the pool and not yet a frame
        self._end = 0
        self._body: memoryview | None = None  # of a large frame that is under way
        self._body_filled = 0
        self._body_prefix = (0, 0, 0)

    def buffer(self) -> memoryview:
        """Where the next bytes of the stream belong; never empty."""
        if self._body is not None:
            return self._body[self._body_filled :]
        if self._start == self._end:
            self._start = self._end = 0
        elif RECEIVE_BUFFER_BYTES - self._end < PREFIX.size + LARGE_FRAME_BYTES:
            rest = bytes(self._pool[self._start : self._end])
            self._start, self._end = 0, len(rest)
            self._pool[: self._end] = rest
        return self._pool[self._end :]

    def received(self, count: int) -> Iterator[Frame]:
        """The frames that the next ``count`` bytes, now in ``buffer()``, complete."""
        if self._body is not None:
            self._body_filled += count
            if self._body_filled == len(self._body):
                body, self._body = self._body, None
                yield _open_frame(self._body_prefix, body, body)
            return
        pool = self._pool
        self._end = end = self._end + count
        while end - self._start >= PREFIX.size:
            magic, header_bytes, payload_bytes, digest = PREFIX.unpack_from(pool, self._start)
            if magic != MAGIC:
                raise _foreign(magic)
            if header_bytes > FRAME_HEADER_MAX_BYTES or payload_bytes > FRAME_PAYLOAD_MAX_BYTES:
                _check_lengths(Code.MALFORMED, header_bytes, payload_bytes)
            begin = self._start + PREFIX.size
            body_end = begin + header_bytes + payload_bytes
            if body_end > end:
                if body_end - begin > LARGE_FRAME_BYTES:
                    self._start_body((header_bytes, payload_bytes, digest), pool[begin:end])
                return
            self._start = body_end
            yield _open_frame((header_bytes, payload_bytes, digest), pool[begin:body_end], None)
        if end - self._start >= len(MAGIC):
            magic = bytes(pool[self._start : self._start + len(MAGIC)])
            if magic != MAGIC:
                raise _foreign(magic)

    def finish(self) -> None:
        """The stream has ended: MALFORMED when it did so in the middle of a frame."""
        if self._body is not None:
            raise TideError(
                Code.MALFORMED,
                f"the stream ended {len(self._body) - self._body_filled} bytes before the end of "
                f"a frame of {len(self._body)} bytes",
            )
        if self._start < self._end:
            raise TideError(
                Code.MALFORMED,
                f"the stream ended in the middle of a frame, "
                f"{self._end - self._start} bytes after it began",
            )

    def _start_body(self, prefix: tuple[int, int, int], head: memoryview) -> None:
        """Give a large frame memory of its own and move there what came with its prefix."""
        self._body_prefix = prefix
        self._body = memoryview(bytearray(prefix[0] + prefix[1]))
        self._body[: len(head)] = head
        self._body_filled = len(head)
        self._start = self._end = 0


def _open_frame(prefix: tuple[int, int, int], body: memoryview, kept: memoryview | None) -> Frame:
    """Check a whole frame; its payload becomes a view of ``kept``, or a copy when that is None:
    what lies in the pool is about to be overwritten."""
    header_bytes, payload_bytes, digest = prefix
    if checksum(body, header_bytes << 32 | payload_bytes) != digest:
        raise TideError(
            Code.BAD_CHECKSUM,
            f"a frame of {header_bytes} + {payload_bytes} bytes was damaged on its way",
        )
    if payload_bytes == 0:
        return Frame(unpack(body), EMPTY)
    header = unpack(body[:header_bytes])
    if kept is None:
        return Frame(header, memoryview(bytes(body[header_bytes:])))
    return Frame(header, kept[header_bytes:])


def _foreign(magic: bytes) -> TideError:
    return TideError(
        Code.MALFORMED, f"what came does not speak the TideFS protocol (it begins with {magic!r})"
    )


def _check_lengths(code: Code, header_bytes: int, payload_bytes: int) -> None:
    for part, length, limit in (
        ("header", header_bytes, FRAME_HEADER_MAX_BYTES),
        ("payload", payload_bytes, FRAME_PAYLOAD_MAX_BYTES),
    ):
        if length > limit:
            raise TideError(
                code, f"a frame with a {part} of {length} bytes (the limit is {limit} bytes)"
            )
