"""The operation log on disk: segment files, appended to and synced, recovered after a crash.

Knows nothing of what is in an entry. One task calls what changes it, others may read meanwhile.
"""

import logging
from bisect import bisect_right
from collections.abc import Sequence

import trio

from ..fs.codec import Buffer, decode
from ..fs.errors import Code, TideError
from ..fs.limits import LOG_SEGMENT_BYTES, MIB
from ..fs.messages.raft import Configuration
from ..fs.ports.disk import Disk, File
from .oplog_records import (
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    pack_record,
    pack_segment_header,
    record_bytes,
    unpack_segment_header,
)
from .oplog_recovery import Scan, check_tail, damage
from .oplog_segment import Segment
from .raft.contract import Kind, Record
from .raft.terms import Terms

FOLDER = "log"
_PREPARED = f"{FOLDER}/prepared"
_SUFFIX = ".log"

_log = logging.getLogger(__name__)


class Log:
    """Records ``first_index`` to ``last_index``, all of them durable."""

    def __init__(self, disk: Disk, cluster: str, segment_bytes: int) -> None:
        self._disk = disk
        self._cluster = cluster
        self._segment_bytes = segment_bytes
        self._segments: list[Segment] = []
        self._prepared: File | None = None
        self._preparing = trio.Lock()
        """Held by who makes the prepared segment, and by who takes it until it has its own name."""
        self._members: list[tuple[int, bytes]] = []
        self._cuts = 0
        """How often records were taken away, so that who reads meanwhile can tell."""
        self.syncs = 0
        """How often records were put on stable storage."""
        self.terms = Terms()
        """Of all records. To be looked at only."""

    # --- opening -----------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        disk: Disk,
        cluster: str,
        *,
        applied_index: int = 0,
        settled_index: int = 0,
        segment_bytes: int = LOG_SEGMENT_BYTES,
    ) -> "Log":
        """The log below ``disk``, begun when there is none, recovered when there is one.

        A torn tail is cut, and said in the program's log. CORRUPT names file, offset and index of
        damage to what was acknowledged; ``applied_index`` is what the state knows of it. Segments
        with nothing behind ``settled_index`` are looked at only when somebody reads them: so a
        start takes time for what has to be replayed, not for all that is kept.
        """
        log = cls(disk, cluster, segment_bytes)
        disk.make_folder(FOLDER)
        await disk.sync_folder("")  # the log would be lost with the folder's own name
        if disk.exists(_PREPARED):
            disk.remove(_PREPARED)
        paths = [f"{FOLDER}/{name}" for name in disk.names(FOLDER) if name.endswith(_SUFFIX)]
        headers = [await log._open_segment(path) for path in paths]
        if headers:
            await log._recover(headers, applied_index, settled_index)
            # What a killed process wrote and had not synced is here, and counts from now on.
            await log._segments[-1].file.sync()
            await disk.sync_folder(FOLDER)
        else:
            await log._add_segment(1)
        return log

    async def _open_segment(self, path: str) -> SegmentHeader:
        file = self._disk.open(path)
        header = unpack_segment_header(await file.read(0, SEGMENT_HEADER_BYTES), path)
        if header.cluster != self._cluster:
            raise TideError(
                Code.FOREIGN_FOLDER,
                f"{path} belongs to cluster {header.cluster}, this server to {self._cluster}",
            )
        self._segments.append(Segment(path, file, header))
        return header

    async def _recover(
        self, headers: Sequence[SegmentHeader], applied_index: int, settled_index: int
    ) -> None:
        self.terms = Terms(headers[0].first_index, headers[0].term_before or 0)
        for at, segment in enumerate(self._segments):
            if at > 0:
                self._expect_next(self._segments[at - 1], segment)
            following = headers[at + 1] if at + 1 < len(headers) else None
            if following and _is_plain(headers[at], following, settled_index):
                assert following.term_before is not None
                count = following.first_index - segment.first_index
                self.terms.append(following.term_before, count)
                segment.trust(following.first_index)
                continue
            data = await segment.read_bytes(0, segment.file.size())
            scan = segment.scan(data, self.terms.last_term)
            self._learn(scan)
            if following is None:
                await self._cut_torn_tail(segment, data, scan, applied_index)
        if headers[0].term_before is None and self.terms.last_index >= self.terms.first_index:
            # The log of an older format does not tell the term before it: so it begins later.
            self.terms.drop_before(self.terms.first_index + 1)

    def _learn(self, scan: Scan) -> None:
        for term, count in scan.runs:
            self.terms.append(term, count)
        self._members.extend(scan.members)

    def _expect_next(self, before: Segment, segment: Segment) -> None:
        """A segment must begin where the one before it ends."""
        if segment.first_index != before.next_index:
            why = f"{segment.path} goes on with record {segment.first_index}"
            raise damage(before.path, before.end, before.next_index, why)

    async def _cut_torn_tail(
        self, segment: Segment, data: bytes, scan: Scan, applied_index: int
    ) -> None:
        torn = check_tail(data, scan, segment.salt, segment.path, segment.next_index, applied_index)
        if torn:
            _log.warning(
                "%s: cut a torn tail of %d bytes at offset %d; record %d was never acknowledged",
                segment.path,
                torn.length,
                torn.offset,
                torn.index,
            )
            await self._clear_behind_end(segment)

    # --- what is there -----------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Of the oldest record kept (when empty: of the next)."""
        return self.terms.first_index

    @property
    def last_index(self) -> int:
        """Of the newest record, ``first_index - 1`` when there is none."""
        return self.terms.last_index

    @property
    def last_term(self) -> int:
        """Of the newest record; of the one before the log when it is empty."""
        return self.terms.last_term

    @property
    def configurations(self) -> list[tuple[int, Configuration]]:
        """The bodies of the records of Kind.MEMBERS, with their indexes: all of those behind the
        ``settled_index`` that the log was opened with, and maybe earlier ones."""
        return [(index, decode(Configuration, body)) for index, body in self._members]

    @property
    def last_members_index(self) -> int:
        """Of the last record of Kind.MEMBERS that is known, 0 when none is."""
        return self._members[-1][0] if self._members else 0

    @property
    def wants_preparation(self) -> bool:
        """Whether ``prepare`` has something to do."""
        return self._prepared is None

    async def read(self, first: int, last: int, *, bytes_max: int = 4 * MIB) -> list[Record]:
        """Records ``first`` to ``last``, or as many as fit in ``bytes_max``, at least one.

        All from one segment: ask again for the rest. None at all when they were taken away while
        this waited. CORRUPT when the disk gives other bytes than were written.
        """
        assert self.first_index <= first <= last <= self.last_index, (first, last)
        at = bisect_right(self._segments, first, key=lambda segment: segment.first_index)
        if at == 0 or first >= self._segments[at - 1].next_index:
            return []  # its file is being removed
        cuts = self._cuts
        try:
            return await self._segments[at - 1].read(first, last, bytes_max)
        except TideError:
            if cuts != self._cuts:
                return []
            raise

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
            self.syncs += 1
        except TideError as error:
            if error.code is Code.NO_SPACE:
                await self._cut_back(before)
            raise

    async def _cut_back(self, last_index: int) -> None:
        """There was no room: make sure that nothing of it is there after a crash."""
        try:
            await self._drop_segments_from(last_index + 1)
            self._forget_from(last_index + 1)
            await self._clear_behind_end(self._segments[-1])
        except TideError as error:
            # Now it is not known what the disk holds; only a recovery can tell.
            raise TideError(Code.DEVICE_ERROR, f"cutting the log back: {error}") from None

    async def _write(self, records: Sequence[Record], synced_index: int) -> None:
        segment = self._segments[-1]
        begin, done = segment.end, 0
        buffers: list[Buffer] = []
        for at, record in enumerate(records):
            length = record_bytes(record.body)
            if segment.end + length > self._segment_bytes or not segment.may_grow:
                # A later segment says that all before it is durable: so it must be.
                self._put(segment, begin, buffers, records[done:at])
                await segment.file.sync()
                self.syncs += 1
                synced_index = record.index - 1
                segment = await self._add_segment(record.index)
                begin, done, buffers = segment.end, at, []
            buffers += pack_record(record, synced_index, segment.salt, segment.end)
            segment.add(length)
        self._put(segment, begin, buffers, records[done:])

    def _put(
        self, segment: Segment, begin: int, buffers: list[Buffer], records: Sequence[Record]
    ) -> None:
        """Write these records, which are packed in ``buffers``, into the page cache."""
        if not records:
            return
        if records[0].term == records[-1].term:  # terms never fall, so all of them are of this one
            self.terms.append(records[0].term, len(records))
        else:
            for record in records:
                self.terms.append(record.term)
        self._members += [
            (record.index, record.body) for record in records if record.kind is Kind.MEMBERS
        ]
        segment.file.write(begin, buffers)

    async def _add_segment(self, first_index: int) -> Segment:
        """A new last segment; its name is durable, and so is all that was before."""
        path = f"{FOLDER}/{first_index:020d}{_SUFFIX}"
        packed = pack_segment_header(self._cluster, first_index, self.last_term)
        file = await self._become(path, packed)
        if self._segments and self._segments[-1].path == path:
            self._segments.pop().retire()  # an empty one of an older format
        segment = Segment(path, file, unpack_segment_header(packed, path))
        self._segments.append(segment)
        await self._disk.sync_folder(FOLDER)
        return segment

    async def _become(self, path: str, content: bytes) -> File:
        """Let the prepared segment be the one at ``path``, and begin with these bytes."""
        async with self._preparing:
            await self._prepare()
            file, self._prepared = self._prepared, None
            assert file is not None
            try:
                file.write(0, [content])
                await file.sync()
            except BaseException:
                file.close()
                raise
            self._disk.rename(_PREPARED, path)
            return file

    async def prepare(self) -> None:
        """Have an empty segment ready before it is needed; also while others use the log.

        NO_SPACE: there is no room for one.
        """
        async with self._preparing:
            await self._prepare()

    async def _prepare(self) -> None:
        if self._prepared is not None:
            return
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
        """Drop the record at ``index`` and all behind it (they contradict the leader's).

        They were promised to be here, so a crash must not leave them half gone: recovery would
        have to call it damage. NO_SPACE: some may still be here; try again when there is room.
        """
        assert self.first_index <= index <= self.last_index + 1, index
        await self._drop_segments_from(index)
        segment = self._segments[-1]
        if not segment.scanned:
            await segment.look()
        if index < segment.next_index:
            await self._replace_last(segment.start_of(index))
        self._forget_from(index)

    async def _drop_segments_from(self, index: int) -> None:
        """One after the other and from the back, so that a crash leaves no gap."""
        while len(self._segments) > 1 and self._segments[-1].first_index >= index:
            await self._remove(self._segments.pop())
            self._forget_from(self._segments[-1].next_index)

    async def _replace_last(self, end: int) -> None:
        """Put a copy of the last segment's first ``end`` bytes in its place, at once."""
        old = self._segments[-1]
        file = await self._become(old.path, await old.read_bytes(0, end))
        self._segments[-1] = old.moved_to(file)
        old.retire()
        await self._disk.sync_folder(FOLDER)

    def _forget_from(self, index: int) -> None:
        self._cuts += 1
        if index < self._segments[-1].next_index:
            self._segments[-1].cut(index)
        self.terms.drop_from(index)
        while self._members and self._members[-1][0] >= index:
            self._members.pop()

    async def _clear_behind_end(self, segment: Segment) -> None:
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
            gone = self._segments.pop(0)
            # First what readers go by: they may come while the file is being removed.
            self._cuts += 1
            self.terms.drop_before(max(self._segments[0].first_index, self.first_index))
            self._members = [pair for pair in self._members if pair[0] >= self.first_index]
            await self._remove(gone)

    async def reset(self, index: int, term: int) -> None:
        """Drop everything: the next record is ``index + 1``, behind a snapshot that ends with a
        record of ``term``. After a crash it must be done again; the snapshot says so."""
        self._cuts += 1
        while self._segments:
            await self._remove(self._segments.pop())
        self.terms = Terms(index + 1, term)
        self._members = []
        await self._add_segment(index + 1)

    async def _remove(self, segment: Segment) -> None:
        segment.retire()
        self._disk.remove(segment.path)
        await self._disk.sync_folder(FOLDER)

    def close(self) -> None:
        """Give the files back. What was appended is durable already."""
        for segment in self._segments:
            segment.retire()
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None


def _is_plain(header: SegmentHeader, following: SegmentHeader, settled_index: int) -> bool:
    """Whether what is to be known of a segment stands in the headers: all of it is settled, and
    all of one term."""
    return (
        following.first_index - 1 <= settled_index
        and header.term_before is not None
        and header.term_before == following.term_before
    )
