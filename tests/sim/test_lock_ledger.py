"""What a lock table did wrong is noticed, whatever made it do that."""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from tidefs.fs.attributes import Attributes
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages.locks import LockAnswer, LockKind, SetLock, Unlock
from tidefs.metaserver.effects import LocksGranted
from tidefs.metaserver.entries import EndSession
from tidefs.tests.sim import determinism
from tidefs.tests.sim.conditions import ViolationError
from tidefs.tests.sim.lock_book import Belief, Book, Client
from tidefs.tests.sim.lock_ledger import Ledger, Owner, Range
from tidefs.tests.sim.lock_watch import LockWatch
from tidefs.tests.sim.trace import Trace

A, B, C = (Owner(LockKind.RANGE, session, 1) for session in (1, 2, 3))
ATTRIBUTES: Attributes = None  # type: ignore[assignment]


def lock(who, start=0, end=LOCK_END, *, exclusive=True, inode=7):
    return Range(who, inode, exclusive, start, end)


def told(*steps):
    """The first thing that is wrong. Steps: (name, arguments)."""
    ledger = Ledger()
    for name, *arguments in steps:
        for wrong in (*(getattr(ledger, name)(*arguments) or ()), *ledger.findings()):
            return wrong
    return None


def test_who_takes_turns_is_right():
    assert not told(
        ("granted", 1, lock(A), 1),
        ("queued", 2, lock(B), 2),
        ("queued", 3, lock(C, exclusive=False), 3),
        ("unlocked", lock(A, 0, 10)),
        ("unlocked", lock(B)),
    )


def test_shared_and_neighbours_are_no_conflict():
    assert not told(
        ("granted", 1, lock(A, 0, 10, exclusive=False), 1),
        ("granted", 2, lock(B, 5, 15, exclusive=False), 2),
        ("granted", 3, lock(C, 15, 16), 3),
        ("granted", 4, lock(A, 0, 16, exclusive=False, inode=8), 4),
    )


def test_two_at_once():
    assert "though" in told(("granted", 1, lock(A, 0, 10), 1), ("granted", 2, lock(B, 9, 10), 2))


def test_a_token_that_is_not_its_own():
    assert "token 1" in told(("granted", 2, lock(A), 1))
    assert not told(("granted", 1, lock(A), 1), ("granted", 2, lock(A, 3, 4), 1))


def test_who_came_later_is_served_first():
    held, first, second = lock(A), lock(B), lock(C)
    steps = [("granted", 1, held, 1), ("queued", 2, first, 2), ("queued", 3, second, 3)]
    ledger = Ledger()
    for name, *arguments in steps:
        assert not list(getattr(ledger, name)(*arguments))
    ledger.unlocked(held)
    assert "served before" in next(ledger.served(4, C.session, 3, 4))


def test_who_waits_for_him_may_be_overtaken():
    """B waits for A's lock, and A for more of the file: A cannot wait behind B."""
    ledger = Ledger()
    assert not list(ledger.granted(1, lock(A, 0, 10), 1))
    assert not list(ledger.queued(2, lock(B, 0, 20), 2))
    assert not list(ledger.granted_at_once(3, lock(A, 0, 20), 3))


def test_who_waits_for_nothing():
    assert "nothing is in its way" in told(
        ("granted", 1, lock(A), 1), ("queued", 2, lock(B), 2), ("unlocked", lock(A))
    )
    assert "nothing is in its way" in told(
        ("granted", 1, lock(A), 1), ("queued", 2, lock(B), 2), ("ended", A.session)
    )


def test_who_waits_in_a_circle():
    assert "deadlock" in told(
        ("granted", 1, lock(A, 0, 1), 1),
        ("granted", 2, lock(B, 1, 2), 2),
        ("queued", 3, lock(A, 1, 2), 3),
        ("queued", 4, lock(B, 0, 1), 4),
    )


def test_a_circle_of_three_would_be_closed():
    ledger = Ledger()
    for index, who in enumerate((A, B, C)):
        assert not list(ledger.granted(index, lock(who, index, index + 1), index))
    assert not list(ledger.queued(4, lock(A, 1, 2), 4))
    assert not ledger.closes_circle(lock(C, 1, 2))
    assert not list(ledger.queued(5, lock(B, 2, 3), 5))
    assert ledger.closes_circle(lock(C, 0, 1))


def test_a_ticket_that_nobody_has():
    assert "which is None" in told(("served", 5, 1, 4, 5))


# --- from the log to the ledger ----------------------------------------------------------------


