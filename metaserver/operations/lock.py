"""SetLock, Unlock and Withdraw: fcntl(2)'s ranges, flock(2)'s files, and the turn to append."""

from ...fs.errors import Code, TideError
from ...fs.limits import LOCK_WAITS_PER_INODE_MAX, LOCKS_PER_INODE_MAX, LOCKS_PER_SESSION_MAX
from ...fs.messages.base import Done, Message
from ...fs.messages.locks import LockAnswer, LockKind, SetLock, Unlock, Withdraw
from ..inodes import Inode
from ..locks_order import NEWEST, Arbiter, place_of
from ..locks_ranges import LockRecord, carve, cover, replace
from ..moment import Moment
from ..tables import Tables
from .checks import check_lock
from .table import Perform, session_operation


@session_operation(SetLock)
def set_lock(tables: Tables, request: SetLock, session: int) -> Perform:
    """WOULD_BLOCK, DEADLOCK, NO_LOCKS; STALE_HANDLE when the inode is gone.

    Who does not wait has no place in the queue, and gets what nobody holds, as on a local disk.
    """
    check_lock(request, session, pid=request.pid)
    if request.kind is LockKind.APPEND:
        inode = tables.inodes.file(request.inode)
    else:
        inode = tables.inodes.require(request.inode)
    wanted, wait = _wanted(request, session), request.wait
    arbiter = Arbiter(tables.locks)
    own = arbiter.own(wanted)
    held = cover(own, wanted)
    if held is not None:
        return lambda moment: _answer(inode, held)
    if request.kind is LockKind.WHOLE and own:
        return _telling(arbiter, lambda moment: _convert(arbiter, inode, wanted, moment, wait=wait))
    if arbiter.has_its_turn(wanted) if wait else arbiter.is_free(wanted):
        _check_room(tables, arbiter, wanted, held=len(replace(own, wanted)) - len(own))
        return _telling(arbiter, lambda moment: _grant(arbiter, inode, wanted, moment))
    if not wait:
        raise _would_block(arbiter, wanted)
    if request.kind is LockKind.RANGE and arbiter.closes_circle(wanted):
        raise TideError(Code.DEADLOCK, _words(wanted))
    _check_room(tables, arbiter, wanted, waiting=1)
    return _telling(arbiter, lambda moment: _wait(arbiter, inode, wanted, moment))


@session_operation(Unlock)
def unlock(tables: Tables, request: Unlock, session: int) -> Perform:
    """NO_LOCKS when it would split a lock in two, and there are as many as there may be."""
    check_lock(request, session)
    if tables.inodes.get(request.inode) is None:
        return lambda moment: Done()
    given = _wanted(request, session)
    arbiter = Arbiter(tables.locks)
    own = arbiter.own(given)
    left = carve(own, given.start, given.end)
    _check_room(tables, arbiter, given, held=len(left) - len(own))

    def perform(moment: Moment) -> Message:
        if left != own:
            arbiter.release(given)
            arbiter.settle([place_of(given)], moment.log_index)
        return Done()

    return _telling(arbiter, perform)


@session_operation(Withdraw)
def withdraw(tables: Tables, request: Withdraw, session: int) -> Perform:
    """STALE_HANDLE when the inode is gone."""
    inode = tables.inodes.require(request.inode)
    arbiter = Arbiter(tables.locks)
    lock = tables.locks.wait_of(request.inode, request.ticket)

    def perform(moment: Moment) -> Message:
        if lock is None or lock.session != session:
            return _answer(inode, _granted_under(tables, request, session))
        arbiter.drop_wait(lock)
        arbiter.settle([place_of(lock)], moment.log_index)
        return _answer(inode, None)

    return _telling(arbiter, perform)


def _telling(arbiter: Arbiter, perform: Perform) -> Perform:
    """``perform``, and then whoever was granted what it waited for is to be told."""

    def perform_and_tell(moment: Moment) -> Message | TideError:
        reply = perform(moment)
        moment.effects.extend(arbiter.effects())
        return reply

    return perform_and_tell


def _wanted(request: SetLock | Unlock, session: int) -> LockRecord:
    exclusive, pid = (
        (request.exclusive, request.pid) if isinstance(request, SetLock) else (False, 0)
    )
    return LockRecord(
        request.inode,
        request.kind,
        exclusive,
        request.start,
        request.end,
        session,
        request.owner,
        pid,
        ticket=NEWEST,
    )


def _grant(arbiter: Arbiter, inode: Inode, wanted: LockRecord, moment: Moment) -> Message:
    return _answer(inode, arbiter.take(wanted._replace(ticket=0), moment.log_index))


def _wait(arbiter: Arbiter, inode: Inode, wanted: LockRecord, moment: Moment) -> Message:
    waiting = wanted._replace(ticket=moment.log_index)
    arbiter.add_wait(waiting, moment.log_index)
    return _answer(inode, waiting)


def _convert(
    arbiter: Arbiter, inode: Inode, wanted: LockRecord, moment: Moment, *, wait: bool
) -> Message | TideError:
    """What is held is given up first, so whoever waited for it gets it, and who does not wait may
    end with nothing (flock(2)). So two that convert at once are no deadlock."""
    arbiter.release(wanted)
    arbiter.settle([place_of(wanted)], moment.log_index)
    if arbiter.has_its_turn(wanted) if wait else arbiter.is_free(wanted):
        return _grant(arbiter, inode, wanted, moment)
    if not wait:
        return _would_block(arbiter, wanted)
    return _wait(arbiter, inode, wanted, moment)


def _granted_under(tables: Tables, request: Withdraw, session: int) -> LockRecord | None:
    """What was granted under this ticket and is held still, as far as it is."""
    for kind in LockKind:
        for lock in tables.locks.held(request.inode, kind):
            if lock.session == session and lock.ticket == request.ticket > 0:
                return lock
    return None


def _answer(inode: Inode, lock: LockRecord | None) -> LockAnswer:
    if lock is None:
        return LockAnswer(0, 0, inode.attributes(), after_loss=False)
    ticket = 0 if lock.token else lock.ticket
    return LockAnswer(lock.token, ticket, inode.attributes(), lock.after_loss)


def _check_room(
    tables: Tables, arbiter: Arbiter, lock: LockRecord, *, held: int = 0, waiting: int = 0
) -> None:
    """NO_LOCKS when so many more are too many on this inode, or in this session."""
    place, what = place_of(lock), f"inode {lock.inode}"
    of_session = tables.locks.count(lock.session)
    for count, more, most, where in (
        (tables.locks.count_held(*place), held, LOCKS_PER_INODE_MAX, f"locks on {what}"),
        (len(arbiter.waiting(place)), waiting, LOCK_WAITS_PER_INODE_MAX, f"waiting on {what}"),
        (of_session, held + waiting, LOCKS_PER_SESSION_MAX, f"locks of session {lock.session}"),
    ):
        if more > 0 and count + more > most:
            raise TideError(
                Code.NO_LOCKS, f"{count} {where}, and {most} can be; give some back first"
            )


def _would_block(arbiter: Arbiter, wanted: LockRecord) -> TideError:
    other = next(arbiter.in_the_way(wanted))
    return TideError(
        Code.WOULD_BLOCK,
        f"{_words(wanted)}: session {other.session}, process {other.pid}, has one from"
        f" {other.start} to {other.end}",
    )


def _words(lock: LockRecord) -> str:
    how = "exclusive" if lock.exclusive else "shared"
    return f"{how} {lock.kind.name} lock on inode {lock.inode} from {lock.start} to {lock.end}"
