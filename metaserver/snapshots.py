"""Snapshots for members that have fallen behind the log (Raft section 7): the leader's side.

What is sent is a checkpoint as it lies on the disk, in pieces, a few of them in flight. The
receiver says where it wants to go on, so a broken connection costs no more than those. The file is
held open meanwhile: that a newer checkpoint takes its place does not matter.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec
import trio

from ..fs.backoff import Backoff
from ..fs.codec import checksum
from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.limits import (
    MIB,
    SNAPSHOT_LOOK_MS,
    SNAPSHOT_PIECE_BYTES,
    SNAPSHOT_PIECE_MS,
    SNAPSHOT_PIECES_IN_FLIGHT,
    SNAPSHOT_RETRY_MAX_MS,
)
from ..fs.log import Once
from ..fs.messages.raft import OfferSnapshot, SnapshotPiece, SnapshotWanted
from ..fs.ports import Ports
from ..fs.ports.disk import File
from ..fs.rpc import Peer
from .checkpoint import Checkpoint, Checkpoints, Manifest
from .raft.contract import Progress

_PASSING = (Code.BUSY, Code.TIMED_OUT, Code.NOT_LEADER)
"""What is not said: it is being installed, and that takes its time (who does not answer at all is
named by ``Group``); or the member does not know yet that this one leads."""

log = logging.getLogger(__name__)


class Reaching(Protocol):
    """How to connect to another member: ``Group.reach``."""

    async def reach(self, server: int) -> Peer: ...


class _Copy(msgspec.Struct, eq=False):
    """A good checkpoint whose file is open."""

    manifest: Manifest
    file: File
    begun: bool = False  # something of it was sent since it was last known to be there


class SnapshotSender:
    """Brings up who has fallen behind. ``run`` it while this member leads.

    ``progress`` is what the leader knows of the others (``Core.progress``), ``first_index`` where
    its log begins.
    """

    def __init__(
        self,
        ports: Ports,
        group: Reaching,
        checkpoints: Checkpoints,
        progress: Callable[[], Mapping[int, Progress]],
        first_index: Callable[[], int],
    ) -> None:
        self._ports = ports
        self._group = group
        self._checkpoints = checkpoints
        self._progress = progress
        self._first_index = first_index
        self._sending: dict[int, int] = {}
        """Who is brought up, and the snapshot of which index is on its way there (0: none)."""
        self._verified: dict[str, bool] = {}
        """Folders of checkpoints that were read as a whole, and whether they are good."""
        self._once = Once(log)
        self.sent_count = 0
        """Snapshots that others took whole, since the start."""

    def needed_from(self) -> int | None:
        """The log from there on is needed by who gets a snapshot now; None: by nobody."""
        return min((index + 1 for index in self._sending.values() if index), default=None)

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as transfers:
            while True:
                for server in self._in_need():
                    if server not in self._sending:
                        self._sending[server] = 0
                        transfers.start_soon(self._bring_up, server)
                await trio.sleep(SNAPSHOT_LOOK_MS / 1000)

    def _in_need(self) -> list[int]:
        return [server for server, known in self._progress().items() if known.needs_snapshot]

    async def _bring_up(self, server: int) -> None:
        """Try until it does not need one any more."""
        name = server_name(ServerId(server))
        backoff = Backoff(
            self._ports.randomness, first_ms=SNAPSHOT_LOOK_MS, max_ms=SNAPSHOT_RETRY_MAX_MS
        )
        copy: _Copy | None = None
        try:
            while server in self._in_need():
                delay_ms = 0
                try:
                    copy = await self._useful(copy)
                    await self._transfer(server, copy)
                    backoff.reset()
                    self._once.well(name, "metaserver %s takes the snapshot now", name)
                except TideError as error:
                    delay_ms = error.delay_ms
                    if error.code not in _PASSING:
                        self._once.warn(name, "no snapshot for metaserver %s yet: %s", name, error)
                await trio.sleep(backoff.next_ms(delay_ms) / 1000)
        finally:
            del self._sending[server]
            if copy is not None:
                copy.file.close()

    # --- which -------------------------------------------------------------------------------

    async def _useful(self, copy: _Copy | None) -> _Copy:
        """As before, so that the transfer goes on, while the log reaches back to it; or the newest.

        CORRUPT when there is none.
        """
        if copy is not None:
            if copy.manifest.index + 1 >= self._first_index():
                return copy
            copy.file.close()
        for checkpoint in await self._checkpoints.found():
            if checkpoint.manifest.index + 1 < self._first_index():
                break
            if not checkpoint.manifest.received and await self._is_good(checkpoint):
                return _Copy(checkpoint.manifest, self._ports.disk.open(checkpoint.state_path))
        raise TideError(
            Code.CORRUPT,
            f"the log begins at {self._first_index()} and no good checkpoint of this member reaches"
            " it: the next one that is made will do",
        )

    async def _is_good(self, checkpoint: Checkpoint) -> bool:
        folder = checkpoint.folder
        if folder not in self._verified:
            try:
                await self._checkpoints.verify(checkpoint)
                self._verified[folder] = True
            except TideError as error:
                if error.code is not Code.CORRUPT:
                    raise
                self._verified[folder] = False
                log.error("the checkpoint in %s is not sent: %s", folder, error)
        return self._verified[folder]

    # --- how ---------------------------------------------------------------------------------

    async def _transfer(self, server: int, copy: _Copy) -> None:
        """All that is missing there, on a connection of its own: no heartbeat waits behind it."""
        peer = await self._group.reach(server)
        self._sending[server] = copy.manifest.index
        try:
            await self._send_rest(peer, copy)
        finally:
            self._sending[server] = 0  # who is away may be so for long: the log does not wait
            peer.close("this was about a snapshot")

    async def _send_rest(self, peer: Peer, copy: _Copy) -> None:
        manifest = copy.manifest
        offer = OfferSnapshot(
            index=manifest.index,
            term=manifest.term,
            length=manifest.length,
            checksum=manifest.checksum,
        )
        offset = (await peer.call(offer, timeout_ms=SNAPSHOT_PIECE_MS)).offset
        if offset < manifest.length:
            copy.begun = True
            log.info(
                "the snapshot of %d goes to %s: %d of %d MiB are to be sent",
                manifest.index,
                peer.name,
                (manifest.length - offset) // MIB,
                manifest.length // MIB,
            )
        while offset < manifest.length:
            offset = await self._send_some(peer, copy, offset)
        self.sent_count += copy.begun
        copy.begun = False

    async def _send_some(self, peer: Peer, copy: _Copy, start: int) -> int:
        """A few pieces from ``start`` on; where to go on then. BAD_CHECKSUM: not any further."""
        stop = min(start + SNAPSHOT_PIECES_IN_FLIGHT * SNAPSHOT_PIECE_BYTES, copy.manifest.length)
        offsets = range(start, stop, SNAPSHOT_PIECE_BYTES)
        outcomes: dict[int, SnapshotWanted | TideError] = {}
        answered = trio.Event()

        def note(offset: int, outcome: SnapshotWanted | TideError, _payload: memoryview) -> None:
            outcomes[offset] = outcome
            if len(outcomes) == len(offsets):
                answered.set()

        for offset in offsets:
            piece = await copy.file.read(offset, min(SNAPSHOT_PIECE_BYTES, stop - offset))
            request = SnapshotPiece(
                index=copy.manifest.index, offset=offset, checksum=checksum(piece)
            )
            peer.post(
                request,
                payload=[piece],
                timeout_ms=SNAPSHOT_PIECE_MS,
                done=partial(note, offset),
            )
        await answered.wait()
        wanted = _go_on_at([outcomes[offset] for offset in offsets], start)
        if wanted <= start:
            raise TideError(
                Code.BAD_CHECKSUM,
                f"{peer.name} has got the bytes from {start} on, and wants those from {wanted} on",
            )
        return wanted


def _go_on_at(outcomes: Sequence[SnapshotWanted | TideError], start: int) -> int:
    """What the receiver wants next, by its answers to pieces that it took in their order."""
    for outcome in outcomes:
        if isinstance(outcome, TideError):
            if outcome.code is Code.BAD_CHECKSUM:
                continue  # the answers to the pieces behind it say where it is
            raise outcome
    last = outcomes[-1]
    return start if isinstance(last, TideError) else last.offset
