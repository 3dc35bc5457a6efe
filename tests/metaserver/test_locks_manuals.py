"""What fcntl(2) and flock(2) say of locks, sentence by sentence: between processes of one client,
and of two."""

import pytest
from tidefs.fs.errors import TABLE, Code
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages.locks import LockKind

from .lockers import EXCLUSIVE, SHARED, Process


@pytest.fixture
def inode(cluster):
    return cluster.file()


@pytest.fixture(params=["one client", "two clients"])
def two(cluster, request):
    """Two processes."""
    first = cluster.session()
    second = first if request.param == "one client" else cluster.session(b"m" * 16)
    return Process(cluster, first, 1), Process(cluster, second, 2)


# --- fcntl(2)


def test_any_number_of_processes_may_hold_a_read_lock(inode, two):
    """Any number of processes may hold a read lock (shared lock) on a file region."""
    one, other = two
    assert one.lock(inode, SHARED, 0, 10) == "held"
    assert other.lock(inode, SHARED, 5, 15) == "held"


def test_only_one_may_hold_a_write_lock(inode, two):
    """Only one process may hold a write lock (exclusive lock), and it excludes all others."""
    one, other = two
    assert one.lock(inode, EXCLUSIVE, 0, 10) == "held"
    assert other.lock(inode, SHARED, 9, 15) == Code.WOULD_BLOCK
    assert other.lock(inode, EXCLUSIVE, 9, 15) == Code.WOULD_BLOCK
    assert other.lock(inode, EXCLUSIVE, 10, 15) == "held"


def test_a_conflict_without_waiting_is_eagain(cluster, inode, two):
    """If a conflicting lock is held by another process, this call returns -1 (EACCES or EAGAIN)."""
    one, other = two
    one.lock(inode, EXCLUSIVE, 0, 10)
    before = cluster.everything()
    assert TABLE[other.lock(inode, SHARED, 0, 1)].errno == 11
    assert cluster.everything() == before


def test_one_process_holds_one_type_of_lock_on_a_byte(inode, two):
    """A single process can hold only one type of lock on a file region; if a new lock is applied to
    an already-locked region, then the existing lock is converted to the new lock type."""
    one, other = two
    one.lock(inode, EXCLUSIVE, 0, 10)
    one.lock(inode, SHARED, 0, 10)
    assert one.held(inode) == [(SHARED, 0, 10)]
    assert other.lock(inode, SHARED, 0, 10) == "held"


def test_a_conversion_may_split_an_existing_lock(inode, two):
    """Such conversions may involve splitting, shrinking, or coalescing with an existing lock if the
    byte range specified by the new lock does not precisely coincide with the range of the existing
    lock."""
    one, _ = two
    one.lock(inode, EXCLUSIVE, 0, 30)
    one.lock(inode, SHARED, 10, 20)
    assert one.held(inode) == [(EXCLUSIVE, 0, 10), (SHARED, 10, 20), (EXCLUSIVE, 20, 30)]


def test_a_conversion_may_shrink_an_existing_lock(inode, two):
    one, _ = two
    one.lock(inode, EXCLUSIVE, 0, 10)
    one.lock(inode, SHARED, 5, 15)
    assert one.held(inode) == [(EXCLUSIVE, 0, 5), (SHARED, 5, 15)]


def test_a_conversion_may_coalesce_with_an_existing_lock(inode, two):
    one, other = two
    one.lock(inode, EXCLUSIVE, 0, 10)
    one.lock(inode, EXCLUSIVE, 20, 30)
    one.lock(inode, EXCLUSIVE, 10, 20)
    assert one.held(inode) == [(EXCLUSIVE, 0, 30)]
    assert other.test(inode, SHARED, 25, 26) == (EXCLUSIVE, 0, 30, 41)


