"""The records of the journal and the segment files they stand in: bytes from values and back. Pure.

A record is a fixed head and a body, padded to 8 bytes. Its checksum covers both. Each carries the
number up to which the journal was on stable storage when it was appended: thereby recovery tells a
torn tail, which is cut, from damage to what had been synced, which is refused. ``owner`` is drawn
from the server's id, so that journals of other servers that somebody stores in a chunk (whose bytes
then stand in a record) are never taken for records of this one.
"""

import struct
from array import array
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from ..fs.codec import Buffer, checksum, checksum_of
from ..fs.limits import CHUNK_BYTES, FRAME_PAYLOAD_MAX_BYTES
from .layout import BLOCK_BYTES, HEADER_MAX_BYTES, blocks_below

JOURNAL = "journal"
SEGMENT_START = 64
RECORD_MAX_BYTES = FRAME_PAYLOAD_MAX_BYTES + HEADER_MAX_BYTES + 128

_RECORD_MAGIC = b"TFjr"
_RECORD = struct.Struct("<4sIHHIQQQQ")
_SEGMENT_MAGIC = b"TFjourn1"
_SEGMENT = struct.Struct("<8s3Q")
_WRITE = struct.Struct("<QII")
_ENTRY = struct.Struct("<IQ")
_VERSION = struct.Struct("<QqQ")
_NUMBER = struct.Struct("<Q")
assert _SEGMENT.size <= SEGMENT_START


class Kind(IntEnum):
    """What a record says. The numbers stand on the disk: never re-use one."""

    CREATE = 1
    WRITE = 2
    SYNC = 3
    VERSION = 4
    HEADER = 5
    DELETE = 6
    TRIM = 7


class Record(NamedTuple):
    """One record. ``end``: where the next one begins in the segment."""

    kind: Kind
    handle: int
    sequence: int
    synced: int
    body: memoryview
    end: int


class SegmentHead(NamedTuple):
    """The beginning of a segment file. Records below ``dead`` are of no use any more."""

    first: int
    dead: int


# --- segments ----------------------------------------------------------------------------------


def segment_path(first: int) -> str:
    """The segment whose first record has the number ``first``."""
    return f"{JOURNAL}/{first:016x}"


def pack_segment_head(head: SegmentHead) -> bytes:
    """The beginning of a segment file, SEGMENT_START bytes."""
    seal = checksum(_SEGMENT.pack(_SEGMENT_MAGIC, *head, 0))
    return _SEGMENT.pack(_SEGMENT_MAGIC, *head, seal).ljust(SEGMENT_START, b"\0")


def unpack_segment_head(data: Buffer) -> SegmentHead | None:
    """None when it is not valid: a segment that a crash left before its first sync."""
    if len(data) < SEGMENT_START:
        return None
    magic, first, dead, seal = _SEGMENT.unpack_from(data)
    if magic != _SEGMENT_MAGIC or checksum(_SEGMENT.pack(magic, first, dead, 0)) != seal:
        return None
    return SegmentHead(first, dead)


# --- records -----------------------------------------------------------------------------------


def owner_of(server: int) -> int:
    """What stands in all records of a server's journal."""
    return (server ^ server >> 32) & 0xFFFF_FFFF


def pack_record(
    kind: Kind, handle: int, sequence: int, synced: int, owner: int, body: Sequence[Buffer]
) -> list[Buffer]:
    """The buffers of a record; those of the body are among them, not copied."""
    length = sum(map(len, body))
    fields = (_RECORD_MAGIC, length, kind, 0, owner, sequence, synced, handle)
    seal = checksum_of((_RECORD.pack(*fields, 0), *body))
    return [_RECORD.pack(*fields, seal), *body, bytes(-length % 8)]


def record_bytes(body_bytes: int) -> int:
    """How much room a record takes."""
    return _RECORD.size + body_bytes + -body_bytes % 8


def record_at(data: memoryview, start: int, owner: int) -> Record | None:
    """The record that begins at ``start``; None when there is no valid one of ``owner``."""
    if start + _RECORD.size > len(data):
        return None
    head = _RECORD.unpack_from(data, start)
    magic, length, kind, _, theirs, sequence, synced, handle, seal = head
    end = start + record_bytes(length)
    if magic != _RECORD_MAGIC or theirs != owner or end > len(data):
        return None
    body = data[start + _RECORD.size : start + _RECORD.size + length]
    if kind not in _KINDS or checksum_of((_RECORD.pack(*head[:-1], 0), body)) != seal:
        return None
    return Record(Kind(kind), handle, sequence, synced, body, end)


_KINDS = frozenset(Kind)


def records_anywhere(data: memoryview, start: int, owner: int) -> Iterator[Record]:
    """Every valid record from ``start`` on, whatever stands in between."""
    raw = bytes(data)
    while (start := raw.find(_RECORD_MAGIC, start)) >= 0:
        record = record_at(data, start, owner)
        if record is not None:
            yield record
        start = start + 8 if record is None else record.end


# --- bodies ------------------------------------------------------------------------------------


class Write(NamedTuple):
    """Bytes at an offset, and the checksum of each block they touch as it is afterwards.

    A checksum of 0: not known for certain, because other bytes of that block were not synced.
    """

    version: int
    offset: int
    sums: "array[int]"
    data: memoryview


def write_body(
    version: int, offset: int, sums: "array[int]", data: Sequence[Buffer]
) -> list[Buffer]:
    """The body of a WRITE record. ``data`` may be several buffers, one behind the other."""
    head = _WRITE.pack(version, offset, sum(map(len, data)))
    return [head, struct.pack(f"<{len(sums)}Q", *sums), *data]


def read_write(body: memoryview) -> Write:
    """The content of a WRITE record."""
    version, offset, length = _WRITE.unpack_from(body)
    assert offset + length <= CHUNK_BYTES, "a record with a right checksum makes sense"
    count = blocks_below(offset + length) - offset // BLOCK_BYTES
    sums = array("Q", struct.unpack_from(f"<{count}Q", body, _WRITE.size))
    return Write(version, offset, sums, body[_WRITE.size + 8 * count :])


def sync_body(entries: Sequence[tuple[int, int]]) -> bytes:
    """The body of a SYNC record: (block, checksum) of blocks that are synced by now."""
    return b"".join(_ENTRY.pack(block, found) for block, found in entries)


def read_sync(body: memoryview) -> list[tuple[int, int]]:
    """The content of a SYNC record."""
    return [(block, found) for block, found in _ENTRY.iter_unpack(body)]


class Version(NamedTuple):
    """A new version. With ``cut`` (or -1) the bytes from there on are gone, and ``sum`` is the
    checksum of the block in which it lies (0: that block has none)."""

    version: int
    cut: int
    sum: int


def version_body(content: Version) -> bytes:
    """The body of a VERSION record."""
    return _VERSION.pack(*content)


def read_version(body: memoryview) -> Version:
    """The content of a VERSION record."""
    return Version(*_VERSION.unpack(body))


def number_body(number: int) -> bytes:
    """The body of CREATE and DELETE (the version), and of TRIM (below it all records are dead)."""
    return _NUMBER.pack(number)


def read_number(body: memoryview) -> int:
    """The content of such a record."""
    number: int = _NUMBER.unpack(body)[0]
    return number
