"""A short run of the fuzzer; ``python tests/fuzz/run.py --messages 1000000`` is the long one."""

import random

import pytest
from tidefs.client.fuse.protocol.opcodes import Opcode
from tidefs.client.fuse.protocol.requests import DECODERS, MalformedRequestError, decode
from tidefs.tests.fuzz.run import Finding, fuzz
from tidefs.tests.fuzz.samples import BODIES, kernel_message
from tidefs.tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_messages_end_in_an_error_of_their_own(name):
    figures = fuzz(name, 4000, seed=1)
    assert figures.good > 100, "some go through"
    assert figures.messages - figures.good > 1000


def test_a_finding_names_the_message(monkeypatch):
    class Broken:
        def __init__(self, numbers: random.Random) -> None:
            self.last = b"bad"

        def feed(self) -> bool:
            raise IndexError

    monkeypatch.setitem(TARGETS, "broken", Broken)
    with pytest.raises(Finding, match=b"bad".hex()):
        fuzz("broken", 1, seed=1)


def test_every_request_has_an_example():
    assert set(BODIES) == set(DECODERS)


@pytest.mark.parametrize("opcode", BODIES, ids=lambda opcode: opcode.name)
def test_each_shorter_message_is_refused_or_means_less(opcode):
    """What lies behind a message in the buffer is another one's, and must not be looked at."""
    message = kernel_message(opcode, BODIES[opcode])
    buffer = memoryview(bytearray(b"\xa5" * 4096))
    for length in range(40, len(message) + 1):
        cut = kernel_message(opcode, message[40:length])
        buffer[: len(message)] = message
        buffer[:length] = cut
        try:
            _, arguments = decode(buffer, length)
        except MalformedRequestError:
            assert length < len(message)
        else:
            assert arguments == decode(memoryview(cut), length)[1]


def test_a_message_that_lies_about_its_length_is_refused():
    message = kernel_message(Opcode.LOOKUP, b"name\0")
    with pytest.raises(MalformedRequestError, match="are 45"):
        decode(memoryview(message + b"x"), 46)
