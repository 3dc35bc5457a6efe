"""Does things at given virtual times, all in one task: what the simulated network delivers with.

One task and a heap cost far less than a task a packet, and things due at the same moment happen in
the order in which they were asked for.
"""

import heapq
from collections.abc import Callable
from math import inf

import trio


class Postman:
    """``at`` may be called from anywhere; the actions run in the task of ``run_forever``."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._nap: trio.CancelScope | None = None

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Call ``action`` at that virtual time, or as soon as possible when it has passed."""
        self._count += 1
        heapq.heappush(self._due, (time_s, self._count, action))
        if self._nap is not None and time_s < self._nap.deadline:
            self._nap.deadline = time_s

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call ``action`` that many virtual seconds from now."""
        self.at(trio.current_time() + delay_s, action)

    async def run_forever(self) -> None:
        """Wait and act, until cancelled. An exception of an action ends the run: it is a bug."""
        while True:
            while self._due and self._due[0][0] <= trio.current_time():
                heapq.heappop(self._due)[2]()
            with trio.CancelScope(deadline=self._due[0][0] if self._due else inf) as self._nap:
                await trio.sleep_forever()
