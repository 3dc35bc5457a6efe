"""One segment file of the operation log: where in it each record begins, and reading them back."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager

from ..fs.ports.disk import File
from .oplog_records import (
    SEGMENT_FORMAT,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    find_record,
    read_record,
)
from .oplog_recovery import Scan, damage, scan_segment
from .raft.contract import Record


class Segment:
    """An open file with the records ``first_index`` to ``next_index - 1``."""

    def __init__(self, path: str, file: File, header: SegmentHeader) -> None:
        """Without records; ``scan`` or ``trust`` say what a file that was there before holds."""
        self.path = path
        self.file = file
        self.salt = header.salt
        self.first_index = header.first_index
        self.next_index = header.first_index
        self.may_grow = header.format == SEGMENT_FORMAT
        """An older program would misread new records behind an old header."""
        self.end = SEGMENT_HEADER_BYTES
        self._starts: array[int] | None = array("Q")
        """Where each record begins; None as long as nobody has looked (see ``trust``)."""
        self._readers = 0
        self._retired = False

    @property
    def scanned(self) -> bool:
        """Whether its records have been looked at."""
        return self._starts is not None

    def start_of(self, index: int) -> int:
        """Offset of a record, or of the end for the index behind the last."""
        assert self._starts is not None, self.path
        return self._starts[index - self.first_index] if index < self.next_index else self.end

    def add(self, length: int) -> None:
        """One more record, of so many bytes, stands at the end."""
        assert self._starts is not None, self.path
        self._starts.append(self.end)
        self.next_index += 1
        self.end += length

    def cut(self, index: int) -> None:
        """The record at ``index`` and those behind it do not count any more."""
        assert self._starts is not None, self.path
        self.end = self.start_of(index)
        del self._starts[index - self.first_index :]
        self.next_index = index

    def moved_to(self, file: File) -> "Segment":
        """The same segment in another file, which has a copy of the first bytes."""
        header = SegmentHeader(SEGMENT_FORMAT, "", self.first_index, None, self.salt)
        twin = Segment(self.path, file, header)
        twin.may_grow = self.may_grow
        twin.next_index, twin.end, twin._starts = self.next_index, self.end, self._starts
        return twin

    def trust(self, next_index: int) -> None:
        """Its records are all there, so another segment says; it is looked at when it is read."""
        self.next_index = next_index
        self._starts = None

    def scan(self, data: bytes, term_min: int) -> Scan:
        """Look at all records; ``data`` is the whole file."""
        found = scan_segment(data, self.salt, self.first_index, term_min)
        self._starts = found.starts
        self.next_index = self.first_index + len(found.starts)
        self.end = found.end
        return found

    async def look(self) -> None:
        """Scan what was only trusted. CORRUPT when it does not hold what it should."""
        wanted = self.next_index
        with self._open():
            data = await self.file.read(0, self.file.size())
        found = self.scan(data, 0)
        if self.next_index < wanted:
            bad, self.next_index = self.next_index, wanted
            self._starts = None
            raise damage(self.path, found.end, bad, f"the log goes on to record {wanted - 1}")
        if self.next_index > wanted:
            self.cut(wanted)

    async def read(self, first: int, last: int, bytes_max: int) -> list[Record]:
        """Records ``first`` to ``last``, or as many of the first as fit, at least one.

        CORRUPT when the disk gives other bytes than were written.
        """
        with self._open():
            if not self.scanned:
                await self.look()
            begin = self.start_of(first)
            stop = min(last + 1, self.next_index)
            while stop > first + 1 and self.start_of(stop) - begin > bytes_max:
                stop = first + max(1, (stop - first) // 2)
            data = memoryview(await self.file.read(begin, self.start_of(stop) - begin))
        records: list[Record] = []
        at = 0
        for index in range(first, stop):
            stored = find_record(data, at, self.salt, base=begin)
            if stored is None or stored.index != index:
                raise damage(self.path, begin + at, index, "it was read whole before")
            records.append(read_record(data, stored))
            at = stored.end
        return records

    async def read_bytes(self, offset: int, length: int) -> bytes:
        """So many bytes of the file, as they are."""
        with self._open():
            return await self.file.read(offset, length)

    def retire(self) -> None:
        """Give the file back, as soon as nobody reads it any more."""
        self._retired = True
        if not self._readers:
            self.file.close()

    @contextmanager
    def _open(self) -> Iterator[None]:
        """The file stays open as long as this lasts."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if self._retired and not self._readers:
                self.file.close()
