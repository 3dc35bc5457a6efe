"""The lock table: who holds what, and who waits for what. Keys and values only; no decisions.

| key                                                  | value (codec.pack)                        |
|------------------------------------------------------|-------------------------------------------|
| ``h`` inode, kind, mode, size, start, session, owner | (end, pid, token, ticket, after_loss)     |
| ``w`` inode, ticket                                  | (kind, mode, start, end, who, pid)        |
| ``u`` session, owner, ticket                         | inode: where this owner waits             |
| ``k`` session, owner, inode                          | how many locks this owner holds there     |
| ``q`` session                                        | how many it holds and waits for           |
| ``j`` inode, kind                                    | how many are held                         |
| ``a`` inode                                          | nothing: an exclusive lock expired there  |

``u``, ``k``, ``q`` and ``j`` follow from the others (``check.py`` compares them). Who is a session
and an owner, mode is 1 for exclusive, size the number of bits of a lock's length: so those that
overlap a range are found among thousands by a few short scans, one for each size that there is.
"""

from collections.abc import Iterable, Iterator

from ..fs.codec import pack, unpack
from ..fs.messages.locks import LockKind
from . import keys
from .kv import KeyValue
from .locks_ranges import LockRecord, Owner, by_start
from .records import Totals

_KINDS = {int(kind): kind for kind in LockKind}


