"""WriteChunk: one write on its way along the chain, and the writes of each chunk in their order.

The decisions of a write are made when it arrives, without waiting: is it a repetition, is it in
order, is there room. Then it is handed on to the next replica, then written here; nothing that
arrives later can come between. Only when a block must be read from the disk first, the local write
waits, and all later ones of that chunk behind it.
"""

from collections import deque
from collections.abc import Awaitable
from functools import partial

import trio

from ..fs.errors import Code, TideError
from ..fs.ids import ChunkHandle, ChunkVersion, ServerId, server_name
from ..fs.limits import CHUNK_BYTES, FRAME_PAYLOAD_MAX_BYTES
from ..fs.messages.base import Message
from ..fs.messages.chunk import WriteChunk, Written
from ..fs.rpc import Incoming
from .neighbours import Neighbours
from .replication import Answers, Orders
from .store import Store, stale


class _Write:
    """One write: its parts that are not done yet, who wants to know, and how it ended."""

    def __init__(self, request: WriteChunk, data: memoryview, serial: int) -> None:
        self.request = request
        self.data = data
        self.serial = serial
        self.waiting: list[Incoming] = []
        self.parts = 1
        self.failed: list[int] = []  # servers of the chain, and why
        self.reason = ""
        self.failure: TideError | None = None  # here

    def part_done(self, server: int) -> None:
        """Here, or the rest of the chain, is done; with the last one everybody is told."""
        self.parts -= 1
        if not self.parts:
            if self.failed and self.failure is not None:
                self.failed_at([server], str(self.failure))
            self.data = memoryview(b"")
            waiting, self.waiting = self.waiting, []
            for incoming in waiting:
                self.answer(incoming)

    def answer(self, incoming: Incoming) -> None:
        """Tell one that asks, now or when it is done."""
        if self.parts:
            self.waiting.append(incoming)
            return
        error = self.error()
        if error is None:
            incoming.reply(Written(self.serial))
        else:
            incoming.fail(error)

    def error(self) -> TideError | None:
        """How it failed, if it did. Failures behind this server walk back by their names."""
        if not self.failed:
            return self.failure
        names = ",".join(server_name(ServerId(server)) for server in self.failed)
        return TideError(Code.REPLICA_FAILED, f"{self.reason}: {names}")

    def failed_at(self, servers: list[int], reason: str) -> None:
        """These of the chain did not take it."""
        self.failed += servers
        self.reason = f"{self.reason}; {reason}" if self.reason else reason


