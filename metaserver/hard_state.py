"""Term and vote on disk: two slots, written in turn and in place, so that it needs no room.

The newer whole slot counts. The other one may be torn, by a crash while it was written: then the
write was not done, and nobody was told of it. It may also have rotted after it was written, and
then this server has promised what it does not know any more: it could vote twice in a term. So
each slot notes the checksum that its write found in the other one, and a slot that cannot be read
is forgiven only while that still stands at its end: the checksum is what a write puts down last.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..fs.codec import checksum
from ..fs.errors import Code, TideError
from ..fs.ports.disk import Disk, File
from .raft.contract import HardState

PATH = "hard_state"
_NEW_PATH = "hard_state.new"
NAMES = (PATH, _NEW_PATH)
"""What may be there when the making of a folder was interrupted."""
_MAGIC = b"TIDEHS\x00\x02"
_SLOT = struct.Struct("<8sQQQQ")  # magic and format, sequence, term, vote, checksum of the other
_CHECKSUM = struct.Struct("<Q")
SLOT_BYTES = _SLOT.size + _CHECKSUM.size
SLOT_OFFSETS = (0, 4096)
"""A page apart: what one write spoils cannot spoil the other slot."""
_FILE_BYTES = 2 * 4096

_OLD_MAGIC = b"TIDEHS\x00\x01"
_OLD = struct.Struct("<8sQQ")  # magic and format, term, vote

_REMEDY = (
    "what this server promised is not known any more. Restore the file from a copy of this moment,"
    " or, when the rest of its group is well, have a new member take its place: tidefs cluster"
    " replace"
)


class _Slot(NamedTuple):
    """A whole one."""

    sequence: int
    state: HardState
    other_checksum: int
    checksum: int

    def packed(self) -> bytes:
        return _pack(self.sequence, self.state, self.other_checksum)


def _pack(sequence: int, state: HardState, other_checksum: int) -> bytes:
    head = _SLOT.pack(_MAGIC, sequence, state.term, state.vote, other_checksum)
    return head + _CHECKSUM.pack(checksum(head))


def _unpack(data: bytes) -> _Slot | None:
    """None when it is not whole."""
    if len(data) < SLOT_BYTES:
        return None
    magic, sequence, term, vote, other_checksum = _SLOT.unpack_from(data, 0)
    (stored,) = _CHECKSUM.unpack_from(data, _SLOT.size)
    if magic != _MAGIC or stored != checksum(data[: _SLOT.size]):
        return None
    return _Slot(sequence, HardState(term, vote), other_checksum, stored)


class HardStateFile:
    """The file, open."""

    def __init__(self, file: File, current: _Slot) -> None:
        self._file = file
        self._current = current

    @classmethod
    async def open(cls, disk: Disk) -> "HardStateFile":
        """Made, with (0, 0), when there is none. CORRUPT, with a remedy, when it is damaged."""
        if not disk.exists(PATH):
            await _create(disk, HardState(0, 0))
        file = disk.open(PATH)
        try:
            data = await file.read(0, _FILE_BYTES)
            await file.sync()  # a killed process may have written without it
            if data[: len(_OLD_MAGIC)] == _OLD_MAGIC:
                file.close()
                await _create(disk, _read_old(data))
                file = disk.open(PATH)
                data = await file.read(0, _FILE_BYTES)
            return cls(file, _current([data[at : at + SLOT_BYTES] for at in SLOT_OFFSETS]))
        except BaseException:
            file.close()
            raise

    @property
    def state(self) -> HardState:
        """What was stored last."""
        return self._current.state

    async def store(self, state: HardState) -> None:
        """Put ``state`` on stable storage; a crash leaves the old one or the new one."""
        before = self._current
        packed = _pack(before.sequence + 1, state, before.checksum)
        self._file.write(SLOT_OFFSETS[(before.sequence + 1) % 2], [packed])
        await self._file.sync()
        found = _unpack(packed)
        assert found is not None
        self._current = found

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def _current(slots: Sequence[bytes]) -> _Slot:
    """The slot that counts."""
    found = [_unpack(data) for data in slots]
    whole = sorted(slot for slot in found if slot is not None)
    if not whole:
        raise _damaged("neither of its slots matches its checksum")
    newest = whole[-1]
    if found[newest.sequence % 2] is not newest:
        raise _damaged("its slots have changed places")
    if len(whole) == 2:
        if whole[0].sequence != newest.sequence - 1 or whole[0].checksum != newest.other_checksum:
            raise _damaged("its slots do not belong together")
    elif not _is_torn(slots[(newest.sequence + 1) % 2], newest):
        raise _damaged("one of its slots was whole once, and does not match its checksum now")
    return newest


def _is_torn(data: bytes, other: _Slot) -> bool:
    """Whether a slot that is not whole is what a crash leaves of a write that was not done.

    The bytes of a write reach the disk from the first to the last, or sector by sector (a slot
    lies in one): so its end is what stood there before, unless all but the last bytes arrived.
    """
    if len(data) < SLOT_BYTES:
        return False
    before = _CHECKSUM.pack(other.other_checksum)
    new = _CHECKSUM.pack(checksum(data[: _SLOT.size]))
    return any(
        data[_SLOT.size :] == new[:arrived] + before[arrived:] for arrived in range(len(before))
    )


async def _create(disk: Disk, state: HardState) -> None:
    """A new file, in the place of an old one if there is one."""
    file = disk.open(_NEW_PATH, create=True)
    try:
        file.truncate(0)
        file.allocate(0, _FILE_BYTES)
        file.write(SLOT_OFFSETS[1], [_pack(1, state, 0)])
        await file.sync()
    finally:
        file.close()
    disk.rename(_NEW_PATH, PATH)
    await disk.sync_folder("")


def _read_old(data: bytes) -> HardState:
    """From the format that was replaced as a whole."""
    if len(data) != _OLD.size + _CHECKSUM.size:
        raise _damaged(f"it is {len(data)} bytes long")
    _, term, vote = _OLD.unpack_from(data, 0)
    if _CHECKSUM.unpack_from(data, _OLD.size)[0] != checksum(data[: _OLD.size]):
        raise _damaged("it does not match its checksum")
    return HardState(term, vote)


def _damaged(why: str) -> TideError:
    return TideError(Code.CORRUPT, f"{PATH} is damaged ({why}): {_REMEDY}")
