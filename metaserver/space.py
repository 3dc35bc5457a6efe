"""Whether there is room for more: changes are refused before the disk is full, never in between.

The last part of the disk is kept for what gives room back (deleting) and for checkpoints.
"""

from typing import NamedTuple

from ..fs.errors import Code, TideError
from ..fs.limits import FREE_SPACE_RESERVE_BYTES, FREE_SPACE_RESERVE_PARTS, MIB
from ..fs.messages.base import Message
from ..fs.messages.locks import Unlock, Withdraw
from ..fs.messages.meta import RemoveDirectory, RemoveXattr, SetAttributes, Unlink
from ..fs.ports.clock import Clock
from ..fs.ports.disk import Disk
from .entries import EndSession, Noop, Reap, ReserveHandles, StartSession

LOOK_EVERY_NS = 100 * 10**6

_GIVES_BACK = (
    Unlink,
    RemoveDirectory,
    RemoveXattr,
    Unlock,
    Withdraw,
    EndSession,
    Reap,
    # Who wants to delete needs a session first, and a leader must be able to begin its term.
    StartSession,
    Noop,
    ReserveHandles,
)


class Room(NamedTuple):
    """How much there is and how much of it is kept back."""

    free_bytes: int
    reserve_bytes: int

    @property
    def spare_bytes(self) -> int:
        """What can be used up before changes are refused; negative: they are."""
        return self.free_bytes - self.reserve_bytes


class SpaceGuard:
    """Looks at the disk now and then, and says no in time."""

    def __init__(self, disk: Disk, clock: Clock, folder: str) -> None:
        """``folder``: how the data folder is called in messages to people."""
        self._disk = disk
        self._clock = clock
        self._folder = folder
        self._looked_ns = -LOOK_EVERY_NS
        self._room = Room(0, 0)

    def room(self) -> Room:
        """As it was at most ``LOOK_EVERY_NS`` ago."""
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._looked_ns >= LOOK_EVERY_NS:
            self._looked_ns = now_ns
            space = self._disk.space()
            part = space.total_bytes // FREE_SPACE_RESERVE_PARTS
            self._room = Room(space.free_bytes, min(FREE_SPACE_RESERVE_BYTES, part))
        return self._room

    def check(self, request: Message) -> None:
        """NO_SPACE, naming the folder and how much is missing, when ``request`` must wait."""
        free_bytes, reserve_bytes = self.room()
        if free_bytes >= reserve_bytes:
            return
        needed_bytes = reserve_bytes // 2 if gives_back(request) else reserve_bytes
        if free_bytes < needed_bytes:
            raise TideError(Code.NO_SPACE, self.sentence(needed_bytes - free_bytes))

    @property
    def nearly_full(self) -> str:
        """A warning for a person, before anything is refused."""
        room = self.room()
        return (
            f"the disk with the metadata ({self._folder}) is nearly full:"
            f" {room.free_bytes // MIB} MiB are free, below {room.reserve_bytes // MIB} MiB nothing"
            " can be changed any more"
        )

    def sentence(self, missing_bytes: int) -> str:
        """For a person: what is full and how much would help."""
        missing_mib = -(-missing_bytes // MIB)
        return (
            f"the disk with the metadata ({self._folder}) is full: "
            f"free {missing_mib} MiB on it, or move the folder to a larger one"
        )


def gives_back(request: Message) -> bool:
    """Whether a change makes room, so that it may use the first half of the reserve."""
    if isinstance(request, SetAttributes):
        return request.size is not None
    return isinstance(request, _GIVES_BACK)
