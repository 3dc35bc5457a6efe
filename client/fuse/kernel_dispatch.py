"""From a request to its reply: at once where the vfs can, else when the answer comes in, or by a
task of its own.

A signal (INTERRUPT) ends the waiting for a request. For a lock that is right at once. Anything else
ends only for who dies of the signal, because no application expects EINTR from a file system, and
only when it has taken INTERRUPT_PATIENCE_MS: what the servers answer is carried to its end. The
kernel tells of the first signal only, so a request that got one is looked after from then on.
Requests are read in order by one task, so an INTERRUPT never comes before its request; one whose
request is not waiting came too late.
"""

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import trio

from ...fs.errors import TideError
from ...fs.limits import INTERRUPT_CHECK_MS, INTERRUPT_PATIENCE_MS
from ..answers import Answer
from .dying import is_dying
from .kernel_device import Device
from .kernel_operations import Operation, Operations
from .protocol import replies
from .protocol.opcodes import Opcode
from .protocol.requests import OPCODE, PID, UNIQUE, Header, MalformedRequestError, decode_header

log = logging.getLogger(__name__)

REFUSED = {int(Opcode.IOCTL): errno.ENOTTY}
"""What is not served, when it is not ENOSYS (which makes the kernel ask never again)."""

NAMES = {int(opcode): opcode.name.lower() for opcode in Opcode}
MS_PER_S = 1_000


class _Waiting(NamedTuple):
    """A request that could not be answered at once. ``scope``: of its task, if it has one, else
    ``answer`` is what it waits for."""

    header: Header
    operation: Operation
    buffer: memoryview
    began_s: float
    for_lock: bool
    """It waits for a lock, and any signal ends that."""
    answer: Answer[Any] | None = None
    scope: trio.CancelScope | None = None


