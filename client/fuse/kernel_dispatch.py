"""From a request to its reply: at once where the vfs can, else by a task of its own.

A signal (INTERRUPT) cancels the task of a request. For a lock that is right at once. Anything else
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
from .dying import is_dying
from .kernel_device import Device
from .kernel_operations import Operation, Operations
from .protocol import replies
from .protocol.opcodes import Opcode
from .protocol.requests import OPCODE, PID, UNIQUE, Header, MalformedRequestError, decode_header

log = logging.getLogger(__name__)

REFUSED = {int(Opcode.IOCTL): errno.ENOTTY}
"""What is not served, when it is not ENOSYS (which makes the kernel ask never again)."""

MS_PER_S = 1_000


class _Waiting(NamedTuple):
    """A request that a task answers."""

    scope: trio.CancelScope
    began_s: float
    is_lock: bool
    thread: int


class Dispatcher:
    """Answers messages. The nurseries must be set while there may be any: ``nursery`` for what is
    cancelled at the end, ``outliving`` for what is waited for.

    ``give_back`` gets each buffer for which ``handle`` said that it is kept.
    """

    def __init__(
        self, device: Device, operations: Operations, give_back: Callable[[memoryview], None]
    ) -> None:
        self._device = device
        self._operations = operations
        self._by_opcode = operations.by_opcode
        self._give_back = give_back
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
        try:
            answer = operation.ask(header, operation.decode(buffer, length))
            if hasattr(answer, "__await__"):
                self._answer_later(header, operation, answer, buffer)
                return operation.keeps_buffer
            if operation.tell is None:
                return False
            reply = operation.tell(header[UNIQUE], answer)
        except Exception as error:  # whatever it is, somebody waits for a reply
            self._fail(header, operation, error)
            return False
        if not self._device.send(reply):
            self._operations.lost(operation, answer)
        return False

    def _answer_later(
        self, header: Header, operation: Operation, answer: Awaitable[Any], buffer: memoryview
    ) -> None:
        scope = trio.CancelScope()
        waiting = _Waiting(scope, trio.current_time(), operation.is_lock, header[PID])
        self._waiting[header[UNIQUE]] = waiting
        kept = buffer if operation.keeps_buffer else None
        nursery = self.outliving if operation.outlives else self.nursery
        nursery.start_soon(self._wait, header, operation, answer, scope, kept)

    async def _wait(
        self,
        header: Header,
        operation: Operation,
        coming: Awaitable[Any],
        scope: trio.CancelScope,
        kept: memoryview | None,
    ) -> None:
        unique = header[UNIQUE]
        number = errno.ENOTCONN  # when all is cancelled, because it ends
        try:
            with scope:
                answer = await coming
                if operation.tell is not None and not self._device.send(
                    operation.tell(unique, answer)
                ):
                    self._operations.lost(operation, answer)
                number = 0
            if scope.cancelled_caught:
                number = errno.EINTR
        except Exception as error:  # whatever it is, somebody waits for a reply
            number = 0
            self._fail(header, operation, error)
        finally:
            del self._waiting[unique]
            if number:
                self._device.send(replies.failed(unique, number))
            if kept is not None:
                self._give_back(kept)

    def interrupt(self, unique: int) -> None:
        """Somebody who waits for the answer to a request got a signal."""
        waiting = self._waiting.get(unique)
        if waiting is None:
            return
        if waiting.is_lock:
            waiting.scope.cancel()
        else:
            self.nursery.start_soon(self._end_with_its_caller, unique, waiting)

    async def _end_with_its_caller(self, unique: int, waiting: _Waiting) -> None:
        await trio.sleep_until(waiting.began_s + INTERRUPT_PATIENCE_MS / MS_PER_S)
        while self._waiting.get(unique) is waiting:
            if is_dying(waiting.thread):
                waiting.scope.cancel()
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
