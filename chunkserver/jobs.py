"""Work that comes to its end once it was begun, whether or not who asked for it still waits.

The steps by which a chunk changes durably make sense only together. A request that is given up (a
connection that breaks, a server that ends) must not stop them half-way; only the end of the store
does, and that is like a kill.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from ..fs.errors import Code, TideError

T = TypeVar("T")


class _Job(Generic[T]):
    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._ended = trio.Event()
        self._outcome: list[T] = []
        self._error: TideError = TideError(Code.UNAVAILABLE, "the chunkserver is ending")

    async def run(self) -> None:
        try:
            self._outcome.append(await self._work())
        except TideError as error:
            self._error = error
        finally:
            self._ended.set()

    async def wait(self) -> T:
        await self._ended.wait()
        if not self._outcome:
            raise self._error
        return self._outcome[0]


class Jobs:
    """Runs them in the store's own tasks."""

    def __init__(self) -> None:
        self.nursery: trio.Nursery | None = None

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` returns, or its TideError."""
        assert self.nursery is not None, "the store is running"
        job = _Job(work)
        self.nursery.start_soon(job.run)
        return await job.wait()
