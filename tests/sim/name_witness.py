"""Witnesses of names: who makes, links, renames, removes, looks and lists in two folders."""

from collections.abc import Awaitable, Callable
from functools import partial

from tidefs.fs.attributes import Attributes
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.meta import DirectoryEntry, RenameFlags

from .model import Path
from .objects import NO_ENTRY, Create, Link, List, Rename, Stat, Unlink
from .user import CALLER, OpenFile, User
from .witness import Witness, is_done

FOLDERS = ("d", "e")
NAMES = ("a", "b", "c")
"""With one more than these a listing would take two requests, and be of two moments."""

OPEN_MAX = 3

LOOKS = ("stat", "stat", "stat", "list", "list")
DOINGS = (
    *("create", "create", "create", "unlink", "unlink", "rename", "rename", "rename"),
    *("link", "link", *LOOKS),
)


class NameWitness(Witness):
    """One of them. A file is known by its owner, which is the tag."""

    async def prepare(self, user: User) -> None:
        if self._is_first:
            for folder in FOLDERS:
                await user.mkdir((folder.encode(),), 0o755)

    async def _witness_something(self) -> None:
        doing = self._random.choice(LOOKS if self._only_looks else DOINGS)
        await getattr(self, f"_{doing}")()

    async def _create(self) -> None:
        """Who has files open for long does not close it: it may lose its last name meanwhile."""
        name, tag = self._some_name(), self._tag()
        caller = CALLER._replace(uid=tag)
        create = partial(self.user.create, _path(name), 0o644, caller)
        file = await self._witness(Create(name, tag), create, is_done)
        if file is not None:
            await self._keep(_path(name), file)

    async def _keep(self, path: Path, file: OpenFile) -> None:
        before = self._files.pop(path, None)
        self._files[path] = file
        if before is not None:
            await self._ask(f"close #{before.inode}", before.close)
        if len(self._files) > OPEN_MAX:
            await self._close_all()

    async def _unlink(self) -> None:
        name = self._some_name()
        await self._witness(Unlink(name), partial(self.user.unlink, _path(name)), is_done)

    async def _rename(self) -> None:
        name, new_name = self._random.sample(_names(), 2)
        flags = self._random.choice(
            (RenameFlags.NONE, RenameFlags.NONE, RenameFlags.NOREPLACE, RenameFlags.EXCHANGE)
        )
        what = Rename(
            name,
            new_name,
            noreplace=flags is RenameFlags.NOREPLACE,
            exchange=flags is RenameFlags.EXCHANGE,
        )
        rename = partial(self.user.rename, _path(name), _path(new_name), flags)
        await self._witness(what, rename, is_done)

    async def _link(self) -> None:
        """Two calls, as linkat(2) is for who looks on: what has the name, and a name for that."""
        name, new_name = self._random.sample(_names(), 2)
        found = await self._witness(Stat(name), self._looking(name), _tag_and_links)
        if found is not None:
            link = partial(self.user.link_inode, found.inode, _path(new_name))
            await self._witness(Link(found.uid, new_name), link, is_done)

    async def _stat(self) -> None:
        name = self._some_name()
        await self._witness(Stat(name), self._looking(name), _tag_and_links)

    async def _list(self) -> None:
        folder = self._random.choice(FOLDERS)
        entries = partial(self.user.entries, (folder.encode(),))
        await self._witness(List(folder), entries, partial(_names_and_tags, folder))

    def _refusal(self, what: object, error: TideError) -> str | None:
        """A file that lost its last name is gone sooner or later, and its inode with it."""
        gone = isinstance(what, Link) and error.code is Code.STALE_HANDLE
        return NO_ENTRY if gone else super()._refusal(what, error)

    # --- names of things -----------------------------------------------------------------------

    def _looking(self, name: str) -> Callable[[], Awaitable[Attributes]]:
        return partial(self.user.look, _path(name))

    def _some_name(self) -> str:
        return self._random.choice(_names())


def _names() -> list[str]:
    return [f"{folder}/{name}" for folder in FOLDERS for name in NAMES]


def _path(name: str) -> Path:
    return tuple(part.encode() for part in name.split("/"))


def _tag_and_links(found: Attributes) -> tuple[int, int]:
    return found.uid, found.links


def _names_and_tags(folder: str, found: list[DirectoryEntry]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((f"{folder}/{one.name.decode()}", one.attributes.uid) for one in found))
