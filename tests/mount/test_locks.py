"""Locks on two real mounts of a real cluster: what flock(2), fcntl(2) and close(2) say.

Only the kernel driver hands locks on (see ``drivers``).
"""

import contextlib
import fcntl
import itertools
import mmap
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tidefs.tests.conftest import LiveCluster, Stage
from tidefs.tests.mount.drivers import needs_fuse

pytestmark = [pytest.mark.mount, needs_fuse]

LOCKER = Path(__file__).with_name("locker.py")
ANSWER_TIMEOUT_S = 60.0
STILL_WAITS_S = 0.3
"""Who has not been answered by then waits: a lock that is free comes in some milliseconds."""
NUMBERS = itertools.count()


class Locker:
    """A process of ``locker.py``, told what to do."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(LOCKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line.strip())

    def tell(self, order: str) -> None:
        """Say what to do; the answer comes later."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """What came of the oldest order without an answer."""
        return self._answers.get(timeout=ANSWER_TIMEOUT_S)

    def ask(self, order: str) -> str:
        """What comes of an order: a value's repr, or ``! NAME`` of an errno."""
        self.tell(order)
        return self.answer().removeprefix("= ")

    def must(self, *orders: str) -> None:
        """Do these; none fails."""
        for order in orders:
            answer = self.ask(order)
            assert not answer.startswith("!"), f"{order}: {answer}"

    def still_waits(self) -> bool:
        """Whether there is no answer yet."""
        try:
            answer = self._answers.get(timeout=STILL_WAITS_S)
        except queue.Empty:
            return True
        raise AssertionError(f"it did not wait: {answer}")

    def signal(self) -> None:
        self.process.send_signal(signal.SIGUSR1)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def kill_and_wait(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    assert select.select([descriptor], [], [], 30)[0]
    os.close(descriptor)


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory, _clean_machine: None) -> Iterator[list[Path]]:
    folder = tmp_path_factory.mktemp("locks")
    stage = Stage(folder)
    cluster = LiveCluster(folder / "cluster")
    cluster.up("--chunkservers", 1, "--replicas", 1)
    yield [cluster.mount(name, "-o", "driver=kernel") for name in ("one", "two")]
    stage.close()


@pytest.fixture
def new_locker() -> Iterator[Callable[[Path], Locker]]:
    """Makes processes that have opened a file."""
    made: list[Locker] = []

    def make(path: Path) -> Locker:
        locker = Locker()
        made.append(locker)
        locker.must(f"open_({str(path)!r})")
        return locker

    yield make
    for locker in made:
        locker.end()


@pytest.fixture
def paths(mounts: list[Path]) -> list[Path]:
    """A new file, as both mounts have it."""
    name = f"file-{next(NUMBERS)}"
    (mounts[0] / name).touch()
    return [mount / name for mount in mounts]


@pytest.fixture
def pair(new_locker: Callable[[Path], Locker], paths: list[Path]) -> tuple[Locker, Locker]:
    """A process on each mount."""
    return new_locker(paths[0]), new_locker(paths[1])


# --- conflicts

RANGES = [  # held, wanted (kind, start, length; 0: to the end), whether they conflict
    (("w", 0, 0), ("w", 0, 0), True),
    (("w", 0, 0), ("r", 5, 1), True),
    (("r", 0, 0), ("r", 0, 0), False),
    (("r", 0, 0), ("w", 1 << 60, 1), True),
    (("w", 0, 10), ("w", 10, 10), False),
    (("w", 0, 10), ("w", 9, 1), True),
    (("w", 10, 10), ("w", 0, 10), False),
    (("w", 10, 10), ("w", 0, 11), True),
    (("w", 10, 10), ("w", 0, 0), True),
    (("w", 10, 10), ("w", 20, 0), False),
    (("w", 10, 10), ("w", 12, 3), True),
    (("w", 12, 3), ("w", 10, 10), True),
    (("r", 12, 3), ("r", 10, 10), False),
    (("w", (1 << 63) - 1, 0), ("w", (1 << 63) - 2, 1), False),
    (("w", (1 << 63) - 1, 0), ("r", (1 << 63) - 1, 1), True),
]


