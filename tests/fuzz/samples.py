"""One valid example of every message there is: what a fuzzer begins with."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import msgspec
from tidefs.client.fuse.protocol import structures as s
from tidefs.client.fuse.protocol.opcodes import Opcode
from tidefs.fs import messages
from tidefs.fs.messages.base import Message

for module in iter_modules(messages.__path__):
    import_module(f"{messages.__name__}.{module.name}")


def message_types(base: type[Message] = Message) -> Iterator[type[Message]]:
    """Every message class that stands for itself."""
    for kind in base.__subclasses__():
        if kind.__struct_fields__:
            yield kind
        yield from message_types(kind)


def sample(kind: Any) -> Any:
    """A value of a type."""
    return _sample(msgspec.inspect.type_info(kind))


def _sample(info: Any) -> Any:
    return next(make(info) for cls, make in _SAMPLES.items() if isinstance(info, cls))


_SAMPLES: dict[type, Callable[[Any], Any]] = {
    msgspec.inspect.StructType: lambda info: info.cls(*(_sample(one.type) for one in info.fields)),
    msgspec.inspect.ListType: lambda info: [_sample(info.item_type)] * 2,
    msgspec.inspect.VarTupleType: lambda info: (_sample(info.item_type),),
    msgspec.inspect.TupleType: lambda info: tuple(_sample(item) for item in info.item_types),
    msgspec.inspect.DictType: lambda info: {_sample(info.key_type): _sample(info.value_type)},
    msgspec.inspect.UnionType: lambda info: _sample(info.types[0]),
    msgspec.inspect.EnumType: lambda info: next(iter(info.cls)),
    msgspec.inspect.BytesType: lambda info: b"bytes",
    msgspec.inspect.StrType: lambda info: "text",
    msgspec.inspect.BoolType: lambda info: True,
    msgspec.inspect.FloatType: lambda info: 1.5,
    msgspec.inspect.NoneType: lambda info: None,
    msgspec.inspect.Type: lambda info: 7,
}
"""By the kind of type, as msgspec describes it."""


BODIES: dict[Opcode, bytes] = {
    Opcode.LOOKUP: b"name\0",
    Opcode.FORGET: s.FORGET_IN.pack(3),
    Opcode.GETATTR: s.GETATTR_IN.pack(1, 5),
    Opcode.SETATTR: s.SETATTR_IN.pack(0xFFF, 5, 100, 0, -1, 2, 3, 4, 5, 6, 0o644, 1, 2),
    Opcode.READLINK: b"",
    Opcode.SYMLINK: b"name\0target\0",
    Opcode.MKNOD: s.MKNOD_IN.pack(0o100644, 0, 0o22) + b"name\0",
    Opcode.MKDIR: s.MKDIR_IN.pack(0o755, 0o22) + b"name\0",
    Opcode.UNLINK: b"name\0",
    Opcode.RMDIR: b"name\0",
    Opcode.RENAME: s.RENAME_IN.pack(1) + b"old\0new\0",
    Opcode.LINK: s.LINK_IN.pack(7) + b"name\0",
    Opcode.OPEN: s.OPEN_IN.pack(2, 1),
    Opcode.READ: s.READ_IN.pack(5, 4096, 131072, 0, 0, 2),
    Opcode.WRITE: s.WRITE_IN.pack(5, 4096, 100, 4, 0, 2) + b"x" * 100,
    Opcode.STATFS: b"",
    Opcode.RELEASE: s.RELEASE_IN.pack(5, 2, 2, 77),
    Opcode.FSYNC: s.FSYNC_IN.pack(5, 1),
    Opcode.SETXATTR: s.SETXATTR_IN.pack(5, 1, 1) + b"user.a\0value",
    Opcode.GETXATTR: s.GETXATTR_IN.pack(100) + b"user.a\0",
    Opcode.LISTXATTR: s.GETXATTR_IN.pack(100),
    Opcode.REMOVEXATTR: b"user.a\0",
    Opcode.FLUSH: s.FLUSH_IN.pack(5, 77),
    Opcode.INIT: s.INIT_IN.pack(7, 45, 131072, 0xFFFFFFFF, 0xFF) + bytes(44),
    Opcode.OPENDIR: s.OPEN_IN.pack(0, 0),
    Opcode.READDIR: s.READ_IN.pack(5, 0, 4096, 0, 0, 0),
    Opcode.RELEASEDIR: s.RELEASE_IN.pack(5, 0, 0, 0),
    Opcode.FSYNCDIR: s.FSYNC_IN.pack(5, 0),
    Opcode.GETLK: s.LK_IN.pack(5, 77, 0, 100, 1, 4242, 0),
    Opcode.SETLK: s.LK_IN.pack(5, 77, 0, 100, 0, 4242, 1),
    Opcode.SETLKW: s.LK_IN.pack(5, 77, 0, (1 << 63) - 1, 2, 4242, 0),
    Opcode.CREATE: s.CREATE_IN.pack(2, 0o100644, 0o22, 0) + b"name\0",
    Opcode.INTERRUPT: s.INTERRUPT_IN.pack(12),
    Opcode.DESTROY: b"",
    Opcode.BATCH_FORGET: s.BATCH_FORGET_IN.pack(2) + s.FORGET_ONE.pack(3, 1) * 2,
    Opcode.FALLOCATE: s.FALLOCATE_IN.pack(5, 0, 4096, 3),
    Opcode.READDIRPLUS: s.READ_IN.pack(5, 9, 32768, 0, 0, 0),
    Opcode.RENAME2: s.RENAME2_IN.pack(1, 2) + b"old\0new\0",
    Opcode.LSEEK: s.LSEEK_IN.pack(5, 0, 3),
    Opcode.COPY_FILE_RANGE: s.COPY_FILE_RANGE_IN.pack(5, 0, 7, 6, 0, 4096, 0),
    Opcode.TMPFILE: s.CREATE_IN.pack(2, 0o100600, 0o22, 0) + b"/\0",
    Opcode.COPY_FILE_RANGE_64: s.COPY_FILE_RANGE_IN.pack(5, 0, 7, 6, 0, 1 << 40, 0),
    Opcode.IOCTL: bytes(32),
}


def kernel_message(opcode: int, body: bytes, *, unique: int = 2, inode: int = 1) -> bytes:
    """A request as the kernel writes it."""
    return s.IN_HEADER.pack(40 + len(body), opcode, unique, inode, 0, 0, 4242, 0, 0) + body


def kernel_messages() -> list[bytes]:
    """A valid request of each kind that is decoded, and one that is not known."""
    known = [kernel_message(opcode, body) for opcode, body in BODIES.items()]
    return [*known, kernel_message(4095, b"what is this")]
