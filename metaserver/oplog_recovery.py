"""What a segment of the operation log holds after a crash, and whether damage may be cut off.

A record that was never acknowledged may be torn: it is cut. One that was is never cut silently:
each record says how far the log was durable when it was written, so what stands *behind* damage
(or what the state has applied) tells whether the damaged record was. Then: CORRUPT.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..fs.errors import Code, TideError
from .oplog_records import SEGMENT_HEADER_BYTES, find_records, read_record


class Scan(NamedTuple):
    """The whole records from the beginning of a segment on."""

    starts: Sequence[int]  # offset of each record
    terms: Sequence[int]  # its term
    end: int  # offset behind the last


class TornTail(msgspec.Struct, frozen=True):
    """What recovery cuts off."""

    index: int  # of the first record that is lost: it was never acknowledged
    offset: int
    length: int  # of the bytes that are not zeros, up to the last one


def scan_segment(data: bytes, salt: int, first_index: int, term_min: int) -> Scan:
    """Read record after record until there is none, or one that does not belong there."""
    view = memoryview(data)
    starts: list[int] = []
    terms: list[int] = []
    end = SEGMENT_HEADER_BYTES
    while stored := read_record(view, end, salt):
        record = stored.record
        if record.index != first_index + len(starts) or record.term < term_min:
            break
        starts.append(end)
        terms.append(record.term)
        term_min, end = record.term, stored.end
    return Scan(starts, terms, end)


def check_tail(
    data: bytes, scan: Scan, salt: int, path: str, bad_index: int, applied_index: int
) -> TornTail | None:
    """Judge what stands behind the last whole record of the last segment.

    None: nothing does. CORRUPT, naming file, offset and index, when the record that should stand
    there was durable before.
    """
    remains = data[scan.end :].rstrip(b"\0")
    known_durable = max(
        (stored.synced_index for stored in find_records(data, scan.end, salt)), default=0
    )
    if known_durable >= bad_index:
        why = f"a record behind it says that the log was durable up to {known_durable}"
        raise damage(path, scan.end, bad_index, why)
    if applied_index >= bad_index:
        why = f"the state has applied the log up to {applied_index}"
        raise damage(path, scan.end, bad_index, why)
    return TornTail(bad_index, scan.end, len(remains)) if remains else None


def damage(path: str, offset: int, index: int, why: str) -> TideError:
    """The refusal to go on over a damaged record in the middle of the log."""
    return TideError(
        Code.CORRUPT,
        f"{path} is damaged at offset {offset}: record {index} cannot be read, and it was "
        f"acknowledged ({why}). Restore the file from a copy; nothing was changed",
    )
