"""Makes a run of trio repeat itself step for step; the only file that knows trio's private names.

trio shuffles the tasks that are ready in each round of its loop. Hypothesis needs that shuffle to
be repeatable, and trio keeps two private names for it: a switch that sorts the batch before the
shuffle, and the random generator that shuffles. Beside them a run needs trio's public MockClock,
which jumps to the next deadline whenever every task waits.

What else could make two runs differ is the business of the simulated program: iterating over a
set of strings or objects (their order changes with PYTHONHASHSEED and with addresses), threads,
and reading the real clock. ``run.py`` finds those: it runs each seed in two processes with
different hash seeds and compares the traces.
"""

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from trio._core import _run as trio_loop
from trio.testing import MockClock

T = TypeVar("T")


def run(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """What ``main`` returns or raises, run on virtual time that starts at 0.

    The order in which ready tasks take their steps is drawn from ``seed``.
    """
    before = trio_loop._ALLOW_DETERMINISTIC_SCHEDULING
    trio_loop._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    state = trio_loop._r.getstate()
    trio_loop._r.seed(seed)
    try:
        return trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        trio_loop._r.setstate(state)
        trio_loop._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]


def names_are_there() -> bool:
    """Whether this trio still has the private names that ``run`` turns."""
    return isinstance(getattr(trio_loop, "_r", None), random.Random) and isinstance(
        getattr(trio_loop, "_ALLOW_DETERMINISTIC_SCHEDULING", None), bool
    )
