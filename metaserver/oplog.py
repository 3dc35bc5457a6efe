"""The operation log on disk: segment files, appended to and synced, recovered after a crash.

Knows nothing of what is in an entry. One task at a time calls the methods that wait.
"""

import logging
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.limits import LOG_SEGMENT_BYTES, MIB
from ..fs.ports.disk import Disk, File
from .oplog_records import (
    SEGMENT_HEADER_BYTES,
    pack_record,
    pack_segment_header,
    read_record,
    record_bytes,
    unpack_segment_header,
)
from .oplog_recovery import check_tail, damage, scan_segment
from .raft.contract import Record

FOLDER = "log"
_PREPARED = f"{FOLDER}/prepared"
_SUFFIX = ".log"

_log = logging.getLogger(__name__)


class _Segment:
    """One file of the log, and where in it each record begins."""

    def __init__(self, path: str, file: File, salt: int, first_index: int) -> None:
        self.path = path
        self.file = file
        self.salt = salt
        self.first_index = first_index
        self.starts = array("Q")
        self.end = SEGMENT_HEADER_BYTES

    @property
    def next_index(self) -> int:
        return self.first_index + len(self.starts)

    def start_of(self, index: int) -> int:
        """Offset of a record, or of the end for the index behind the last."""
        at = index - self.first_index
        return self.starts[at] if at < len(self.starts) else self.end


class _TermRun(NamedTuple):
    """From ``first_index`` on, until the next run, entries are of ``term``."""

    first_index: int
    term: int


