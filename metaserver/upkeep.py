"""Checkpoints while the server serves, and the log cut off behind them."""

import logging
from collections.abc import Callable

import trio

from ..fs.errors import TideError
from ..fs.ports.clock import Clock
from .driver import Driver
from .recovery import Recovered

RETRY_MS = 10_000
HELD_MAX = 10
"""So many times what is between two checkpoints is kept of the log for who gets a snapshot."""

log = logging.getLogger(__name__)


class Upkeep:
    """Makes a checkpoint whenever the log since the last one is long enough."""

    def __init__(
        self, recovered: Recovered, driver: Driver, clock: Clock, every_entries: int
    ) -> None:
        self._checkpoints = recovered.checkpoints
        self._driver = driver
        self._clock = clock
        self._every_entries = every_entries
        self.checkpoint_index = recovered.checkpoint_index
        """Of the newest one."""
        self.checkpoint_ns = 0
        """When it was made or installed, wall clock; 0: before this start."""
        self.installed_count = 0
        """Checkpoints that came from a leader, since the start."""
        self.held_from: Callable[[], int | None] = _nobody
        """From which record on others still need the log, beyond the checkpoints that are kept."""
        self._due = trio.Event()
        driver.on_applied = self._applied
        driver.on_state_changed = self._installed

    def _applied(self) -> None:
        applied_index = self._driver.state.totals.applied_index
        if applied_index - self.checkpoint_index >= self._every_entries:
            self._due.set()

    def _installed(self) -> None:
        """A checkpoint that the leader sent is this member's newest."""
        self.installed_count += 1
        self._is_made(self._driver.state.totals.applied_index)

    def _is_made(self, index: int) -> None:
        if index > self.checkpoint_index:
            self.checkpoint_index = index
            self.checkpoint_ns = self._clock.wall_ns()

    async def run(self) -> None:
        """For ever."""
        self._applied()
        while True:
            await self._due.wait()
            try:
                await self.make_checkpoint()
            except TideError as error:
                log.warning("no checkpoint could be made: %s", error)
                await trio.sleep(RETRY_MS / 1000)
            self._due = trio.Event()
            self._applied()

    async def make_checkpoint(self) -> None:
        """One of now; on stable storage when this returns, and the log cut off behind it."""
        totals, store = self._driver.state.totals, self._driver.store
        store.commit()
        index, term = totals.applied_index, totals.applied_term
        needed_index = await self._checkpoints.make(store, index, term)
        self._is_made(index)
        needed_from = needed_index + 1
        if (held_from := self.held_from()) is not None:
            oldest = index - HELD_MAX * self._every_entries
            needed_from = min(needed_from, max(held_from, oldest))
        self._driver.drop_log_before(needed_from)
        log.info("checkpoint at %d; the log is kept from %d on", index, needed_from)


def _nobody() -> None:
    """As long as nobody gets a snapshot."""
