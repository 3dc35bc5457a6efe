"""The bytes of the operation log: segment headers and records, made, read and searched for.

A segment is a header and then records, one behind the other, and then zeros. See
``docs/formats.md``. Numbers are little-endian and unsigned.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..fs.codec import Buffer, checksum, checksum_of
from ..fs.errors import Code, TideError
from ..fs.limits import LOG_RECORD_MAX_BYTES
from .raft.contract import Record

SEGMENT_MAGIC = b"TIDELOG\n"
SEGMENT_FORMAT = 1
RECORD_MAGIC = b"\xb6REC"
"""Never at the start of what is not there (zeros), and searched for behind damage."""

_SEGMENT = struct.Struct("<8sI4x32sQ")  # magic, format, cluster id, first index
_CHECKSUM = struct.Struct("<Q")
_RECORD = struct.Struct("<4sIQQQ")  # magic, length of the body, term, index, synced index

SEGMENT_HEADER_BYTES = _SEGMENT.size + _CHECKSUM.size
RECORD_HEADER_BYTES = _RECORD.size + _CHECKSUM.size
CLUSTER_ID_MAX_BYTES = 32


class StoredRecord(NamedTuple):
    """A record as found in a segment: ``synced_index`` was known durable when it was written."""

    record: Record
    synced_index: int
    end: int  # offset behind it


def pack_segment_header(cluster: str, first_index: int) -> bytes:
    """The first bytes of a segment."""
    name = cluster.encode()
    assert len(name) <= CLUSTER_ID_MAX_BYTES, cluster
    head = _SEGMENT.pack(SEGMENT_MAGIC, SEGMENT_FORMAT, name, first_index)
    return head + _CHECKSUM.pack(checksum(head))


class SegmentHeader(NamedTuple):
    """Who the segment belongs to, where it begins, and the salt of its records' checksums."""

    cluster: str
    first_index: int
    salt: int


def unpack_segment_header(data: Buffer, path: str) -> SegmentHeader:
    """What the header says. CORRUPT or NOT_SUPPORTED name the file and what is wrong."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise TideError(Code.CORRUPT, f"{path} is shorter than a segment header")
    magic, version, name, first_index = _SEGMENT.unpack_from(data, 0)
    (stored,) = _CHECKSUM.unpack_from(data, _SEGMENT.size)
    if magic != SEGMENT_MAGIC:
        raise TideError(Code.CORRUPT, f"{path} does not begin like a segment of the log")
    if version != SEGMENT_FORMAT:
        raise TideError(
            Code.NOT_SUPPORTED,
            f"{path} is in log format {version}, this program reads format {SEGMENT_FORMAT}: "
            "use the version of TideFS that wrote it",
        )
    if stored != checksum(memoryview(data)[: _SEGMENT.size]):
        raise TideError(Code.CORRUPT, f"the header of {path} does not match its checksum")
    return SegmentHeader(name.rstrip(b"\0").decode(errors="replace"), first_index, stored)


def pack_record(record: Record, synced_index: int, salt: int, offset: int) -> tuple[bytes, bytes]:
    """Header and body, to be written one behind the other at ``offset``.

    Salt and offset go into the checksum: the bytes of a record inside another one's body (somebody
    keeps a copy of a log in a small file) are never taken for a record.
    """
    length = len(record.body)
    assert 0 < length <= LOG_RECORD_MAX_BYTES, length
    assert synced_index < record.index, "a record is not durable before it is written"
    head = _RECORD.pack(RECORD_MAGIC, length, record.term, record.index, synced_index)
    digest = checksum_of((head, record.body), salt ^ offset)
    return head + _CHECKSUM.pack(digest), record.body


def record_bytes(body: bytes) -> int:
    """How much room a record with this body takes."""
    return RECORD_HEADER_BYTES + len(body)


def read_record(data: memoryview, offset: int, salt: int, *, base: int = 0) -> StoredRecord | None:
    """The record at ``offset``, None when what stands there is not a whole, undamaged one.

    ``data`` is the segment from offset ``base`` on; ``offset`` and the answer count in ``data``.
    """
    body = offset + RECORD_HEADER_BYTES
    if body > len(data):
        return None
    magic, length, term, index, synced_index = _RECORD.unpack_from(data, offset)
    if magic != RECORD_MAGIC or not 0 < length <= min(LOG_RECORD_MAX_BYTES, len(data) - body):
        return None
    (stored,) = _CHECKSUM.unpack_from(data, offset + _RECORD.size)
    end = body + length
    parts = data[offset : offset + _RECORD.size], data[body:end]
    if stored != checksum_of(parts, salt ^ (base + offset)):
        return None
    return StoredRecord(Record(term, index, bytes(data[body:end])), synced_index, end)


def find_records(data: bytes, offset: int, salt: int) -> Sequence[StoredRecord]:
    """All undamaged records that begin behind ``offset``, wherever they begin."""
    view = memoryview(data)
    found: list[StoredRecord] = []
    at = data.find(RECORD_MAGIC, offset + 1)
    while at >= 0:
        stored = read_record(view, at, salt)
        if stored is None:
            at = data.find(RECORD_MAGIC, at + 1)
        else:
            found.append(stored)
            at = data.find(RECORD_MAGIC, stored.end)
    return found
