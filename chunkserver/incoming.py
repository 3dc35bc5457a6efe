"""A chunk that is being copied to this server: a file beside the others, until it is complete."""

from array import array

from ..fs.codec import checksum
from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion
from ..fs.ports.disk import Disk
from .chunk_file import Chunk
from .layout import (
    BLOCK_BYTES,
    DATA_START,
    INCOMING,
    Header,
    block_sum,
    chunk_folder,
    chunk_path,
    is_zero,
)
from .shelf import Shelf
from .upkeep import Upkeep


class IncomingChunk:
    """One copy under way: ``add`` pieces in order, then ``adopt``, and ``close`` in any case."""

    def __init__(
        self,
        disk: Disk,
        shelf: Shelf,
        upkeep: Upkeep,
        handle: ChunkHandle,
        version: ChunkVersion,
    ) -> None:
        self._disk = disk
        self._shelf = shelf
        self._upkeep = upkeep
        self._handle = handle
        self._version = version
        self._path = f"{INCOMING}/{handle:016x}"
        if disk.exists(self._path):
            raise TideError(Code.BUSY, f"chunk {handle:016x} is being copied already")
        self._file = disk.open(self._path, create=True)
        self._sums = array("Q")
        self._length = 0
        self._adopting = False
        self.lost = 0
        """The newest version at which a crash may have taken bytes of the source."""

    def add(self, data: memoryview) -> None:
        """The next bytes; all pieces but the last consist of whole blocks. NO_SPACE."""
        assert self._length % BLOCK_BYTES == 0, "an incomplete block is the last"
        for start in range(0, len(data), BLOCK_BYTES):
            block = data[start : start + BLOCK_BYTES]
            if is_zero(block):
                self._sums.append(0)
            else:
                self._file.write(DATA_START + self._length + start, [block])
                self._sums.append(block_sum(block))
        self._length += len(data)

    def digest(self) -> int:
        """A checksum of what was added: the same for the same bytes."""
        return checksum(self._sums.tobytes().rstrip(b"\0"))

    async def adopt(self) -> None:
        """The chunk is complete: durably make it one of ours, in place of an older replica."""
        self._adopting = True
        await self._upkeep.jobs.run(self._adopt_or_remove)

    async def _adopt_or_remove(self) -> None:
        try:
            await self._adopt()
        finally:
            self._remove()

    async def _adopt(self) -> None:
        if self._file.size() < DATA_START + self._length:
            self._file.truncate(DATA_START + self._length)
        await self._file.sync()
        old = self._shelf.get(self._handle)
        if old is None and self._shelf.entry(self._handle) is not None:
            old = await self._shelf.need(self._handle)
        if old is None:
            await self._put_in_place()
            return
        async with old.lock:
            if old.version > self._version:
                raise TideError(
                    Code.STALE_VERSION,
                    f"chunk {self._handle:016x} has version {old.version:x} here already",
                )
            self._upkeep.kept[self._handle] = old.oldest or self._upkeep.journal.next_sequence
            self._upkeep.forget(old)
            self._shelf.drop(self._handle)
            try:
                await self._put_in_place()
            finally:
                del self._upkeep.kept[self._handle]

    async def _put_in_place(self) -> None:
        """From the floor in the header on, the journal knows nothing of this chunk."""
        floor = self._upkeep.journal.last
        header = Header(
            self._handle,
            self._version,
            floor,
            floor,
            self.lost,
            clean=True,
            suspect=False,
            sums=self._sums,
        )
        self._file.write(0, [header.pack()])
        await self._file.sync()
        self._file.close()
        self._disk.rename(self._path, chunk_path(self._handle))
        await self._disk.sync_folder(chunk_folder(self._handle))
        chunk = Chunk(self._handle, self._version, self._sums)
        chunk.length = chunk.in_file = self._length
        chunk.floor = floor
        chunk.lost = self.lost
        self._shelf.put(chunk)

    def close(self) -> None:
        """Remove what is left of one that is not to be adopted."""
        if not self._adopting:
            self._remove()

    def _remove(self) -> None:
        self._file.close()
        if self._disk.exists(self._path):
            self._disk.remove(self._path)
