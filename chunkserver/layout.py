"""How a chunk lies in its file: where the bytes are, which blocks they touch, the header. Pure.

A chunk file begins with its header (identity, version, checksums); the bytes of the chunk follow at
``DATA_START``, each at its own offset, and what was never written is a hole. The format is
described for an outsider in ``docs/formats.md``.
"""

import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from ..fs.codec import Buffer, checksum, checksum_of
from ..fs.ids import ChunkHandle, ChunkVersion
from ..fs.limits import BLOCKS_PER_CHUNK, CHECKSUM_BLOCK_BYTES

BLOCK_BYTES = CHECKSUM_BLOCK_BYTES
DATA_START = BLOCK_BYTES
FOLDERS = 256

CHUNKS = "chunks"
INCOMING = "incoming"
DAMAGED = "damaged"

ZEROS = memoryview(bytes(BLOCK_BYTES))

_MAGIC = b"TFchunk1"
_HEADER = struct.Struct("<8s5Q2IQ")
HEADER_MAX_BYTES = _HEADER.size + 8 * BLOCKS_PER_CHUNK
assert HEADER_MAX_BYTES <= DATA_START

_CLEAN = 1
_SUSPECT = 2


def chunk_folder(handle: int) -> str:
    """The folder of a chunk: handles are counted up, so the low byte spreads them evenly."""
    return f"{CHUNKS}/{handle % FOLDERS:02x}"


def chunk_path(handle: int) -> str:
    """The file of a chunk."""
    return f"{chunk_folder(handle)}/{handle:016x}"


def handle_of(name: str) -> ChunkHandle | None:
    """The handle that a file is named after; None when it is no chunk's."""
    try:
        handle = int(name, 16)
    except ValueError:
        return None
    return ChunkHandle(handle) if name == f"{handle:016x}" else None


class Span(NamedTuple):
    """A stretch of bytes within one block: ``start`` to ``stop``, counted in the block."""

    block: int
    start: int
    stop: int

    @property
    def whole(self) -> bool:
        return self.stop - self.start == BLOCK_BYTES


def spans(offset: int, length: int) -> Iterator[Span]:
    """The blocks that a range of bytes touches, and which part of each."""
    end = offset + length
    for block in range(offset // BLOCK_BYTES, blocks_below(end)):
        base = block * BLOCK_BYTES
        yield Span(block, max(offset - base, 0), min(end - base, BLOCK_BYTES))


def blocks_below(end: int) -> int:
    """How many blocks the first ``end`` bytes touch."""
    return -(-end // BLOCK_BYTES)


def block_sum(content: Buffer) -> int:
    """The checksum of a block that begins with ``content``, zeros behind it. Never 0: that stands
    for a block without one."""
    if len(content) == BLOCK_BYTES:
        return checksum(content) or 1
    return checksum_of((content, ZEROS[len(content) :])) or 1


def is_zero(content: Buffer) -> bool:
    """Whether a block's content is the same as a hole's."""
    return not bytes(content).rstrip(b"\0")


class Header(NamedTuple):
    """What stands at the beginning of a chunk file.

    It is true of the moment at which the journal record ``sequence`` was appended, and holds the
    checksums of synced blocks only. All records up to ``floor`` were on stable storage in the file
    already. ``clean``: no block was un-synced. ``suspect``: the machine crashed while some were,
    and nobody has granted a version since. ``lost``: the newest version at which that happened to
    an earlier grant, 0: none.
    """

    handle: ChunkHandle
    version: ChunkVersion
    sequence: int
    floor: int
    lost: int
    clean: bool
    suspect: bool
    sums: "array[int]"  # by block; 0: none, it reads as zeros

    def pack(self) -> bytes:
        """The bytes of the header."""
        flags = self.clean * _CLEAN | self.suspect * _SUSPECT
        fields = (_MAGIC, self.handle, self.version, self.sequence, self.floor, self.lost)
        table = struct.pack(f"<{len(self.sums)}Q", *self.sums)
        unsealed = _HEADER.pack(*fields, flags, len(self.sums), 0)
        return _HEADER.pack(*fields, flags, len(self.sums), checksum_of((unsealed, table))) + table


def unpack_header(data: Buffer) -> Header | None:
    """The header at the beginning of ``data``; None when there is no valid one."""
    if len(data) < _HEADER.size:
        return None
    magic, handle, version, sequence, floor, lost, flags, count, seal = _HEADER.unpack_from(data)
    end = _HEADER.size + 8 * count
    if magic != _MAGIC or count > BLOCKS_PER_CHUNK or end > len(data):
        return None
    table = memoryview(data)[_HEADER.size : end]
    unsealed = _HEADER.pack(magic, handle, version, sequence, floor, lost, flags, count, 0)
    if checksum_of((unsealed, table)) != seal:
        return None
    return Header(
        ChunkHandle(handle),
        ChunkVersion(version),
        sequence,
        floor,
        lost,
        clean=bool(flags & _CLEAN),
        suspect=bool(flags & _SUSPECT),
        sums=array("Q", struct.unpack(f"<{count}Q", table)),
    )
