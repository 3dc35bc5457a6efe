"""/dev/fuse: one read is one request, one write is one reply. What its errors mean (fuse(4))."""

import errno
import logging
import os

from ...fs.codec import Buffer
from .protocol import replies
from .protocol.structures import OUT_HEADER

log = logging.getLogger(__name__)

GONE = (errno.ENODEV, errno.ECONNABORTED, errno.EBADF, errno.ENOTCONN)
"""It is unmounted, or somebody cut the connection."""
WITHDRAWN = errno.ENOENT
"""Of a read: the request was withdrawn while it was copied. Of a write: nobody waits for it."""


class UnmountedError(Exception):
    """There will be no more requests."""


class Device:
    """An opened and mounted /dev/fuse."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor

    def receive(self, buffers: list[memoryview]) -> int:
        """Read a request into the buffer; its length in bytes, 0 when there is none now.

        UnmountedError.
        """
        while True:
            try:
                return os.readv(self.descriptor, buffers)
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno in GONE:
                    raise UnmountedError(error.strerror) from None
                if error.errno != WITHDRAWN:
                    raise

    def send(self, reply: bytes | list[Buffer]) -> bool:
        """Write a reply; whether the kernel took it."""
        try:
            if isinstance(reply, bytes):
                os.write(self.descriptor, reply)
            else:
                os.writev(self.descriptor, reply)
        except OSError as error:
            if error.errno not in GONE and error.errno != WITHDRAWN:
                self._refused(reply, error)
            return False
        return True

    def _refused(self, reply: bytes | list[Buffer], error: OSError) -> None:
        """A bug of ours: whoever waits for the reply gets EIO."""
        head = reply if isinstance(reply, bytes) else reply[0]
        _, _, unique = OUT_HEADER.unpack_from(head)
        log.error("the kernel refuses a reply to request %d: %s", unique, error)
        try:
            os.write(self.descriptor, replies.failed(unique, errno.EIO))
        except OSError:
            log.debug("request %d is answered already", unique)

    def close(self) -> None:
        """What is still waiting fails with ECONNABORTED, everything later with ENOTCONN."""
        os.close(self.descriptor)
        self.descriptor = -1  # whoever writes now gets EBADF, and not into another one's file
