"""How one task waits for another, on the lowest level of trio, which is the cheapest one."""

from typing import Any

import trio

from .calls import Call, Connection
from .errors import TideError
from .frames import EMPTY
from .messages.base import Message


class Doorbell:
    """One task waits, anybody rings; a ring that finds nobody waiting is kept."""

    def __init__(self) -> None:
        self._waiting: trio.lowlevel.Task | None = None
        self._rung = False

    def ring(self) -> None:
        if self._waiting is not None:
            trio.lowlevel.reschedule(self._waiting)
            self._waiting = None
        else:
            self._rung = True

    async def wait(self) -> None:
        if self._rung:
            self._rung = False
            await trio.lowlevel.checkpoint()
            return
        self._waiting = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class Waiter:
    """A task that waits for the outcome of one call."""

    __slots__ = ("call", "connection", "outcome", "payload", "task")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.task: trio.lowlevel.Task | None = None
        self.call: Call | None = None
        self.outcome: Any = None
        self.payload = EMPTY

    def take(self, outcome: Message | TideError, payload: memoryview) -> None:
        self.outcome = outcome
        self.payload = payload
        self.call = None  # which holds this: a circle that would have to be collected
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None

    def abort(self, _: object) -> trio.lowlevel.Abort:
        assert self.call is not None
        self.task = None
        self.connection.forget(self.call)
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> None:
        if self.outcome is None:
            self.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self.abort)
        if isinstance(self.outcome, TideError):
            raise self.outcome
