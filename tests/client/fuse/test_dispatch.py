"""Requests of the kernel that wait for an answer: told, interrupted, at the end, with a bug."""

import errno
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from tidefs.client.answers import Answer, then
from tidefs.client.fuse import kernel_dispatch
from tidefs.client.fuse.driver import Known
from tidefs.client.fuse.kernel_device import Device
from tidefs.client.fuse.kernel_loop import Loop
from tidefs.client.fuse.kernel_operations import Operations
from tidefs.client.fuse.protocol import structures as s
from tidefs.client.fuse.protocol.opcodes import F_UNLCK, F_WRLCK, OFFSET_MAX, Opcode
from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import Code, TideError
from tidefs.tests.client.garbage import garbage
from tidefs.tests.mount.memory_file_system import MemoryFileSystem

FILE = Attributes(7, Kind.FILE, 0o640, 1, 0, 0, 0, 0, 0, 0, 0, 0, change=1, data_version=1)
KNOWN = Known(FILE, 0, 0)
PATIENCE_S = kernel_dispatch.INTERRUPT_PATIENCE_MS / 1000


class Asked(MemoryFileSystem):
    """Lookups are answered when the test says so; ``now`` is known at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[bytes, Answer[Known]] = {}
        self.withdrawn: list[bytes] = []
        self.order: list[bytes] = []
        self.unlocked = trio.Event()

    async def setlk(self, *arguments, **how):  # type: ignore[no-untyped-def]
        await trio.sleep_forever()

    async def unlock(self, *arguments, **how):  # type: ignore[no-untyped-def]
        await self.unlocked.wait()

    def lookup(self, parent: int, name: bytes):  # type: ignore[no-untyped-def]
        self.order.append(name)
        if name == b"now":
            return KNOWN
        if name == b"told":
            told: Answer[Known] = Answer(lambda: None)
            told.tell(KNOWN)
            return told
        asked: Answer[Known] = Answer(lambda: self.withdrawn.append(name))
        self.asked[name] = asked
        return asked


class Kernel:
    """The other end of the device: a socket that keeps messages apart, as /dev/fuse does."""

    def __init__(self, end: socket.socket, file_system: Asked, loop: Loop) -> None:
        self._end = end
        self.file_system = file_system
        self.dispatcher = loop.dispatcher
        self._unique = 0

    def send(self, opcode: Opcode, arguments: bytes = b"") -> int:
        self._unique += 2
        length = s.IN_HEADER.size + len(arguments)
        header = s.IN_HEADER.pack(length, opcode, self._unique, 1, 0, 0, 4711, 0, 0)
        self._end.send(header + arguments)
        return self._unique

    def lookup(self, name: bytes) -> int:
        return self.send(Opcode.LOOKUP, name + b"\0")

    def lock(self, opcode: Opcode, kind: int) -> int:
        """struct fuse_lk_in, of a whole file."""
        return self.send(opcode, struct.pack("=QQQQIIII", 1, 1, 0, OFFSET_MAX, kind, 4711, 0, 0))

    def interrupt(self, unique: int) -> None:
        self.send(Opcode.INTERRUPT, struct.pack("=Q", unique))

    def replies(self) -> list[tuple[int, int]]:
        """All that came by now: number of the request and errno."""
        found = []
        while True:
            try:
                reply = self._end.recv(1 << 17)
            except BlockingIOError:
                return found
            _, number, unique = s.OUT_HEADER.unpack_from(reply)
            found.append((unique, -number))


@asynccontextmanager
async def served() -> AsyncIterator[Kernel]:
    ours, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.setblocking(False)
    file_system = Asked()
    operations = Operations(file_system)
    loop = Loop(Device(ours.fileno()), operations)
    kernel = Kernel(end, file_system, loop)
    operations.add(Opcode.INTERRUPT, lambda h, a: loop.dispatcher.interrupt(a[0]), None)
    with ours, end:
        async with trio.open_nursery() as outliving, trio.open_nursery() as nursery:
            loop.dispatcher.nursery, loop.dispatcher.outliving = nursery, outliving
            nursery.start_soon(loop.run)
            yield kernel
            nursery.cancel_scope.cancel()


async def asked(kernel: Kernel, *names: bytes) -> list[int]:
    """The numbers of lookups that wait."""
    uniques = [kernel.lookup(name) for name in names]
    await until_quiet()
    assert set(names) <= kernel.file_system.asked.keys()
    assert kernel.replies() == []
    return uniques


async def until_quiet() -> None:
    """What was sent is read, and what can be done without an answer is done."""
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked(0.001)


async def sleeps_and_says(value):
    await trio.sleep(3600)
    return value


async def test_it_is_told_in_the_call_that_tells():
    async with served() as kernel:
        one, two = await asked(kernel, b"one", b"two")
        kernel.file_system.asked[b"two"].tell(KNOWN)
        assert kernel.replies() == [(two, 0)]
        kernel.file_system.asked[b"one"].tell(TideError(Code.NO_ENTRY, "one"))
        assert kernel.replies() == [(one, errno.ENOENT)]
        assert not kernel.dispatcher.is_waiting


async def test_what_is_told_already_is_answered_at_once():
    async with served() as kernel:
        unique = kernel.lookup(b"told")
        await until_quiet()
        assert kernel.replies() == [(unique, 0)]
        assert not kernel.dispatcher.is_waiting


async def test_who_was_answered_is_served_again_before_the_loop_wakes_up():
    async with served() as kernel:
        one, _ = await asked(kernel, b"one", b"two")
        next_one, last = kernel.lookup(b"now"), kernel.lookup(b"three")
        kernel.file_system.asked[b"one"].tell(KNOWN)
        assert kernel.replies() == [(one, 0), (next_one, 0)]
        assert b"three" in kernel.file_system.asked
        kernel.file_system.asked[b"three"].tell(KNOWN)
        assert kernel.replies() == [(last, 0)]


async def test_an_answer_that_takes_longer_goes_on_as_a_task(autojump_clock):
    async with served() as kernel:
        (one,) = await asked(kernel, b"one")
        kernel.file_system.asked[b"one"].tell(sleeps_and_says(KNOWN))
        assert kernel.dispatcher.is_waiting
        await trio.sleep(3599)
        assert kernel.replies() == []
        await trio.sleep(2)
        assert kernel.replies() == [(one, 0)]


@pytest.fixture
def dying(monkeypatch):
    """Who dies of a signal: nobody, until the test says so."""
    threads = set()
    monkeypatch.setattr(kernel_dispatch, "is_dying", lambda thread: thread in threads)
    return threads


async def test_a_signal_ends_the_request_of_who_dies_of_it(autojump_clock, dying):
    async with served() as kernel:
        one, two = await asked(kernel, b"one", b"two")
        kernel.interrupt(one)
        await trio.sleep(2 * PATIENCE_S)
        assert kernel.replies() == []
        dying.add(4711)
        await trio.sleep(1)
        assert kernel.replies() == [(one, errno.EINTR)]
        assert kernel.file_system.withdrawn == [b"one"]
        kernel.file_system.asked[b"one"].tell(KNOWN)
        kernel.file_system.asked[b"two"].tell(KNOWN)
        assert kernel.replies() == [(two, 0)]


@pytest.mark.parametrize("opcode", [Opcode.SETLK, Opcode.SETLKW])
async def test_any_signal_ends_the_waiting_for_a_lock_and_nothing_else(
    autojump_clock, dying, opcode
):
    """fcntl(2): F_UNLCK, and F_SETLK, are not interrupted; flock(2) unlocks by SETLKW."""
    async with served() as kernel:
        wanted = kernel.lock(opcode, F_WRLCK)
        unlocking = kernel.lock(opcode, F_UNLCK)
        await until_quiet()
        kernel.interrupt(wanted)
        kernel.interrupt(unlocking)
        await until_quiet()
        assert kernel.replies() == ([(wanted, errno.EINTR)] if opcode is Opcode.SETLKW else [])
        await trio.sleep(2 * PATIENCE_S)
        assert kernel.replies() == []
        kernel.file_system.unlocked.set()
        await until_quiet()
        assert kernel.replies() == [(unlocking, 0)]


async def test_who_dies_is_given_time_for_the_answer(autojump_clock, dying):
    dying.add(4711)
    async with served() as kernel:
        one, two = await asked(kernel, b"one", b"two")
        kernel.interrupt(one)
        kernel.interrupt(two)
        await trio.sleep(PATIENCE_S * 0.9)
        kernel.file_system.asked[b"one"].tell(KNOWN)
        assert kernel.replies() == [(one, 0)]
        await trio.sleep(PATIENCE_S * 0.2)
        assert kernel.replies() == [(two, errno.EINTR)]


@pytest.mark.parametrize("when", ["before", "after", "long before"])
async def test_a_signal_is_not_forgotten_when_the_answer_takes_longer(autojump_clock, dying, when):
    async with served() as kernel:
        (one,) = await asked(kernel, b"one")
        began_s = trio.current_time()
        await trio.sleep(PATIENCE_S * 0.6)
        if when != "after":
            kernel.interrupt(one)
            await until_quiet()
        if when == "long before":
            await trio.sleep(PATIENCE_S)
        kernel.file_system.asked[b"one"].tell(sleeps_and_says(KNOWN))
        if when == "after":
            kernel.interrupt(one)
        dying.add(4711)
        await trio.sleep_until(began_s + PATIENCE_S * (1.2 if when != "long before" else 1.8))
        assert kernel.replies() == [(one, errno.EINTR)]
        assert not kernel.dispatcher.is_waiting


async def test_at_the_end_nobody_waits(autojump_clock):
    async with served() as kernel:
        one, two, _ = await asked(kernel, b"one", b"two", b"three")
        kernel.file_system.asked[b"three"].tell(sleeps_and_says(KNOWN))
        await until_quiet()
        kernel.dispatcher.nursery.cancel_scope.cancel()
        kernel.dispatcher.abandon()
        assert kernel.replies() == [(one, errno.ENOTCONN), (two, errno.ENOTCONN)]
        assert kernel.file_system.withdrawn == [b"one", b"two"]
        kernel.file_system.asked[b"one"].tell(KNOWN)
    assert not kernel.dispatcher.is_waiting


async def test_a_bug_is_an_error_of_the_device(caplog):
    def fail(_):
        raise ValueError("a bug")

    async def fail_later(_):
        raise ValueError("a bug")

    async with served() as kernel:
        uniques = await asked(kernel, b"one", b"two", b"three", b"four")
        one, two, three, four = (kernel.file_system.asked[n] for n in kernel.file_system.asked)
        with caplog.at_level(logging.CRITICAL):  # its trace is of no use here
            then(one, fail)
            one.tell(KNOWN)
            then(two, fail_later)
            two.tell(KNOWN)
            three.tell("what LOOKUP cannot tell")
            four.tell(ValueError("a bug"))
            await until_quiet()
        assert sorted(kernel.replies()) == [(unique, errno.EIO) for unique in uniques]
        assert not kernel.dispatcher.is_waiting
        unique = kernel.lookup(b"now")
        await until_quiet()
        assert kernel.replies() == [(unique, 0)]


async def test_answered_requests_leave_nothing_for_the_garbage_collector():
    async def ask(outcome):
        await asked(kernel, b"one")
        kernel.file_system.asked.pop(b"one").tell(outcome)
        await until_quiet()
        assert kernel.replies()

    async def refuse():
        raise TideError(Code.NO_ENTRY, "one")

    async with served() as kernel:
        with garbage() as left:
            for _ in range(5):
                await ask(KNOWN)
                await ask(TideError(Code.NO_ENTRY, "one"))
                await ask(refuse())
        assert left(Answer, TideError) == []
