"""Does things at given virtual times: what the simulated network delivers with.

A heap costs far less than a task a packet, and things due at the same moment happen in the order in
which they were asked for. On a clock of ``determinism.py`` they happen between the steps of tasks;
on another one, in the task of ``run_forever``.
"""

import heapq
from collections.abc import Callable
from math import inf

import trio

from .determinism import virtual_clock


class Postman:
    """``at`` may be called from anywhere."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._nap: trio.CancelScope | None = None
        self._failed = trio.Event()
        self._error: BaseException | None = None

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Call ``action`` at that virtual time, or as soon as possible when it has passed."""
        self._count += 1
        heapq.heappush(self._due, (time_s, self._count, action))
        if self._nap is not None and time_s < self._nap.deadline:
            self._nap.deadline = time_s

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call ``action`` that many virtual seconds from now."""
        self.at(trio.current_time() + delay_s, action)

    @property
    def due_s(self) -> float:
        """When the next action is due; infinity when there is none."""
        return self._due[0][0] if self._due else inf

    def act(self) -> None:
        """Do all that is due. ``run_forever`` raises what an action raises."""
        now_s = trio.current_time()
        try:
            while self._due and self._due[0][0] <= now_s:
                heapq.heappop(self._due)[2]()
        except BaseException as error:
            self._error = error
            self._failed.set()

    async def run_forever(self) -> None:
        """Act until cancelled. An exception of an action ends the run: it is a bug."""
        clock = virtual_clock()
        if clock is not None:
            clock.agenda = self
            await self._failed.wait()
        while self._error is None:
            self.act()
            with trio.CancelScope(deadline=self.due_s) as self._nap:
                await self._failed.wait()
        raise self._error
