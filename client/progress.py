"""How far a mount is with what was written there: told to who unmounts, log and service manager."""

import logging

import trio

from . import service_manager
from .client import Client
from .notes import NoteFile, waiting_for

log = logging.getLogger(__name__)

LOOK_S = 0.5
ASKED = "it was told not to wait for the servers"
SAY_EACH = 4
"""One look in so many is said, once the mount ends."""


class Progress:
    """Of one mount. ``note``: set when it is mounted."""

    def __init__(self, client: Client) -> None:
        self.note: NoteFile | None = None
        self._client = client
        self._ending = False
        self._said = ""

    def ends(self) -> None:
        """Nobody uses it any more: from now on, somebody may wait for it."""
        self._ending = True
        service_manager.tell("STOPPING=1")

    async def report_forever(self) -> None:
        """Until cancelled."""
        looks = 0
        while True:
            await trio.sleep(LOOK_S)
            standing = self._client.standing
            if self.note is not None:
                self.note.stand(standing.unwritten_bytes, standing.waits_for)
            if self._ending:
                looks += 1
                if looks % SAY_EACH == 0:
                    self._say(f"waiting for {waiting_for(*standing)}")

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            log.info("%s", text)
            service_manager.tell(f"STATUS={text}")

    def close(self, reason: str) -> None:
        """All is written, or never will be, for ``reason``."""
        unwritten_bytes = self._client.standing.unwritten_bytes
        outcome = f"something that was written here is lost: {reason}" if reason else ""
        if unwritten_bytes:
            outcome = f"{unwritten_bytes} bytes that were written here are lost: {reason or ASKED}"
        if outcome:
            log.error("%s", outcome)
        if self.note is not None:
            self.note.close(outcome)
