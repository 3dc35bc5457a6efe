"""Bytes from the kernel to values.

A message lies at the start of a buffer that is longer, and full of older messages: so each decoder
is told the length, and looks at nothing behind it. What is wrong with a message is said by
MalformedRequestError, and by nothing else.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, TypeAlias

from . import structures as s
from .opcodes import Opcode

Header: TypeAlias = tuple[int, int, int, int, int, int, int, int, int]
"""fuse_in_header: the places of its fields follow."""
LENGTH, OPCODE, UNIQUE, NODEID, UID, GID, PID = range(7)

Arguments: TypeAlias = tuple[Any, ...]
Decoder: TypeAlias = Callable[[memoryview, int], Arguments]
"""(buffer, length of the message in bytes) to what the request says, in the header's order: first
the fields of its structure, then names, then bytes."""

HEADER_BYTES = s.IN_HEADER.size


class MalformedRequestError(Exception):
    """A message that the protocol does not allow; the text says what is wrong with it."""


def decode_header(buffer: memoryview, length: int) -> Header:
    """The header of the message of ``length`` bytes at the start of ``buffer``."""
    if length < HEADER_BYTES:
        raise MalformedRequestError(f"a message of {length} bytes is shorter than a header")
    header: Any = s.IN_HEADER.unpack_from(buffer)
    if header[LENGTH] != length:
        raise MalformedRequestError(f"{length} bytes say that they are {header[LENGTH]}")
    return header  # type: ignore[no-any-return]


def decode(buffer: memoryview, length: int) -> tuple[Header, Arguments]:
    """A whole message. An opcode that is not known has no arguments."""
    header = decode_header(buffer, length)
    decoder = DECODERS.get(header[OPCODE])
    return header, () if decoder is None else decoder(buffer, length)


# --- what messages are made of


def _nothing(buffer: memoryview, length: int) -> Arguments:
    return ()


def _fixed(structure: Struct) -> Decoder:
    """A structure alone. (A later protocol may make it longer, never shorter.)"""
    needed = HEADER_BYTES + structure.size
    unpack_from = structure.unpack_from

    def decode_fixed(buffer: memoryview, length: int) -> Arguments:
        if length < needed:
            raise _too_short(length, needed)
        return unpack_from(buffer, HEADER_BYTES)

    return decode_fixed


def _named(structure: Struct) -> Decoder:
    """A structure and one name."""
    needed = HEADER_BYTES + structure.size
    unpack_from = structure.unpack_from

    def decode_named(buffer: memoryview, length: int) -> Arguments:
        if length < needed:
            raise _too_short(length, needed)
        return (*unpack_from(buffer, HEADER_BYTES), _name(buffer, needed, length))

    return decode_named


def _one_name(buffer: memoryview, length: int) -> Arguments:
    return (_name(buffer, HEADER_BYTES, length),)


def _twice_named(structure: Struct | None) -> Decoder:
    """Perhaps a structure, and two names."""
    needed = HEADER_BYTES + (0 if structure is None else structure.size)

    def decode_twice_named(buffer: memoryview, length: int) -> Arguments:
        if length < needed:
            raise _too_short(length, needed)
        fields = () if structure is None else structure.unpack_from(buffer, HEADER_BYTES)
        names = bytes(buffer[needed:length]).split(b"\0")
        if len(names) != 3 or names[2] or not names[0] or not names[1]:
            raise MalformedRequestError("it does not end with two names")
        return (*fields, names[0], names[1])

    return decode_twice_named


def _name(buffer: memoryview, start: int, length: int) -> bytes:
    """The name from ``start`` to the end of the message, which ends with a NUL."""
    name = bytes(buffer[start:length])
    if name.find(0) != len(name) - 1 or len(name) < 2:
        raise MalformedRequestError("it does not end with a name")
    return name[:-1]


def _too_short(length: int, needed: int) -> MalformedRequestError:
    return MalformedRequestError(f"{length} bytes, where at least {needed} are needed")


# --- those that are like no other


def _write(buffer: memoryview, length: int) -> Arguments:
    """The data is a view of the buffer: good for as long as that is not read into again."""
    if length < _WRITE_DATA:
        raise _too_short(length, _WRITE_DATA)
    fields = s.WRITE_IN.unpack_from(buffer, HEADER_BYTES)
    if fields[2] != length - _WRITE_DATA:
        raise MalformedRequestError(
            f"{length - _WRITE_DATA} bytes to write are said to be {fields[2]}"
        )
    return (*fields, buffer[_WRITE_DATA:length])


_WRITE_DATA = HEADER_BYTES + s.WRITE_IN.size


def _setxattr(buffer: memoryview, length: int) -> Arguments:
    """SETXATTR_EXT is always negotiated, so the structure is the long one."""
    start = HEADER_BYTES + s.SETXATTR_IN.size
    if length < start:
        raise _too_short(length, start)
    fields = s.SETXATTR_IN.unpack_from(buffer, HEADER_BYTES)
    name, found, value = bytes(buffer[start:length]).partition(b"\0")
    if not name or not found:
        raise MalformedRequestError("there is no name")
    if len(value) != fields[0]:
        raise MalformedRequestError(f"a value of {len(value)} bytes is said to have {fields[0]}")
    return (*fields, name, value)


def _batch_forget(buffer: memoryview, length: int) -> Arguments:
    """One list of (nodeid, nlookup)."""
    start = HEADER_BYTES + s.BATCH_FORGET_IN.size
    if length < start:
        raise _too_short(length, start)
    (count,) = s.BATCH_FORGET_IN.unpack_from(buffer, HEADER_BYTES)
    end = start + count * s.FORGET_ONE.size
    if length < end:
        raise _too_short(length, end)
    return (list(s.FORGET_ONE.iter_unpack(buffer[start:end])),)


def _init(buffer: memoryview, length: int) -> Arguments:
    """Always five fields: before 7.36 there was no ``flags2``."""
    if length >= HEADER_BYTES + s.INIT_IN.size:
        return s.INIT_IN.unpack_from(buffer, HEADER_BYTES)
    needed = HEADER_BYTES + s.INIT_IN_OLD.size
    if length < needed:
        raise _too_short(length, needed)
    return (*s.INIT_IN_OLD.unpack_from(buffer, HEADER_BYTES), 0)


DECODERS: dict[int, Decoder] = {
    Opcode.LOOKUP: _one_name,
    Opcode.FORGET: _fixed(s.FORGET_IN),
    Opcode.GETATTR: _fixed(s.GETATTR_IN),
    Opcode.SETATTR: _fixed(s.SETATTR_IN),
    Opcode.READLINK: _nothing,
    Opcode.SYMLINK: _twice_named(None),
    Opcode.MKNOD: _named(s.MKNOD_IN),
    Opcode.MKDIR: _named(s.MKDIR_IN),
    Opcode.UNLINK: _one_name,
    Opcode.RMDIR: _one_name,
    Opcode.RENAME: _twice_named(s.RENAME_IN),
    Opcode.LINK: _named(s.LINK_IN),
    Opcode.OPEN: _fixed(s.OPEN_IN),
    Opcode.READ: _fixed(s.READ_IN),
    Opcode.WRITE: _write,
    Opcode.STATFS: _nothing,
    Opcode.RELEASE: _fixed(s.RELEASE_IN),
    Opcode.FSYNC: _fixed(s.FSYNC_IN),
    Opcode.SETXATTR: _setxattr,
    Opcode.GETXATTR: _named(s.GETXATTR_IN),
    Opcode.LISTXATTR: _fixed(s.GETXATTR_IN),
    Opcode.REMOVEXATTR: _one_name,
    Opcode.FLUSH: _fixed(s.FLUSH_IN),
    Opcode.INIT: _init,
    Opcode.OPENDIR: _fixed(s.OPEN_IN),
    Opcode.READDIR: _fixed(s.READ_IN),
    Opcode.RELEASEDIR: _fixed(s.RELEASE_IN),
    Opcode.FSYNCDIR: _fixed(s.FSYNC_IN),
    Opcode.GETLK: _fixed(s.LK_IN),
    Opcode.SETLK: _fixed(s.LK_IN),
    Opcode.SETLKW: _fixed(s.LK_IN),
    Opcode.CREATE: _named(s.CREATE_IN),
    Opcode.INTERRUPT: _fixed(s.INTERRUPT_IN),
    Opcode.DESTROY: _nothing,
    Opcode.IOCTL: _nothing,
    Opcode.BATCH_FORGET: _batch_forget,
    Opcode.FALLOCATE: _fixed(s.FALLOCATE_IN),
    Opcode.READDIRPLUS: _fixed(s.READ_IN),
    Opcode.RENAME2: _twice_named(s.RENAME2_IN),
    Opcode.LSEEK: _fixed(s.LSEEK_IN),
    Opcode.COPY_FILE_RANGE: _fixed(s.COPY_FILE_RANGE_IN),
    Opcode.TMPFILE: _named(s.CREATE_IN),
    Opcode.COPY_FILE_RANGE_64: _fixed(s.COPY_FILE_RANGE_IN),
}
"""By opcode; what is not here is answered with ENOSYS, and the kernel does not ask again."""
