"""Envelopes as they travel: notices with the records of an Append beside them, and back. Pure."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.messages.raft import Append, RaftMessage
from .raft.contract import Kind, Record

_NUMBER_MAX = (1 << 63) - 1
_KINDS = {int(kind): kind for kind in Kind}


def append_on_wire(message: Append, records: Sequence[Record]) -> tuple[Append, bytes]:
    """The notice and its payload. The bodies are small and many: one buffer is cheaper to send."""
    outlines = [(record.term, int(record.kind), len(record.body)) for record in records]
    bodies = b"".join(record.body for record in records)
    return msgspec.structs.replace(message, count=len(records), records=outlines), bodies


def check_numbers(message: RaftMessage) -> None:
    """MALFORMED when a number is none that any term, index or round could be."""
    for at, value in enumerate(msgspec.structs.astuple(message)):
        if type(value) is int and not -1 <= value <= _NUMBER_MAX:
            what = f"{type(message).__name__}: {message.__struct_fields__[at]}"
            raise TideError(Code.MALFORMED, f"{what} cannot be {value}")


def append_from_wire(message: Append, payload: Buffer) -> tuple[Append, list[Record]]:
    """The message as it is inside a member, and its records. MALFORMED says what does not fit."""
    outlines = message.records
    if message.count != len(outlines):
        raise _malformed(f"announces {message.count} records and describes {len(outlines)}")
    if message.previous_index < 0 or message.previous_term < 0:
        raise _malformed(f"goes on behind record {message.previous_index}, which cannot be")
    _check_outlines(message)
    length = sum(length for _, _, length in outlines)
    if length != len(payload):
        raise _malformed(f"describes records of {length} bytes and brings {len(payload)}")
    bodies = memoryview(payload)
    records: list[Record] = []
    start = 0
    for index, (term, kind, length) in enumerate(outlines, message.previous_index + 1):
        stop = start + length
        records.append(Record(term, index, bytes(bodies[start:stop]), _KINDS[kind]))
        start = stop
    return msgspec.structs.replace(message, records=[]), records


def _check_outlines(message: Append) -> None:
    terms = [message.previous_term, *(term for term, _, _ in message.records), message.term]
    if any(later < earlier for earlier, later in pairwise(terms)):
        raise _malformed(f"has terms that go back: {terms[:8]}")
    for _, kind, length in message.records:
        if kind not in _KINDS:
            raise _malformed(
                f"has a record of the unknown kind {kind}: this member runs an older version of"
                " TideFS; upgrade it"
            )
        if length < 0:
            raise _malformed(f"has a record of {length} bytes")


def _malformed(what: str) -> TideError:
    return TideError(Code.MALFORMED, f"an Append that {what}")
