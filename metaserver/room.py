"""A leader whose disk is nearly full hands over to a member that has more room, if there is one.

It does so before it has to refuse anything. Only when no disk of the group has room it stays.
"""

import logging
from collections.abc import Mapping

import trio

from ..fs.errors import TideError
from ..fs.limits import MEMBER_ANSWER_TIMEOUT_MS, ROOM_LOOK_MS
from ..fs.messages.raft import GetMember
from .driver import Driver
from .members_plan import name_of
from .snapshots import Reaching
from .space import Room

log = logging.getLogger(__name__)


def who_has_room(own: Room, spare_bytes: Mapping[int, int]) -> int:
    """Who is to lead instead of a member with that room: who can spare most, 0: nobody.

    It must be better by a whole reserve, or the leadership would go round and round.
    """
    if own.spare_bytes >= own.reserve_bytes:
        return 0
    best = max(spare_bytes, key=lambda server: spare_bytes[server], default=0)
    needed_bytes = max(0, own.spare_bytes + own.reserve_bytes)
    return best if best and spare_bytes[best] > needed_bytes else 0


class RoomKeeper:
    """Looks at the own disk while this member leads, and asks the others of theirs in need."""

    def __init__(self, group: Reaching, driver: Driver, server: int) -> None:
        self._group = group
        self._driver = driver
        self._server = server

    async def run(self) -> None:
        """For ever."""
        while True:
            await trio.sleep(ROOM_LOOK_MS / 1000)
            space = self._driver.space
            if space is None or not self._driver.leads():
                continue
            own = space.room()
            if own.spare_bytes < own.reserve_bytes:
                await self._hand_over(own)

    async def _hand_over(self, own: Room) -> None:
        server = who_has_room(own, await self._spare_bytes())
        if not server:
            return
        log.warning("the disk is nearly full: handing over to %s, which has room", name_of(server))
        try:
            await self._driver.transfer(server)
        except TideError as error:
            log.warning("not handed over yet: %s", error)

    async def _spare_bytes(self) -> dict[int, int]:
        """Of the other voters that answer at once."""
        found: dict[int, int] = {}
        with trio.move_on_after(MEMBER_ANSWER_TIMEOUT_MS / 1000):
            async with trio.open_nursery() as nursery:
                for server in self._driver.core.configuration.voters:
                    if server != self._server:
                        nursery.start_soon(self._ask, server, found)
        return found

    async def _ask(self, server: int, found: dict[int, int]) -> None:
        try:
            peer = await self._group.reach(server)
        except TideError:
            return  # the group says so itself
        try:
            status = await peer.call(GetMember(), timeout_ms=MEMBER_ANSWER_TIMEOUT_MS)
            found[server] = status.spare_bytes
        except TideError:
            return
        finally:
            peer.close("it was asked how much room it has")