def watch(*entries, compare=None, leases=()):
    """Entries: (session, request, reply, effects); they are numbered from 1."""

    async def main():
        found = LockWatch(Trace())
        with ExitStack() as stack:
            for host, session, left_ns in leases:
                lease = SimpleNamespace(session=session, lease_until_ns=left_ns)
                stack.enter_context(found.connected(host, lease, lambda: 0))
            for index, (session, request, reply, effects) in enumerate(entries, 1):
                found.carried_out(index, session, request, reply, effects)
        if compare is not None:
            found.compare(compare)
        return found

    return determinism.run(main, 1)


def ask(session, *, wait=True, token=0, ticket=0, effects=(), kind=LockKind.WHOLE):
    request = SetLock(7, kind, 1, True, 0, LOCK_END, wait, 1)
    return session, request, LockAnswer(token, ticket, ATTRIBUTES, after_loss=False), effects


def test_entries_are_understood():
    give = (1, Unlock(7, LockKind.WHOLE, 1, 0, LOCK_END), None, [LocksGranted(2, [(2, 3)])])
    second = Range(Owner(LockKind.WHOLE, 2, 1), 7, True, 0, LOCK_END)
    watch(ask(1, token=1), ask(2, ticket=2), give, compare=[second])
    with pytest.raises(ViolationError, match="the state has also"):
        watch(ask(1, token=1), compare=[second])
    with pytest.raises(ViolationError, match="nothing is in its way"):
        watch(ask(1, token=1), ask(2, ticket=2), (*give[:3], []))


def test_a_session_that_ends_while_its_client_may_rely_on_it():
    end = (0, EndSession(5, expired=True), None, [])
    watch(end, leases=[("a", 5, 0), ("b", 6, 1)])
    watch((0, EndSession(5, expired=False), None, []), leases=[("a", 5, 1)])
    with pytest.raises(ViolationError, match=r"session 5 is ended .* before a has to doubt it"):
        watch(end, leases=[("a", 5, 1)])


def test_there_was_a_reason_to_refuse():
    wanted = lock(Owner(LockKind.WHOLE, 2, 1))

    async def main():
        found = LockWatch(Trace())
        with found.asking(wanted) as at_no_time:
            pass
        with found.asking(wanted) as for_a_moment:
            found.carried_out(1, *ask(1, token=1))
            found.carried_out(2, 1, Unlock(7, LockKind.WHOLE, 1, 0, LOCK_END), None, [])
        return at_no_time.blocked, for_a_moment.blocked, for_a_moment.in_circle

    assert determinism.run(main, 1) == (False, True, False)


# --- what clients believe ----------------------------------------------------------------------


def client(session, until_ns):
    return Client(SimpleNamespace(session=session, lease_until_ns=until_ns), lambda: 10)


def test_a_belief_that_counts_must_be_true():
    ledger = Ledger()
    book = Book(ledger)
    assert not list(ledger.granted(1, lock(A), 1))
    book.begin(Belief("a", client(1, 11), lock(A), 1))
    ledger.ended(A.session)
    with pytest.raises(ViolationError, match="no metaserver knows"):
        book.look()


def test_two_that_count_must_agree():
    ledger = Ledger()
    book = Book(ledger)
    assert not list(ledger.granted(1, lock(A), 1))
    book.begin(Belief("a", client(1, 11), lock(A), 1))
    assert list(ledger.granted(2, lock(B), 2))  # and what the metaservers say does not matter
    with pytest.raises(ViolationError, match="at once"):
        book.begin(Belief("b", client(2, 11), lock(B), 2))


@pytest.mark.parametrize("doubtful", [client(1, 10), client(9, 11)], ids=["old", "another"])
def test_who_must_doubt_may_be_wrong(doubtful):
    ledger = Ledger()
    book = Book(ledger)
    assert not list(ledger.granted(1, lock(B), 1))
    book.begin(Belief("a", doubtful, lock(A), 1))
    book.begin(Belief("b", client(2, 11), lock(B), 2))


def test_tokens_rise():
    ledger = Ledger()
    book = Book(ledger)
    assert not list(ledger.granted(1, lock(A), 1))
    book.begin(Belief("a", client(1, 11), lock(A), 5))
    book.end(lock(A))
    ledger.unlocked(lock(A))
    assert not list(ledger.granted(2, lock(B), 2))
    with pytest.raises(ViolationError, match="under the token 5, and before it"):
        book.begin(Belief("b", client(2, 11), lock(B), 5))