def test_ranges_conflict_across_mounts(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    for held, wanted, conflict in RANGES:
        one.must(f"lock{held}")
        expected = "! EAGAIN" if conflict else "None"
        assert two.ask(f"lock{wanted}") == expected, (held, wanted)
        two.must("lock('u')")
        found = two.ask(f"getlk{wanted}")
        if conflict:
            kind, start, length, pid = eval(found)
            assert (kind, start, length) == held, wanted
            assert pid == one.process.pid, "both mounts are on this machine"
        else:
            assert found == "None", (held, wanted)
        one.must("lock('u')")


def test_locks_are_split_joined_and_converted(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("lock('w', 0, 100)", "lock('u', 40, 20)", "lock('r', 70, 10)")
    free = [two.ask(f"lock('w', {at}, 1)") == "None" for at in range(100)]
    assert [at for at in range(100) if free[at]] == list(range(40, 60))
    assert [at for at in range(100) if two.ask(f"getlk('r', {at}, 1)") == "None"] == [
        *range(40, 60),
        *range(70, 80),
    ]
    assert two.ask("getlk('w', 0, 0)") == repr(("w", 0, 40, one.process.pid))


def test_flock_excludes_and_does_not_mind_fcntl(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("flock('r')")
    two.must("flock('r')")
    assert two.ask("flock('w')") == "! EAGAIN"
    one.must("flock('u')")
    two.must("flock('w')", "lock('w')")
    assert one.ask("flock('r')") == "! EAGAIN"
    two.must("flock('u')")
    one.must("flock('w')")
    assert one.ask("lock('w')") == "! EAGAIN"


# --- waiting


def test_who_waits_gets_it_in_order(
    new_locker: Callable[[Path], Locker], paths: list[Path]
) -> None:
    holder = new_locker(paths[0])
    holder.must("flock('w')")
    waiting = [new_locker(paths[number % 2]) for number in range(4)]
    for locker in waiting:
        locker.tell("flockw('w')")
        assert locker.still_waits()
    holder.must("flock('u')")
    for number, locker in enumerate(waiting):
        assert locker.answer() == "= None"
        for other in waiting[number + 1 :]:
            assert other.still_waits()
        locker.must("flock('u')")


def test_a_signal_ends_the_wait_and_nothing_is_held(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    for wait, give_back in (("flockw('w')", "flock('u')"), ("lockw('w')", "lock('u')")):
        one.must(wait)
        two.tell(wait)
        assert two.still_waits()
        two.signal()
        assert two.answer() == "! EINTR"
        one.must(give_back, wait, give_back)
        two.must(wait, give_back)


def test_a_killed_waiter_gets_nothing(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("flock('w')")
    two.tell("flockw('w')")
    assert two.still_waits()
    kill_and_wait(two.process.pid)
    one.must("flock('u')", "flock('w')")


def test_a_deadlock_across_mounts_is_found(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("lock('w', 0, 1)")
    two.must("lock('w', 1, 1)")
    one.tell("lockw('w', 1, 1)")
    assert one.still_waits()
    assert two.ask("lockw('w', 0, 1)") in ("! EDEADLK", "! EDEADLOCK")
    two.must("lock('u', 1, 1)")
    assert one.answer() == "= None"


# --- who owns a lock, and what ends it


def test_any_close_ends_the_fcntl_locks_of_a_process(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("lock('w')", "dup('file', 'copy')", "close('copy')")
    two.must("lock('w')", "lock('u')")
    one.must("lock('w')", "flock('w')", "dup('file', 'copy')")
    one.must("close()")
    two.must("lock('w')")
    assert two.ask("flock('w')") == "! EAGAIN", "the copy holds it"
    one.must("close('copy')")
    two.must("flockw('w')")


def test_a_child_does_not_inherit_fcntl_locks_but_shares_flock(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("lock('w')", "flock('w')")
    assert one.ask("in_child(lambda: lock('w'))") == repr("! EAGAIN")
    assert one.ask("in_child(lambda: flock('w'))") == repr("= None")
    assert two.ask("lock('w')") == "! EAGAIN", "the end of the child ended only its own"
    assert two.ask("flock('w')") == "! EAGAIN", "the file is still open"
    assert one.ask("in_child(lambda: flock('u'))") == repr("= None")
    two.must("flock('w')")


def test_exec_keeps_locks(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("lock('w')", "flock('w')", "exec_and_hold()")
    assert two.ask("lock('w')") == "! EAGAIN"
    assert two.ask("flock('w')") == "! EAGAIN"
    assert one.process.stdin is not None
    one.process.stdin.close()
    one.process.wait()
    two.must("lockw('w')", "flockw('w')")


def test_the_end_of_a_process_ends_its_locks(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("lock('w')", "flock('w')")
    kill_and_wait(one.process.pid)
    two.must("lockw('w')", "flockw('w')")


def test_open_file_description_locks(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("ofd('w', 0, 10)", "dup('file', 'copy')", "close()")
    assert two.ask("ofd('w', 5, 1)") == "! EAGAIN", "the copy is the same open file"
    assert two.ask("lock('w', 5, 1)") == "! EAGAIN"
    one.must("close('copy')")
    two.must("lockw('w', 5, 1)")


def test_a_thread_gives_back_what_another_one_took(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    one.must("lock('w')", "thread_unlocks('u')")
    two.must("lock('w')")


# --- what is seen


@pytest.mark.parametrize("take", ["flock", "lock"])
def test_who_has_the_lock_sees_what_the_last_one_wrote(
    pair: tuple[Locker, Locker], take: str
) -> None:
    for size in (10, 200_000):
        for turn in range(8):
            locker = pair[turn % 2]
            expected = bytes([turn]) * size if turn else b""
            locker.must(f"{take}w('w')")
            if turn:
                assert locker.ask(f"read() == {bytes([turn])!r} * {size}") == "True", expected[:10]
            locker.must(f"write({bytes([turn + 1])!r} * {size})", f"{take}('u')")
        pair[0].must("write(b'')", "open_(f'/proc/self/fd/{files[\"file\"]}', 't', os.O_TRUNC | 2)")
        pair[0].must("close('t')")


@pytest.mark.parametrize("kind", ["flock", "fcntl"])
def test_two_mounts_count_exactly(pair: tuple[Locker, Locker], kind: str) -> None:
    for locker in pair:
        locker.tell(f"count({kind!r}, 100)")
    assert [locker.answer() for locker in pair] == ["= None"] * 2
    pair[0].must("lockw('r')")
    assert pair[0].ask("int.from_bytes(read(8), 'little')") == "200"


def test_appends_of_two_mounts_are_all_there(
    new_locker: Callable[[Path], Locker], paths: list[Path]
) -> None:
    lockers = [new_locker(paths[number % 2]) for number in range(4)]
    for number, locker in enumerate(lockers):
        flags = os.O_WRONLY | os.O_APPEND
        locker.must(f"open_({str(paths[number % 2])!r}, 'log', {flags})")
        locker.tell(f"[append(b'<{number}.%04d>' % n, 'log') for n in range(300)] and None")
    for locker in lockers:
        assert locker.answer() == "= None"
        locker.must("close('log')")
    text = paths[0].read_text()
    found = [piece.split(".") for piece in text.strip("<>").split("><")]
    assert len(text) == 4 * 300 * 8
    for number in range(4):
        mine = [int(count) for writer, count in found if writer == str(number)]
        assert mine == list(range(300))


def test_mappings_show_what_the_last_holder_synced(paths: list[Path]) -> None:
    paths[0].write_bytes(b"0" * 10_000)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "r+b", 0)) for path in paths]
        maps = [stack.enter_context(mmap.mmap(file.fileno(), 10_000)) for file in files]
        for turn in range(1, 7):
            file, mapping = files[turn % 2], maps[turn % 2]
            fcntl.flock(file, fcntl.LOCK_EX)
            assert mapping[:] == b"%d" % (turn - 1) * 10_000
            mapping[:] = b"%d" % turn * 10_000
            mapping.flush()
            fcntl.flock(file, fcntl.LOCK_UN)


def test_a_mapping_of_a_file_that_is_appended_to(paths: list[Path]) -> None:
    """Its pages have their place, though they may be written back through a handle that appends."""
    paths[0].write_bytes(b"." * 10_000)
    with open(paths[0], "a+b", 0) as file, mmap.mmap(file.fileno(), 10_000) as mapping:
        mapping[0:3] = b"abc"
        mapping.flush()
        file.write(b"END")
        mapping[3:5] = b"de"
        mapping.flush()
    for path in paths:
        assert path.read_bytes() == b"abcde" + b"." * 9_995 + b"END"


def test_append_can_be_set_and_taken_away(paths: list[Path]) -> None:
    with open(paths[0], "r+b", 0) as one, open(paths[1], "r+b", 0) as two:
        for file in (one, two):
            fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
        for number in range(10):
            (one, two)[number % 2].write(b"%d" % number)
        fcntl.fcntl(one, fcntl.F_SETFL, 0)
        os.pwrite(one.fileno(), b"X", 0)
        os.fsync(one.fileno())
        os.fsync(two.fileno())
        for file in (one, two):
            fcntl.flock(file, fcntl.LOCK_SH)
            assert os.pread(file.fileno(), 100, 0) == b"X123456789"


def test_the_token_is_told_to_who_holds_the_lock(pair: tuple[Locker, Locker]) -> None:
    one, two = pair
    assert one.ask("token()") == "! ENODATA"
    one.must("flock('w')")
    first = int(one.ask("token()"))
    assert two.ask("token()") == "! ENODATA"
    one.must("flock('u')")
    two.must("flockw('w')")
    assert int(two.ask("token()")) > first
    assert one.ask("os.listxattr(files['file'])") == "[]"
    assert one.ask("os.setxattr(files['file'], 'user.tidefs.fence', b'1')") == "! EPERM"


# --- who dies, and who is paused


def client_pid(cluster: Any, point: Path) -> int:
    """The process that serves a mount."""
    (pid,) = [m["pid"] for m in cluster.status()["mounts"] if m["mount_point"] == str(point)]
    return int(pid)


@pytest.mark.slow
def test_a_dead_client_keeps_its_locks_until_its_session_expires(
    make_cluster: Callable[..., Any], new_locker: Callable[[Path], Locker]
) -> None:
    cluster = make_cluster()
    one, two = cluster.mount("one"), cluster.mount("two")
    holder, waiter = new_locker(one / "file"), new_locker(two / "file")
    holder.must("flock('w')", "lock('w')")
    waiter.tell("flockw('w')")
    kill_and_wait(client_pid(cluster, one))
    assert waiter.still_waits()
    assert waiter.answer() == "= None", "once the session has expired"
    waiter.must("lock('w')")


@pytest.mark.slow
def test_a_paused_client_loses_the_lock_and_its_late_write_is_refused(
    make_cluster: Callable[..., Any], new_locker: Callable[[Path], Locker]
) -> None:
    cluster = make_cluster()
    one, two = cluster.mount("one"), cluster.mount("two")
    size = 100_000
    early, late = new_locker(one / "file"), new_locker(two / "file")
    early.must("flock('w')", f"write(b'1' * {size})", "sync()", f"write(b'x' * {size})")
    client = client_pid(cluster, one)
    os.kill(client, signal.SIGSTOP)
    try:
        late.must("flockw('w')", f"write(b'2' * {size})", "sync()")
    finally:
        os.kill(client, signal.SIGCONT)
    assert early.ask("write(b'y')") == "! EIO"
    assert early.ask("sync()") == "! EIO"
    assert early.ask("read(1)") == "! EIO"
    assert early.ask("flock('u')") == "! EIO"
    late.must("flock('u')")
    assert early.ask(f"open_({str(one / 'file')!r}, 'again')") == "None"
    early.must("flockw('w', 'again')")
    for locker, name in ((early, "again"), (late, "file")):
        assert locker.ask(f"read({size}, 0, {name!r}) == b'2' * {size}") == "True"
