"""What a chunkserver answers: clients and other chunkservers about bytes, the metaserver about
chunks."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion
from ..fs.limits import CHUNK_BYTES, FRAME_PAYLOAD_MAX_BYTES
from ..fs.messages.base import Done, Request
from ..fs.messages.chunk import (
    ChunkData,
    CloneChunk,
    Cloned,
    CopyChunk,
    DeleteChunks,
    ReadChunk,
    SetVersion,
    SyncChunk,
    WriteChunk,
)
from ..fs.messages.hello import METASERVER
from ..fs.rpc import Incoming
from .cloning import clone_chunk
from .fence import Fence
from .neighbours import Neighbours
from .replication import Orders
from .store import Store, stale
from .transfer import copy_chunk
from .writing import Writer

log = logging.getLogger(__name__)

Answer = Callable[[Incoming], Awaitable[None] | None]

COPIES_AT_ONCE = 4
CLONES_AT_ONCE = 4


class Service:
    """Answers requests. ``on_news``: this chunk is to be reported to the metaserver."""

    def __init__(
        self,
        server: int,
        store: Store,
        fence: Fence,
        neighbours: Neighbours,
        tasks: trio.Nursery,
        on_news: Callable[[int], None],
    ) -> None:
        self._server = server
        self._store = store
        self._fence = fence
        self._neighbours = neighbours
        self._orders = Orders()
        self._on_news = on_news
        self._copies = trio.CapacityLimiter(COPIES_AT_ONCE)
        self._clones = trio.CapacityLimiter(CLONES_AT_ONCE)
        writer = Writer(server, store, self._orders, neighbours, tasks)
        self._answers: dict[type[Request[Any]], Answer] = {
            ReadChunk: self._read,
            WriteChunk: writer.handle,
            SyncChunk: self._sync,
            CloneChunk: self._clone,
        }
        self._orders_of_leader: dict[type[Request[Any]], Callable[[Incoming], Awaitable[None]]] = {
            SetVersion: self._set_version,
            DeleteChunks: self._delete,
            CopyChunk: self._copy,
        }

    def handle(self, incoming: Incoming) -> Awaitable[None] | None:
        """The handler of all connections."""
        kind = type(incoming.request)
        answer = self._answers.get(kind)
        if answer is not None:
            return answer(incoming)
        if kind not in self._orders_of_leader:
            raise TideError(Code.UNKNOWN_METHOD, kind.__name__)
        if incoming.peer.remote.role != METASERVER:
            raise TideError(Code.WRONG_ROLE, f"only a metaserver may send {kind.__name__}")
        return self._obey(incoming)

    async def _obey(self, incoming: Incoming) -> None:
        await self._fence.check(incoming.peer)
        await self._orders_of_leader[type(incoming.request)](incoming)

    # --- bytes ---------------------------------------------------------------------------------

    def _read(self, incoming: Incoming) -> Awaitable[None] | None:
        request = incoming.request
        assert isinstance(request, ReadChunk)
        if (
            not 0 <= request.length <= FRAME_PAYLOAD_MAX_BYTES
            or not 0 <= request.offset <= CHUNK_BYTES - request.length
        ):
            raise TideError(
                Code.INVALID,
                f"{request.length} bytes at {request.offset} are not within a chunk",
            )
        version = self._recent_version(request.handle, request.version)
        data = self._store.read_nowait(request.handle, request.offset, request.length)
        if data is None:
            return self._read_slowly(incoming, request)
        incoming.reply(ChunkData(version, self._store.lost(request.handle)), [data])
        return None

    async def _read_slowly(self, incoming: Incoming, request: ReadChunk) -> None:
        data = await self._store.read(request.handle, request.offset, request.length)
        version = self._recent_version(request.handle, request.version)
        incoming.reply(ChunkData(version, self._store.lost(request.handle)), [data])

    async def _sync(self, incoming: Incoming) -> None:
        request = incoming.request
        assert isinstance(request, SyncChunk)
        self._recent_version(request.handle, request.version)
        await self._store.sync(request.handle, request.since)
        incoming.reply(Done())

    async def _clone(self, incoming: Incoming) -> None:
        request = incoming.request
        assert isinstance(request, CloneChunk)
        async with self._clones:
            digest = await clone_chunk(self._store, self._neighbours, self._server, request)
        # Its first write is still to come.
        self._orders.begin(request.handle, request.version)
        incoming.reply(Cloned(digest))

    def _recent_version(self, handle: int, version_min: int) -> ChunkVersion:
        version = self._store.version(handle)
        if version is None:
            raise TideError(Code.NO_CHUNK, f"chunk {handle:016x}")
        if version < version_min:
            raise stale(handle, version, f"at least {version_min:x}")
        return version

    # --- chunks --------------------------------------------------------------------------------

    async def _set_version(self, incoming: Incoming) -> None:
        request = incoming.request
        assert isinstance(request, SetVersion)
        if request.cut > CHUNK_BYTES:
            raise TideError(Code.INVALID, f"a cut at {request.cut} is behind the chunk's end")
        entry = self._store.shelf.entry(request.handle)
        await self._store.set_version(
            request.handle, request.version_min, request.version, request.cut
        )
        self._orders.begin_unless_known(request.handle, request.version)
        if entry is not None and entry.suspect:
            self._on_news(request.handle)
        incoming.reply(Done())

    async def _delete(self, incoming: Incoming) -> None:
        request = incoming.request
        assert isinstance(request, DeleteChunks)
        for handle in await self._store.delete(request.chunks):
            self._orders.end(handle)
        incoming.reply(Done())

    async def _copy(self, incoming: Incoming) -> None:
        request = incoming.request
        assert isinstance(request, CopyChunk)
        handle, version = ChunkHandle(request.handle), ChunkVersion(request.version)
        async with self._copies:
            await copy_chunk(self._store, self._neighbours, handle, version, request.sources)
        # Nobody writes to a chunk that is being copied: its first write is still to come.
        self._orders.begin(handle, version)
        self._on_news(handle)
        incoming.reply(Done())
