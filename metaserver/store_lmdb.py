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
from ..fs.ports.disk_real import translate
from .keys import TOTALS
from .kv_lmdb import LmdbCopy, LmdbKeyValue
from .store import StateDigest
from .tables import applied_index_in

FOLDER = "working"
_NEW = "working.new"
_DATABASE = "database"
_MARKER = "opened"
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
        copy = self._kv.copy_of_now()
        with self._reading():
            await trio.to_thread.run_sync(_copy_to, copy, os.path.join(self._folder, path))

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
        marker = f"{FOLDER}/{_MARKER}"
        if not self._disk.exists(marker):
            return None
        file = self._disk.open(marker)
        try:
            found = await file.read(0, file.size())
        finally:
            file.close()
        if found != self._marker:
            return None
        try:
            return LmdbStore(self._folder, self._open(FOLDER))
        except TideError as error:
            log.warning("the working copy is made anew: %s", error)
            return None

    async def open_copy(self, path: str) -> LmdbStore:
        self._begin_new()
        os_path = os.path.join(self._folder, path)
        database = os.path.join(self._folder, _NEW, _DATABASE, "data.mdb")
        try:
            await trio.to_thread.run_sync(shutil.copyfile, os_path, database)
        except OSError as error:
            raise translate(error, f"copying {os_path} to", database) from None
        return self._finish_new()

    async def open_empty(self) -> LmdbStore:
        self._begin_new()
        return self._finish_new()

    def _begin_new(self) -> None:
        if self._disk.exists(_NEW):
            self._disk.remove(_NEW)
        self._disk.make_folder(f"{_NEW}/{_DATABASE}")

    def _finish_new(self) -> LmdbStore:
        """Open it, and put it in the old one's place (which may be open, and goes on)."""
        kv = self._open(_NEW)
        # The marker comes last: what a crash leaves half made is not believed.
        file = self._disk.open(f"{_NEW}/{_MARKER}", create=True)
        try:
            file.write(0, [self._marker])
        finally:
            file.close()
        if self._disk.exists(FOLDER):
            self._disk.remove(FOLDER)
        self._disk.rename(_NEW, FOLDER)
        return LmdbStore(self._folder, kv)

    def _open(self, folder: str) -> LmdbKeyValue:
        return LmdbKeyValue(os.path.join(self._folder, folder, _DATABASE))


def _copy_to(copy: LmdbCopy, path: str) -> None:
    with open(path, "wb") as file:
        try:
            copy.write_to(file.fileno())
        except Exception as error:
            # LMDB gives the errno only as text; a checkpoint that failed is tried again.
            raise TideError(Code.NO_SPACE, f"copying the state to {path}: {error}") from None
