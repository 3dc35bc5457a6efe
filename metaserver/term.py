"""One term that this member leads: its volatile tables, made anew from the state, and their tasks.

What was going on when the term ends is cancelled; nothing of it acts afterwards.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from ..fs.errors import Code, TideError
from ..fs.ports import Ports
from .caretaker import Caretaker
from .config import MetaserverConfig
from .driver import Driver
from .effects import Effect
from .leader import Leader
from .member_status import MemberView
from .members import Members
from .service import Service

T = TypeVar("T")

log = logging.getLogger(__name__)


class Term:
    """What one member is while it leads."""

    def __init__(
        self,
        config: MetaserverConfig,
        ports: Ports,
        driver: Driver,
        view: MemberView,
        number: int,
    ) -> None:
        self.number = number
        self.leader = Leader(config, ports, driver, driver.state, number)
        self.caretaker = Caretaker(self.leader)
        self.service = Service(driver.state, driver, self.leader, self.caretaker, view)
        self.members = Members(driver, ports.clock, config.server)
        self._driver = driver
        self._requests: dict[trio.CancelScope, None] = {}  # in the order in which they came
        self._over = False

    async def run(self, begun: Callable[["Term"], None]) -> None:
        """Until the term is over. ``begun`` is called when requests can be answered."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_in_time, nursery.cancel_scope)
                await self.leader.begin()
                nursery.start_soon(self.leader.run)
                nursery.start_soon(self.caretaker.run)
                begun(self)
        except* TideError as group:
            # Whoever lost the leadership in the middle of something ends that way.
            others = group.split(_is_over)[1]
            if others is not None:
                raise others from None
        finally:
            self._over = True
            self._driver.on_effects = _ignore
            for scope in self._requests:
                scope.cancel()

    async def during(self, answering: Awaitable[T]) -> T:
        """Wait for something no longer than the term lasts; NOT_LEADER when it ends first."""
        with trio.CancelScope() as scope:
            self._requests[scope] = None
            if self._over:
                scope.cancel()
            try:
                return await answering
            finally:
                self._requests.pop(scope, None)
        raise TideError(Code.NOT_LEADER, "this metaserver has stopped to lead")

    async def _end_in_time(self, scope: trio.CancelScope) -> None:
        await self._driver.wait_not_leading(self.number)
        scope.cancel()


def _is_over(error: BaseException) -> bool:
    return isinstance(error, TideError) and error.code is Code.NOT_LEADER


def _ignore(effects: Sequence[Effect]) -> None:
    """Nobody leads here."""
