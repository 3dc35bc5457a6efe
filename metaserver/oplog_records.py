"""The bytes of the operation log: segment headers and records, made, read and searched for.

A segment is a header and then records, one behind the other, and then zeros. See
``docs/formats.md``. Numbers are little-endian and unsigned.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..fs.codec import Buffer, checksum, checksum_of
from ..fs.errors import Code, TideError
from ..fs.limits import LOG_RECORD_MAX_BYTES
from .raft.contract import Kind, Record

SEGMENT_MAGIC = b"TIDELOG\n"
SEGMENT_FORMAT = 2
FORMATS_READ = (1, 2)
"""Format 1 had no kinds (all were entries) and no term before: zeros stand in their places."""
RECORD_MAGIC = b"\xb6REC"
"""Never at the start of what is not there (zeros), and searched for behind damage."""

_SEGMENT = struct.Struct("<8sII32sQ")  # magic, format, term before, cluster id, first index
_CHECKSUM = struct.Struct("<Q")
_RECORD = struct.Struct("<4sIIIQQ")  # magic, length of the body, term, kind, index, synced index
_KINDS = {int(kind): kind for kind in Kind}

SEGMENT_HEADER_BYTES = _SEGMENT.size + _CHECKSUM.size
RECORD_HEADER_BYTES = _RECORD.size + _CHECKSUM.size
CLUSTER_ID_MAX_BYTES = 32


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as found in a segment: ``synced_index`` was known durable when it was written."""

    term: int
    kind: Kind
    index: int
    synced_index: int
    body: int  # offset of its body
    end: int  # offset behind it


class SegmentHeader(NamedTuple):
    """Who the segment belongs to, where it begins, and the salt of its records' checksums."""

    format: int
    cluster: str
    first_index: int
    term_before: int | None  # of the record before its first one; None: not known
    salt: int


def pack_segment_header(cluster: str, first_index: int, term_before: int) -> bytes:
    """The first bytes of a segment."""
    name = cluster.encode()
    assert len(name) <= CLUSTER_ID_MAX_BYTES, cluster
    head = _SEGMENT.pack(SEGMENT_MAGIC, SEGMENT_FORMAT, term_before, name, first_index)
    return head + _CHECKSUM.pack(checksum(head))


def unpack_segment_header(data: Buffer, path: str) -> SegmentHeader:
    """What the header says. CORRUPT or NOT_SUPPORTED name the file and what is wrong."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise TideError(Code.CORRUPT, f"{path} is shorter than a segment header")
    magic, version, term_before, name, first_index = _SEGMENT.unpack_from(data, 0)
    (stored,) = _CHECKSUM.unpack_from(data, _SEGMENT.size)
    if magic != SEGMENT_MAGIC:
        raise TideError(Code.CORRUPT, f"{path} does not begin like a segment of the log")
    if version not in FORMATS_READ:
        raise TideError(
            Code.NOT_SUPPORTED,
            f"{path} is in log format {version}, this program reads format {SEGMENT_FORMAT}: "
            "use the version of TideFS that wrote it",
        )
    if stored != checksum(memoryview(data)[: _SEGMENT.size]):
        raise TideError(Code.CORRUPT, f"the header of {path} does not match its checksum")
    known = version > 1 or first_index == 1
    return SegmentHeader(
        version,
        name.rstrip(b"\0").decode(errors="replace"),
        first_index,
        term_before if known else None,
        stored,
    )


def pack_record(record: Record, synced_index: int, salt: int, offset: int) -> tuple[bytes, bytes]:
    """Header and body, to be written one behind the other at ``offset``.

    Salt and offset go into the checksum: the bytes of a record inside another one's body (somebody
    keeps a copy of a log in a small file) are never taken for a record.
    """
    length = len(record.body)
    assert length <= LOG_RECORD_MAX_BYTES, length
    assert synced_index < record.index, "a record is not durable before it is written"
    head = _RECORD.pack(RECORD_MAGIC, length, record.term, record.kind, record.index, synced_index)
    digest = checksum_of((head, record.body), salt ^ offset)
    return head + _CHECKSUM.pack(digest), record.body


def record_bytes(body: bytes) -> int:
    """How much room a record with this body takes."""
    return RECORD_HEADER_BYTES + len(body)


def find_record(data: memoryview, offset: int, salt: int, *, base: int = 0) -> StoredRecord | None:
    """The record at ``offset``, None when what stands there is not a whole, undamaged one.

    ``data`` is the segment from offset ``base`` on; ``offset`` and the answer count in ``data``.
    """
    body = offset + RECORD_HEADER_BYTES
    if body > len(data):
        return None
    magic, length, term, kind, index, synced_index = _RECORD.unpack_from(data, offset)
    if magic != RECORD_MAGIC or length > min(LOG_RECORD_MAX_BYTES, len(data) - body):
        return None
    (stored,) = _CHECKSUM.unpack_from(data, offset + _RECORD.size)
    end = body + length
    parts = data[offset : offset + _RECORD.size], data[body:end]
    if kind not in _KINDS or stored != checksum_of(parts, salt ^ (base + offset)):
        return None
    return StoredRecord(term, _KINDS[kind], index, synced_index, body, end)


def read_record(data: memoryview, stored: StoredRecord) -> Record:
    """What ``find_record`` found in ``data``, with its body."""
    body = bytes(data[stored.body : stored.end])
    return Record(stored.term, stored.index, body, stored.kind)


def find_records(data: bytes, offset: int, salt: int) -> Sequence[StoredRecord]:
    """All undamaged records that begin behind ``offset``, wherever they begin."""
    view = memoryview(data)
    found: list[StoredRecord] = []
    at = data.find(RECORD_MAGIC, offset + 1)
    while at >= 0:
        stored = find_record(view, at, salt)
        if stored is None:
            at = data.find(RECORD_MAGIC, at + 1)
        else:
            found.append(stored)
            at = data.find(RECORD_MAGIC, stored.end)
    return found
