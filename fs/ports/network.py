"""The network port: byte streams between addresses, never blocking.

Addresses are ``unix:/path`` and ``tcp:host:port``. One ``send_nowait`` of the RPC shell carries
whole frames; the simulator may delay, drop or duplicate what one call carried, a real stream
never does.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ..codec import Buffer


class Stream(Protocol):
    """One connection."""

    def receive_nowait(self, buffer: memoryview) -> int | None:
        """Bytes put into ``buffer``; 0 at the end of the stream; None when there are none yet.

        TideError(DISCONNECTED) when the connection broke.
        """
        ...

    async def wait_readable(self) -> None: ...

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        """How many bytes were taken, 0 when none can be now. TideError(DISCONNECTED) as above."""
        ...

    async def wait_writable(self) -> None: ...

    def close(self) -> None:
        """Wakes who waits, with TideError(DISCONNECTED)."""
        ...

    @property
    def remote(self) -> str:
        """The other side, for messages to people."""
        ...


class Listener(Protocol):
    """An address that accepts."""

    @property
    def address(self) -> str:
        """The address, with the port that was chosen when 0 was asked for."""
        ...

    async def accept_forever(self, handle: Callable[[Stream], Awaitable[None]]) -> None:
        """Run ``handle`` in a task of its own for each connection, until cancelled.

        After ``close`` it returns as soon as the last connection has ended.
        """
        ...

    def close(self) -> None:
        """Accept no more; connections live on."""
        ...


class Network(Protocol):
    """How to reach other processes."""

    async def connect(self, address: str) -> Stream:
        """TideError(DISCONNECTED) naming the address and the reason when it cannot."""
        ...

    async def listen(self, address: str) -> Listener:
        """TideError(INVALID) with the reason and remedy: a port in use, a bad address."""
        ...
