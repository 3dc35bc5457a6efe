"""Term and vote on disk: replaced as a whole, with a checksum, durable when ``store`` returns."""

import struct

from ..fs.codec import checksum
from ..fs.errors import Code, TideError
from ..fs.ports.disk import Disk
from .raft.contract import HardState

_PATH = "hard_state"
_NEW_PATH = "hard_state.new"
_FORMAT = struct.Struct("<8sQQ")  # magic and format version, term, vote
_CHECKSUM = struct.Struct("<Q")
_MAGIC = b"TIDEHS\x00\x01"


async def load_hard_state(disk: Disk) -> HardState:
    """What was stored last, (0, 0) on a new server. CORRUPT names the file."""
    if not disk.exists(_PATH):
        return HardState(0, 0)
    file = disk.open(_PATH)
    try:
        data = await file.read(0, file.size())
    finally:
        file.close()
    if len(data) != _FORMAT.size + _CHECKSUM.size:
        raise TideError(Code.CORRUPT, f"{_PATH} is {len(data)} bytes long")
    magic, term, vote = _FORMAT.unpack_from(data, 0)
    if magic != _MAGIC or _CHECKSUM.unpack_from(data, _FORMAT.size)[0] != checksum(
        data[: _FORMAT.size]
    ):
        raise TideError(Code.CORRUPT, f"{_PATH} does not match its checksum")
    return HardState(term, vote)


async def store_hard_state(disk: Disk, state: HardState) -> None:
    """Put ``state`` on stable storage; a crash leaves the old one or the new one."""
    packed = _FORMAT.pack(_MAGIC, state.term, state.vote)
    file = disk.open(_NEW_PATH, create=True)
    try:
        file.truncate(0)
        file.write(0, [packed, _CHECKSUM.pack(checksum(packed))])
        await file.sync()
    finally:
        file.close()
    disk.rename(_NEW_PATH, _PATH)
    await disk.sync_folder("")