def test_an_unlock_in_the_middle_leaves_both_ends(inode, two):
    one, other = two
    one.lock(inode, EXCLUSIVE, 0, 30)
    one.unlock(inode, 10, 20)
    assert one.held(inode) == [(EXCLUSIVE, 0, 10), (EXCLUSIVE, 20, 30)]
    assert other.lock(inode, EXCLUSIVE, 10, 20) == "held"


def test_zero_length_means_to_the_end_however_large_the_file_grows(inode, two):
    """Specifying 0 for l_len has the special meaning: lock all bytes starting at the location
    specified through to the end of file, no matter how large the file grows."""
    one, other = two
    assert one.lock(inode, EXCLUSIVE, 100, LOCK_END) == "held"
    assert other.lock(inode, SHARED, 1 << 60, (1 << 60) + 1) == Code.WOULD_BLOCK
    assert other.lock(inode, SHARED, 0, 100) == "held"


def test_bytes_behind_the_end_of_the_file_can_be_locked(inode, two):
    """Bytes past the end of the file can be locked."""
    one, _ = two
    assert one.lock(inode, EXCLUSIVE, 1 << 50, (1 << 50) + 1) == "held"


@pytest.mark.parametrize(
    ("start", "end"), [(-1, 5), (5, 5), (6, 5), (0, LOCK_END + 1), (LOCK_END, LOCK_END)]
)
def test_no_bytes_before_the_start_of_the_file(cluster, inode, two, start, end):
    """But not bytes before the start of the file. (And a range has a byte.)"""
    one, _ = two
    before = cluster.everything()
    assert one.lock(inode, EXCLUSIVE, start, end) == Code.INVALID
    assert cluster.everything() == before


def test_getlk_places_no_lock_and_says_that_it_could(cluster, inode, two):
    """If the lock could be placed, F_GETLK does not actually place it, but returns F_UNLCK."""
    one, other = two
    before = cluster.everything()
    assert one.test(inode, EXCLUSIVE) is None
    assert cluster.everything() == before
    one.lock(inode, SHARED, 0, 10)
    assert other.test(inode, SHARED, 0, 10) is None
    assert one.test(inode, EXCLUSIVE) is None, "its own is not in its way"


def test_getlk_describes_one_of_those_that_prevent_it(inode, two):
    """If one or more incompatible locks would prevent this lock being placed, then fcntl() returns
    details about one of those locks in l_type, l_whence, l_start, and l_len, and sets l_pid to be
    the PID of the process holding that lock."""
    one, other = two
    one.lock(inode, SHARED, 20, 30)
    one.lock(inode, EXCLUSIVE, 5, 10)
    assert other.test(inode, EXCLUSIVE) == (EXCLUSIVE, 5, 10, 41), "the first"
    assert other.test(inode, EXCLUSIVE, 10) == (SHARED, 20, 30, 41)


def test_getlk_shows_neighbours_of_one_mode_as_one(inode, two):
    one, other = two
    other.lock(inode, SHARED, 5, 10)
    one.lock(inode, EXCLUSIVE, 0, 5)
    ticket = one.lock(inode, EXCLUSIVE, 5, 10, wait=True)
    assert other.unlock(inode) == [(one.session, ticket)]
    assert other.test(inode, SHARED, 2, 3) == (EXCLUSIVE, 0, 10, 41)


def test_setlkw_waits_for_that_lock_to_be_released(inode, two):
    """As for F_SETLK, but if a conflicting lock is held on the file, then wait for that lock to be
    released."""
    one, other = two
    one.lock(inode, EXCLUSIVE, 0, 10)
    ticket = other.lock(inode, SHARED, 5, 6, wait=True)
    assert isinstance(ticket, int)
    assert other.held(inode) == []
    assert other.standing().waiting == [ticket]
    assert one.unlock(inode, 0, 5) == []
    assert one.unlock(inode, 5, 6) == [(other.session, ticket)]
    assert other.held(inode) == [(SHARED, 5, 6)]
    assert other.standing().waiting == []


