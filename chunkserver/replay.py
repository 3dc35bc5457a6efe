"""What the journal says after a restart: which records count, and what they make of a chunk. Pure.

Replaying is physical and idempotent: bytes are written again in the order of the journal, from a
point on at which everything before is known to be in the chunk file. Therefore it does not matter
which of them had reached the file already, nor whether a replay is interrupted and done again.
"""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion
from .layout import BLOCK_BYTES, Header, blocks_below, unpack_header
from .records import (
    SEGMENT_START,
    Kind,
    Record,
    read_number,
    read_sync,
    read_version,
    read_write,
    record_at,
    records_anywhere,
    segment_path,
    unpack_segment_head,
)

# --- the journal as a whole --------------------------------------------------------------------


class Segment(NamedTuple):
    """One segment file as it was found; ``first`` is its name."""

    first: int
    data: memoryview


class History(NamedTuple):
    """What the journal holds: a gapless run of records.

    The journal goes on in segment ``last`` at ``end``, with number ``next_sequence``. What
    follows there, and the segments ``useless``, had never been synced; ``torn``: there is such.
    """

    records: list[Record]
    next_sequence: int
    last: int
    end: int
    useless: list[int]
    torn: bool


class _Parsed(NamedTuple):
    """The valid records at the beginning of a segment; ``end`` is behind them."""

    segment: Segment
    dead: int
    records: list[Record]
    end: int

    @property
    def first(self) -> int:
        return self.segment.first

    @property
    def next(self) -> int:
        return self.first + len(self.records)


def read_journal(segments: Sequence[Segment], owner: int) -> History:
    """The records that count, of ``segments`` in order of their names.

    CORRUPT when a record is missing that had been synced: a crash does not do that.
    """
    parsed = [found for segment in segments if (found := _parse(segment, owner))]
    if not parsed:
        raise TideError(Code.CORRUPT, "the journal is gone: no segment file has a valid beginning")
    dead = max(found.dead for found in parsed)
    records: list[Record] = []
    expected, last = dead, parsed[0]
    for found in parsed:
        if found.first <= expected <= found.next:
            records += found.records[expected - found.first :]
            expected, last = found.next, found
    used = {found.first for found in parsed if found.first <= last.first}
    useless = [segment for segment in segments if segment.first not in used]
    if not last.first <= expected <= last.next:
        _refuse(last.first, dead)
    tail = last.segment.data[last.end :]
    _check_never_synced([tail, *(segment.data for segment in useless)], expected, last.first, owner)
    torn = bool(useless) or bytes(tail).rstrip(b"\0") != b""
    return History(
        records, expected, last.first, last.end, [segment.first for segment in useless], torn
    )


def _parse(segment: Segment, owner: int) -> _Parsed | None:
    head = unpack_segment_head(segment.data)
    if head is None or head.first != segment.first:
        return None
    records: list[Record] = []
    end, dead = SEGMENT_START, head.dead
    while record := record_at(segment.data, end, owner):
        if record.sequence != segment.first + len(records):
            break
        records.append(record)
        end = record.end
        if record.kind is Kind.TRIM:
            dead = max(dead, read_number(record.body))
    return _Parsed(segment, dead, records, end)


def _check_never_synced(rest: list[memoryview], missing: int, last: int, owner: int) -> None:
    """A later record knows whether record ``missing`` had been on stable storage."""
    for data in rest:
        for record in records_anywhere(data, 0, owner):
            if record.sequence >= missing and record.synced >= missing:
                _refuse(last, missing)


def _refuse(segment: int, missing: int) -> None:
    raise TideError(
        Code.CORRUPT,
        f"{segment_path(segment)}: record {missing} is damaged or missing, and it had been on"
        " stable storage. Restore the folder, or move it away and start with an empty one: the"
        " cluster then copies the chunks anew from their other replicas",
    )


# --- one chunk ---------------------------------------------------------------------------------


class Put(NamedTuple):
    """Write these bytes into the chunk file."""

    offset: int
    data: memoryview


class Cut(NamedTuple):
    """Drop all bytes of the chunk file from there on."""

    offset: int


