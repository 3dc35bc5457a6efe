"""Checkpoints: copies of the state on stable storage, from which the log need only be replayed.

Each is a folder with the copy and a manifest that says what it is and what its checksum is. The
last two are kept, and the log from the older one on: a damaged newer one costs nothing but time.

One that was *received* from the leader is marked so until it is installed: then, and only then, may
it be ahead of this member's own log.
"""

import logging
from typing import NamedTuple

import msgspec
import xxhash

from ..fs.codec import checksum, decode, pack
from ..fs.errors import Code, TideError
from ..fs.limits import MIB
from ..fs.messages.base import Message
from ..fs.ports.disk import Disk, File
from .store import Store

FOLDER = "checkpoints"
KEPT = 2
_NEW = f"{FOLDER}/new"
_STATE = "state"
_MANIFEST = "manifest"
_NEW_MANIFEST = "manifest.new"
_FORMAT = 2
_FORMATS_READ = (1, 2)
"""Format 1 ended before ``received``, and its state could be a little later than its index."""
_CHECKSUM_BYTES = 8
_PIECE_BYTES = 4 * MIB

log = logging.getLogger(__name__)


class Manifest(Message):
    """What a checkpoint holds: the state when the entry ``index``, of ``term``, was applied."""

    format: int
    cluster: str
    index: int
    term: int
    length: int  # of the file with the state, in bytes
    checksum: int  # of that file, xxh3-64
    received: bool = False  # from the leader, and not installed yet


class Checkpoint(NamedTuple):
    """One that has a good manifest; whether its state is good is known after ``verify``."""

    folder: str
    manifest: Manifest

    @property
    def state_path(self) -> str:
        """For ``Stores.open_copy``."""
        return f"{self.folder}/{_STATE}"


class Checkpoints:
    """Those below one data folder."""

    def __init__(self, disk: Disk, cluster: str) -> None:
        self._disk = disk
        self._cluster = cluster

    async def found(self) -> list[Checkpoint]:
        """Those with a good manifest, the newest first; the others are named in the log."""
        if not self._disk.exists(FOLDER):
            return []
        checkpoints: list[Checkpoint] = []
        for name in reversed(self._disk.names(FOLDER)):
            folder = f"{FOLDER}/{name}"
            if folder == _NEW:
                continue
            try:
                checkpoints.append(Checkpoint(folder, await self._read_manifest(folder)))
            except TideError as error:
                log.warning("the checkpoint in %s is left out: %s", folder, error)
        return checkpoints

    async def _read_manifest(self, folder: str) -> Manifest:
        path = f"{folder}/{_MANIFEST}"
        file = self._disk.open(path)
        try:
            data = await file.read(0, file.size())
        finally:
            file.close()
        digest, packed = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
        if digest != checksum(packed).to_bytes(_CHECKSUM_BYTES, "little"):
            raise TideError(Code.CORRUPT, f"{path} does not match its checksum")
        manifest = decode(Manifest, packed)
        if manifest.format not in _FORMATS_READ:
            raise TideError(Code.NOT_SUPPORTED, f"{path} is in format {manifest.format}")
        if manifest.cluster != self._cluster:
            raise TideError(Code.FOREIGN_FOLDER, f"{path} is of cluster {manifest.cluster}")
        return manifest

    async def verify(self, checkpoint: Checkpoint) -> None:
        """Read the whole copy; CORRUPT names the file when it is not what was written."""
        manifest = checkpoint.manifest
        file = self._disk.open(checkpoint.state_path)
        try:
            length, digest = await _digest(file)
        finally:
            file.close()
        if (length, digest) != (manifest.length, manifest.checksum):
            raise TideError(
                Code.CORRUPT, f"{checkpoint.state_path} does not match the checksum in its manifest"
            )

    async def make(self, store: Store, index: int, term: int) -> int:
        """A new checkpoint of the state, which has applied ``index`` and is committed.

        On stable storage when this returns. The answer is the index from whose next record on the
        log is still needed. TideError: there is no new one, and all is as before.
        """
        self._disk.make_folder(FOLDER)
        self._remove(_NEW)
        self._disk.make_folder(_NEW)
        try:
            # Nothing is waited for before the copy is begun: it is of this very moment.
            await store.copy_to(f"{_NEW}/{_STATE}")
            file = self._disk.open(f"{_NEW}/{_STATE}")
            try:
                await file.sync()
                length, digest = await _digest(file)
            finally:
                file.close()
            manifest = Manifest(_FORMAT, self._cluster, index, term, length, digest)
            await self._write_manifest(_NEW, manifest)
            await self._put_in_place(_NEW, index)
        except TideError:
            self._remove(_NEW)
            raise
        return await self._drop_old()

    async def adopt(
        self, folder: str, *, index: int, term: int, length: int, checksum: int
    ) -> Checkpoint:
        """A checkpoint from a folder with a `state` that came from the leader, and was verified and
        synced. Until it is one, the folder is where it was, also after a crash.

        It is to be installed: see ``Driver.install``; or, after a crash, recovery does it.
        """
        self._disk.make_folder(FOLDER)
        manifest = Manifest(_FORMAT, self._cluster, index, term, length, checksum, received=True)
        await self._write_manifest(folder, manifest)
        return Checkpoint(await self._put_in_place(folder, index), manifest)

    async def settle(
        self, checkpoint: Checkpoint, index: int, term: int, *, received: bool
    ) -> Checkpoint:
        """Say anew of a received checkpoint what it holds, and whether it must be installed."""
        manifest = msgspec.structs.replace(
            checkpoint.manifest, format=_FORMAT, index=index, term=term, received=received
        )
        if manifest != checkpoint.manifest:
            await self._write_manifest(checkpoint.folder, manifest)
        return Checkpoint(checkpoint.folder, manifest)

    async def _put_in_place(self, made: str, index: int) -> str:
        """Give a whole checkpoint the name by which it is found."""
        await self._disk.sync_folder(FOLDER)
        await self._disk.sync_folder("")  # where FOLDER itself has its name
        folder = f"{FOLDER}/{index:020d}"
        self._remove(folder)
        self._disk.rename(made, folder)
        await self._disk.sync_folder(FOLDER)
        return folder

    async def _write_manifest(self, folder: str, manifest: Manifest) -> None:
        packed = pack(manifest)
        file = self._disk.open(f"{folder}/{_NEW_MANIFEST}", create=True)
        try:
            file.truncate(0)
            file.write(0, [checksum(packed).to_bytes(_CHECKSUM_BYTES, "little"), packed])
            await file.sync()
        finally:
            file.close()
        self._disk.rename(f"{folder}/{_NEW_MANIFEST}", f"{folder}/{_MANIFEST}")
        await self._disk.sync_folder(folder)

    async def _drop_old(self) -> int:
        """Keep the newest few that have a manifest; the index of the oldest kept."""
        good = await self.found()
        kept = {checkpoint.folder for checkpoint in good[:KEPT]}
        for name in self._disk.names(FOLDER):
            if f"{FOLDER}/{name}" not in kept:
                self._remove(f"{FOLDER}/{name}")
        await self._disk.sync_folder(FOLDER)
        return min(checkpoint.manifest.index for checkpoint in good[:KEPT])

    def _remove(self, path: str) -> None:
        if self._disk.exists(path):
            self._disk.remove(path)


async def _digest(file: File) -> tuple[int, int]:
    """Length and xxh3-64 of a file, read piece by piece."""
    state = xxhash.xxh3_64()
    offset = 0
    while piece := await file.read(offset, _PIECE_BYTES):
        state.update(piece)
        offset += len(piece)
    return offset, state.intdigest()
