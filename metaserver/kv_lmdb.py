"""The state's key-value store on LMDB: one long write transaction, committed now and then.

Reads and writes both go through the write transaction, so each sees what was put before. What was
put since the last commit is remembered beside it: when LMDB cannot commit (a full disk) the
transaction is begun anew with the same changes, and nothing is lost to this process.
"""

from collections.abc import Iterator

import lmdb

from ..fs.errors import Code, TideError
from .kv import digest_of

MAP_BYTES = 1 << 40
"""Address space, not disk: the most the state can grow to."""


class LmdbKeyValue:
    """A KeyValue in a folder of its own. Nothing is ever synced: see ``store.py``."""

    def __init__(self, folder: str) -> None:
        """CORRUPT, naming the folder, when LMDB does not recognise what is there."""
        try:
            self._env = lmdb.open(
                folder,
                map_size=MAP_BYTES,
                sync=False,
                metasync=False,
                writemap=False,
                readahead=True,
                max_dbs=0,
            )
        except lmdb.Error as error:
            raise TideError(Code.CORRUPT, f"the working copy in {folder}: {error}") from None
        self._folder = folder
        self._changes: dict[bytes, bytes | None] = {}
        self._begin()

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._transaction.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        self._changes[key] = value
        try:
            self._transaction.put(key, value)
        except lmdb.Error as error:
            self._begin_again(error)

    def delete(self, key: bytes) -> bool:
        if self._transaction.get(key) is None:
            return False
        self._changes[key] = None
        try:
            self._transaction.delete(key)
        except lmdb.Error as error:
            self._begin_again(error)
        return True

    def scan(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor() as cursor:
            found = cursor.set_range(max(prefix, after)) if prefix or after else cursor.first()
            if found and after >= prefix and cursor.key() == after and after:
                found = cursor.next()
            while found:
                key, value = cursor.item()
                if not key.startswith(prefix):
                    return
                yield key, value
                found = cursor.next()

    def commit(self) -> None:
        """Hand everything to the page cache. NO_SPACE or DEVICE_ERROR: try again later."""
        try:
            self._transaction.commit()
        except lmdb.Error as error:
            self._begin_again(error)
            raise _failure(self._folder, error) from None
        self._changes.clear()
        self._begin()

    def copy_of_now(self) -> "LmdbCopy":
        """What is committed at this moment, whatever is committed later."""
        return LmdbCopy(self._env)

    def digest(self, key: bytes) -> tuple[bytes | None, int]:
        """The value of ``key`` and the digest of everything, of what is committed, read in a
        transaction of its own. May run in another thread meanwhile."""
        with self._env.begin(write=False, buffers=False) as reading, reading.cursor() as cursor:
            return reading.get(key), digest_of(cursor.iternext())

    def close(self) -> None:
        """Drop what is not committed. To be called, by the thread that opened it.

        Left to the garbage collector, which may run in any thread, LMDB's lock is unmapped while
        the thread that writes still has it in its list, and the process dies at its next unlock.
        """
        self._transaction.abort()
        self._env.close()

    def _begin(self) -> None:
        self._transaction = self._env.begin(write=True)

    def _begin_again(self, cause: lmdb.Error) -> None:
        """A new transaction with the changes of the one that failed."""
        self._transaction.abort()
        self._begin()
        try:
            for key, value in self._changes.items():
                if value is None:
                    self._transaction.delete(key)
                else:
                    self._transaction.put(key, value)
        except lmdb.Error:
            raise _failure(self._folder, cause) from None


class LmdbCopy:
    """What was committed when it was made; written once. May be used in another thread."""

    def __init__(self, env: lmdb.Environment) -> None:
        self._env = env
        self._transaction = env.begin()

    def write_to(self, descriptor: int) -> None:
        """Write it into an open file."""
        try:
            # Compacting copies read in a transaction; plain ones would wait for our writing one.
            self._env.copyfd(descriptor, compact=True, txn=self._transaction)
        finally:
            self._transaction.abort()


def _failure(folder: str, error: lmdb.Error) -> TideError:
    full = isinstance(error, lmdb.MapFullError | lmdb.DiskError) and "space" in str(error).lower()
    code = Code.NO_SPACE if full else Code.DEVICE_ERROR
    return TideError(code, f"the working copy in {folder}: {error}")
