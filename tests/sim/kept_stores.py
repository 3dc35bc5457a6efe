"""The working copy of a metaserver's state, as LMDB keeps it, without LMDB.

What was committed survives the process, and is trusted at the next start; a crash of the machine
(the boot id changes) takes it away.
"""

from tidefs.fs.ports.disk import Disk
from tidefs.metaserver.kv_memory import MemoryKeyValue
from tidefs.metaserver.store_memory import MemoryStore, MemoryStores


class Kept:
    """What outlives the process."""

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []
        self.boot_id = ""


class KeptStore(MemoryStore):
    """A Store whose commits are kept."""

    def __init__(self, disk: Disk, kv: MemoryKeyValue, kept: Kept) -> None:
        super().__init__(disk, kv)
        self._disk = disk
        self._kept = kept

    def commit(self) -> None:
        boot_id = self._disk.boot_id()  # raises in a killed process, which commits nothing
        self._kept.pairs, self._kept.boot_id = list(self.kv.scan(b"")), boot_id

    def close(self) -> None:
        """Commit what can be."""
        self.commit()


class KeptStores(MemoryStores):
    """Stores for one server; ``kept`` is the same in all its lives."""

    def __init__(self, disk: Disk, kept: Kept) -> None:
        super().__init__(disk)
        self._disk = disk
        self._kept = kept

    async def open_trusted(self) -> MemoryStore | None:
        if self._kept.boot_id != self._disk.boot_id():
            return None
        kv = MemoryKeyValue()
        for key, value in self._kept.pairs:
            kv.put(key, value)
        return KeptStore(self._disk, kv, self._kept)

    async def open_copy(self, path: str) -> MemoryStore:
        return self._keeping(await super().open_copy(path))

    async def open_empty(self) -> MemoryStore:
        return self._keeping(await super().open_empty())

    def _keeping(self, store: MemoryStore) -> MemoryStore:
        self._kept.boot_id = ""
        return KeptStore(self._disk, store.kv, self._kept)
