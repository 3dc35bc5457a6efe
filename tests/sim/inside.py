"""Looks into the members of the group while they run, for ``group_watch.py``; with ``compose.py``
the only file that knows names inside of the metaserver."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tidefs.fs.codec import checksum, convert, pack
from tidefs.fs.errors import TideError
from tidefs.fs.messages.base import METHODS
from tidefs.fs.messages.locks import SetLock, Unlock, Withdraw
from tidefs.metaserver.check import check
from tidefs.metaserver.driver import Driver
from tidefs.metaserver.effects import Applied
from tidefs.metaserver.entries import EndSession, Entry, Reap
from tidefs.metaserver.raft.contract import Role
from tidefs.metaserver.raft.core import Member
from tidefs.metaserver.state import State

from .cluster import Cluster
from .conditions import ViolationError
from .determinism import HOST
from .group_watch import GroupWatch
from .lock_ledger import Owner, Range

ABOUT_LOCKS = frozenset(request.METHOD for request in (SetLock, Unlock, Withdraw, EndSession, Reap))


@contextmanager
def observed(watch: GroupWatch) -> Iterator[None]:
    """While this lasts, ``watch`` hears of each entry that is applied and of each leader."""
    apply, ready, begin = State.apply, Member.ready, Driver.__init__

    def seen_apply(self: State, entry: Entry) -> Any:
        first = watch.applied(entry.index, checksum(pack(entry)))
        again = _is_repeated(self, entry) if first and entry.method in ABOUT_LOCKS else True
        applied = apply(self, entry)
        if not again:
            _tell_of_locks(watch, self, entry, applied)
        return applied

    checked: dict[int, int] = {}  # commit index that was looked at last, by term

    def seen_ready(self: Member) -> Any:
        if self.role is Role.LEADER:
            watch.leads(self.term)
            if self.commit_index > checked.get(self.term, 0):
                checked[self.term] = self.commit_index
                _check_committed(self, watch)
        return ready(self)

    def seen_begin(self: Driver, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        watch.drivers[HOST.get()] = self

    State.apply, Member.ready = seen_apply, seen_ready  # type: ignore[method-assign]
    Driver.__init__ = seen_begin  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        State.apply, Member.ready = apply, ready  # type: ignore[method-assign]
        Driver.__init__ = begin  # type: ignore[method-assign]


def _is_repeated(state: State, entry: Entry) -> bool:
    """Whether it was carried out before, or comes from nobody: it changes nothing."""
    if not entry.session:
        return False
    sessions = state.tables.sessions
    if sessions.get(entry.session) is None:
        return True
    last = sessions.slot(entry.session, entry.slot)
    return last is not None and entry.sequence <= last.sequence


def _tell_of_locks(watch: GroupWatch, state: State, entry: Entry, applied: Applied) -> None:
    try:
        request = convert(METHODS[entry.method], entry.fields)
    except TideError:
        return
    if watch.locks.carried_out(entry.index, entry.session, request, applied.reply, applied.effects):
        watch.locks.compare(
            Range(
                Owner(lock.kind, lock.session, lock.owner),
                lock.inode,
                lock.exclusive,
                lock.start,
                lock.end,
            )
            for lock in state.tables.locks.all_held()
        )


def _check_committed(leader: Member, watch: GroupWatch) -> None:
    """Nobody may be able to win an election without what is committed (Raft section 5.4).

    That looks ahead: whether such an election comes about is a matter of luck. Down members are
    taken to know what they knew when they went down. While members change nothing is said.
    """
    membership, index = leader._membership, leader.commit_index
    if membership.is_joint or membership.index > index:
        return
    term = leader._log.terms.at(index)
    logs = {driver.core._server: driver.core._log for driver in watch.drivers.values()}
    known = {voter: logs[voter] for voter in membership.voters if voter in logs}
    for candidate, log in known.items():
        if index < log.terms.first_index or log.terms.at(index) == term:
            continue
        votes = {
            voter
            for voter, its_log in known.items()
            if its_log.up_to_date(log.last_index, log.last_term)
        }
        if membership.is_majority(votes):
            raise ViolationError(
                f"{HOST.get()} calls index {index} of term {term} committed in term {leader.term},"
                f" and member {candidate} could lead without it, by the votes of {sorted(votes)}"
            )


def check_state(cluster: Cluster) -> None:
    """The leader's state must be consistent, and agree with what the chunkservers have."""
    state = cluster.watch.drivers[cluster.watch.leader].state
    wrong = check(state)
    orphans = state.orphans() if cluster.clients else []
    if wrong or orphans:
        raise ViolationError(f"in the metaservers' state: {wrong[:5]}, orphans {orphans[:5]}")
    locks = [*state.tables.locks.all_held(), *state.tables.locks.all_waiting()]
    if locks or cluster.watch.locks.ledger.held or cluster.watch.locks.ledger.waiting:
        raise ViolationError(f"locks that nobody can have any more: {locks[:5]}")
    known = {handle for handle, _ in state.all_chunks()}
    for other in cluster.chunkservers:
        garbage = other.chunks() - known
        if garbage:
            raise ViolationError(f"chunks on {other.host} that no file has: {garbage}")
