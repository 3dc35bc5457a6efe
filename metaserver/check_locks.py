"""The check of the lock table: nobody dead holds a lock, no two exclude each other, nobody who
waits was forgotten."""

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import combinations

from ..fs.limits import LOCK_END
from . import keys
from .locks_order import Arbiter, Place, place_of
from .locks_ranges import LockRecord, conflict, overlap
from .tables import Tables


def lock_findings(tables: Tables, inodes: Collection[int]) -> Iterator[str]:
    """Every finding, in words. ``inodes``: those that there are."""
    held, waiting = [*tables.locks.all_held()], [*tables.locks.all_waiting()]
    for lock in held + waiting:
        yield from _one(tables, lock, inodes)
    places: dict[Place, list[LockRecord]] = {}
    for lock in held:
        places.setdefault(place_of(lock), []).append(lock)
    for locks in places.values():
        yield from _together(locks)
    arbiter = Arbiter(tables.locks)
    for lock in waiting:
        if arbiter.has_its_turn(lock):
            yield f"{_words(lock)}: nothing is in its way, and it still waits"
    for inode in tables.locks.all_lost():
        if inode not in inodes:
            yield f"an exclusive lock expired on inode {inode}: it is gone"
    yield from _indices(tables, held, waiting)


def _one(tables: Tables, lock: LockRecord, inodes: Collection[int]) -> Iterator[str]:
    if lock.inode not in inodes:
        yield f"{_words(lock)}: the inode is gone"
    if tables.sessions.get(lock.session) is None:
        yield f"{_words(lock)}: the session is over"
    if not 0 <= lock.start < lock.end <= LOCK_END:
        yield f"{_words(lock)}: there is no such range"
    if max(lock.token, lock.ticket) > tables.totals.applied_index:
        yield f"{_words(lock)}: its token or ticket is of an entry to come"


def _together(locks: list[LockRecord]) -> Iterator[str]:
    for one, other in combinations(locks, 2):
        if conflict(one, other) or (one.who == other.who and overlap(one, other)):
            yield f"{_words(one)}: so has session {other.session} from {other.start}"


def _indices(tables: Tables, held: list[LockRecord], waiting: list[LockRecord]) -> Iterator[str]:
    """What follows from the locks themselves."""
    wanted: Counter[bytes] = Counter()
    for lock in held:
        wanted[keys.tripled(keys.LOCKED_BY, lock.session, lock.owner, lock.inode)] += 1
        wanted[keys.paired(keys.HELD_COUNT, lock.inode, lock.kind)] += 1
    for lock in waiting:
        key = keys.tripled(keys.WAITS_OF, lock.session, lock.owner, lock.ticket)
        wanted[key] = lock.inode
    for lock in held + waiting:
        wanted[keys.numbered(keys.LOCK_COUNT, lock.session)] += 1
    found = dict(tables.locks.indices())
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key, 0) != wanted[key]:
            yield f"locks by {key!r}: {found.get(key, 0)} instead of {wanted[key]}"
    counts = tables.totals.locks_held, tables.totals.locks_waiting
    if counts != (len(held), len(waiting)):
        yield f"the totals of locks are {counts} instead of {(len(held), len(waiting))}"


def _words(lock: LockRecord) -> str:
    state = "held" if lock.token else "waited for"
    return (
        f"{lock.kind.name} lock {state} by session {lock.session} on inode {lock.inode} from"
        f" {lock.start} to {lock.end}"
    )
