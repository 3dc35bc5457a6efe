"""The driver of our own: answers the kernel's FUSE protocol on /dev/fuse.

kernel_driver       its life: negotiate, serve, end
kernel_loop         reads requests
kernel_dispatch     answers them, at once or by a task; interrupts
kernel_operations   the table: what is asked of the vfs, and how its answer is told
kernel_caches       what the kernel is told to forget
kernel_device       reads and writes on /dev/fuse, and their errors
protocol/           the messages
"""

import ctypes
import logging
import os

import trio

from ...fs.errors import Code, TideError
from ..unmounting import detach
from .driver import FileSystem
from .kernel_caches import KernelNotices
from .kernel_device import Device, UnmountedError
from .kernel_loop import Loop
from .kernel_operations import Operations
from .protocol import replies
from .protocol.negotiation import Agreement, DisagreementError, agree, init_reply
from .protocol.opcodes import Opcode
from .protocol.requests import Arguments, Header

log = logging.getLogger(__name__)


class KernelDriver:
    """A mount point, served on an opened /dev/fuse that is mounted there already.

    ``caches`` is what the vfs may ask of the kernel.
    """

    def __init__(self, file_system: FileSystem, device: int, point: str) -> None:
        """``device`` is a descriptor, which is closed at the end of ``serve_forever``."""
        self.agreement: Agreement | None = None
        self._device = Device(device)
        self.caches = KernelNotices(device)
        self._point = point
        self._detached = False
        self._serving = trio.CancelScope()
        self._refusal: TideError | None = None
        operations = Operations(file_system)
        self._loop = Loop(self._device, operations)
        operations.add(Opcode.INIT, self._init, init_reply)
        operations.add(Opcode.DESTROY, lambda h, a: None, lambda unique, _: replies.done(unique))
        operations.add(Opcode.INTERRUPT, self._interrupt, None)

    def _init(self, header: Header, arguments: Arguments) -> Agreement:
        try:
            self.agreement = agree(*arguments)
        except DisagreementError as error:
            self._refusal = TideError(Code.NOT_SUPPORTED, str(error))
            self._detached = True  # by who gets this error, and mounts in another way
            self._serving.cancel()
            raise self._refusal from None
        log.info("the kernel speaks FUSE 7.%d: %s", self.agreement.minor, self.agreement.flags)
        return self.agreement

    def _interrupt(self, header: Header, arguments: Arguments) -> None:
        self._loop.dispatcher.interrupt(arguments[0])

    async def serve_forever(self) -> None:
        """Answer the kernel until it unmounts, or until ``unmount``; and carry out to the end what
        must not be left undone then.

        NOT_SUPPORTED when this kernel is too old: it says so with the first request.
        """
        async with trio.open_nursery() as outliving:
            self._loop.dispatcher.outliving = outliving
            try:
                await self._serve()
            finally:
                self._device.close()
                if self._serving.cancelled_caught and not self._detached:
                    self._take_away()
        if self._refusal is not None:
            raise self._refusal

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            self._loop.dispatcher.nursery = nursery
            nursery.start_soon(self.caches.send_forever)
            try:
                with self._serving:
                    await self._loop.run()
            except UnmountedError as reason:
                log.debug("%s: %s", self._point, reason)
            finally:
                nursery.cancel_scope.cancel()
                self._loop.dispatcher.abandon()
                await self._refuse_until_quiet()

    async def _refuse_until_quiet(self) -> None:
        """A notice that is being sent may wait for the answer to a request: so all are answered
        until it is through. Otherwise the thread, and with it the connection, would never end."""
        dispatcher = self._loop.dispatcher
        dispatcher.refuses = True
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._refuse)
                await self.caches.close()
                nursery.cancel_scope.cancel()

    async def _refuse(self) -> None:
        try:
            await self._loop.run()
        except UnmountedError:
            return

    def _take_away(self) -> None:
        try:
            detach(self._point, lazy=True)
        except TideError as error:
            log.warning("%s", error)

    def sync(self) -> None:
        """Have the kernel send what was written through mappings. Blocks while that is served, so
        call it from a thread. OSError."""
        folder = os.open(self._point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.syncfs(folder) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), self._point)
        finally:
            os.close(folder)

    def unmount(self, *, detached: bool = False) -> None:
        """Stop serving; who still uses the mount gets ENOTCONN.

        ``detached``: the mount point was taken away already, and something else may be there.
        """
        self._detached = detached
        self._serving.cancel()
