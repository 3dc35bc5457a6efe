"""Several processes that do one thing again and again for a while, and how often they did it."""

import os
import time
from collections.abc import Callable, Iterator

Work = Callable[[int], Iterator[None]]
"""Gets the number of the process; each step of what it gives is one operation."""


def in_shares(processes: int, work: Callable[[int], object]) -> None:
    """``work(number)`` in ``processes`` forked ones, at once. SystemExit when one fails."""
    pids = []
    for number in range(processes):
        pid = os.fork()
        if not pid:
            try:
                work(number)
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    if any([os.waitpid(pid, 0)[1] for pid in pids]):
        raise SystemExit("a process failed")


def operations_per_s(processes: int, seconds: float, work: Work) -> float:
    """The sum over ``processes`` forked ones. SystemExit when one fails."""
    pipes = []
    begin_s = time.monotonic() + 0.1  # when all have been started
    for number in range(processes):
        into, out_of = os.pipe()[::-1]
        if not os.fork():
            _child(work(number), begin_s, seconds, into)
        os.close(into)
        pipes.append(out_of)
    counts = [_read(pipe) for pipe in pipes]
    for _ in pipes:
        os.wait()
    if not all(counts):
        raise SystemExit("a process failed")
    return sum(map(float, counts)) / seconds


def _child(steps: Iterator[None], begin_s: float, seconds: float, into: int) -> None:
    """Never returns."""
    try:
        while time.monotonic() < begin_s:
            pass
        count = 0
        end_s = begin_s + seconds
        while time.monotonic() < end_s:
            for _ in range(20):
                next(steps)
            count += 20
        os.write(into, b"%d" % count)
    finally:
        os._exit(0)


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 100)
    finally:
        os.close(pipe)