def test_a_signal_interrupts_the_wait(inode, two):
    """If a signal is caught while waiting, then the call is interrupted (EINTR)."""
    one, other = two
    one.lock(inode, EXCLUSIVE)
    ticket = other.lock(inode, EXCLUSIVE, wait=True)
    answer = other.withdraw(inode, ticket)
    assert (answer.token, answer.ticket) == (0, 0)
    assert one.unlock(inode) == []
    assert other.held(inode) == []


def test_a_downgrade_lets_readers_in(inode, two):
    one, other = two
    one.lock(inode, EXCLUSIVE)
    ticket = other.lock(inode, SHARED, wait=True)
    assert one.lock(inode, SHARED) == "held"
    assert other.held(inode) == [(SHARED, 0, LOCK_END)]
    assert other.standing().waiting == []
    assert ticket


def test_an_upgrade_keeps_the_read_lock_until_it_is_granted(cluster, inode, two):
    one, other = two
    third = Process(cluster, one.session, 3)
    one.lock(inode, SHARED)
    other.lock(inode, SHARED)
    ticket = one.lock(inode, EXCLUSIVE, wait=True)
    assert third.lock(inode, EXCLUSIVE) == Code.WOULD_BLOCK
    assert one.held(inode) == [(SHARED, 0, LOCK_END)]
    assert other.unlock(inode) == [(one.session, ticket)]
    assert one.held(inode) == [(EXCLUSIVE, 0, LOCK_END)]


def test_a_refused_upgrade_keeps_the_read_lock(inode, two):
    one, other = two
    one.lock(inode, SHARED)
    other.lock(inode, SHARED)
    assert one.lock(inode, EXCLUSIVE) == Code.WOULD_BLOCK
    assert one.held(inode) == [(SHARED, 0, LOCK_END)]


def test_a_deadlock_is_edeadlk(inode, two):
    """EDEADLK: it was detected that the specified F_SETLKW command would cause a deadlock."""
    one, other = two
    one.lock(inode, EXCLUSIVE, 0, 1)
    other.lock(inode, EXCLUSIVE, 1, 2)
    assert isinstance(one.lock(inode, EXCLUSIVE, 1, 2, wait=True), int)
    assert TABLE[other.lock(inode, EXCLUSIVE, 0, 1, wait=True)].errno == 35
    assert other.held(inode) == [(EXCLUSIVE, 1, 2)], "and its own lock is as it was"


def test_two_that_both_upgrade_are_a_deadlock(inode, two):
    one, other = two
    one.lock(inode, SHARED)
    other.lock(inode, SHARED)
    assert isinstance(one.lock(inode, EXCLUSIVE, wait=True), int)
    assert other.lock(inode, EXCLUSIVE, wait=True) == Code.DEADLOCK


def test_too_many_locks_are_enolck():
    """ENOLCK: too many segment locks open, lock table is full."""
    assert TABLE[Code.NO_LOCKS].errno == 37


def test_unlocking_what_is_not_locked_is_no_error(cluster, inode, two):
    one, _ = two
    before = cluster.everything()
    assert one.unlock(inode, 3, 4) == []
    assert cluster.everything() == before


def test_the_two_kinds_do_not_see_each_other(inode, two):
    """flock(2): there is no interaction between the types of lock placed by flock() and fcntl()."""
    one, other = two
    assert one.lock(inode, EXCLUSIVE) == "held"
    assert other.flock(inode, EXCLUSIVE) == "held"
    assert other.lock(inode, EXCLUSIVE, kind=LockKind.APPEND) == "held"


# --- flock(2)


def test_more_than_one_may_hold_a_shared_flock(inode, two):
    """LOCK_SH: more than one process may hold a shared lock for a given file at a given time."""
    one, other = two
    assert one.flock(inode, SHARED) == "held"
    assert other.flock(inode, SHARED) == "held"


