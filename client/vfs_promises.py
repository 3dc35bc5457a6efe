"""Promises, in the modes that live by them: reading and writing under them, and letting go of them.

Linearizability (Herlihy and Wing 1990) rests on three rules. A read is of bytes that are promised
from its beginning to its end. A write happens while the file is promised to nobody else. And a
recall is answered when nothing that began under the promise is under way any more. Who is cut off
stops believing when the session's lease ends, which the metaserver waits for.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import trio

from ..fs.codec import Buffer
from ..fs.errors import TideError
from ..fs.messages.meta import Content, GetAttributes, GetContent, Node, Open
from ..fs.messages.promises import Claim
from .answers import settled, then
from .handles import OpenFile
from .inodes import File
from .soon import Soon
from .vfs_caches import Surroundings, VfsCaches
from .writing import Writer

log = logging.getLogger(__name__)

T = TypeVar("T")

PROMISE_RETRY_MS = 5
"""Until a promise is asked for again that could not be made."""


class PromiseOperations(VfsCaches):
    """The part of the vfs that deals with promises."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.writer = Writer(self.shell, self.files, self.claim)
        self._kept: list[int] = []

    # --- reading and writing

    def read_promised(self, opened: OpenFile, offset: int, length: int) -> Soon[Buffer]:
        """Bytes of one version, which was that of the servers at some moment of the call."""
        file = opened.file
        if self.attributes.trusted(file.inode) is not None and not file.modified:
            end = min(offset + length, file.size)
            if offset >= end:
                return b""
            if file.valid.covers(offset, end):
                return file.get(offset, end)
        return self._read_when_promised(opened, offset, length)

    async def _read_when_promised(self, opened: OpenFile, offset: int, length: int) -> Buffer:
        file = opened.file
        while True:
            if file.modified:
                await self._settle(file)
            await self.hold(file)
            connection = self.attributes.connection
            file.reading += 1
            try:
                unit = opened.read_ahead.unit_bytes
                found: Buffer = await settled(self.reader.read(file, offset, length, unit))
            finally:
                file.reading -= 1
                if not file.reading:
                    file.readers.unpark_all()
            lives = self.clock.monotonic_ns() < self.meta.lease_until_ns
            if lives and connection == self.attributes.connection and not file.modified:
                return found

    async def _settle(self, file: File) -> None:
        """What is written here and not committed may still be lost with this mount: who had read it
        would have seen what never was."""
        async with file.appending:  # so no write(2) is under way; one may have been interrupted
            try:
                await self.writer.write_back(file)
            except TideError as error:
                if file.lost is None:
                    await self.writer.give_up(file)
                    file.given_up = file.given_up or error

    async def hold(self, file: File) -> None:
        """Return when what is known of the file is promised. Nothing happens between that and the
        return."""
        while self.attributes.trusted(file.inode) is None:
            if file.inline is False:
                await self._ask_promise(file.inode, GetAttributes(file.inode))
            else:
                await self._ask_content(file)
            if self.attributes.trusted(file.inode) is None:
                await trio.sleep(PROMISE_RETRY_MS / 1000)  # somebody is changing it

    async def claim(self, file: File) -> None:
        """Return when nobody else is promised anything of the file, nor may change it; in modes
        without promises, at once. Nothing happens between that and the return."""
        if not self.mode.promises:
            return
        while not self.attributes.claimed(file.inode):
            await self._ask_promise(file.inode, Claim(file.inode))
            if not self.attributes.claimed(file.inode):
                await trio.sleep(PROMISE_RETRY_MS / 1000)

    async def _ask_promise(self, inode: int, request: GetAttributes | Claim) -> None:
        def learn(reply: Node) -> None:
            self.absorb(reply.attributes, promised=reply.promised)
            if reply.promised and isinstance(request, Claim):
                self.attributes.claim(inode)

        await self.ask(inode, request, learn)

    async def _ask_content(self, file: File) -> None:
        """As long as its bytes are in the inode, they come with the promise."""
        held = self.version_held(file.inode)

        def learn(answer: tuple[Content, Buffer]) -> None:
            reply, content = answer
            self.absorb(reply.attributes, promised=reply.promised)
            self.learn_content(file, reply, content, held)

        asked = self.meta.start_exchange(GetContent(file.inode, held))
        await then(asked, learn, lambda error: self.failed(file.inode, error))

    def version_held(self, inode: int) -> int:
        """The version of which all bytes are here; 0: of none."""
        file = self.files.peek(inode)
        if file is None or not self.mode.cache_data:
            return 0
        return file.version if file.valid.covers(0, file.server_size) else 0

    def learn_content(self, file: File, reply: Content, content: Buffer, held: int) -> None:
        """Its bytes, if they are in the inode and are not those that were ``held``."""
        if reply.attributes.data_version == file.version:
            file.inline = reply.inline
            if reply.inline and held != file.version and self.mode.cache_data:
                file.store_content(content)

    # --- open files

    def open_promised(self, inode: int) -> File | None:
        """Open a file without telling anybody. As long as it is promised it keeps its name, for a
        recall comes before it can lose it; then the metaservers are told that it is open. None: it
        is not promised."""
        if not self.mode.promises:
            return None
        cached = self.attributes.trusted(inode)
        if cached is None or not cached.attributes.links:
            return None
        file = self.files.get(cached.attributes)
        if file.lost is not None:
            return None
        if not file.openings:
            self.unannounced.add(inode)
        self.meta.opened(inode)
        self.files.opened(file)
        return file

    async def announce(self, inodes: Iterable[int]) -> None:
        """Tell the metaservers of those that are open, and that they do not know of."""
        for inode in [inode for inode in inodes if inode in self.unannounced]:
            self.unannounced.discard(inode)  # whoever closes it from now on says so
            try:
                await self.meta.start_exchange(Open(inode, 0))
            except TideError as error:
                log.warning("inode %d is open here, which cannot be told: %s", inode, error)

    def announced_before(
        self, names: Sequence[tuple[int, bytes]], do: Callable[[], Soon[T]]
    ) -> Soon[T]:
        """``do`` what may take the last name of what these names lead to."""
        if not self.unannounced:
            return do()
        found = [self.names.get(parent, name) for parent, name in names]
        inodes = [inode for inode in found if isinstance(inode, int)]
        if None in found:
            inodes = list(self.unannounced)
        elif self.unannounced.isdisjoint(inodes):
            return do()
        return then(self.announce(inodes), lambda _: do())

    # --- recalls

    def recalled(self, inodes: list[int]) -> Awaitable[None] | None:
        """Believe nothing of these any more. What is returned ends when nothing that began under
        the promises is under way; None: nothing is."""
        busy = []
        for inode in inodes:
            self.attributes.recall(inode)
            file = self.files.peek(inode)
            if file is not None and (file.reading or file.modified or inode in self.unannounced):
                busy.append(file)
            elif file is not None:
                file.stop_fetching()
        return self._let_go(busy) if busy else None

    async def _let_go(self, files: list[File]) -> None:
        for file in files:
            while file.reading:
                await file.readers.park()
            file.stop_fetching()
            await self.announce([file.inode])
            if file.modified:
                try:
                    await self.writer.write_back(file)
                except TideError as error:
                    log.warning("inode %d, which is recalled: %s", file.inode, error)

    def claims(self) -> list[int]:
        """What is being written: it must not be seen in part, so the promise goes on."""
        modified = [file.inode for file in self.files.modified()]
        self._kept = [inode for inode in modified if self.attributes.claimed(inode)]
        return self._kept

    def promises_end(self, *, resumed: bool) -> None:
        """There is a new connection, or session: what was promised before holds no more, but for
        what was kept when the session was ``resumed``. (What is open was told with it, but for what
        was opened while it was.)"""
        self.attributes.recall_all(self._kept if resumed else ())
        self._kept = []
        if self.unannounced:
            self.shell.nursery.start_soon(self.announce, list(self.unannounced))
