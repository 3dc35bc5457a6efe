"""The working copy on LMDB, below the server's data folder. The only user of real paths here."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from ..fs.codec import pack
from ..fs.errors import Code, TideError
from ..fs.messages.base import Message
from ..fs.ports.disk import Disk
from .keys import TOTALS
from .kv_lmdb import LmdbKeyValue
from .store import StateDigest
from .tables import applied_index_in

FOLDER = "working"
_DATABASE = f"{FOLDER}/database"
_MARKER = f"{FOLDER}/opened"
_FORMAT = 1

log = logging.getLogger(__name__)


class _Marker(Message):
    """Written when a working copy is whole: since when, and whose, it may be believed."""

    format: int
    cluster: str
    boot_id: str


class LmdbStore:
    """A Store in the page cache of this machine."""

    def __init__(self, folder: str, kv: LmdbKeyValue) -> None:
        self._folder = folder
        self._kv = kv
        self._readers = 0
        """Threads that read it now: LMDB must not be closed under them."""
        self._closing = False

    @property
    def kv(self) -> LmdbKeyValue:
        return self._kv

    def commit(self) -> None:
        self._kv.commit()

    async def copy_to(self, path: str) -> None:
        with self._reading():
            await trio.to_thread.run_sync(self._copy_to, os.path.join(self._folder, path))

    def _copy_to(self, path: str) -> None:
        with open(path, "wb") as file:
            try:
                self._kv.copy_to(file.fileno())
            except Exception as error:
                # LMDB gives the errno only as text; a checkpoint that failed is tried again.
                raise TideError(Code.NO_SPACE, f"copying the state to {path}: {error}") from None

    async def digest(self) -> StateDigest:
        with self._reading():
            totals, digest = await trio.to_thread.run_sync(self._kv.digest, TOTALS)
        return StateDigest(applied_index_in(totals), digest)

    def close(self) -> None:
        self._closing = True
        if not self._readers:
            self._kv.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if self._closing:
                self.close()


class LmdbStores:
    """Stores below ``folder``, the real path of the folder that ``disk`` is."""

    def __init__(self, disk: Disk, folder: str, cluster: str) -> None:
        self._disk = disk
        self._folder = folder
        self._marker = pack(_Marker(_FORMAT, cluster, disk.boot_id()))

    async def open_trusted(self) -> LmdbStore | None:
        if not self._disk.exists(_MARKER):
            return None
        file = self._disk.open(_MARKER)
        try:
            found = await file.read(0, file.size())
        finally:
            file.close()
        if found != self._marker:
            return None
        try:
            return self._open()
        except TideError as error:
            log.warning("the working copy is made anew: %s", error)
            return None

    async def open_copy(self, path: str) -> LmdbStore:
        self._clear()
        os_path = os.path.join(self._folder, path)
        database = os.path.join(self._folder, _DATABASE, "data.mdb")
        await trio.to_thread.run_sync(shutil.copyfile, os_path, database)
        return self._open_new()

    async def open_empty(self) -> LmdbStore:
        self._clear()
        return self._open_new()

    def _clear(self) -> None:
        if self._disk.exists(FOLDER):
            self._disk.remove(FOLDER)
        self._disk.make_folder(_DATABASE)

    def _open_new(self) -> LmdbStore:
        store = self._open()
        # The marker comes last: what a crash leaves half made is not believed.
        file = self._disk.open(_MARKER, create=True)
        try:
            file.write(0, [self._marker])
        finally:
            file.close()
        return store

    def _open(self) -> LmdbStore:
        return LmdbStore(self._folder, LmdbKeyValue(os.path.join(self._folder, _DATABASE)))