class Log:
    """Records ``first_index`` to ``last_index``, all of them durable."""

    def __init__(self, disk: Disk, cluster: str, segment_bytes: int) -> None:
        self._disk = disk
        self._cluster = cluster
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._runs: list[_TermRun] = []
        self._prepared: File | None = None

    # --- opening -----------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        disk: Disk,
        cluster: str,
        *,
        applied_index: int = 0,
        segment_bytes: int = LOG_SEGMENT_BYTES,
    ) -> "Log":
        """The log below ``disk``, begun when there is none, recovered when there is one.

        A torn tail is cut, and said in the program's log. CORRUPT names file, offset and index of
        damage to what was acknowledged; ``applied_index`` is what the state knows of it.
        """
        log = cls(disk, cluster, segment_bytes)
        disk.make_folder(FOLDER)
        if disk.exists(_PREPARED):
            disk.remove(_PREPARED)
        names = [name for name in disk.names(FOLDER) if name.endswith(_SUFFIX)]
        for name in names:
            await log._recover_segment(f"{FOLDER}/{name}", name == names[-1], applied_index)
        if not names:
            await log._add_segment(1)
        return log

    async def _recover_segment(self, path: str, is_last: bool, applied_index: int) -> None:
        file = self._disk.open(path)
        data = await file.read(0, file.size())
        header = unpack_segment_header(data, path)
        if header.cluster != self._cluster:
            raise TideError(
                Code.FOREIGN_FOLDER,
                f"{path} belongs to cluster {header.cluster}, this server to {self._cluster}",
            )
        if self._segments:
            self._expect_next(path, header.first_index)
        segment = _Segment(path, file, header.salt, header.first_index)
        scan = scan_segment(data, header.salt, header.first_index, self.last_term)
        segment.starts.extend(scan.starts)
        segment.end = scan.end
        self._segments.append(segment)
        for index, term in enumerate(scan.terms, header.first_index):
            self._note_term(index, term)
        if not is_last:
            return
        torn = check_tail(data, scan, header.salt, path, segment.next_index, applied_index)
        if torn:
            _log.warning(
                "%s: cut a torn tail of %d bytes at offset %d; record %d was never acknowledged",
                path,
                torn.length,
                torn.offset,
                torn.index,
            )
            await self._clear_behind_end(segment)

    def _expect_next(self, path: str, first_index: int) -> None:
        """The segment at ``path`` must begin where the one before ends."""
        before = self._segments[-1]
        if first_index != before.next_index:
            why = f"{path} goes on with record {first_index}"
            raise damage(before.path, before.end, before.next_index, why)

    # --- what is there -----------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Of the oldest record kept (when empty: of the next)."""
        return self._segments[0].first_index

    @property
    def last_index(self) -> int:
        """Of the newest record, ``first_index - 1`` when there is none."""
        return self._segments[-1].next_index - 1

    @property
    def last_term(self) -> int:
        """Of the newest record, 0 when there is none."""
        return self._runs[-1].term if self._runs else 0

    @property
    def wants_preparation(self) -> bool:
        """Whether ``prepare`` has something to do."""
        return self._prepared is None

    def term_at(self, index: int) -> int:
        """The term of the record at ``index``, which must be there."""
        assert self.first_index <= index <= self.last_index, index
        at = bisect_right(self._runs, index, key=lambda run: run.first_index)
        return self._runs[at - 1].term

    async def read(self, first: int, last: int, *, bytes_max: int = 4 * MIB) -> list[Record]:
        """Records ``first`` to ``last``, or as many as fit in ``bytes_max``, at least one.

        All from one segment: ask again for the rest. CORRUPT when the disk gives other bytes than
        were written.
        """
        assert self.first_index <= first <= last <= self.last_index, (first, last)
        at = bisect_right(self._segments, first, key=lambda segment: segment.first_index)
        segment = self._segments[at - 1]
        begin = segment.start_of(first)
        stop = min(last + 1, segment.next_index)
        while stop > first + 1 and segment.start_of(stop) - begin > bytes_max:
            stop = first + max(1, (stop - first) // 2)
        data = memoryview(await segment.file.read(begin, segment.start_of(stop) - begin))
        records: list[Record] = []
        for index in range(first, stop):
            offset = segment.start_of(index)
            stored = read_record(data, offset - begin, segment.salt, base=begin)
            if stored is None or stored.record.index != index:
                raise damage(segment.path, offset, index, "it was read whole before")
            records.append(stored.record)
        return records

    # --- changing ----------------------------------------------------------------------------

    async def append(self, records: Sequence[Record]) -> None:
        """Add records behind the last; they are on stable storage when this returns.

        NO_SPACE: none of them was added, and it may be tried again when there is room. Any other
        failure leaves the log in an unknown state: stop, and recover.
        """
        before = self.last_index
        assert records[0].index == before + 1, (records[0].index, before)
        try:
            await self._write(records, before)
            await self._segments[-1].file.sync()
        except TideError as error:
            if error.code is Code.NO_SPACE:
                await self._cut_back(before)
            raise

    async def _cut_back(self, last_index: int) -> None:
        """There was no room: make sure that nothing of it is there after a crash."""
        try:
            await self.truncate_suffix(last_index + 1)
        except TideError as error:
            # Now it is not known what the disk holds; only a recovery can tell.
            raise TideError(Code.DEVICE_ERROR, f"cutting the log back: {error}") from None

    async def _write(self, records: Sequence[Record], synced_index: int) -> None:
        segment = self._segments[-1]
        begin = segment.end
        buffers: list[Buffer] = []
        for record in records:
            if segment.end + record_bytes(record.body) > self._segment_bytes:
                # A later segment says that all before it is durable: so it must be.
                if buffers:
                    segment.file.write(begin, buffers)
                await segment.file.sync()
                synced_index = record.index - 1
                segment = await self._add_segment(record.index)
                begin, buffers = segment.end, []
            buffers.extend(pack_record(record, synced_index, segment.salt, segment.end))
            segment.starts.append(segment.end)
            segment.end += record_bytes(record.body)
            self._note_term(record.index, record.term)
        if buffers:
            segment.file.write(begin, buffers)

    async def _add_segment(self, first_index: int) -> _Segment:
        """A new last segment; its name is durable, and so is all that was before."""
        if self._prepared is None:
            await self.prepare()
        file = self._prepared
        assert file is not None
        header = pack_segment_header(self._cluster, first_index)
        path = f"{FOLDER}/{first_index:020d}{_SUFFIX}"
        file.write(0, [header])
        await file.sync()
        self._disk.rename(_PREPARED, path)
        self._prepared = None
        segment = _Segment(path, file, unpack_segment_header(header, path).salt, first_index)
        self._segments.append(segment)
        await self._disk.sync_folder(FOLDER)
        return segment

    async def prepare(self) -> None:
        """Have an empty segment ready before it is needed. NO_SPACE: there is no room for one."""
        file = self._disk.open(_PREPARED, create=True)
        try:
            file.truncate(0)
            file.allocate(0, self._segment_bytes)
            await file.sync()
        except BaseException:
            file.close()
            self._disk.remove(_PREPARED)
            raise
        self._prepared = file

    async def truncate_suffix(self, index: int) -> None:
        """Drop the record at ``index`` and all behind it (they contradict the leader's)."""
        assert self.first_index <= index <= self.last_index + 1, index
        while len(self._segments) > 1 and self._segments[-1].first_index >= index:
            # One after the other and from the back, so that a crash leaves no gap.
            segment = self._segments.pop()
            segment.file.close()
            self._disk.remove(segment.path)
            await self._disk.sync_folder(FOLDER)
        segment = self._segments[-1]
        segment.end = segment.start_of(index)
        del segment.starts[index - segment.first_index :]
        while self._runs and self._runs[-1].first_index >= index:
            self._runs.pop()
        await self._clear_behind_end(segment)

    async def _clear_behind_end(self, segment: _Segment) -> None:
        """Zeros behind the last record: nothing there may ever look like a record again."""
        segment.file.truncate(segment.end)
        try:
            segment.file.allocate(segment.end, self._segment_bytes - segment.end)
        except TideError as error:
            if error.code is not Code.NO_SPACE:
                raise
            # The file then grows as it is written to, when there is room again.
        await segment.file.sync()

    async def truncate_prefix(self, index: int) -> None:
        """Drop whole segments that hold only records before ``index`` (a checkpoint has them)."""
        while len(self._segments) > 1 and self._segments[1].first_index <= index:
            segment = self._segments.pop(0)
            segment.file.close()
            self._disk.remove(segment.path)
            await self._disk.sync_folder(FOLDER)

    def close(self) -> None:
        """Give the files back. What was appended is durable already."""
        for segment in self._segments:
            segment.file.close()
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None

    def _note_term(self, index: int, term: int) -> None:
        if term != self.last_term:
            self._runs.append(_TermRun(index, term))
