"""Snapshots for members that have fallen behind the log (Raft section 7): the side that gets one.

What has come is in ``incoming/``: see ``incoming.py``. When it is whole it becomes a checkpoint of
this member, which the driver then installs in place of state and log.
"""

import logging
from collections.abc import Awaitable
from typing import Protocol

from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.limits import MIB, SNAPSHOT_BUSY_MS, SNAPSHOT_SYNC_BYTES
from ..fs.messages.hello import METASERVER
from ..fs.messages.raft import OfferSnapshot, SnapshotPiece, SnapshotWanted
from ..fs.ports.disk import Disk
from ..fs.rpc import Incoming, Peer
from .checkpoint import Checkpoint, Checkpoints
from .incoming_snapshot import FOLDER, IncomingSnapshot, discard, forget_pieces, unfinished

log = logging.getLogger(__name__)


class Known(Protocol):
    """What the receiver asks of consensus: a part of ``Core``."""

    @property
    def leader(self) -> int: ...

    @property
    def commit_index(self) -> int: ...


class Installing(Protocol):
    """What the receiver asks of the driver."""

    @property
    def core(self) -> Known: ...

    async def install(self, checkpoint: Checkpoint) -> None: ...


class SnapshotReceiver:
    """One member's. ``handle`` answers OfferSnapshot and SnapshotPiece."""

    def __init__(self, disk: Disk, checkpoints: Checkpoints, driver: Installing) -> None:
        self._disk = disk
        self._checkpoints = checkpoints
        self._driver = driver
        self._snapshot: IncomingSnapshot | None = None
        self._sender: Peer | None = None
        self._busy = False
        """An offer is looked at, or a whole snapshot: no other one is, and no piece taken."""
        self._syncs = 0
        """Under way. Pieces are taken meanwhile; no offer is looked at, which might close files."""

    def handle(self, incoming: Incoming) -> Awaitable[None] | None:
        """For the RPC shell."""
        if isinstance(incoming.request, OfferSnapshot):
            self._check_sender(incoming.peer)
            self._begin_work()
            return self._work(self._offered(incoming.request, incoming))
        assert isinstance(incoming.request, SnapshotPiece)
        return self._take(incoming.request, incoming)

    async def tidy(self) -> None:
        """Remove what is left of a snapshot that is not needed any more. Once, at the start."""
        found = await unfinished(self._disk)
        if found is None or found.offer.index <= self._driver.core.commit_index:
            await self._discard(found)
        else:
            self._snapshot = found

    def close(self) -> None:
        """At the end: what has come stays for the next start."""
        if self._snapshot is not None:
            self._snapshot.close()

    # --- offers ------------------------------------------------------------------------------

    def _check_sender(self, peer: Peer) -> None:
        if peer.remote.role != METASERVER:
            raise TideError(Code.WRONG_ROLE, f"{peer.name} is no metaserver: it has no snapshots")
        leader = self._driver.core.leader
        if peer.remote.server != leader:
            name = server_name(ServerId(leader)) if leader else "nobody"
            raise TideError(
                Code.NOT_LEADER, f"{peer.name} offers a snapshot; {name} leads, as far as is known"
            )

    def _begin_work(self) -> None:
        if self._busy or self._syncs:
            raise TideError(
                Code.BUSY, "a snapshot is being looked at or installed", delay_ms=SNAPSHOT_BUSY_MS
            )
        self._busy = True

    async def _work(self, doing: Awaitable[None]) -> None:
        try:
            await doing
        finally:
            self._busy = False

    async def _offered(self, offer: OfferSnapshot, incoming: Incoming) -> None:
        if self._snapshot is None:
            self._snapshot = await unfinished(self._disk)
        if offer.index <= self._driver.core.commit_index:
            await self._discard(self._snapshot)
            incoming.reply(SnapshotWanted(offset=offer.length))
            return
        if await self._install_adopted(offer):
            incoming.reply(SnapshotWanted(offset=offer.length))
            return
        if self._snapshot is None or self._snapshot.offer != offer:
            await self._discard(self._snapshot)
            self._check_room(offer)
            self._snapshot = await IncomingSnapshot.begin(self._disk, offer)
        self._sender = incoming.peer
        log.info(
            "%s sends a snapshot of %d: %d of %d MiB are here",
            incoming.peer.name,
            offer.index,
            self._snapshot.offset // MIB,
            offer.length // MIB,
        )
        if self._snapshot.offset == offer.length:
            await self._finish(self._snapshot, incoming)
        else:
            incoming.reply(SnapshotWanted(offset=self._snapshot.offset))

    def _check_room(self, offer: OfferSnapshot) -> None:
        free_bytes = self._disk.space().free_bytes
        if offer.length > free_bytes:
            raise TideError(
                Code.NO_SPACE,
                f"a snapshot has {offer.length // MIB} MiB and the disk has"
                f" {free_bytes // MIB} MiB left: make room on it",
            )

    async def _discard(self, snapshot: IncomingSnapshot | None) -> None:
        self._snapshot = self._sender = None
        if snapshot is not None:
            snapshot.close()
        await discard(self._disk)

    # --- pieces ------------------------------------------------------------------------------

    def _take(self, piece: SnapshotPiece, incoming: Incoming) -> Awaitable[None] | None:
        snapshot = self._snapshot
        if snapshot is None or self._busy or incoming.peer is not self._sender:
            raise TideError(
                Code.INVALID, f"{incoming.peer.name} sends pieces of a snapshot it has not offered"
            )
        if piece.index != snapshot.offer.index:
            raise TideError(
                Code.INVALID,
                f"a piece of the snapshot of {piece.index}, and that of {snapshot.offer.index} was"
                " offered",
            )
        snapshot.take(piece, incoming.payload)
        if snapshot.offset == snapshot.offer.length:
            self._busy = True
            return self._work(self._finish(snapshot, incoming))
        if snapshot.unsynced_bytes >= SNAPSHOT_SYNC_BYTES:
            self._syncs += 1
            return self._sync(snapshot, incoming)
        incoming.reply(SnapshotWanted(offset=snapshot.offset))
        return None

    async def _sync(self, snapshot: IncomingSnapshot, incoming: Incoming) -> None:
        try:
            await snapshot.sync()
        finally:
            self._syncs -= 1
        incoming.reply(SnapshotWanted(offset=snapshot.offset))

    # --- the whole ---------------------------------------------------------------------------

    async def _finish(self, snapshot: IncomingSnapshot, incoming: Incoming) -> None:
        """All is here: verify it, make it a checkpoint, install it, and answer."""
        offer = snapshot.offer
        if not await snapshot.is_whole():
            log.warning(
                "the snapshot of %d that %s has sent does not match its checksum: it is thrown away"
                " and begun anew",
                offer.index,
                incoming.peer.name,
            )
            await self._discard(snapshot)
            self._snapshot = await IncomingSnapshot.begin(self._disk, offer)
            self._sender = incoming.peer
            incoming.reply(SnapshotWanted(offset=0))
            return
        await snapshot.sync()
        snapshot.close()
        self._snapshot = self._sender = None
        checkpoint = await self._checkpoints.adopt(
            FOLDER,
            index=offer.index,
            term=offer.term,
            length=offer.length,
            checksum=offer.checksum,
        )
        forget_pieces(self._disk, checkpoint.folder)
        await self._install(checkpoint)
        incoming.reply(SnapshotWanted(offset=offer.length))

    async def _install_adopted(self, offer: OfferSnapshot) -> bool:
        """Install what came as a whole before and could not be installed then; whether it did."""
        wanted = (offer.index, offer.term, offer.length, offer.checksum)
        for checkpoint in await self._checkpoints.found():
            manifest = checkpoint.manifest
            found = (manifest.index, manifest.term, manifest.length, manifest.checksum)
            if manifest.received and found == wanted:
                return await self._install_if_good(checkpoint)
        return False

    async def _install_if_good(self, checkpoint: Checkpoint) -> bool:
        try:
            await self._checkpoints.verify(checkpoint)
        except TideError as error:
            log.warning("the snapshot that came before is not installed: %s", error)
            return False
        await self._install(checkpoint)
        return True

    async def _install(self, checkpoint: Checkpoint) -> None:
        await self._driver.install(checkpoint)
        log.info("the snapshot of %d is installed", checkpoint.manifest.index)
