"""Several clients at work in one directory, on the same names: only invariants are checked.

Nobody can say what each answer must be, but: an answer is success or an error that the race
explains; a file there holds only bytes that a rival wrote, or zeros; and at the end a fresh client
can list and read everything.
"""

import random
from collections.abc import Awaitable, Callable

from tidefs.client.fuse.driver import NewAttributes
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.meta import RenameFlags

from .conditions import Conditions, ViolationError
from .model import Path, Tree
from .snapshot import Snapshot
from .trace import Trace
from .user import OpenFile, User, as_text

FOLDER: Path = (b"shared",)
NAMES = (b"a", b"b", b"c", b"d")
TAGS = bytes((0xA1, 0xB2, 0xC3, 0xD4))
"""The only bytes that rivals write. Everybody else writes all values, so a leak shows."""

EXPLAINED = frozenset(
    {
        Code.NO_ENTRY,
        Code.EXISTS,
        Code.NOT_EMPTY,
        Code.NOT_A_DIRECTORY,
        Code.IS_A_DIRECTORY,
        Code.NOT_PERMITTED,
        Code.INVALID,
        Code.STALE_HANDLE,
    }
)


class Rival:
    """One of them."""

    def __init__(
        self, name: str, seed: str, write_max_bytes: int, conditions: Conditions, trace: Trace
    ) -> None:
        self.name = name
        self.base = FOLDER
        self.tree = Tree()  # nothing is known of it
        self._tag = TAGS[hash_of(name) % len(TAGS)]
        self._random = random.Random(seed)
        self._write_max_bytes = write_max_bytes
        self._conditions = conditions
        self._trace = trace
        self._user: User | None = None
        self._files: list[OpenFile] = []
        self._doing = "has not begun"

    @property
    def user(self) -> User:
        assert self._user is not None
        return self._user

    # --- as a Worker ---------------------------------------------------------------------------

    async def prepare(self, user: User) -> None:
        """Nothing: a rival takes what it finds."""

    async def attach(self, user: User) -> None:
        """Work through this mount."""
        self._user = user

    async def work(self, steps: int) -> None:
        """Do that many random operations."""
        for _ in range(steps):
            await getattr(self, f"_{self._random.choice(OPERATIONS)}")()

    async def finish(self) -> None:
        """Close everything."""
        while self._files:
            await self._close()

    def detach(self) -> None:
        """Leave this mount."""
        self._user = None

    def client_died(self) -> None:
        """The mount is gone."""
        self._user = None
        self._files.clear()

    def servers_lost_power(self) -> None:
        """Old, new or zero: all of them are allowed anyway."""

    def doing(self) -> str:
        """What it waits for."""
        return f"{self.name} {self._doing}"

    async def check_all(self, user: User) -> None:
        """A fresh client can see everything, and the bytes are ours."""
        snapshot = await Snapshot.take(user, self._conditions.excuse)
        for path, seen in snapshot.seen.items():
            self._check_bytes(as_text(path), seen.data or b"")

    # --- operations ----------------------------------------------------------------------------

    async def _try(self, text: str, ask: Callable[[], Awaitable[object]], *, data: bool) -> object:
        self._doing = text
        self._trace.note("op", f"{self.name} {text}")
        try:
            answer = await ask()
        except TideError as error:
            self._trace.note("answer", f"{self.name} {error.code.name}")
            conditions = self._conditions
            if conditions.excuse(error.code, data=data) or conditions.unclear(error.code):
                return None
            if error.code in EXPLAINED:
                return None
            raise ViolationError(f"{self.name}: {text} failed with {error!r}") from None
        self._trace.note("answer", f"{self.name} ok")
        return answer

    def _path(self) -> Path:
        return tuple(self._random.choices(NAMES, k=self._random.choice((1, 1, 2))))

    async def _create(self) -> None:
        path = self._path()
        if len(self._files) < 3:
            await self._keep(f"create {as_text(path)}", lambda: self.user.create(path, 0o644))

    async def _open(self) -> None:
        path = self._path()

        async def open_file() -> OpenFile | None:
            if (await self.user.look(path)).kind is not Kind.FILE:
                return None
            return await self.user.open(path)

        if len(self._files) < 3:
            await self._keep(f"open {as_text(path)}", open_file)

    async def _keep(self, text: str, ask: Callable[[], Awaitable[OpenFile | None]]) -> None:
        file = await self._try(text, ask, data=False)
        if isinstance(file, OpenFile):
            self._files.append(file)

    async def _write(self) -> None:
        if self._files:
            file = self._random.choice(self._files)
            offset = self._random.randint(0, self._write_max_bytes)
            data = bytes([self._tag]) * self._random.randint(1, self._write_max_bytes)
            text = f"write #{file.inode} {offset}+{len(data)}"
            await self._try(text, lambda: file.write(offset, data), data=True)

    async def _read(self) -> None:
        if self._files:
            file = self._random.choice(self._files)
            offset = self._random.randint(0, self._write_max_bytes)
            length = self._random.randint(1, self._write_max_bytes)
            text = f"read #{file.inode} {offset}+{length}"
            data = await self._try(text, lambda: file.read(offset, length), data=True)
            if isinstance(data, bytes):
                self._check_bytes(text, data)

    async def _fsync(self) -> None:
        if self._files:
            file = self._random.choice(self._files)
            await self._try(f"fsync #{file.inode}", file.fsync, data=True)

    async def _close(self) -> None:
        if self._files:
            file = self._random.choice(self._files)
            await self._try(f"close #{file.inode}", file.close, data=True)
            self._files.remove(file)

    async def _truncate(self) -> None:
        path, size = self._path(), self._random.randint(0, self._write_max_bytes)

        async def truncate() -> None:
            if (await self.user.look(path)).kind is Kind.FILE:
                await self.user.change(path, NewAttributes(size=size))

        await self._try(f"truncate {as_text(path)} {size}", truncate, data=True)

    async def _mkdir(self) -> None:
        path = self._path()
        await self._try(f"mkdir {as_text(path)}", lambda: self.user.mkdir(path, 0o755), data=False)

    async def _rmdir(self) -> None:
        path = self._path()
        await self._try(f"rmdir {as_text(path)}", lambda: self.user.rmdir(path), data=False)

    async def _unlink(self) -> None:
        path = self._path()
        await self._try(f"unlink {as_text(path)}", lambda: self.user.unlink(path), data=False)

    async def _link(self) -> None:
        path, new_path = self._path(), self._path()
        text = f"link {as_text(path)} {as_text(new_path)}"
        await self._try(text, lambda: self.user.link(path, new_path), data=False)

    async def _rename(self) -> None:
        path, new_path = self._path(), self._path()
        flags = self._random.choice((*RenameFlags, RenameFlags.NONE))
        text = f"rename {as_text(path)} {as_text(new_path)} {flags.name}"
        await self._try(text, lambda: self.user.rename(path, new_path, flags), data=False)

    async def _list(self) -> None:
        path = self._path()[1:]

        async def entries() -> object:
            if (await self.user.look(path)).kind is Kind.DIRECTORY:
                return await self.user.entries(path)
            return None

        await self._try(f"list {as_text(path)}", entries, data=False)

    def _check_bytes(self, text: str, data: bytes) -> None:
        strange = set(data) - {0, *TAGS}
        if strange:
            raise ViolationError(f"{self.name}: {text}: bytes that no rival wrote: {strange}")


def hash_of(name: str) -> int:
    """The same in every process, as ``hash`` is not."""
    return sum(name.encode())


OPERATIONS = (
    *("create", "create", "open", "open", "write", "write", "write", "read", "read", "fsync"),
    *("close", "close", "truncate", "mkdir", "rmdir", "unlink", "link", "rename", "rename", "list"),
)
