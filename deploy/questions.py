"""Many questions to whoever leads, one after another, from a command."""

from typing import TypeVar

import trio

from ..fs.errors import TideError
from ..fs.messages.base import Message, Request
from .members import AGAIN, LOOK_EVERY_MS, PATIENCE_MS, Lookout

R = TypeVar("R", bound=Message)


class Questions:
    """Asks the leader, and looks for another one when it leads no more."""

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout
        self._addresses: list[str] = []

    async def ask(self, request: Request[R]) -> R:
        """The answer. TideError: a refusal, or why nobody has answered for PATIENCE_MS."""
        began = trio.current_time()
        while True:
            if not self._addresses:
                view = await self._lookout.wait_leader()
                assert view.leader is not None
                self._addresses = view.leader.addresses
            try:
                return await self._lookout.asker.ask(self._addresses, request)
            except TideError as error:
                waited_ms = (trio.current_time() - began) * 1000
                if error.code not in AGAIN or waited_ms > PATIENCE_MS:
                    raise
                self._addresses = []
            await trio.sleep(LOOK_EVERY_MS / 1000)
