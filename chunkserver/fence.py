"""Whose orders count: those of the leader this chunkserver registered with, never an earlier one's.

The highest term is kept on the disk, so that also after a restart no leader of an earlier term is
believed: it may have been cut off from its group and not know yet that it leads no longer.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from ..fs.errors import Code, TideError
from ..fs.ports.disk import Disk
from ..fs.rpc import Peer

TERM = "term"
_NEW = f"{TERM}.new"
_MAX_BYTES = 32

log = logging.getLogger(__name__)


class Fence:
    """``term``: the highest one of a leader that took this chunkserver."""

    def __init__(self, disk: Disk, term: int = 0) -> None:
        self.term = term
        self._disk = disk
        self._leader: Peer | None = None
        self._joining: Peer | None = None
        self._joined = trio.Event()

    async def check(self, peer: Peer) -> None:
        """Return when orders on this connection are to be carried out; else NOT_LEADER."""
        if peer is self._joining:
            await self._joined.wait()  # it may have sent an order right behind its answer
        if peer is not self._leader:
            raise TideError(
                Code.NOT_LEADER,
                f"this chunkserver obeys the leader of term {self.term}, on the connection on which"
                " it registered, and nobody else",
            )

    @contextmanager
    def joining(self, peer: Peer) -> Iterator[None]:
        """It is about to be registered with: its orders wait, until ``admit`` or the end."""
        self._leader, self._joining, self._joined = None, peer, trio.Event()
        try:
            yield
        finally:
            self._joining = None
            self._joined.set()

    async def admit(self, peer: Peer, term: int) -> None:
        """``peer`` leads in that term, and its orders count from now on.

        NOT_LEADER when a later term is known. Remembered when this returns, also for the next
        start, unless the disk has no room.
        """
        if term < self.term:
            raise TideError(
                Code.NOT_LEADER,
                f"{peer.name} leads in term {term}, but this chunkserver has registered with the"
                f" leader of term {self.term} already",
            )
        if term > self.term:
            try:
                await _write(self._disk, term)
            except TideError as error:  # what is here can be read all the same
                log.warning("term %d is remembered until the next start only: %s", term, error)
            self.term = term
        self._leader = peer


async def load_fence(disk: Disk) -> Fence:
    """With the term that was written last."""
    if not disk.exists(TERM):
        return Fence(disk)
    file = disk.open(TERM)
    try:
        text = await file.read(0, _MAX_BYTES)
    finally:
        file.close()
    if not text.strip().isdigit():
        log.warning("%s holds %r, not a number: leaders of any term are believed", TERM, text)
        return Fence(disk)
    return Fence(disk, int(text))


async def _write(disk: Disk, term: int) -> None:
    file = disk.open(_NEW, create=True)
    try:
        file.truncate(0)
        file.write(0, [b"%d\n" % term])
        await file.sync()
    finally:
        file.close()
    disk.rename(_NEW, TERM)
    await disk.sync_folder("")
