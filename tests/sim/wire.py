"""Says what is in a packet, and insists that it is whole frames."""

from tidefs.fs.calls import ERROR, HELLO, NOTICE, REFUSAL, REPLY, REQUEST, WELCOME
from tidefs.fs.codec import unpack
from tidefs.fs.errors import Code
from tidefs.fs.frames import MAGIC, PREFIX
from tidefs.fs.messages.base import METHODS

FIELDS_SHOWN = 70


def split(packet: bytes) -> list[str]:
    """A word or two for each frame. AssertionError when the packet is not whole frames."""
    words = []
    for frame in frames(packet):
        _, header_bytes, _, _ = PREFIX.unpack_from(frame, 0)
        words.append(_describe(unpack(frame[PREFIX.size : PREFIX.size + header_bytes])))
    return words


def frames(packet: bytes) -> list[bytes]:
    """Its frames. AssertionError when it is not whole frames."""
    found = []
    at = 0
    while at < len(packet):
        assert len(packet) - at >= PREFIX.size, "a packet ends within a frame's prefix"
        magic, header_bytes, payload_bytes, _ = PREFIX.unpack_from(packet, at)
        assert magic == MAGIC, "a packet begins within a frame"
        end = at + PREFIX.size + header_bytes + payload_bytes
        assert end <= len(packet), "a packet ends within a frame"
        found.append(packet[at:end])
        at = end
    return found


def _describe(header: list[object]) -> str:
    what = header[0]
    if what == REQUEST:
        return f"{_name(header[2])}#{header[1]}{ascii(header[4])[:FIELDS_SHOWN]}"
    if what == NOTICE:
        return f"{_name(header[1])}{ascii(header[2])[:FIELDS_SHOWN]}"
    if what == REPLY:
        return f"reply#{header[1]}"
    if what == ERROR:
        code = Code(header[2])  # type: ignore[arg-type]
        return f"error#{header[1]}={code.name} ({header[3]})"
    return {HELLO: "hello", WELCOME: "welcome", REFUSAL: "refusal"}[what]  # type: ignore[index]


def _name(method: object) -> object:
    found = METHODS.get(method)  # type: ignore[call-overload]
    return found.__name__ if found else method