class Rebuilt(NamedTuple):
    """A chunk after ``actions`` are done to its file, in order.

    ``unsure``: blocks whose content is right as it is found, because they were never synced as a
    whole. ``dirty``: there may be more of those, among the blocks without a checksum.
    """

    version: ChunkVersion
    lost: int
    suspect: bool
    sums: "array[int]"
    actions: list[Put | Cut]
    unsure: set[int]
    dirty: bool
    floor: int


class Gone(NamedTuple):
    """The chunk was deleted: its file, if there is one, can go."""


class Damaged(NamedTuple):
    """There is no valid header, and the journal does not reach back to the chunk's beginning."""


def rebuild(
    handle: ChunkHandle, stored: Header | None, records: Sequence[Record]
) -> Rebuilt | Gone | Damaged:
    """What ``records`` (all of this chunk, in order) make of a file with header ``stored``."""
    floor = stored.floor if stored else 0
    records = [record for record in records if record.sequence > floor]
    deletions = [at for at, record in enumerate(records) if record.kind is Kind.DELETE]
    if deletions:
        stored = None  # a file of before the deletion
        records = records[deletions[-1] + 1 :]
        if not records:
            return Gone()
    base = _newest_header(handle, stored, records)
    if base is None:
        return Damaged()
    rebuilding = _Rebuilding(base)
    for record in records:
        if record.sequence > base.floor:
            rebuilding.take(record)
    return rebuilding.outcome()


def _newest_header(
    handle: ChunkHandle, stored: Header | None, records: Sequence[Record]
) -> Header | None:
    newest = stored
    for record in records:
        found = None
        if record.kind is Kind.HEADER:
            found = unpack_header(record.body)
        elif record.kind is Kind.CREATE:
            version = ChunkVersion(read_number(record.body))
            at = record.sequence
            found = Header(handle, version, at, at, 0, clean=False, suspect=False, sums=array("Q"))
        if found is not None and (newest is None or found.sequence > newest.sequence):
            newest = found
    return newest


class _Rebuilding:
    """Takes the records behind a header, one after the other."""

    def __init__(self, base: Header) -> None:
        self._base = base
        self._version = base.version
        self._lost = base.lost
        self._suspect = base.suspect
        self._sums = array("Q", base.sums)
        self._actions: list[Put | Cut] = []
        self._unsure: set[int] = set()
        self._dirty = not base.clean

    def take(self, record: Record) -> None:
        news = record.sequence > self._base.sequence  # else the header knows what comes of it
        if record.kind is Kind.WRITE:
            self._write(record, news)
        elif record.kind is Kind.SYNC and news:
            self._dirty = True
            for block, found in read_sync(record.body):
                self._set(block, found)
        elif record.kind is Kind.VERSION:
            self._new_version(record, news)

    def _write(self, record: Record, news: bool) -> None:
        content = read_write(record.body)
        self._actions.append(Put(content.offset, content.data))
        if news:
            self._dirty = True
            for block, found in enumerate(content.sums, content.offset // BLOCK_BYTES):
                self._set(block, found)

    def _new_version(self, record: Record, news: bool) -> None:
        version, cut, found = read_version(record.body)
        if cut >= 0:
            self._actions.append(Cut(cut))
        if news:
            if self._suspect:
                self._lost = self._version
            self._version = ChunkVersion(version)
            self._suspect = False
        if news and cut >= 0:
            del self._sums[blocks_below(cut) :]
            self._unsure = {block for block in self._unsure if block < len(self._sums)}
            if cut % BLOCK_BYTES and len(self._sums) == blocks_below(cut):
                self._set(cut // BLOCK_BYTES, found)

    def _set(self, block: int, found: int) -> None:
        if block >= len(self._sums):
            self._sums.extend([0] * (block + 1 - len(self._sums)))
        self._sums[block] = found
        if found:
            self._unsure.discard(block)
        else:
            self._unsure.add(block)

    def outcome(self) -> Rebuilt:
        return Rebuilt(
            self._version,
            self._lost,
            self._suspect,
            self._sums,
            self._actions,
            self._unsure,
            self._dirty,
            self._base.floor,
        )