class Locks:
    """All locks of all inodes."""

    def __init__(self, kv: KeyValue, totals: Totals) -> None:
        self._kv = kv
        self._totals = totals

    # --- of an inode

    def held(self, inode: int, kind: LockKind) -> list[LockRecord]:
        """All that are held, by start."""
        found = self._kv.scan(keys.lock_prefix(inode, kind))
        return sorted((_held(*pair) for pair in found), key=by_start)

    def overlapping(
        self, inode: int, kind: LockKind, start: int, end: int, modes: Iterable[bool]
    ) -> Iterator[LockRecord]:
        """Those that are held in one of these modes and have a byte of ``start`` to ``end - 1``."""
        for mode in modes:
            for size in self._sizes(inode, kind, mode):
                prefix = keys.lock_prefix(inode, kind, mode, size)
                first = max(0, start + 1 - (1 << size))  # who begins earlier has ended
                for key, packed in self._kv.scan(prefix, prefix + first.to_bytes(8, "big")):
                    lock = _held(key, packed)
                    if lock.start >= end:
                        break
                    if lock.end > start:
                        yield lock

    def _sizes(self, inode: int, kind: LockKind, mode: bool) -> Iterator[int]:
        prefix, after = keys.lock_prefix(inode, kind, mode), b""
        while True:
            found = next(iter(self._kv.scan(prefix, after)), None)
            if found is None:
                return
            size = keys.lock_of(found[0])[3]
            yield size
            after = prefix + bytes([size + 1])

    def count_held(self, inode: int, kind: LockKind) -> int:
        """How many are held."""
        return self._number(keys.paired(keys.HELD_COUNT, inode, kind))

    def count_of(self, who: Owner, inode: int) -> int:
        """How many an owner of this number, of any kind, holds there."""
        return self._number(keys.tripled(keys.LOCKED_BY, who.session, who.owner, inode))

    def waiting(self, inode: int, kind: LockKind) -> list[LockRecord]:
        """Those that are waited for, by ticket."""
        found = (_waiting(*pair) for pair in self._kv.scan(keys.numbered(keys.WAITING, inode)))
        return [lock for lock in found if lock.kind is kind]

    def wait_of(self, inode: int, ticket: int) -> LockRecord | None:
        """The one that waits under this ticket."""
        if not 0 < ticket <= keys.NUMBER_MAX:
            return None
        key = keys.paired(keys.WAITING, inode, ticket)
        packed = self._kv.get(key)
        return None if packed is None else _waiting(key, packed)

    def is_lost(self, inode: int) -> bool:
        """Whether an exclusive lock expired, and none was granted since."""
        return self._kv.get(keys.numbered(keys.LOST, inode)) is not None

    def set_lost(self, inode: int, lost: bool) -> None:
        key = keys.numbered(keys.LOST, inode)
        if lost:
            self._kv.put(key, b"")
        else:
            self._kv.delete(key)

    def locked_after(self, inode: int) -> Iterator[int]:
        """The inodes with a number above ``inode`` on which there are locks, by number.

        Whoever waits, waits for one that is held: those that are held are enough.
        """
        while True:
            after = keys.lock_prefix(inode, 255)
            found = next(iter(self._kv.scan(keys.HELD, after)), None)
            if found is None:
                return
            inode = keys.first_number(found[0])
            yield inode

    # --- of an owner, of a session

    def waits_of(self, who: Owner) -> list[LockRecord]:
        """What one owner waits for, by ticket."""
        prefix = keys.paired(keys.WAITS_OF, who.session, who.owner)
        return [lock for lock in self._waits(prefix) if lock.kind is who.kind]

    def waits_in(self, session: int) -> list[LockRecord]:
        """What a session waits for."""
        return list(self._waits(keys.numbered(keys.WAITS_OF, session)))

    def holds_any(self, who: Owner) -> bool:
        """Whether an owner of this number, of any kind, holds anything."""
        prefix = keys.paired(keys.LOCKED_BY, who.session, who.owner)
        return next(iter(self._kv.scan(prefix)), None) is not None

    def inodes_of(self, session: int) -> list[int]:
        """The inodes on which a session holds locks, by number."""
        prefix = keys.numbered(keys.LOCKED_BY, session)
        return sorted({keys.last_number(key) for key, _ in self._kv.scan(prefix)})

    def count(self, session: int) -> int:
        """How many locks a session holds and waits for."""
        return self._number(keys.numbered(keys.LOCK_COUNT, session))

    # --- changes

    def change(self, before: Iterable[LockRecord], after: Iterable[LockRecord]) -> None:
        """One owner's locks of one inode and kind are ``after``; they were ``before``."""
        old, new = {*before}, {*after}
        for lock in old - new:
            self._kv.delete(_held_key(lock))
        for lock in new - old:
            self._kv.put(
                _held_key(lock),
                pack((lock.end, lock.pid, lock.token, lock.ticket, lock.after_loss)),
            )
        any_lock = next(iter(old or new), None)
        if any_lock is not None and len(old) != len(new):
            self._count_held(any_lock, len(new) - len(old))

    def add_wait(self, lock: LockRecord) -> None:
        """Somebody waits from now on, under ``lock.ticket``."""
        self._kv.put(
            keys.paired(keys.WAITING, lock.inode, lock.ticket),
            pack(
                (
                    lock.kind,
                    lock.exclusive,
                    lock.start,
                    lock.end,
                    lock.session,
                    lock.owner,
                    lock.pid,
                )
            ),
        )
        self._kv.put(
            keys.tripled(keys.WAITS_OF, lock.session, lock.owner, lock.ticket), pack(lock.inode)
        )
        self._totals.locks_waiting += 1
        self._count(lock.session, 1)

    def drop_wait(self, lock: LockRecord) -> None:
        """It waits no longer."""
        self._kv.delete(keys.paired(keys.WAITING, lock.inode, lock.ticket))
        self._kv.delete(keys.tripled(keys.WAITS_OF, lock.session, lock.owner, lock.ticket))
        self._totals.locks_waiting -= 1
        self._count(lock.session, -1)

    def drop_inode(self, inode: int) -> None:
        """Forget all of an inode that goes."""
        for kind in LockKind:
            for lock in self.held(inode, kind):
                self.change([lock], [])
            for lock in self.waiting(inode, kind):
                self.drop_wait(lock)
        self.set_lost(inode, False)

    def _count_held(self, lock: LockRecord, more: int) -> None:
        key = keys.tripled(keys.LOCKED_BY, lock.session, lock.owner, lock.inode)
        self._add(key, more)
        self._add(keys.paired(keys.HELD_COUNT, lock.inode, lock.kind), more)
        self._totals.locks_held += more
        self._count(lock.session, more)

    def _count(self, session: int, more: int) -> None:
        self._add(keys.numbered(keys.LOCK_COUNT, session), more)

    def _add(self, key: bytes, more: int) -> None:
        count = self._number(key) + more
        assert count >= 0, key
        if count:
            self._kv.put(key, pack(count))
        else:
            self._kv.delete(key)

    def _number(self, key: bytes) -> int:
        packed = self._kv.get(key)
        return 0 if packed is None else int(unpack(packed))

    def _waits(self, prefix: bytes) -> Iterator[LockRecord]:
        for key, packed in self._kv.scan(prefix):
            lock = self.wait_of(unpack(packed), keys.last_number(key))
            assert lock is not None, key
            yield lock

    # --- for a check

    def all_held(self) -> Iterator[LockRecord]:
        """Every lock that is held."""
        for key, packed in self._kv.scan(keys.HELD):
            yield _held(key, packed)

    def all_waiting(self) -> Iterator[LockRecord]:
        """Every lock that is waited for."""
        for key, packed in self._kv.scan(keys.WAITING):
            yield _waiting(key, packed)

    def all_lost(self) -> Iterator[int]:
        """Every inode on which an exclusive lock expired."""
        for key, _ in self._kv.scan(keys.LOST):
            yield keys.last_number(key)

    def indices(self) -> Iterator[tuple[bytes, int]]:
        """Every pair of what follows from the others."""
        for prefix in (keys.WAITS_OF, keys.LOCKED_BY, keys.LOCK_COUNT, keys.HELD_COUNT):
            for key, packed in self._kv.scan(prefix):
                yield key, int(unpack(packed))


def _held_key(lock: LockRecord) -> bytes:
    size = (lock.end - lock.start).bit_length()
    return keys.lock_key(
        lock.inode, lock.kind, lock.exclusive, size, lock.start, lock.session, lock.owner
    )


def _held(key: bytes, packed: bytes) -> LockRecord:
    inode, kind, mode, _, start, session, owner = keys.lock_of(key)
    end, pid, token, ticket, after_loss = unpack(packed)
    return LockRecord(
        inode,
        _KINDS[kind],
        mode == 1,
        start,
        end,
        session,
        owner,
        pid,
        token,
        ticket,
        after_loss,
    )


def _waiting(key: bytes, packed: bytes) -> LockRecord:
    kind, exclusive, start, end, session, owner, pid = unpack(packed)
    return LockRecord(
        keys.first_number(key),
        _KINDS[kind],
        exclusive,
        start,
        end,
        session,
        owner,
        pid,
        ticket=keys.last_number(key),
    )
