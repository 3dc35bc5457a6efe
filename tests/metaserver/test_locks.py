"""Locks in the state beyond the manuals: order, circles, sessions that end, tokens, limits."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages.locks import LockKind, SetLock, Unlock
from tidefs.fs.messages.meta import Unlink
from tidefs.metaserver import check_locks
from tidefs.metaserver.check import check
from tidefs.metaserver.effects import LocksGranted, SessionEnded
from tidefs.metaserver.entries import EndSession, Reap
from tidefs.metaserver.locks_order import NEWEST
from tidefs.metaserver.locks_views import list_locks, session_locks
from tidefs.metaserver.operations import lock as operations

from .lockers import EXCLUSIVE, SHARED, Process, granted


@pytest.fixture
def inode(cluster):
    return cluster.file()


@pytest.fixture
def processes(cluster):
    """Five, on machines of their own."""
    return [Process(cluster, cluster.session(b"%016d" % number), number) for number in range(1, 6)]


# --- fair order


def test_first_come_first_served(inode, processes):
    one, *others = processes
    one.lock(inode, EXCLUSIVE)
    tickets = [process.lock(inode, EXCLUSIVE, wait=True) for process in others]
    for holder, (waiting, ticket) in zip(
        processes, zip(others, tickets, strict=True), strict=False
    ):
        assert holder.unlock(inode) == [(waiting.session, ticket)]


def test_a_later_reader_does_not_overtake_a_writer_that_waits(inode, processes):
    reader, writer, late, _, _ = processes
    reader.lock(inode, SHARED)
    ticket = writer.lock(inode, EXCLUSIVE, wait=True)
    behind = late.lock(inode, SHARED, wait=True)
    assert isinstance(behind, int)
    assert reader.unlock(inode) == [(writer.session, ticket)]
    assert writer.unlock(inode) == [(late.session, behind)]


def test_readers_that_come_and_go_do_not_starve_a_writer(inode, processes):
    one, two, writer, _, _ = processes
    one.lock(inode, SHARED)
    ticket = writer.lock(inode, EXCLUSIVE, wait=True)
    waiting = two.lock(inode, SHARED, wait=True)
    told = one.unlock(inode)
    again = one.lock(inode, SHARED, wait=True)
    assert told == [(writer.session, ticket)]
    assert writer.unlock(inode) == [(two.session, waiting), (one.session, again)]


def test_who_does_not_wait_gets_what_nobody_holds(inode, processes):
    """As on a local disk: F_SETLK fails only for a lock that is held."""
    reader, writer, hasty, _, _ = processes
    reader.lock(inode, SHARED)
    writer.lock(inode, EXCLUSIVE, wait=True)
    assert hasty.lock(inode, SHARED) == "held"


def test_who_is_in_nobodys_way_does_not_queue(inode, processes):
    one, two, three, _, _ = processes
    one.lock(inode, EXCLUSIVE, 0, 10)
    two.lock(inode, EXCLUSIVE, 5, 20, wait=True)
    assert three.lock(inode, EXCLUSIVE, 20, 30, wait=True) == "held"


def test_all_readers_that_wait_are_let_in_at_once(inode, processes):
    writer, *readers = processes
    writer.lock(inode, EXCLUSIVE)
    tickets = [reader.lock(inode, SHARED, wait=True) for reader in readers]
    wanted = [(one.session, ticket) for one, ticket in zip(readers, tickets, strict=True)]
    assert writer.unlock(inode) == wanted


def test_who_gives_up_waiting_lets_others_past(inode, processes):
    reader, writer, late, _, _ = processes
    reader.lock(inode, SHARED)
    ticket = writer.lock(inode, EXCLUSIVE, wait=True)
    behind = late.lock(inode, SHARED, wait=True)
    writer.withdraw(inode, ticket)
    assert granted(reader.cluster) == [(late.session, behind)]


def test_nobody_queues_behind_who_waits_for_him(inode, processes):
    """Else a holder who extends its lock would wait for ever."""
    one, two, _, _, _ = processes
    one.lock(inode, SHARED, 0, 10)
    two.lock(inode, EXCLUSIVE, 0, 20, wait=True)
    assert one.lock(inode, SHARED, 0, 20, wait=True) == "held"


def test_nobody_queues_behind_who_waits_for_him_over_others(cluster, inode, processes):
    """The third one waits behind the second, who waits for the first. When the first waits for the
    third, that would be a circle, though nobody holds what the third wants."""
    one, two, three, _, _ = processes
    other = cluster.file(b"other")
    one.lock(inode, SHARED)
    three.lock(other, EXCLUSIVE)
    two.lock(inode, EXCLUSIVE, wait=True)
    ticket = three.lock(inode, SHARED, wait=True)
    assert isinstance(ticket, int)
    assert isinstance(one.lock(other, EXCLUSIVE, wait=True), int)
    assert granted(cluster) == [(three.session, ticket)]


def test_a_grant_to_who_waits_elsewhere_may_let_others_past(cluster, inode, processes):
    """The third queues behind the second. By what the fourth gets, the second waits for the fourth,
    which waits, in another thread, for the third."""
    one, two, three, four, _ = processes
    other = cluster.file(b"other")
    one.lock(inode, SHARED)
    two.lock(inode, EXCLUSIVE, wait=True)
    three.lock(other, EXCLUSIVE)
    ticket = three.lock(inode, SHARED, wait=True)
    four.lock(other, EXCLUSIVE, wait=True)
    assert four.lock(inode, SHARED) == "held"
    assert granted(cluster) == [(three.session, ticket)]


def test_a_grant_that_gives_up_something_stronger_lets_older_ones_in(inode, processes):
    one, two, three, _, _ = processes
    one.lock(inode, EXCLUSIVE, 0, 10)
    two.lock(inode, EXCLUSIVE, 10, 20)
    old = three.lock(inode, SHARED, 0, 5, wait=True)
    young = one.lock(inode, SHARED, 0, 20, wait=True)
    assert two.unlock(inode) == [(one.session, young), (three.session, old)]


# --- circles


def test_a_circle_over_files_and_clients(cluster, processes):
    files = [cluster.file(b"%d" % number) for number in range(5)]
    for process, file in zip(processes, files, strict=True):
        assert process.lock(file, EXCLUSIVE) == "held"
    for process, file in zip(processes[:-1], files[1:], strict=True):
        assert isinstance(process.lock(file, EXCLUSIVE, wait=True), int)
    assert processes[-1].lock(files[0], EXCLUSIVE, wait=True) == Code.DEADLOCK
    assert processes[-1].lock(files[0], EXCLUSIVE) == Code.WOULD_BLOCK, "who does not wait has none"


def test_who_waits_no_longer_closes_no_circle(cluster, inode, processes):
    one, two, _, _, _ = processes
    other = cluster.file(b"other")
    one.lock(inode, EXCLUSIVE)
    two.lock(other, EXCLUSIVE)
    ticket = one.lock(other, EXCLUSIVE, wait=True)
    assert two.lock(inode, EXCLUSIVE, wait=True) == Code.DEADLOCK
    one.withdraw(other, ticket)
    assert isinstance(two.lock(inode, EXCLUSIVE, wait=True), int)


def test_a_long_chain_is_no_circle(cluster, processes):
    files = [cluster.file(b"%d" % number) for number in range(6)]
    for process, file in zip(processes, files, strict=False):
        process.lock(file, EXCLUSIVE)
    for process, file in zip(reversed(processes), reversed(files[1:]), strict=True):
        assert process.lock(file, EXCLUSIVE, wait=True) != Code.DEADLOCK


def test_any_of_the_threads_of_an_owner_can_close_a_circle(cluster, inode, processes):
    one, two, three, _, _ = processes
    other, third = cluster.file(b"other"), cluster.file(b"third")
    one.lock(inode, EXCLUSIVE)
    two.lock(other, EXCLUSIVE)
    three.lock(third, EXCLUSIVE)
    one.lock(third, EXCLUSIVE, wait=True)
    one.lock(other, EXCLUSIVE, wait=True)
    assert two.lock(inode, EXCLUSIVE, wait=True) == Code.DEADLOCK
    assert three.lock(inode, EXCLUSIVE, wait=True) == Code.DEADLOCK


# --- sessions and files that end


@pytest.mark.parametrize("expired", [False, True])
def test_all_of_a_session_goes_in_one_entry_and_others_are_granted(
    cluster, inode, processes, expired
):
    one, two, three, _, _ = processes
    other = cluster.file(b"other")
    one.lock(inode, EXCLUSIVE)
    three.flock(other, EXCLUSIVE)
    one.flock(other, EXCLUSIVE, wait=True)
    ticket = two.lock(inode, SHARED, wait=True)
    cluster.do(EndSession(one.session, expired))
    ended, told = cluster.effects
    assert ended == SessionEnded(one.session, expired)
    assert told == LocksGranted(two.session, [(ticket, cluster.index)])
    assert {lock.session for lock in list_locks(cluster.state.tables, 0, 0, 100).locks} == {
        two.session,
        three.session,
    }
    with pytest.raises(TideError) as caught:
        session_locks(cluster.state.tables, one.session)
    assert caught.value.code is Code.SESSION_EXPIRED


@pytest.mark.parametrize("next_one", [EXCLUSIVE, SHARED])
def test_after_an_exclusive_lock_expired_the_next_one_says_so(cluster, inode, processes, next_one):
    """Also one that only reads: under it nothing may change any more."""
    one, two, three, four, _ = processes
    one.lock(inode, EXCLUSIVE, 0, 10)
    two.lock(inode, SHARED, 50, 60)
    ticket = three.lock(inode, EXCLUSIVE, 50, 60, wait=True)
    cluster.do(EndSession(one.session, True))
    two.unlock(inode)
    answer = three.withdraw(inode, ticket)
    assert answer.token == cluster.index - 1
    assert answer.after_loss
    three.lock(inode, EXCLUSIVE, 50, 60)
    assert three.answer.after_loss, "a repetition is told so too"
    four.flock(inode, next_one)
    assert not four.answer.after_loss, "it was told once"
    cluster.do(EndSession(three.session, True))
    one, two = four, processes[4]
    two.lock(inode, next_one, 70, 80)
    assert two.answer.after_loss
    cluster.do(EndSession(two.session, True))
    one.lock(inode, next_one, 70, 80)
    assert one.answer.after_loss, "who was told did not live to see to it, perhaps"


@pytest.mark.parametrize(("exclusive", "expired"), [(EXCLUSIVE, False), (SHARED, True)])
def test_no_loss(cluster, inode, processes, exclusive, expired):
    one, two, _, _, _ = processes
    one.lock(inode, exclusive)
    cluster.do(EndSession(one.session, expired))
    two.lock(inode, EXCLUSIVE)
    assert not two.answer.after_loss


def test_who_fences_and_expires_leaves_it_to_the_next(cluster, inode, processes):
    one, two, three, _, _ = processes
    one.lock(inode, EXCLUSIVE)
    cluster.do(EndSession(one.session, True))
    two.lock(inode, EXCLUSIVE)
    cluster.do(EndSession(two.session, True))
    three.lock(inode, EXCLUSIVE)
    assert three.answer.after_loss


def test_an_open_file_without_a_name_can_be_locked_until_it_is_reaped(cluster, inode, processes):
    one, two, _, _, _ = processes
    cluster.do(Unlink(1, b"file"))
    assert one.lock(inode, EXCLUSIVE) == "held"
    ticket = two.lock(inode, EXCLUSIVE, wait=True)
    cluster.do(Reap([inode]))
    assert list_locks(cluster.state.tables, 0, 0, 10).locks == []
    assert two.standing().waiting == []
    assert two.withdraw(inode, ticket).code is Code.STALE_HANDLE
    assert two.lock(inode, SHARED) == Code.STALE_HANDLE
    assert one.unlock(inode) == [], "never fails for a file that is gone"
    assert check(cluster.state) == []


# --- tokens and tickets


def test_tokens_rise_with_the_log(cluster, inode, processes):
    one, two, _, _, _ = processes
    one.lock(inode, EXCLUSIVE)
    assert one.answer.token == cluster.index
    first = one.answer.token
    one.unlock(inode)
    two.lock(inode, EXCLUSIVE)
    assert two.answer.token == cluster.index > first
    assert two.standing().tokens == [(inode, cluster.index)]


def test_what_is_held_already_keeps_its_token(cluster, inode, processes):
    one = processes[0]
    one.lock(inode, EXCLUSIVE, 0, 10)
    token = one.answer.token
    before = cluster.everything()
    one.lock(inode, EXCLUSIVE, 2, 8)
    assert one.answer.token == token
    assert cluster.everything() == before


def test_a_session_is_told_the_highest_token_on_each_inode(cluster, inode, processes):
    one = processes[0]
    other = cluster.file(b"other")
    one.lock(inode, SHARED, 0, 1)
    one.lock(other, EXCLUSIVE)
    second = one.answer.token
    one.flock(inode, EXCLUSIVE)
    assert one.standing().tokens == [(inode, one.answer.token), (other, second)]


def test_a_withdrawal_that_comes_too_late_says_what_is_held(cluster, inode, processes):
    one, two, _, _, _ = processes
    one.lock(inode, EXCLUSIVE)
    two.lock(inode, SHARED, 20, 30, wait=True)
    ticket = two.lock(inode, EXCLUSIVE, 0, 10, wait=True)
    one.unlock(inode)
    token = cluster.index
    two.unlock(inode, 2, 4)
    answer = two.withdraw(inode, ticket)
    assert (answer.token, answer.ticket) == (token, 0)
    assert two.held(inode) == [(EXCLUSIVE, 0, 2), (EXCLUSIVE, 4, 10), (SHARED, 20, 30)]
    two.unlock(inode, 0, 10)
    assert two.withdraw(inode, ticket).token == 0, "it was given back meanwhile"


def test_each_ticket_is_answered_though_the_locks_are_side_by_side(inode, processes):
    one, two, _, _, _ = processes
    one.lock(inode, EXCLUSIVE)
    tickets = [two.lock(inode, EXCLUSIVE, at, at + 10, wait=True) for at in (0, 10)]
    one.unlock(inode)
    token = two.cluster.index
    assert [two.withdraw(inode, ticket).token for ticket in tickets] == [token, token]


def test_a_ticket_of_somebody_else_is_none(cluster, inode, processes):
    one, two, three, _, _ = processes
    one.lock(inode, EXCLUSIVE)
    ticket = two.lock(inode, EXCLUSIVE, wait=True)
    for number in (ticket, 0, -1, (1 << 64) - 1):
        assert three.withdraw(inode, number).token == 0
    assert two.standing().waiting == [ticket]


# --- what cannot be


def test_what_cannot_be_is_said_in_words(cluster, inode, processes):
    one = processes[0]
    directory = cluster.directory()
    for request, code in [
        (SetLock(directory, LockKind.APPEND, 1, True, 0, LOCK_END, False, 1), Code.IS_A_DIRECTORY),
        (SetLock(inode, LockKind.APPEND, 1, False, 0, LOCK_END, False, 1), Code.INVALID),
        (SetLock(inode, LockKind.RANGE, -1, True, 0, 1, False, 1), Code.INVALID),
        (SetLock(inode, LockKind.RANGE, 1, True, 0, 1, False, -1), Code.INVALID),
        (SetLock(-1, LockKind.RANGE, 1, True, 0, 1, False, 1), Code.STALE_HANDLE),
        (Unlock(inode, LockKind.RANGE, 1, 4, 4), Code.INVALID),
    ]:
        reply = one.apply(request)
        assert reply.code is code, request
        assert str(reply)
    assert one.unlock(1 << 63) == []
    assert cluster.refused(SetLock(inode, LockKind.RANGE, 1, True, 0, 1, False, 1)) is Code.INVALID


def test_a_kind_that_is_none(cluster, inode, processes):
    one = processes[0]
    request = SetLock(inode, 9, 1, True, 0, LOCK_END, False, 1)
    assert one.ask(request) is Code.MALFORMED


def test_limits(monkeypatch, cluster, inode, processes):
    monkeypatch.setattr(operations, "LOCKS_PER_INODE_MAX", 3)
    monkeypatch.setattr(operations, "LOCK_WAITS_PER_INODE_MAX", 1)
    monkeypatch.setattr(operations, "LOCKS_PER_SESSION_MAX", 4)
    one, two, three, _, _ = processes
    assert one.lock(inode, EXCLUSIVE, 0, 10) == "held"
    one.lock(inode, EXCLUSIVE, 20, 30)
    assert one.lock(inode, SHARED, 4, 6) == Code.NO_LOCKS, "it would be four"
    one.lock(inode, EXCLUSIVE, 40, 50)
    assert one.lock(inode, EXCLUSIVE, 60, 70) == Code.NO_LOCKS
    assert one.lock(inode, SHARED, 40, 50) == "held", "it is not one more"
    reply = one.apply(Unlock(inode, LockKind.RANGE, 1, 3, 4))
    assert reply.code is Code.NO_LOCKS
    assert "give some back first" in str(reply)
    assert isinstance(two.lock(inode, EXCLUSIVE, wait=True), int)
    assert three.lock(inode, EXCLUSIVE, wait=True) == Code.NO_LOCKS
    assert one.flock(inode, EXCLUSIVE) == "held"
    assert one.flock(cluster.file(b"other"), EXCLUSIVE) == Code.NO_LOCKS
    one.unlock(inode, 20, 30)
    assert one.flock(cluster.state.lookup(1, b"other").attributes.inode, EXCLUSIVE) == "held"


# --- lists


def test_lists_are_of_whole_inodes_held_by_start_then_waiting_in_order(cluster, processes):
    one, two, three, _, _ = processes
    files = [cluster.file(b"%d" % number) for number in range(3)]
    for file in files:
        one.lock(file, EXCLUSIVE, 10, 20)
        two.flock(file, SHARED)
        second = three.lock(file, EXCLUSIVE, 0, 30, wait=True)
        third = two.lock(file, SHARED, 5, 15, wait=True)
    tables = cluster.state.tables
    of_one = list_locks(tables, files[2], 0, 1)
    assert of_one.end
    shown = [(lock.kind, lock.start, bool(lock.token), lock.ticket) for lock in of_one.locks]
    assert shown == [
        (LockKind.WHOLE, 0, True, 0),
        (LockKind.RANGE, 10, True, 0),
        (LockKind.RANGE, 0, False, second),
        (LockKind.RANGE, 5, False, third),
    ]
    assert of_one.locks[1].host == "host"
    assert of_one.locks[1].pid == 41
    after, found = 0, []
    while True:
        piece = list_locks(tables, 0, after, 5)
        found.append([lock.inode for lock in piece.locks])
        if piece.end:
            break
        after = piece.locks[-1].inode
    assert found == [[file] * 4 for file in files]
    with pytest.raises(TideError):
        list_locks(tables, 999, 0, 10)
    with pytest.raises(TideError):
        list_locks(tables, 0, -1, 10)


# --- what the check sees


@pytest.fixture
def tables(cluster, inode, processes):
    """Somebody holds, somebody waits; what is broken is mended afterwards."""
    one, two, _, _, _ = processes
    one.lock(inode, EXCLUSIVE, 0, 10)
    two.lock(inode, EXCLUSIVE, 5, 15, wait=True)
    before = [*cluster.state.tables.kv.scan(b"")]
    yield cluster.state.tables
    kv = cluster.state.tables.kv
    for key, _ in [*kv.scan(b"")]:
        kv.delete(key)
    for key, value in before:
        kv.put(key, value)


def findings(tables):
    inodes = {inode.number for inode in tables.inodes.all()}
    return " / ".join(check_locks.lock_findings(tables, inodes))


def test_a_lost_wake_up_is_found(tables, inode, processes):
    (held,) = tables.locks.held(inode, LockKind.RANGE)
    tables.locks.change([held], [])
    assert "nothing is in its way, and it still waits" in findings(tables)
    tables.locks.change([], [held])


def test_a_lock_of_the_dead_is_found(tables, inode, processes):
    (held,) = tables.locks.held(inode, LockKind.RANGE)
    for stray in (held._replace(session=77), held._replace(inode=77)):
        tables.locks.change([], [stray])
        assert "is gone" in findings(tables) or "is over" in findings(tables)
        tables.locks.change([stray], [])
    assert findings(tables) == ""


def test_two_that_exclude_each_other_are_found(tables, inode, processes):
    (held,) = tables.locks.held(inode, LockKind.RANGE)
    for stray in (
        held._replace(session=processes[2].session, start=3),
        held._replace(start=3),
        held._replace(start=12, end=12),
        held._replace(start=12, end=13, token=NEWEST - 1),
    ):
        tables.locks.change([], [stray])
        assert findings(tables)
        tables.locks.change([stray], [])
    assert findings(tables) == ""


def test_an_index_that_does_not_agree_is_found(tables, inode, processes):
    key, value = next(tables.kv.scan(b"k"))
    tables.kv.delete(key)
    assert "locks by" in findings(tables)
    tables.kv.put(key, value)
    tables.totals.locks_held += 1
    assert "the totals of locks" in findings(tables)
    tables.totals.locks_held -= 1
    tables.locks.set_lost(99, True)
    assert "an exclusive lock expired on inode 99" in findings(tables)
    tables.locks.set_lost(99, False)
