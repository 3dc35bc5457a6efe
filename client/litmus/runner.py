"""Runs litmus tests on mounts: each run in a folder of its own, which no cache knows yet."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...fs.errors import Code, TideError
from ...fs.ports.clock import Clock
from .actor import Actor
from .lanes import Lane
from .model import Litmus, Run
from .run import LOOK_EVERY_MS, Faults, OneRun, Stage
from .steps import NAMES

FOUND_MAX_MS = 20_000


class Mounts(NamedTuple):
    """Where the tests work: in a folder of the file system, and where it is mounted."""

    points: Sequence[Path]
    folder: str
    """Its name in the root; it is there."""


class Runner:
    """Has a lane for each mount, until ``close``."""

    def __init__(self, mounts: Mounts, clock: Clock, faults: Faults) -> None:
        self._mounts = mounts
        self._clock = clock
        self._faults = faults
        self._lanes = [Lane(name) for name, _ in zip(NAMES, mounts.points, strict=False)]
        self._runs = 0

    def close(self) -> None:
        """End the lanes."""
        for lane in self._lanes:
            lane.close()

    def run(self, test: Litmus, number: int, *, measure: bool) -> Run:
        """Run ``number`` of a test, from 0. ``measure``: also how long an old state is shown,
        which takes its time. TIMED_OUT when a step does not return.
        """
        self._runs += 1
        with self._stage(test, f"{self._mounts.folder}/{test.name}-{self._runs}") as stage:
            return OneRun(stage, test, number).run(measure=measure)

    @contextmanager
    def _stage(self, test: Litmus, folder: str) -> Iterator[Stage]:
        """A new folder with the test's files, which all its mounts see."""
        lanes = self._lanes[: test.mounts]
        points = self._mounts.points[: test.mounts]
        actors = [Actor(who, point / folder, test.files) for who, point in enumerate(points)]
        lanes[0].do(partial(actors[0].prepare, test.files))
        for lane, point in zip(lanes[1:], points[1:], strict=True):
            lane.do(partial(self._until_found, point / folder))
        for lane, actor in zip(lanes, actors, strict=True):
            lane.do(actor.enter)
        try:
            yield Stage(lanes, actors, points, self._clock, self._faults)
        finally:
            for lane, actor in zip(lanes, actors, strict=True):
                lane.start(actor.close)

    def _until_found(self, folder: Path) -> None:
        """Another mount has made it, and this one may believe for a while that nobody has."""
        began_ns = self._clock.monotonic_ns()
        while not folder.exists():
            if self._clock.monotonic_ns() - began_ns > FOUND_MAX_MS * 1_000_000:
                raise TideError(
                    Code.TIMED_OUT, f"{folder} was made by another mount, and does not appear here"
                )
            threading.Event().wait(LOOK_EVERY_MS / 1000)
