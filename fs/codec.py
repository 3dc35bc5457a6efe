"""Bytes from values and back: msgpack with fixed options, and the checksum.

One place decides both, so that what is in the log, on the wire and on the disk can be read by one
tool. msgspec only checks shapes and types; the bytes are made and read by msgpack.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgpack
import msgspec
import xxhash

from .errors import Code, TideError

M = TypeVar("M")

Buffer = bytes | bytearray | memoryview
"""Raw bytes that are handed on without a copy."""


def pack(value: object) -> bytes:
    """msgpack of plain values and messages; text is str, everything else binary is bin."""
    try:
        packer = _idle_packers.pop()
    except IndexError:
        packer = msgpack.Packer(default=msgspec.structs.astuple, use_bin_type=True)
    packed: bytes = packer.pack(value)
    _idle_packers.append(packer)
    return packed


_idle_packers: list[Any] = []
"""Making one costs twice as much as packing with it. One is taken out for as long as it packs:
another thread, or a finalizer that runs in the middle, must never write into the same one."""


def unpack(data: Buffer) -> Any:
    """The plain values in ``data``; MALFORMED when it is not exactly one msgpack value."""
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=True)
    except Exception as error:
        # msgpack raises half a dozen unrelated types for bad input; all mean the same here.
        raise TideError(Code.MALFORMED, f"not msgpack: {error}") from None


def convert(kind: type[M], value: object) -> M:
    """``value`` checked against, and turned into, the message type ``kind``."""
    try:
        return msgspec.convert(value, kind, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError) as error:
        raise TideError(Code.MALFORMED, f"{kind.__name__}: {error}") from None


def decode(kind: type[M], data: Buffer) -> M:
    """The message of type ``kind`` in ``data``; MALFORMED names the field that is wrong."""
    return convert(kind, unpack(data))


def checksum(data: Buffer, seed: int = 0) -> int:
    """xxh3-64 of one buffer, as an unsigned integer."""
    return xxhash.xxh3_64_intdigest(data, seed)


def checksum_of(buffers: Iterable[Buffer], seed: int = 0) -> int:
    """xxh3-64 of the concatenation of ``buffers``, without joining them."""
    state = xxhash.xxh3_64(seed=seed)
    for buffer in buffers:
        state.update(buffer)
    return state.intdigest()
