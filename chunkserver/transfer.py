"""CopyChunk: fetch a chunk from another replica, check it on the way, and keep it."""

import logging
from collections.abc import Sequence

from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion, ServerId, server_name
from ..fs.limits import CHUNK_BYTES
from ..fs.limits import FRAME_PAYLOAD_MAX_BYTES as PIECE_BYTES
from ..fs.messages.chunk import ReadChunk
from ..fs.messages.places import ServerPlace
from .incoming import IncomingChunk
from .neighbours import Neighbours
from .store import Store, stale

log = logging.getLogger(__name__)


async def copy_chunk(
    store: Store,
    neighbours: Neighbours,
    handle: ChunkHandle,
    version: ChunkVersion,
    sources: Sequence[ServerPlace],
) -> None:
    """Have the chunk at ``version``, durably. The error of the last source when all fail."""
    last = TideError(Code.NO_CHUNK, f"chunk {handle:016x}: no source was named")
    for source in sources:
        try:
            await _copy_from(store, neighbours, handle, version, source)
        except TideError as error:
            if error.code in (Code.NO_SPACE, Code.BUSY):
                raise
            log.info("copying chunk %016x from %016x failed: %s", handle, source.server, error)
            last = error
        else:
            return
    raise last


async def _copy_from(
    store: Store,
    neighbours: Neighbours,
    handle: ChunkHandle,
    version: ChunkVersion,
    source: ServerPlace,
) -> None:
    store.check_room(0)
    incoming = store.incoming(handle, version)
    try:
        await _fetch(store, neighbours, handle, version, source, incoming)
        await incoming.adopt()
    finally:
        incoming.close()


async def _fetch(
    store: Store,
    neighbours: Neighbours,
    handle: ChunkHandle,
    version: ChunkVersion,
    source: ServerPlace,
    incoming: IncomingChunk,
) -> None:
    """All pieces, up to the one that is shorter than asked for. (Frames are checked on the way,
    and the source checked its blocks.)"""
    for offset in range(0, CHUNK_BYTES, PIECE_BYTES):
        request = ReadChunk(handle, version, offset, PIECE_BYTES)
        reply, data = await neighbours.exchange(source, request)
        if reply.version != version:
            raise stale(
                handle, reply.version, f"{version:x} of {server_name(ServerId(source.server))}"
            )
        store.check_room(len(data))
        incoming.add(data)
        incoming.lost = max(incoming.lost, reply.lost)
        if len(data) < PIECE_BYTES:
            return
