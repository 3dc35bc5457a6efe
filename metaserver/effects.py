"""What an applied entry asks of the world outside the state: values, performed by the shell."""

from typing import NamedTuple, TypeAlias

from ..fs.errors import TideError
from ..fs.messages.base import Message


class ChunksDropped(NamedTuple):
    """These chunks belong to no file any more: garbage wherever they are held."""

    handles: list[int]


class Orphaned(NamedTuple):
    """This inode lost its last name; ``Reap`` it when no session has it open."""

    inode: int


class SessionStarted(NamedTuple):
    """A session lives from now on."""

    session: int


class SessionEnded(NamedTuple):
    """A session is over: its open files and reservations go with it."""

    session: int
    expired: bool


class LocksGranted(NamedTuple):
    """What this session has waited for it holds now: (ticket, token) of each."""

    session: int
    grants: list[tuple[int, int]]


Effect: TypeAlias = ChunksDropped | Orphaned | SessionStarted | SessionEnded | LocksGranted


class Applied(NamedTuple):
    """The answer to an entry's sender, and what else is to be done."""

    reply: Message | TideError
    effects: list[Effect]