class Dispatcher:
    """Answers messages. The nurseries must be set while there may be any: ``nursery`` for what is
    cancelled at the end, ``outliving`` for what is waited for.

    ``give_back`` gets each buffer for which ``handle`` said that it is kept. ``go_on`` is called
    when a request was answered from elsewhere: its caller is likely to ask for more.
    """

    def __init__(
        self,
        device: Device,
        operations: Operations,
        give_back: Callable[[memoryview], None],
        go_on: Callable[[], None],
    ) -> None:
        self._device = device
        self._operations = operations
        self._by_opcode = operations.by_opcode
        self._asked, self._waited = operations.counters.operations, operations.counters.waited
        self._give_back = give_back
        self._go_on = go_on
        self._waiting: dict[int, _Waiting] = {}
        self.nursery: trio.Nursery
        self.outliving: trio.Nursery
        self.refuses = False
        """At the end: every request is answered with ENOTCONN."""

    @property
    def is_waiting(self) -> bool:
        """Whether requests are under way that could not be answered at once."""
        return bool(self._waiting)

    def handle(self, buffer: memoryview, length: int) -> bool:
        """Answer the message at the start of ``buffer``; whether the buffer is kept."""
        try:
            header = decode_header(buffer, length)
        except MalformedRequestError as error:
            log.error("from the kernel: %s", error)  # there is nobody to tell
            return False
        operation = self._by_opcode.get(header[OPCODE])
        if operation is None or self.refuses:
            self._refuse(header, operation)
            return False
        name = NAMES[header[OPCODE]]
        self._asked[name] += 1
        try:
            arguments = operation.decode(buffer, length)
            answer = operation.ask(header, arguments)
        except Exception as error:  # whatever it is, somebody waits for a reply
            self._fail(header, operation, error)
            return False
        if not hasattr(answer, "__await__"):
            self._tell(header, operation, answer)
            return False
        self._waited[name] += 1
        for_lock = operation.waits_for_lock is not None and operation.waits_for_lock(arguments)
        waiting = _Waiting(header, operation, buffer, trio.current_time(), for_lock)
        if type(answer) is Answer:
            self._answer_when_told(waiting, answer)
        else:
            self._start(waiting, answer)
        return operation.keeps_buffer

    # --- when the answer comes in

    def _answer_when_told(self, waiting: _Waiting, answer: Answer[Any]) -> None:
        waiting = waiting._replace(answer=answer)
        self._waiting[waiting.header[UNIQUE]] = waiting
        answer.when_told(lambda outcome: self._told(waiting, outcome))

    def _told(self, waiting: _Waiting, outcome: Any) -> None:
        if hasattr(outcome, "__await__"):
            self._start(waiting, outcome)
        else:
            self._tell(waiting.header, waiting.operation, outcome)
            self._is_answered(waiting)
        self._go_on()

    def _is_answered(self, waiting: _Waiting) -> None:
        del self._waiting[waiting.header[UNIQUE]]
        if waiting.operation.keeps_buffer:
            self._give_back(waiting.buffer)

    def _cancel(self, waiting: _Waiting, number: int) -> None:
        """Answer it with this errno, now or soon."""
        if waiting.scope is not None:
            waiting.scope.cancel()
        elif waiting.answer is not None:
            waiting.answer.withdraw()
            self._device.send(replies.failed(waiting.header[UNIQUE], number))
            self._is_answered(waiting)

    def _tell(self, header: Header, operation: Operation, answer: Any) -> None:
        """``answer`` may be an exception."""
        if isinstance(answer, Exception):
            self._fail(header, operation, answer)
            return
        try:
            if operation.tell is None or self._device.send(operation.tell(header[UNIQUE], answer)):
                return
            self._operations.lost(operation, answer)
        except Exception as error:  # whatever it is, somebody waits for a reply
            self._fail(header, operation, error)

    # --- by a task

    def _start(self, waiting: _Waiting, answer: Awaitable[Any]) -> None:
        scope = trio.CancelScope()
        waiting = waiting._replace(answer=None, scope=scope)
        self._waiting[waiting.header[UNIQUE]] = waiting
        nursery = self.outliving if waiting.operation.outlives else self.nursery
        nursery.start_soon(self._wait, waiting, answer, scope)

    async def _wait(
        self, waiting: _Waiting, coming: Awaitable[Any], scope: trio.CancelScope
    ) -> None:
        number = errno.ENOTCONN  # when all is cancelled, because it ends
        try:
            with scope:
                answer: Any
                try:
                    answer = await coming
                except Exception as error:
                    answer = error
                number = 0
                self._tell(waiting.header, waiting.operation, answer)
                del answer  # the traceback of an error holds this frame
            if scope.cancelled_caught:
                number = errno.EINTR
        finally:
            if number:
                self._device.send(replies.failed(waiting.header[UNIQUE], number))
            self._is_answered(waiting)

    def abandon(self) -> None:
        """At the end: nobody waits any more for what needs no task."""
        for waiting in list(self._waiting.values()):
            if waiting.answer is not None:
                self._cancel(waiting, errno.ENOTCONN)

    def interrupt(self, unique: int) -> None:
        """Somebody who waits for the answer to a request got a signal."""
        waiting = self._waiting.get(unique)
        if waiting is None:
            return
        if waiting.for_lock:
            self._cancel(waiting, errno.EINTR)
        else:
            self.nursery.start_soon(self._end_with_its_caller, unique, waiting.began_s)

    async def _end_with_its_caller(self, unique: int, began_s: float) -> None:
        await trio.sleep_until(began_s + INTERRUPT_PATIENCE_MS / MS_PER_S)
        while (waiting := self._waiting.get(unique)) is not None:  # by a task, perhaps, by now
            if is_dying(waiting.header[PID]):
                self._cancel(waiting, errno.EINTR)
                return
            await trio.sleep(INTERRUPT_CHECK_MS / MS_PER_S)

    def _refuse(self, header: Header, operation: Operation | None) -> None:
        if operation is not None:
            if operation.tell is not None:
                self._device.send(replies.failed(header[UNIQUE], errno.ENOTCONN))
            return
        number = REFUSED.get(header[OPCODE], errno.ENOSYS)
        self._device.send(replies.failed(header[UNIQUE], number))

    def _fail(self, header: Header, operation: Operation, error: Exception) -> None:
        """Errors of the vfs become an errno; a bug becomes EIO with a trace in the log."""
        if isinstance(error, TideError):
            number = error.errno
            if number == errno.ENOSYS:  # said of one request, not for ever
                number = errno.EOPNOTSUPP
        else:
            number = errno.EIO
            if isinstance(error, MalformedRequestError):
                log.error("request %d from the kernel: %s", header[OPCODE], error)
            else:
                log.error("%s failed: a bug", Opcode(header[OPCODE]).name, exc_info=error)
        if operation.tell is not None:
            self._device.send(replies.failed(header[UNIQUE], number))