class Writer:
    """Takes the writes of all chunks."""

    def __init__(
        self,
        server: int,
        store: Store,
        orders: Orders,
        neighbours: Neighbours,
        tasks: trio.Nursery,
    ) -> None:
        self._server = server
        self._tasks = tasks
        self._store = store
        self._orders = orders
        self._neighbours = neighbours
        self._answers: Answers[_Write] = Answers()
        self._queues: dict[int, deque[_Write]] = {}

    def handle(self, incoming: Incoming) -> Awaitable[None] | None:
        """Answer a WriteChunk: now, later, or by the awaitable."""
        request = incoming.request
        assert isinstance(request, WriteChunk)
        key = (*incoming.mutation, request.handle) if incoming.mutation is not None else None
        known = self._answers.get(key) if key is not None else None
        if known is not None:
            known.answer(incoming)
            return None
        serial = self._admit(request, len(incoming.payload))
        write = _Write(request, incoming.payload, serial)
        write.answer(incoming)
        if key is not None:
            self._answers.put(key, write)
        self._hand_on(write, incoming)
        return self._write_here(write)

    # --- the decisions -------------------------------------------------------------------------

    def _admit(self, request: WriteChunk, length: int) -> int:
        """The serial number of the write; TideError when it is not taken, and nothing changed."""
        if length > FRAME_PAYLOAD_MAX_BYTES or not 0 <= request.offset <= CHUNK_BYTES - length:
            raise TideError(
                Code.INVALID,
                f"{length} bytes at {request.offset} are not within a chunk of {CHUNK_BYTES}",
            )
        self._orders.check_fence(request.handle, request.version, request.fence)
        version = self._store.version(request.handle)
        if version is None:
            self._admit_first(request, length)
        elif version > request.version:
            raise stale(request.handle, version, f"{request.version:x}")
        elif version < request.version:
            # Not stale for the asker: this replica missed a grant, and must get another one.
            raise TideError(
                Code.OUT_OF_ORDER,
                f"chunk {request.handle:016x} has only version {version:x} here, the write is"
                f" for {request.version:x}",
            )
        else:
            self._orders.check(request.handle, request.version, request.serial)
            self._store.check_room(length)
        return self._orders.take(request.handle, request.version, request.fence)

    def _admit_first(self, request: WriteChunk, length: int) -> None:
        if not request.create:
            raise TideError(Code.NO_CHUNK, f"chunk {request.handle:016x}")
        if request.serial > 1:
            raise TideError(
                Code.OUT_OF_ORDER,
                f"chunk {request.handle:016x}: write {request.serial} came first",
            )
        self._store.check_room(length)
        self._store.create(ChunkHandle(request.handle), ChunkVersion(request.version))
        self._orders.begin(request.handle, request.version)

    # --- the rest of the chain -----------------------------------------------------------------

    def _hand_on(self, write: _Write, incoming: Incoming) -> None:
        request = write.request
        if not request.chain:
            return
        write.parts += 1
        following, *chain = request.chain
        onward = WriteChunk(
            request.handle,
            request.version,
            request.offset,
            request.create,
            write.serial,
            chain,
            request.fence,
        )
        done = partial(self._handed_on, write, following.server)
        self._neighbours.post(following, onward, [write.data], incoming.mutation, done)

    def _handed_on(
        self, write: _Write, server: int, outcome: Message | TideError, _: object
    ) -> None:
        if isinstance(outcome, TideError):
            named = failed_servers(outcome)
            if named:
                write.failed_at(named, outcome.detail.rpartition(":")[0])
            else:
                write.failed_at([server], f"{server_name(ServerId(server))}: {outcome}")
        write.part_done(self._server)

    # --- here ----------------------------------------------------------------------------------

    def _write_here(self, write: _Write) -> Awaitable[None] | None:
        """Write now when that is possible; else by the awaitable, in order."""
        handle = write.request.handle
        if handle in self._queues:
            self._queues[handle].append(write)
            return None
        try:
            sequence = self._try(write)
        except TideError as error:
            self._failed_here(write, error)
            return None
        if sequence is None:
            self._queues[handle] = deque([write])
            return self._work_off(handle)
        if sequence or self._store.upkeep.crowded:
            return self._settle(write, sequence)
        write.part_done(self._server)
        return None

    def _try(self, write: _Write) -> int | None:
        request = write.request
        return self._store.write_nowait(request.handle, request.version, request.offset, write.data)

    def _failed_here(self, write: _Write, error: TideError) -> None:
        """This replica has missed a write: it takes no more at this version."""
        self._orders.end(write.request.handle)
        write.failure = error
        write.part_done(self._server)

    async def _settle(self, write: _Write, sequence: int) -> None:
        """Acknowledge once the journal has what it needs, and is not too far ahead."""
        try:
            await self._store.wait_synced(sequence)
            await self._store.upkeep.relieved()
        except TideError as error:
            write.failure = error
        write.part_done(self._server)

    async def _work_off(self, handle: int) -> None:
        """Write what waits for a chunk, one after the other, reading what each needs."""
        queue = self._queues[handle]
        try:
            while queue:
                await self._write_slowly(queue[0])
                queue.popleft()
        finally:
            del self._queues[handle]

    async def _write_slowly(self, write: _Write) -> None:
        try:
            while (sequence := self._try(write)) is None:
                request = write.request
                await self._store.warm(request.handle, request.offset, len(write.data))
        except TideError as error:
            self._failed_here(write, error)
        else:
            self._tasks.start_soon(self._settle, write, sequence)


def failed_servers(error: TideError) -> list[int]:
    """Whom a REPLICA_FAILED names behind its last colon; nobody for any other error."""
    if error.code is not Code.REPLICA_FAILED:
        return []
    try:
        return [int(name, 16) for name in error.detail.rpartition(":")[2].split(",")]
    except ValueError:
        return []
