"""A snapshot that is coming in: what of it is here, also after a crash.

``incoming/`` holds the offer (written once, synced, before the first byte), the bytes so far, and a
list with length and checksum of each piece. After a crash the pieces are read until one does not
match: whatever order the writes reached the disk in, what is believed is what was sent. When all is
there the folder becomes a checkpoint.
"""

import struct

import msgspec
import trio
import xxhash

from ..fs.codec import Buffer, checksum, decode, pack
from ..fs.errors import Code, TideError
from ..fs.limits import FRAME_PAYLOAD_MAX_BYTES, MIB
from ..fs.messages.raft import OfferSnapshot, SnapshotPiece
from ..fs.ports.disk import Disk, File

FOLDER = "incoming"
_OFFER = f"{FOLDER}/offer"
_STATE = f"{FOLDER}/state"  # as in a checkpoint: this folder becomes one
_PIECES = f"{FOLDER}/pieces"
_CHECKSUM_BYTES = 8
_PIECE = struct.Struct("<QQ")  # length and xxh3-64
_READ_BYTES = 4 * MIB


class IncomingSnapshot(msgspec.Struct, eq=False):
    """The first ``offset`` bytes of what ``offer`` announced."""

    offer: OfferSnapshot
    offset: int
    unsynced_bytes: int
    _pieces: int  # so many are in the list
    _state_file: File
    _list_file: File
    _syncing: trio.Lock = msgspec.field(default_factory=trio.Lock)

    @classmethod
    async def begin(cls, disk: Disk, offer: OfferSnapshot) -> "IncomingSnapshot":
        """Nothing is here yet, and nothing of any other."""
        assert not disk.exists(FOLDER)
        disk.make_folder(FOLDER)
        state, pieces = disk.open(_STATE, create=True), disk.open(_PIECES, create=True)
        packed = pack(offer)
        file = disk.open(_OFFER, create=True)
        try:
            file.write(0, [checksum(packed).to_bytes(_CHECKSUM_BYTES, "little"), packed])
            await file.sync()
        finally:
            file.close()
        await disk.sync_folder(FOLDER)
        await disk.sync_folder("")
        return cls(offer, 0, 0, 0, state, pieces)

    def take(self, piece: SnapshotPiece, payload: Buffer) -> None:
        """The next piece; one that is not the next changes nothing.

        BAD_CHECKSUM when it is not what was sent, MALFORMED when it cannot be a piece.
        """
        if piece.offset != self.offset:
            return
        length = len(payload)
        if not 0 < length <= self.offer.length - self.offset:
            raise TideError(
                Code.MALFORMED,
                f"a piece of {length} bytes at {self.offset} of a snapshot of {self.offer.length}",
            )
        if checksum(payload) != piece.checksum:
            raise TideError(
                Code.BAD_CHECKSUM,
                f"the piece at {self.offset} of the snapshot of {self.offer.index}",
            )
        self._state_file.write(self.offset, [payload])
        self._list_file.write(self._pieces * _PIECE.size, [_PIECE.pack(length, piece.checksum)])
        self._pieces += 1
        self.offset += length
        self.unsynced_bytes += length

    async def sync(self) -> None:
        """What is here is on stable storage when this returns."""
        async with self._syncing:
            self.unsynced_bytes = 0
            await self._state_file.sync()
            await self._list_file.sync()

    async def is_whole(self) -> bool:
        """Whether all of it is here, as it was announced; reads it."""
        digest = xxhash.xxh3_64()
        offset = 0
        while piece := await self._state_file.read(offset, _READ_BYTES):
            digest.update(piece)
            offset += len(piece)
        return (offset, digest.intdigest()) == (self.offer.length, self.offer.checksum)

    def close(self) -> None:
        """Give the files back."""
        self._state_file.close()
        self._list_file.close()


async def unfinished(disk: Disk) -> IncomingSnapshot | None:
    """What an earlier life of this process got, as far as it is good."""
    offer = await _read_offer(disk)
    if offer is None or not (disk.exists(_STATE) and disk.exists(_PIECES)):
        return None
    state, listed = disk.open(_STATE), disk.open(_PIECES)
    snapshot = IncomingSnapshot(offer, 0, 0, 0, state, listed)
    lengths_and_checksums = await listed.read(0, listed.size())
    for at in range(0, len(lengths_and_checksums) - _PIECE.size + 1, _PIECE.size):
        length, expected = _PIECE.unpack_from(lengths_and_checksums, at)
        if not 0 < length <= min(FRAME_PAYLOAD_MAX_BYTES, offer.length - snapshot.offset):
            break
        piece = await state.read(snapshot.offset, length)
        if len(piece) != length or checksum(piece) != expected:
            break
        snapshot.offset += length
        snapshot._pieces += 1
    state.truncate(snapshot.offset)
    return snapshot


async def _read_offer(disk: Disk) -> OfferSnapshot | None:
    if not disk.exists(_OFFER):
        return None
    file = disk.open(_OFFER)
    try:
        data = await file.read(0, file.size())
    finally:
        file.close()
    digest, packed = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
    if digest != checksum(packed).to_bytes(_CHECKSUM_BYTES, "little"):
        return None
    return decode(OfferSnapshot, packed)


async def discard(disk: Disk) -> None:
    """Remove whatever is here."""
    if disk.exists(FOLDER):
        disk.remove(FOLDER)
        await disk.sync_folder("")


def forget_pieces(disk: Disk, folder: str) -> None:
    """Remove what a checkpoint in ``folder`` has no use for any more."""
    for path in (_OFFER, _PIECES):
        disk.remove(folder + path.removeprefix(FOLDER))
