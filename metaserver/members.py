"""The leader changes the group: new members catch up first, then all are swapped in one step.

Everything may be asked again, also of the next leader: what is done already stays as it is.
"""

import logging

import trio

from ..fs.errors import Code, TideError
from ..fs.messages.places import ServerPlace
from ..fs.messages.raft import ChangeMembers, Configuration
from ..fs.ports.clock import Clock
from ..fs.rpc import Peer
from .driver import Driver
from .members_plan import Plan, check_majority, name_of, names_of, plan_change
from .raft.contract import Progress

HEARD_WITHIN_MS = 2_000
"""Who answered within this time counts as up."""
NEAR_ENTRIES = 100
"""A new member that has what there was when it came, and lacks no more than this of what was added
since, is given its vote: the rest comes at once. However short the log is, who has nothing of it
must not be counted on when the next disk is lost."""
LOOK_EVERY_MS = 20
TELL_EVERY_NS = 10 * 10**9

log = logging.getLogger(__name__)


class Members:
    """Changes of the group, while this member leads it."""

    def __init__(self, driver: Driver, clock: Clock, server: int) -> None:
        self._driver = driver
        self._clock = clock
        self._server = server
        self._changing = trio.Lock()

    async def change(self, request: ChangeMembers, asker: Peer) -> None:
        """Add and remove members; returns when it is done, or was done before.

        INVALID and UNAVAILABLE say in words why not; DISCONNECTED when nobody waits for it any
        more: who was added stays a learner until this is asked again, or its removal.
        """
        plan = await self._plan(request)
        if plan is None:
            return
        if plan.new:
            check_majority(plan.voters, {*self._up(), *plan.new}, self._configuration)
            await self._add_learners(request)
            await self._caught_up(plan.new, asker)
        async with self._changing:
            # Somebody else's change may have come between.
            plan = await self._plan(request)
            if plan is None:
                return
            check_majority(plan.voters, self._up(), self._configuration)
            log.info("the group is to be %s", names_of(plan.voters))
            await self._go_over(plan)

    async def _plan(self, request: ChangeMembers) -> Plan | None:
        # What the leader before began is brought to its end first.
        await self._driver.until(lambda: not self._configuration.voters_before)
        return plan_change(self._configuration, request.add, request.remove)

    async def _add_learners(self, request: ChangeMembers) -> None:
        async with self._changing:
            plan = await self._plan(request)
            if plan is None:
                return
            step = plan.as_learners(self._configuration)
            if step.learners != self._configuration.learners or not _same_places(
                step.places, self._configuration.places
            ):
                log.info("%s gets the log, and has no vote yet", names_of(plan.new))
                await self._go_over(step)

    async def _go_over(self, plan: Plan) -> None:
        await self._driver.change_members(plan.voters, plan.learners, plan.places)

    async def _caught_up(self, new: list[int], asker: Peer) -> None:
        """Wait until they have nearly all of the log. As long as it takes."""
        told_ns = self._clock.monotonic_ns()
        goal = self._driver.core.commit_index
        while behind := [server for server in new if not self._is_near(server, goal)]:
            if asker.closed:
                raise TideError(Code.DISCONNECTED, "nobody waits for this change any more")
            now = self._configuration
            for server in new:
                if server not in (*now.voters, *now.learners):
                    raise TideError(
                        Code.INVALID, f"{name_of(server)} was removed before it had caught up"
                    )
            if self._clock.monotonic_ns() - told_ns > TELL_EVERY_NS:
                told_ns = self._clock.monotonic_ns()
                log.info("still waiting for %s to catch up", names_of(behind))
            await trio.sleep(LOOK_EVERY_MS / 1000)

    def _is_near(self, server: int, goal: int) -> bool:
        """Whether it has the log up to ``goal``, and nearly to its end."""
        core = self._driver.core
        if server in core.configuration.voters:
            return True  # the same change was asked for twice, and the other one has done it
        progress = core.progress().get(server)
        return (
            progress is not None
            and not progress.needs_snapshot
            and self._is_heard(progress)
            and progress.match_index >= max(goal, core.next_index - 1 - NEAR_ENTRIES)
        )

    async def transfer(self, server: int) -> None:
        """Have another voter lead, 0: whoever has most of the log. Returns when it does.

        INVALID, UNAVAILABLE in words when that one cannot.
        """
        receiver = server or self._furthest()
        if receiver == self._server:
            return
        self._check_receiver(receiver)
        log.info("handing over to %s", name_of(receiver))
        await self._driver.transfer(receiver)

    def _furthest(self) -> int:
        core = self._driver.core
        found = [
            (progress.match_index, server)
            for server, progress in core.progress().items()
            if server in core.configuration.voters and self._is_heard(progress)
        ]
        if not found:
            raise TideError(
                Code.UNAVAILABLE,
                "there is no other member that is up and has a vote, nobody to hand over to",
            )
        return max(found)[1]

    def _check_receiver(self, server: int) -> None:
        voters = self._configuration.voters
        if server not in voters:
            raise TideError(
                Code.INVALID,
                f"{name_of(server)} has no vote and cannot lead; there are {names_of(voters)}",
            )
        progress = self._driver.core.progress().get(server)
        if progress is None or not self._is_heard(progress):
            raise TideError(Code.UNAVAILABLE, f"{name_of(server)} is down: start it first")

    @property
    def _configuration(self) -> Configuration:
        return self._driver.core.configuration

    def _up(self) -> set[int]:
        progress = self._driver.core.progress()
        return {self._server, *(one for one in progress if self._is_heard(progress[one]))}

    def _is_heard(self, progress: Progress) -> bool:
        silent_ns = self._clock.monotonic_ns() - progress.heard_ns
        return progress.heard_ns > 0 and silent_ns <= HEARD_WITHIN_MS * 10**6


def _same_places(some: list[ServerPlace], others: list[ServerPlace]) -> bool:
    return sorted(some, key=_id_of) == sorted(others, key=_id_of)


def _id_of(place: ServerPlace) -> int:
    return place.server
