"""Appends as they travel, with their records beside them, and back. Pure.

Only that the parts fit together is checked here; whether it makes sense is for consensus to say.
"""

from collections.abc import Sequence

import msgspec

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.messages.raft import Append
from .raft.contract import Kind, Record

_KINDS = {int(kind): kind for kind in Kind}


def append_on_wire(message: Append, records: Sequence[Record]) -> tuple[Append, bytes]:
    """The notice and its payload. The bodies are small and many: one buffer is cheaper to send."""
    outlines = [(record.term, int(record.kind), len(record.body)) for record in records]
    bodies = b"".join(record.body for record in records)
    return msgspec.structs.replace(message, count=len(records), records=outlines), bodies


def append_from_wire(message: Append, payload: Buffer) -> tuple[Append, list[Record]]:
    """The message as it is inside a member, and its records. MALFORMED says what does not fit."""
    outlines = message.records
    if message.count != len(outlines):
        raise _malformed(f"announces {message.count} records and describes {len(outlines)}")
    for _, kind, length in outlines:
        if kind not in _KINDS:
            raise _malformed(
                f"has a record of the unknown kind {kind}: this member runs an older version of"
                " TideFS; upgrade it"
            )
        if length < 0:
            raise _malformed(f"has a record of {length} bytes")
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


def _malformed(what: str) -> TideError:
    return TideError(Code.MALFORMED, f"an Append that {what}")
