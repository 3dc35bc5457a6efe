"""What is fuzzed: each target takes one damaged message, and may raise only its own error."""

import random
from functools import cache
from typing import Any, Protocol

from tidefs.client.fuse.protocol.negotiation import MESSAGE_MAX_BYTES, DisagreementError, agree
from tidefs.client.fuse.protocol.opcodes import Opcode
from tidefs.client.fuse.protocol.requests import OPCODE, MalformedRequestError, decode
from tidefs.fs.calls import ERROR, HELLO, NOTICE, REFUSAL, REPLY, REQUEST, WELCOME, Connection
from tidefs.fs.codec import checksum, pack
from tidefs.fs.codec import decode as decode_message
from tidefs.fs.errors import Code, TideError
from tidefs.fs.frames import EMPTY, MAGIC, PREFIX, Frame, FrameReader, encode
from tidefs.fs.handshake import Identity, welcome
from tidefs.fs.messages.base import METHODS, Notice, Request, reply_type
from tidefs.tests.fuzz.mutate import Mutator
from tidefs.tests.fuzz.samples import kernel_messages, message_types, sample

LENGTH_REPAIRED = 0.7
"""How often a message is made to agree with its own length or checksum: so it gets further in."""

SERVER = Identity("sea", "chunkserver", 7)
CLIENT = Identity("sea", "client", 0)


class Target(Protocol):
    """One decoder."""

    def feed(self) -> bool:
        """Take one message; whether it was good. Any exception that comes out is a bug."""
        ...

    @property
    def last(self) -> bytes:
        """The message that was taken last."""
        ...


class KernelRequests:
    """client/fuse/protocol: what the kernel sends."""

    def __init__(self, numbers: random.Random) -> None:
        self._numbers = numbers
        self._mutator = Mutator(kernel_messages(), numbers)
        self._buffer = memoryview(bytearray(b"\xa5" * MESSAGE_MAX_BYTES))
        self.last = b""

    def feed(self) -> bool:
        message = self._mutator.next()
        if self._numbers.random() < LENGTH_REPAIRED:
            message = len(message).to_bytes(4, "little") + message[4:]
        self.last = message
        self._buffer[: len(message)] = message
        try:
            header, arguments = decode(self._buffer, len(message))
            if header[OPCODE] == Opcode.INIT:
                agree(*arguments)
        except (MalformedRequestError, DisagreementError):
            return False
        return True


class Frames:
    """fs/frames and fs/calls: a stream into a connection that answers, and into one that asks."""

    def __init__(self, numbers: random.Random) -> None:
        self._numbers = numbers
        self._mutator = Mutator(_frames(), numbers)
        self.last = b""
        self._reader = FrameReader()
        self._ends = _opened()

    def feed(self) -> bool:
        message = self._mutator.next()
        if self._numbers.random() < LENGTH_REPAIRED:
            message = _repaired(message)
        self.last = message
        try:
            self._receive(message)
            if self._numbers.random() < 0.2:
                self._reader.finish()
        except TideError:
            self._reader = FrameReader()
            self._ends = _opened()
            return False
        return True

    def _receive(self, message: bytes) -> None:
        rest = memoryview(message)
        while rest:
            buffer = self._reader.buffer()
            count = min(len(buffer), len(rest))
            buffer[:count] = rest[:count]
            rest = rest[count:]
            for frame in self._reader.received(count):
                for end in self._ends:
                    _take(end, frame)


def _take(end: Connection, frame: Frame) -> None:
    try:
        asked = end.received(frame)
    finally:
        end.sent(end.unsent_bytes)
    if asked is not None and asked.number:
        end.fail(asked.number, TideError(Code.BUSY, "fuzzed"))
        end.sent(end.unsent_bytes)


def _opened() -> tuple[Connection, Connection]:
    """The accepting and the asking end of a connection; the second waits for replies."""
    asks = Connection("unix:/fuzz", hello=CLIENT.hello())
    answers = Connection("unix:/fuzz#1", identity=SERVER)
    answers.received(Frame([HELLO, list(_fields(CLIENT.hello()))], EMPTY))
    asks.received(Frame([WELCOME, list(_fields(welcome(SERVER, CLIENT.hello())))], EMPTY))
    for end in (asks, answers):
        end.sent(end.unsent_bytes)
    for request in _requests():
        asks.request(0, request, lambda outcome, payload: None, timeout_ms=1000)
    asks.sent(asks.unsent_bytes)
    return answers, asks


@cache
def _requests() -> list[Request[Any]]:
    """One of each method, numbered as in ``_frames``, as many as may be in flight."""
    kinds = [kind for kind in METHODS.values() if not issubclass(kind, Notice)]
    return [sample(kind) for kind in kinds[: SERVER.credits]]


def _fields(message: object) -> list[object]:
    return [getattr(message, name) for name in message.__struct_fields__]  # type: ignore[attr-defined]


def _frames() -> list[bytes]:
    """A valid frame of each kind, for each method."""
    heads: list[tuple[object, ...]] = [
        (HELLO, CLIENT.hello()),
        (WELCOME, welcome(SERVER, CLIENT.hello())),
        (REFUSAL, 7, "words"),
        (ERROR, 1, 7, "words", 0),
    ]
    number = 0
    for method, kind in METHODS.items():
        if issubclass(kind, Notice):
            heads.append((NOTICE, method, sample(kind)))
        else:
            number += 1
            heads.append((REQUEST, number, method, 1000, sample(kind)))
            heads.append((REQUEST, number, method, 1000, sample(kind), 1, 2, 3))
            heads.append((REPLY, number, sample(reply_type(kind))))
    return [b"".join(encode(head, payload)) for head in heads for payload in ([], [b"x" * 300])]


def _repaired(message: bytes) -> bytes:
    """With a prefix that fits what follows it."""
    body = message[PREFIX.size :]
    payload_bytes = min(int.from_bytes(message[8:12], "big"), len(body)) if len(message) > 12 else 0
    header_bytes = len(body) - payload_bytes
    digest = checksum(body, header_bytes << 32 | payload_bytes)
    return PREFIX.pack(MAGIC, header_bytes, payload_bytes, digest) + body


class Messages:
    """fs/messages: each type from bytes that are not quite it."""

    def __init__(self, numbers: random.Random) -> None:
        self._numbers = numbers
        self._seeds = [(kind, pack(sample(kind))) for kind in message_types()]
        self._mutator = Mutator([seed for _, seed in self._seeds], numbers)
        self.last = b""

    def feed(self) -> bool:
        kind, seed = self._numbers.choice(self._seeds)
        self.last = message = self._mutator.next(seed)
        try:
            decode_message(kind, message)
        except TideError:
            return False
        return True


TARGETS = {"kernel requests": KernelRequests, "frames": Frames, "messages": Messages}
