"""Witnesses of bytes: who writes, appends, truncates, reads and asks for the size of a few files.

The files differ in where their bytes are: in the inode, in one chunk, in two chunks, and first in
the one and then in the other. All of them are opened for each call by some, and kept open by
others, some of them with O_APPEND.

A unit that is written in place lies in one block with a checksum, or in the inode: it is sent in
one piece, and is there as a whole or not at all, whoever dies. One that is appended may be sent in
pieces; the size, which is committed behind them, says when it is there.
"""

import os
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from tidefs.client.fuse.driver import NewAttributes
from tidefs.fs.attributes import Attributes
from tidefs.fs.limits import CHECKSUM_BLOCK_BYTES, CHUNK_BYTES

from .byte_objects import Append, Cut, Get, Put, Size
from .cluster import Cluster
from .history import History
from .model import Path
from .user import User
from .witness import Witness, is_done, make

READ_MAX_UNITS = 48
"""Of a file that is only appended to: no more than what one request of a kernel may ask for."""
TAG = struct.Struct(">I")


class SharedFile(NamedTuple):
    """``units``: of so many bytes each it is made of; 0: it is only appended to. ``in_parts``:
    each unit is an object of its own."""

    name: str
    unit_bytes: int
    units: int
    appends: bool
    in_parts: bool = False

    @property
    def path(self) -> Path:
        return (self.name.encode(),)

    def packed(self, tag: int, count: int) -> bytes:
        """So many units of one tag."""
        return TAG.pack(tag) * (self.unit_bytes * count // TAG.size)

    def tags(self, data: bytes) -> tuple[int | str, ...]:
        """Of each unit; words where it has none."""
        pieces = [data[at : at + self.unit_bytes] for at in range(0, len(data), self.unit_bytes)]
        return tuple(self._tag(piece) for piece in pieces)

    def _tag(self, piece: bytes) -> int | str:
        tag = TAG.unpack_from(piece)[0] if len(piece) >= TAG.size else 0
        if piece == self.packed(tag, 1):
            return int(tag)
        end = len(piece) // TAG.size * TAG.size
        found = sorted({tag for (tag,) in TAG.iter_unpack(piece[:end])})
        return f"{len(piece)} of {self.unit_bytes} bytes, of {found[:4]}"

    def units_in(self, size: int) -> int | str:
        """So many units have so many bytes."""
        units, rest = divmod(size, self.unit_bytes)
        return f"{size} bytes" if rest else units


def shared_files(*, whole: bool, on_chunks: bool) -> list[SharedFile]:
    """What there is. ``whole``: each call is to be seen as a whole, whatever it is about."""
    files = [SharedFile("inline", 1_500, 4, appends=False)]
    if on_chunks:
        block = CHECKSUM_BLOCK_BYTES
        files += [
            SharedFile("blocks", block, 3, appends=whole, in_parts=not whole),
            SharedFile(
                "border", block, CHUNK_BYTES // block + 2, appends=whole, in_parts=not whole
            ),
            SharedFile("notes", 700, 0, appends=True),
            SharedFile("log", 20_000, 0, appends=True),
        ]
    return files


class ByteWitness(Witness):
    """One of them. ``flags``: whether what it writes is appended."""

    may_be_done_in_part = True

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        number: int,
        history: History,
        files: list[SharedFile],
    ) -> None:
        super().__init__(cluster, name, number, history)
        self._shared = files
        self._appends = self._random.random() < 0.4
        self.flags = os.O_RDWR | os.O_APPEND * self._appends

    async def prepare(self, user: User) -> None:
        if self._is_first:
            for shared in self._shared:
                await (await make(user, shared.path)).close()

    async def _witness_something(self) -> None:
        shared = self._random.choice(self._shared)
        if self._only_looks or self._random.random() < 0.5:
            await self._look_at(shared)
        else:
            await self._do_something_to(shared)

    # --- looking -------------------------------------------------------------------------------

    async def _look_at(self, shared: SharedFile) -> None:
        if self._random.random() < 0.25:
            await self._ask_size(shared)
            return
        first, count = self._some_units(shared)
        file = await self._open(shared.path)
        read = partial(file.read, first * shared.unit_bytes, count * shared.unit_bytes)
        await self._witness(Get(shared.name, first, count), read, shared.tags)

    async def _ask_size(self, shared: SharedFile) -> None:
        def units(found: Attributes) -> object:
            return shared.units_in(found.size)

        look: Callable[[], Awaitable[Attributes]] = partial(self.user.look, shared.path)
        if self._random.random() < 0.5:
            look = (await self._open(shared.path)).attributes
        await self._witness(Size(shared.name), look, units)

    # --- changing ------------------------------------------------------------------------------

    async def _do_something_to(self, shared: SharedFile) -> None:
        if shared.units and self._random.random() < 0.25:
            await self._cut(shared)
        elif shared.units and not self._appends:
            await self._put(shared)
        elif shared.appends and self._appends:
            await self._append(shared)
        else:
            await self._look_at(shared)

    async def _put(self, shared: SharedFile) -> None:
        first, count = self._some_units(shared)
        what = Put(shared.name, first, count, self._tag())
        file = await self._open(shared.path)
        write = partial(file.write, first * shared.unit_bytes, shared.packed(what.tag, count))
        await self._witness(what, write, is_done)

    async def _append(self, shared: SharedFile) -> None:
        what = Append(shared.name, self._tag())
        file = await self._open(shared.path)
        write = partial(file.write, self._random.randrange(1_000), shared.packed(what.tag, 1))
        await self._witness(what, write, is_done)

    async def _cut(self, shared: SharedFile) -> None:
        what = Cut(shared.name, self._random.choice((0, shared.units // 2, shared.units)))
        size = what.units * shared.unit_bytes
        new = NewAttributes(size=size)
        truncate: Callable[[], Awaitable[object]] = partial(self.user.change, shared.path, new)
        if self._random.random() < 0.5:
            truncate = partial((await self._open(shared.path)).truncate, size)
        await self._witness(what, truncate, is_done)

    def _some_units(self, shared: SharedFile) -> tuple[int, int]:
        """All of them, or a half: the first one, and how many."""
        if not shared.units:
            return 0, READ_MAX_UNITS
        half = shared.units // 2
        return self._random.choice(((0, shared.units), (0, half), (half, shared.units - half)))
