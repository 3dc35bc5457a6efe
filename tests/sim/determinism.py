"""Makes a run of trio repeat itself step for step; the only file that knows trio's private names.

It can also stop the tasks of one host while time goes on (SIGSTOP, a paused virtual machine): the
queue of ready tasks is one that keeps theirs back.

trio shuffles the tasks that are ready in each round of its loop. Hypothesis needs that shuffle to
be repeatable, and trio keeps two private names for it: a switch that sorts the batch before the
shuffle, and the random generator that shuffles. Beside them a run needs a clock that goes on to
whatever is due next whenever every task waits.

What else could make two runs differ is the business of the simulated program: iterating over a
set of strings or objects (their order changes with PYTHONHASHSEED and with addresses), threads,
and reading the real clock. ``run.py`` finds those: it runs each seed in two processes with
different hash seeds and compares the traces.
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from math import inf
from typing import Protocol, TypeVar

import trio
from trio._core import _run as trio_loop

T = TypeVar("T")

HOST: ContextVar[str] = ContextVar("HOST", default="")
"""Of which host's process a task is a part. Tasks take it over from who starts them."""


IDLE_S = 0.1
IDLE_MAX = 100


class Agenda(Protocol):
    """What is to happen at given times, outside of all tasks."""

    @property
    def due_s(self) -> float:
        """When the next thing is due; infinity when there is none."""
        ...

    def act(self) -> None:
        """Do all that is due. Must not raise."""
        ...


class VirtualClock(trio.abc.Clock):
    """Stands still while a task can take a step; then it is as late as the next thing is due."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._idle = 0
        self.agenda: Agenda | None = None

    def start_clock(self) -> None:
        """It starts by itself."""

    def current_time(self) -> float:
        return self._now_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """trio asks this when every task waits; the answer is that the time has come, unless
        somebody waits for just that (``wait_all_tasks_blocked``)."""
        if trio_loop.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle:
            return IDLE_S
        due_s = self.agenda.due_s if self.agenda is not None else inf
        if due_s == deadline == inf:
            return self._wait_for_trio()
        self._idle = 0
        self._now_s = max(self._now_s, min(due_s, deadline))
        if self.agenda is not None and due_s <= deadline:
            self.agenda.act()
        return 0

    def _wait_for_trio(self) -> float:
        """For what trio itself does at its end. Else nothing will ever happen any more."""
        self._idle += 1
        if self._idle > IDLE_MAX:
            raise RuntimeError("every task waits, and nothing will ever happen")
        return IDLE_S


def virtual_clock() -> VirtualClock | None:
    """That of this run; None when trio was started by somebody else."""
    clock = trio.lowlevel.current_clock()
    return clock if isinstance(clock, VirtualClock) else None


class Ready(deque[trio.lowlevel.Task]):
    """trio's queue of the tasks that are ready, but for those of frozen hosts."""

    def __init__(self) -> None:
        super().__init__()
        self._kept_back: dict[str, list[trio.lowlevel.Task]] = {}

    def append(self, task: trio.lowlevel.Task) -> None:
        kept_back = self._kept_back.get(task.context.get(HOST, "")) if self._kept_back else None
        if kept_back is None:
            super().append(task)
        else:
            kept_back.append(task)

    def freeze(self, host: str) -> None:
        """No task of this host takes another step (after one that is due already)."""
        assert host not in self._kept_back, f"{host} is frozen already"
        self._kept_back[host] = []

    def thaw(self, host: str) -> None:
        """They go on."""
        self.extend(self._kept_back.pop(host))

    def is_frozen(self, host: str) -> bool:
        return host in self._kept_back


def ready_tasks() -> Ready:
    """The queue of this run."""
    queue = trio_loop.GLOBAL_RUN_CONTEXT.runner.runq
    assert isinstance(queue, Ready), "only inside of determinism.run"
    return queue


def run(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """What ``main`` returns or raises, run on virtual time that starts at 0.

    The order in which ready tasks take their steps is drawn from ``seed``.
    """
    before = trio_loop._ALLOW_DETERMINISTIC_SCHEDULING
    trio_loop._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    state = trio_loop._r.getstate()
    trio_loop._r.seed(seed)

    async def main_on_own_queue() -> T:
        runner = trio_loop.GLOBAL_RUN_CONTEXT.runner
        queue = Ready()
        queue.extend(runner.runq)
        runner.runq = queue
        return await main()

    try:
        return trio.run(main_on_own_queue, clock=VirtualClock())
    finally:
        trio_loop._r.setstate(state)
        trio_loop._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]


def names_are_there() -> bool:
    """Whether this trio still has the private names that ``run`` turns."""
    return (
        isinstance(getattr(trio_loop, "_r", None), random.Random)
        and isinstance(getattr(trio_loop, "_ALLOW_DETERMINISTIC_SCHEDULING", None), bool)
        and "runq" in trio_loop.Runner.__annotations__
    )
