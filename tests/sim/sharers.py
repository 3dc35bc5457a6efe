"""What applications have in common that share files under locks: each works on one mount, after a
crash on a new one, and knows what an error may mean.

What a session's end does to its locks is told to those who have the file open: they get errors, and
only for that reason. They close it, open it again, and go on.
"""

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import trio
from tidefs.fs.errors import Code, TideError

from .cluster import Cluster
from .conditions import ViolationError
from .lock_book import Client
from .model import Path, Tree
from .user import OpenFile, User, as_text

T = TypeVar("T")

FOLDER: Path = (b"locked",)

LOST = frozenset(
    {Code.SESSION_EXPIRED, Code.DEVICE_ERROR, Code.FENCED, Code.STALE_HANDLE, Code.NO_ATTRIBUTE}
)
"""How a file is lost whose locks went with the session. (NO_ATTRIBUTE: who has no lock any more has
no token.)"""

PAUSE_MAX_S = 1.0


class LostError(Exception):
    """The file has to be opened anew: the session is over, and with it all locks."""


class Sharer(ABC):
    """One of them."""

    flags = os.O_RDWR

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self.base = FOLDER
        self.tree = Tree()  # what it knows, it knows itself
        self._cluster = cluster
        self._random = random.Random(f"{cluster.seed} {name}")
        self._user: User | None = None
        self._files: dict[Path, OpenFile] = {}
        self._doing = "has not begun"

    @property
    def user(self) -> User:
        assert self._user is not None
        return self._user

    # --- as a Worker ---------------------------------------------------------------------------

    async def prepare(self, user: User) -> None:  # noqa: B027 - a hook
        """Before anything goes wrong: files that are not there yet."""

    async def attach(self, user: User) -> None:
        """Work through this mount."""
        self._user = user

    async def work(self, steps: int) -> None:
        """Do that many things."""
        for _ in range(steps):
            try:
                await self._step()
            except LostError:
                await self._close_all()
                await self._wait(PAUSE_MAX_S)

    async def finish(self) -> None:
        """Close everything."""
        await self._close_all()

    def detach(self) -> None:
        """Leave this mount."""
        self._doing = "is done here"
        self._user = None

    def client_died(self) -> None:
        """The mount is gone."""
        self._user = None
        self._files.clear()

    def servers_lost_power(self) -> None:  # noqa: B027 - a hook
        """What matters is synced."""

    def doing(self) -> str:
        """What it waits for."""
        return f"{self.name} {self._doing}"

    async def check_all(self, user: User) -> None:  # noqa: B027 - a hook
        """At the end, through a fresh mount."""

    @abstractmethod
    async def _step(self) -> None:
        """Do one thing."""

    # --- for those who inherit -----------------------------------------------------------------

    async def _open(self, path: Path) -> OpenFile:
        """Open until it is lost."""
        if path not in self._files:
            text = f"open {as_text(path)}"
            opened = await self._ask(text, lambda: self.user.open(path, self.flags))
            self._files[path] = opened
        return self._files[path]

    async def _close_all(self) -> None:
        while self._files:
            _, file = self._files.popitem()
            with suppress(LostError):
                await self._ask(f"close #{file.inode}", file.close)

    async def _ask(self, text: str, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer; LostError when the session was lost, or when the file is to be given up for
        another reason that explains it; a TideError that says something about locks. Anything else
        is a violation."""
        self._doing = text
        trace, conditions = self._cluster.trace, self._cluster.conditions
        trace.note("op", f"{self.name} {text}")
        try:
            answer = await ask()
        except TideError as error:
            trace.note("answer", f"{self.name} {error.code.name}: {error.detail[:90]}")
            if error.code in (Code.WOULD_BLOCK, Code.DEADLOCK):
                raise
            lost = error.code in LOST and conditions.session_was_lost
            if lost or conditions.excuse(error.code, data=True):
                raise LostError from error
            raise ViolationError(f"{self.name}: {text} failed with {error!r}") from None
        trace.note("answer", f"{self.name} ok")
        return answer

    def _client(self) -> Client:
        vfs = self.user.vfs
        return Client(vfs.meta, vfs.clock.monotonic_ns)  # type: ignore[attr-defined]

    async def _wait(self, most_s: float) -> None:
        await trio.sleep(self._random.uniform(0, most_s))
