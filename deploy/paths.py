"""Paths of a file system from outside of it: from a path to its inode, and from inodes to paths.

Paths begin at the root of the file system, not at that of this machine.
"""

import os
from collections.abc import Iterable

from ..fs.errors import Code, TideError
from ..fs.limits import NAMES_LOOKED_AT_MAX
from ..fs.messages.meta import Lookup
from ..fs.messages.names import FindNames, FoundName
from .questions import Questions

ROOT = 1
NO_SUCH_PATH = frozenset({Code.NO_ENTRY, Code.NOT_A_DIRECTORY, Code.NAME_TOO_LONG})


async def inode_at(questions: Questions, path: str) -> int:
    """The inode; links are not followed. One of NO_SUCH_PATH when there is none."""
    inode = ROOT
    for name in os.fsencode(path).split(b"/"):
        if name in (b"", b"."):
            continue
        try:
            inode = (await questions.ask(Lookup(inode, name))).attributes.inode
        except TideError as error:
            raise TideError(
                error.code, path if error.code in NO_SUCH_PATH else error.detail
            ) from None
    return inode


async def paths_of(questions: Questions, inodes: Iterable[int]) -> dict[int, list[str]]:
    """What these inodes are called now, by inode, sorted. One that has no name is not there."""
    wanted = set(inodes)
    directories: dict[int, bytes | None] = {ROOT: b""}
    found: dict[int, list[str]] = {}
    for one in await _search(questions, wanted) if wanted else []:
        if one.directory not in directories:
            directories[one.directory] = await _path(questions, one.directory, directories)
        above = directories[one.directory]
        if above is not None:
            found.setdefault(one.inode, []).append(shown(above + b"/" + one.name))
    return {inode: sorted(paths) for inode, paths in found.items()}


def shown(path: bytes) -> str:
    """A path for people and for JSON."""
    return path.decode(errors="backslashreplace")


async def _search(questions: Questions, wanted: set[int]) -> list[FoundName]:
    """All names of these inodes: it looks through all names that there are."""
    found: list[FoundName] = []
    directory, name, end = 0, b"", False
    while not end:
        request = FindNames(sorted(wanted), directory, name, NAMES_LOOKED_AT_MAX)
        piece = await questions.ask(request)
        found += piece.found
        directory, name, end = piece.directory, piece.name, piece.end
    return found


async def _path(
    questions: Questions, directory: int, known: dict[int, bytes | None]
) -> bytes | None:
    """The path of a directory; None when it is gone."""
    names: list[bytes] = []
    at = directory
    while known.get(at) is None:
        try:
            parent = (await questions.ask(Lookup(at, b".."))).attributes.inode
        except TideError as error:
            if error.code in (Code.STALE_HANDLE, Code.NO_ENTRY):
                return None
            raise
        name = await _name_in(questions, parent, at)
        if name is None:
            return None
        names.append(name)
        at = parent
    return b"/".join([known[at] or b"", *reversed(names)])


async def _name_in(questions: Questions, parent: int, directory: int) -> bytes | None:
    """What ``parent`` calls a directory; None when it was renamed or removed meanwhile."""
    at, name, end = parent, b"", False
    while at == parent and not end:
        piece = await questions.ask(FindNames([directory], at, name, NAMES_LOOKED_AT_MAX))
        if piece.found:
            return piece.found[0].name
        at, name, end = piece.directory, piece.name, piece.end
    return None
