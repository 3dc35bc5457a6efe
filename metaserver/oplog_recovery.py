"""What a segment of the operation log holds after a crash, and whether damage may be cut off.

A record that was never acknowledged may be torn: it is cut. One that was is never cut silently:
each record says how far the log was durable when it was written, so what stands *behind* damage
(or what the state has applied) tells whether the damaged record was. Then: CORRUPT.
"""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..fs.errors import Code, TideError
from .oplog_records import SEGMENT_HEADER_BYTES, find_record, find_records
from .raft.contract import Kind


class Scan(NamedTuple):
    """The whole records from the beginning of a segment on."""

    starts: "array[int]"  # offset of each record
    runs: Sequence[tuple[int, int]]  # (term, how many records of it follow one another)
    members: Sequence[tuple[int, bytes]]  # (index, body) of the records of Kind.MEMBERS
    end: int  # offset behind the last


class TornTail(msgspec.Struct, frozen=True):
    """What recovery cuts off."""

    index: int  # of the first record that is lost: it was never acknowledged
    offset: int
    length: int  # of the bytes that are not zeros, up to the last one


def scan_segment(data: bytes, salt: int, first_index: int, term_min: int) -> Scan:
    """Go from record to record until there is none, or one that does not belong there."""
    view = memoryview(data)
    starts = array("Q")
    runs: list[tuple[int, int]] = []
    members: list[tuple[int, bytes]] = []
    end, index, term, of_term = SEGMENT_HEADER_BYTES, first_index, term_min, 0
    while stored := find_record(view, end, salt):
        if stored.index != index or stored.term < term:
            break
        if stored.term != term:
            runs.append((term, of_term))
            term, of_term = stored.term, 0
        if stored.kind is Kind.MEMBERS:
            members.append((index, bytes(view[stored.body : stored.end])))
        starts.append(end)
        index, of_term, end = index + 1, of_term + 1, stored.end
    runs.append((term, of_term))
    return Scan(starts, [run for run in runs if run[1]], members, end)


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
        f"acknowledged ({why}). Restore the file from a copy, or, when the rest of its group is "
        "well, have a new member take its place: tidefs cluster replace. Nothing was changed",
    )
