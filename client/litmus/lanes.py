"""One thread for each mount: steps are done there, one after the other or at the same time.

A call on a mount whose servers are away may take for ever, and a thread that waits in the kernel
hears no Ctrl-C. So the main thread only waits, and these threads never keep the process alive.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from ...fs.errors import Code, TideError

LANE_MAX_S = 120

T = TypeVar("T")
Work = Callable[[], None]


class Lane:
    """The thread of one mount."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"litmus {name}", daemon=True)
        self._thread.start()

    def start(self, function: Callable[[], T]) -> "Future[T]":
        """Do it there, after what was asked for before."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # raised where the result is wanted
                future.set_exception(error)

        self._work.put(work)
        return future

    def do(self, function: Callable[[], T]) -> T:
        """Do it there, and wait for the result; TIMED_OUT when it takes too long."""
        return awaited(self.start(function))

    def close(self) -> None:
        """End the thread when it has done what was asked for."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def awaited(future: "Future[T]") -> T:
    """Its result; TIMED_OUT when it takes too long."""
    try:
        return future.result(LANE_MAX_S)
    except TimeoutError:
        raise TideError(
            Code.TIMED_OUT,
            f"a step did not return within {LANE_MAX_S} s: see `tidefs status`, whether the servers"
            " answer",
        ) from None


def at_once(works: Sequence[tuple[Lane, Callable[[], T]]]) -> list[T]:
    """Each in its lane, released together by a barrier."""
    barrier = threading.Barrier(len(works))

    def released(work: Callable[[], T]) -> T:
        barrier.wait(LANE_MAX_S)
        return work()

    futures = [lane.start(partial(released, work)) for lane, work in works]
    return [awaited(future) for future in futures]
