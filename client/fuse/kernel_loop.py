"""The reading loop: requests are taken until there are none, then it waits for the device.

All are read into one buffer, again and again; a WRITE that has to wait keeps it, and reading goes
on in another one. After a turn's worth of work the other tasks of the process come first.
"""

from contextlib import suppress

import trio

from .kernel_device import Device, UnmountedError
from .kernel_dispatch import Dispatcher
from .kernel_operations import Operations
from .lingering import Lingering
from .protocol.negotiation import MESSAGE_MAX_BYTES

TURN_REQUESTS = 128
"""So many are answered before other tasks have their turn: about a millisecond."""
TURN_BYTES_PER_REQUEST = 16 << 10
"""A request with data counts as one more for each so many bytes."""
BUFFERS_KEPT_MAX = 8


class Loop:
    """Reads a device and has its requests answered."""

    def __init__(self, device: Device, operations: Operations) -> None:
        self._device = device
        self._spare: list[memoryview] = []
        self._lingering = Lingering(trio.current_time)
        self.dispatcher = Dispatcher(device, operations, self._give_back, self._go_on)
        self._in_turn = False

    async def run(self) -> None:
        """Until it is cancelled; UnmountedError."""
        descriptor = self._device.descriptor
        while True:
            if self._turn():
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(descriptor)

    def _go_on(self) -> None:
        """Somebody got an answer from elsewhere, and asks for more before this process could fall
        asleep: so it is answered here and now, and the loop need not be woken for it."""
        if not self._in_turn:
            with suppress(UnmountedError):  # the loop will find out
                self._turn()

    def _turn(self) -> bool:
        """Answer what is there; whether there may be more."""
        receive, handle = self._device.receive, self.dispatcher.handle
        buffer = self._take()
        into = [buffer]
        left = TURN_REQUESTS
        self._in_turn = True
        try:
            while left > 0:
                length = receive(into)
                if not length:
                    if left == TURN_REQUESTS or self.dispatcher.is_waiting:
                        return False  # its answers come from elsewhere
                    length = self._lingering.look(lambda: receive(into))
                    if not length:
                        return False
                left -= 1 + length // TURN_BYTES_PER_REQUEST
                if handle(buffer, length):
                    buffer = into[0] = self._take()
            return True
        finally:
            self._in_turn = False
            self._give_back(buffer)

    def _take(self) -> memoryview:
        return self._spare.pop() if self._spare else memoryview(bytearray(MESSAGE_MAX_BYTES))

    def _give_back(self, buffer: memoryview) -> None:
        if len(self._spare) < BUFFERS_KEPT_MAX:
            self._spare.append(buffer)
