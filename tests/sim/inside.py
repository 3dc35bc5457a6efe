"""Looks into the members of the group while they run, for ``group_watch.py``; with ``compose.py``
the only file that knows names inside of the metaserver."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tidefs.fs.codec import checksum, pack
from tidefs.metaserver.check import check
from tidefs.metaserver.driver import Driver
from tidefs.metaserver.entries import Entry
from tidefs.metaserver.raft.contract import Role
from tidefs.metaserver.raft.core import Member
from tidefs.metaserver.state import State

from .cluster import Cluster
from .conditions import ViolationError
from .determinism import HOST
from .group_watch import GroupWatch


@contextmanager
def observed(watch: GroupWatch) -> Iterator[None]:
    """While this lasts, ``watch`` hears of each entry that is applied and of each leader."""
    apply, ready, begin = State.apply, Member.ready, Driver.__init__

    def seen_apply(self: State, entry: Entry) -> Any:
        watch.applied(entry.index, checksum(pack(entry)))
        return apply(self, entry)

    def seen_ready(self: Member) -> Any:
        if self.role is Role.LEADER:
            watch.leads(self.term)
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


def check_state(cluster: Cluster) -> None:
    """The leader's state must be consistent, and agree with what the chunkservers have."""
    state = cluster.watch.drivers[cluster.watch.leader].state
    wrong = check(state)
    orphans = state.orphans() if cluster.clients else []
    if wrong or orphans:
        raise ViolationError(f"in the metaservers' state: {wrong[:5]}, orphans {orphans[:5]}")
    known = {handle for handle, _ in state.all_chunks()}
    for other in cluster.chunkservers:
        garbage = other.chunks() - known
        if garbage:
            raise ViolationError(f"chunks on {other.host} that no file has: {garbage}")
