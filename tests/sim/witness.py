"""Applications on several mounts, all about the same few files and names, that record what they
ask and are told: of mounts of one mode, the history must be linearizable (Herlihy and Wing 1990).

What each kind of them does stands in ``name_witness.py``, ``byte_witness.py`` and
``attribute_witness.py``. An operation whose client died, or whose session was lost, may have
happened or not, and at any later moment: what was sent may still be under way. A question that
failed for such a reason says nothing, and is forgotten.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tidefs.fs.errors import Code, TideError

from .cluster import Cluster
from .conditions import ViolationError
from .history import History
from .model import Path
from .objects import EXISTS, NO_ATTRIBUTE, NO_ENTRY, OK, only_looks
from .sharers import LOST, LostError, Sharer
from .user import OpenFile, User

T = TypeVar("T")

FOLDER: Path = (b"witnessed",)
FIRST_TAG = 100_000
"""Tags that callers give are below; this much each witness may give out."""

ANSWERS = frozenset({EXISTS, NO_ENTRY, NO_ATTRIBUTE})
"""Errors, by name, that say something about the object."""

IN_A_ROW_MAX = 3
"""So many calls come one after the other, without a pause."""

FORGET_IN = 0.1
"""So often the kernel wants memory back, and forgets inodes."""


class Witness(Sharer):
    """One of them. Some have files open for long, some open them for a few calls; and some only
    look: who is cut off can do so for a while, where it may believe what it knows."""

    may_be_done_in_part = False
    """Whether an operation for which there was no room may have done something."""

    def __init__(self, cluster: Cluster, name: str, number: int, history: History) -> None:
        super().__init__(cluster, name)
        self.base = FOLDER
        self._is_first = number == 0
        self._history = history
        self._keeps_open = self._random.random() < 0.5
        self._only_looks = number > 0 and self._random.random() < 0.3
        self._next_tag = FIRST_TAG * (1 + number)

    async def work(self, steps: int) -> None:
        for _ in range(steps):
            await super().work(1)
            if self._random.random() < FORGET_IN:
                self.user.forget()

    async def _step(self) -> None:
        for _ in range(self._random.randint(1, IN_A_ROW_MAX)):
            await self._witness_something()
        if not self._keeps_open:
            await self._close_all()

    @abstractmethod
    async def _witness_something(self) -> None:
        """One call, recorded."""

    # --- for those who inherit -----------------------------------------------------------------

    def _tag(self) -> int:
        """One that nobody else gives."""
        self._next_tag += 1
        return self._next_tag

    async def _witness(
        self, what: object, ask: Callable[[], Awaitable[T]], told: Callable[[T], object]
    ) -> T | None:
        """Ask, and record it with what was ``told``; what came back, None for an error that says
        something about the object. LostError: nobody knows, and files are to be opened anew."""
        self._doing = str(what)
        trace = self._cluster.trace
        trace.note("op", f"{self.name} {what}")
        number = self._history.call(self.name, what)
        try:
            answer = await ask()
        except TideError as error:
            trace.note("answer", f"{self.name} {error.code.name}: {error.detail[:90]}")
            self._failed(number, what, error)
            return None
        trace.note("answer", f"{self.name} {told(answer)}")
        self._history.returned(number, told(answer))
        return answer

    def _failed(self, number: int, what: object, error: TideError) -> None:
        refusal = self._refusal(what, error)
        if refusal is not None:
            self._history.returned(number, refusal)
            return
        conditions = self._cluster.conditions
        lost = error.code in LOST and conditions.session_was_lost
        if not lost and not conditions.excuse(error.code, data=True):
            raise ViolationError(f"{self.name}: {what} failed with {error!r}") from None
        if only_looks(what) or (error.code is Code.NO_SPACE and not self.may_be_done_in_part):
            self._history.came_to_nothing(number)
        raise LostError from error

    def _refusal(self, _what: object, error: TideError) -> str | None:
        """What it says about the object, if it does."""
        return error.code.name if error.code.name in ANSWERS else None


def is_done(_answer: object) -> object:
    """What is told of an operation whose answer says no more than that."""
    return OK


async def make(user: User, path: Path) -> OpenFile:
    """A file that is there before anything goes wrong."""
    return await user.create(path, 0o644)
