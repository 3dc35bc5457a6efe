"""Owners of locks on a state, as a test wants to speak of them."""

from tidefs.fs.errors import TideError
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages.locks import LockAnswer, LockKind, SetLock, TestLock, Unlock, Withdraw
from tidefs.metaserver.effects import LocksGranted
from tidefs.metaserver.locks_views import list_locks, lock_in_the_way, session_locks

SHARED, EXCLUSIVE = False, True
QueryLock = TestLock
"""A name that pytest does not take for a test."""


class Process:
    """One owner in one session. A process that locks with flock has one open file in this test."""

    sequence = 0

    def __init__(self, cluster, session, owner=1):
        self.cluster = cluster
        self.session = session
        self.owner = owner

    def apply(self, request):
        """The reply, error or not."""
        Process.sequence += 1
        return self.cluster.apply(
            request, session=self.session, slot=self.owner % 64, sequence=Process.sequence
        )

    def ask(self, request):
        """The reply, or the code of the error."""
        reply = self.apply(request)
        return reply.code if isinstance(reply, TideError) else reply

    def lock(self, inode, exclusive, start=0, end=LOCK_END, *, wait=False, kind=LockKind.RANGE):
        """ "held", or the ticket under which it waits, or the code of an error."""
        request = SetLock(inode, kind, self.owner, exclusive, start, end, wait, 40 + self.owner)
        self.answer = reply = self.ask(request)
        if not isinstance(reply, LockAnswer):
            return reply
        return "held" if reply.token else reply.ticket

    def flock(self, inode, exclusive, *, wait=False):
        return self.lock(inode, exclusive, wait=wait, kind=LockKind.WHOLE)

    def unlock(self, inode, start=0, end=LOCK_END, *, kind=LockKind.RANGE):
        """Whoever was granted something by that: (session, ticket)."""
        reply = self.apply(Unlock(inode, kind, self.owner, start, end))
        assert not isinstance(reply, TideError), reply
        return granted(self.cluster)

    def funlock(self, inode):
        return self.unlock(inode, kind=LockKind.WHOLE)

    def withdraw(self, inode, ticket):
        return self.apply(Withdraw(inode, ticket))

    def test(self, inode, exclusive, start=0, end=LOCK_END, *, kind=LockKind.RANGE):
        """(exclusive, start, end, pid) of what is in the way, or None."""
        request = QueryLock(self.session, inode, kind, self.owner, exclusive, start, end)
        found = lock_in_the_way(self.cluster.state.tables, request).locks
        if not found:
            return None
        return found[0].exclusive, found[0].start, found[0].end, found[0].pid

    def held(self, inode, *, kind=LockKind.RANGE):
        """(exclusive, start, end) of what it holds."""
        return [
            (lock.exclusive, lock.start, lock.end)
            for lock in list_locks(self.cluster.state.tables, inode, 0, 100).locks
            if lock.token and (lock.session, lock.owner) == (self.session, self.owner)
            if lock.kind is kind
        ]

    def standing(self):
        return session_locks(self.cluster.state.tables, self.session)


def granted(cluster):
    """(session, ticket) of whoever was granted something by the last entry; tokens are its own."""
    found = []
    for effect in cluster.effects:
        if isinstance(effect, LocksGranted):
            for ticket, token in effect.grants:
                assert token == cluster.index
                found.append((effect.session, ticket))
    return found
