"""The reads of the lock table: how a session stands, who is in the way, who holds what."""

from ..fs.errors import Code, TideError
from ..fs.limits import LOCKS_LISTED_MAX
from ..fs.messages.locks import Lock, LockKind, LockList, SessionLocks, TestLock
from .keys import NUMBER_MAX
from .locks_order import Arbiter, place_of
from .locks_ranges import LockRecord, by_start, extent
from .operations.checks import check_lock
from .tables import Tables


def session_locks(tables: Tables, session: int) -> SessionLocks:
    """SESSION_EXPIRED when it is over."""
    if tables.sessions.get(session) is None:
        raise TideError(Code.SESSION_EXPIRED, f"session {session}")
    tokens = [
        (
            inode,
            max(lock.token for lock in _held_on(tables, inode) if lock.session == session),
        )
        for inode in tables.locks.inodes_of(session)
    ]
    return SessionLocks(sorted(lock.ticket for lock in tables.locks.waits_in(session)), tokens)


def lock_in_the_way(tables: Tables, request: TestLock) -> LockList:
    """The first one that is held, with its neighbours of the same mode; STALE_HANDLE."""
    check_lock(request, request.session)
    tables.inodes.require(request.inode)
    wanted = LockRecord(
        request.inode,
        request.kind,
        request.exclusive,
        request.start,
        request.end,
        request.session,
        request.owner,
        pid=0,
    )
    first = min(Arbiter(tables.locks).in_the_way(wanted), key=by_start, default=None)
    if first is None:
        return LockList([], end=True)
    own = [one for one in tables.locks.held(*place_of(first)) if one.who == first.who]
    return LockList([_shown(tables, extent(own, first), {})], end=True)


def list_locks(tables: Tables, inode: int, after: int, count_max: int) -> LockList:
    """Of one inode; or of those behind ``after``, as many as fit, at least one."""
    hosts: dict[int, str] = {}
    if inode:
        tables.inodes.require(inode)
        return LockList(_listed(tables, inode, hosts), end=True)
    if not 0 <= after <= NUMBER_MAX:
        raise TideError(Code.INVALID, f"inode {after}")
    count_max = max(1, min(count_max, LOCKS_LISTED_MAX))
    locks: list[Lock] = []
    for number in tables.locks.locked_after(after):
        more = _listed(tables, number, hosts)
        if locks and len(locks) + len(more) > count_max:
            return LockList(locks, end=False)
        locks += more
    return LockList(locks, end=True)


def _listed(tables: Tables, inode: int, hosts: dict[int, str]) -> list[Lock]:
    """Of an inode with more than fit an answer, the first ones."""
    held = sorted(_held_on(tables, inode), key=lambda lock: (lock.start, lock.kind))
    waiting = [lock for kind in LockKind for lock in tables.locks.waiting(inode, kind)]
    waiting.sort(key=lambda lock: lock.ticket)
    return [_shown(tables, lock, hosts) for lock in (held + waiting)[:LOCKS_LISTED_MAX]]


def _held_on(tables: Tables, inode: int) -> list[LockRecord]:
    return [lock for kind in LockKind for lock in tables.locks.held(inode, kind)]


def _shown(tables: Tables, lock: LockRecord, hosts: dict[int, str]) -> Lock:
    if lock.session not in hosts:
        session = tables.sessions.get(lock.session)
        assert session is not None, lock
        hosts[lock.session] = session.host
    return Lock(
        inode=lock.inode,
        kind=lock.kind,
        exclusive=lock.exclusive,
        start=lock.start,
        end=lock.end,
        session=lock.session,
        owner=lock.owner,
        pid=lock.pid,
        host=hosts[lock.session],
        token=lock.token,
        ticket=0 if lock.token else lock.ticket,
    )
