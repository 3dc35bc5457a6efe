"""CloneChunk: a new chunk with the first bytes of another one, from this disk or from a neighbour.

The bytes are checked where they are read, and get checksums of their own. Like a copy, a clone is
a file beside the others until it is complete and on stable storage: so a crash leaves all of it or
nothing, and the journal has no record of it.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion
from ..fs.limits import CHUNK_BYTES
from ..fs.limits import FRAME_PAYLOAD_MAX_BYTES as PIECE_BYTES
from ..fs.messages.chunk import CloneChunk, ReadChunk
from ..fs.messages.places import ServerPlace
from .incoming import IncomingChunk
from .neighbours import Neighbours
from .store import Store, stale

log = logging.getLogger(__name__)

Read = Callable[[int, int], Awaitable[Buffer]]
"""Bytes of the source: offset, length. Fewer where it ends."""

OF_THE_CLONE = frozenset({Code.NO_SPACE, Code.BUSY})
"""Not the source's errors: another one would not help."""


async def clone_chunk(
    store: Store, neighbours: Neighbours, server: int, request: CloneChunk
) -> int:
    """Have the new chunk on this ``server``, durably; its digest. The error of the last source when
    all fail.

    INVALID, BUSY while the same chunk is being made, NO_SPACE, STALE_VERSION when it is there at a
    newer version.
    """
    _check(store, request)
    last = TideError(Code.NO_CHUNK, f"chunk {request.source_handle:016x}: no source was named")
    for read in _sources(store, neighbours, server, request):
        try:
            return await _make(store, request, read)
        except TideError as error:
            if error.code in OF_THE_CLONE:
                raise
            log.info(
                "cloning chunk %016x into %016x: %s", request.source_handle, request.handle, error
            )
            last = error
    raise last


def _check(store: Store, request: CloneChunk) -> None:
    if not 0 <= request.length <= CHUNK_BYTES:
        raise TideError(Code.INVALID, f"a clone of {request.length} bytes of a chunk")
    if request.handle == request.source_handle or min(request.handle, request.version) < 1:
        raise TideError(
            Code.INVALID,
            f"chunk {request.handle:016x} at version {request.version:x} cannot become a clone of"
            f" {request.source_handle:016x}",
        )
    version = store.version(request.handle)
    if version is not None and version > request.version:
        raise stale(request.handle, version, f"{request.version:x}")


def _sources(store: Store, neighbours: Neighbours, server: int, request: CloneChunk) -> list[Read]:
    """Where the bytes may be had, the nearest first. Only who is named has all of them: a replica
    that lost some in a crash is not."""
    places = sorted(request.sources, key=lambda place: place.server != server)
    return [
        partial(_read, store, request)
        if place.server == server
        else partial(_fetch, neighbours, request, place)
        for place in places
    ]


async def _read(store: Store, request: CloneChunk, offset: int, length: int) -> Buffer:
    handle, version = request.source_handle, store.version(request.source_handle)
    if version is None:
        raise TideError(Code.NO_CHUNK, f"chunk {handle:016x}")
    if version < request.source_version:
        raise stale(handle, version, f"at least {request.source_version:x}")
    return await store.read(handle, offset, length)


async def _fetch(
    neighbours: Neighbours, request: CloneChunk, place: ServerPlace, offset: int, length: int
) -> Buffer:
    question = ReadChunk(request.source_handle, request.source_version, offset, length)
    return (await neighbours.exchange(place, question))[1]


def _room_bytes(store: Store, request: CloneChunk) -> int:
    """At most so much will be stored."""
    source = store.shelf.entry(request.source_handle)
    return request.length if source is None else min(request.length, source.stored_bytes)


async def _make(store: Store, request: CloneChunk, read: Read) -> int:
    store.check_room(_room_bytes(store, request))
    incoming = store.incoming(ChunkHandle(request.handle), ChunkVersion(request.version))
    try:
        await _fill(store, request, read, incoming)
        digest = incoming.digest()
        await incoming.adopt()
        return digest
    finally:
        incoming.close()


async def _fill(store: Store, request: CloneChunk, read: Read, incoming: IncomingChunk) -> None:
    for offset in range(0, request.length, PIECE_BYTES):
        wanted = min(PIECE_BYTES, request.length - offset)
        piece = memoryview(await read(offset, wanted))[:wanted]
        store.check_room(len(piece))
        incoming.add(piece)
        if len(piece) < wanted:
            return  # zeros from here on