def test_only_one_may_hold_an_exclusive_flock(inode, two):
    """LOCK_EX: only one process may hold an exclusive lock for a given file at a given time."""
    one, other = two
    assert one.flock(inode, EXCLUSIVE) == "held"
    assert other.flock(inode, EXCLUSIVE) == Code.WOULD_BLOCK
    assert other.flock(inode, SHARED) == Code.WOULD_BLOCK


def test_flock_blocks_if_an_incompatible_lock_is_held(inode, two):
    """A call to flock() may block if an incompatible lock is held by another process."""
    one, other = two
    one.flock(inode, SHARED)
    ticket = other.flock(inode, EXCLUSIVE, wait=True)
    assert one.funlock(inode) == [(other.session, ticket)]
    assert other.held(inode, kind=LockKind.WHOLE) == [(EXCLUSIVE, 0, LOCK_END)]


def test_a_subsequent_flock_converts_the_lock(inode, two):
    """Subsequent flock() calls on an already locked file will convert an existing lock to the new
    lock mode."""
    one, other = two
    one.flock(inode, SHARED)
    assert one.flock(inode, EXCLUSIVE) == "held"
    assert other.flock(inode, SHARED) == Code.WOULD_BLOCK
    assert one.flock(inode, SHARED) == "held"
    assert other.flock(inode, SHARED) == "held"


def test_a_conversion_is_not_atomic_a_pending_request_may_be_granted(inode, two):
    """The existing lock is first removed, and then a new lock is established. Between these two
    steps, a pending lock request by another process may be granted, with the result that the
    conversion either blocks, or fails if LOCK_NB was specified."""
    one, other = two
    one.flock(inode, SHARED)
    first = other.flock(inode, EXCLUSIVE, wait=True)
    second = one.flock(inode, EXCLUSIVE, wait=True)
    assert second > first
    assert other.held(inode, kind=LockKind.WHOLE) == [(EXCLUSIVE, 0, LOCK_END)]
    assert one.held(inode, kind=LockKind.WHOLE) == []
    assert other.funlock(inode) == [(one.session, second)]


def test_a_conversion_that_fails_has_lost_the_lock(inode, two):
    """... (This is the original BSD behavior, and occurs on many other implementations.)"""
    one, other = two
    one.flock(inode, SHARED)
    other.flock(inode, SHARED)
    assert one.flock(inode, EXCLUSIVE) == Code.WOULD_BLOCK
    assert one.held(inode, kind=LockKind.WHOLE) == []
    assert other.flock(inode, EXCLUSIVE) == "held", "so two that try are not in each other's way"


def test_two_that_convert_and_wait_are_no_deadlock(inode, two):
    one, other = two
    one.flock(inode, SHARED)
    other.flock(inode, SHARED)
    first = one.flock(inode, EXCLUSIVE, wait=True)
    assert other.flock(inode, EXCLUSIVE, wait=True) > first
    assert one.held(inode, kind=LockKind.WHOLE) == [(EXCLUSIVE, 0, LOCK_END)]


def test_a_flock_is_of_the_whole_file(inode, two):
    one, _ = two
    assert one.lock(inode, SHARED, 0, 10, kind=LockKind.WHOLE) == Code.INVALID


def test_a_shared_or_exclusive_flock_whatever_the_file_is(cluster, two):
    """(flock works on an open file of any type.)"""
    one, other = two
    directory = cluster.directory()
    assert one.flock(directory, EXCLUSIVE) == "held"
    assert other.flock(directory, SHARED) == Code.WOULD_BLOCK


def test_flock_detects_no_deadlock(cluster, inode, two):
    """flock() does not detect deadlock (the BSD locks are of open files, not of processes)."""
    one, other = two
    second = cluster.file(b"second")
    one.flock(inode, EXCLUSIVE)
    other.flock(second, EXCLUSIVE)
    assert isinstance(one.flock(second, EXCLUSIVE, wait=True), int)
    assert isinstance(other.flock(inode, EXCLUSIVE, wait=True), int)
