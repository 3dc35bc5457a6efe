"""Everything in one directory as a client sees it, and how that differs from the model."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from tidefs.fs.attributes import Attributes, Kind
from tidefs.fs.errors import Code, TideError

from .model import Node, Path, Tree
from .user import User, as_text


class Excuse(Protocol):
    """Whether an error is honest after what happened to the cluster."""

    def __call__(self, code: Code, *, data: bool) -> bool: ...


class Seen(NamedTuple):
    """One inode. ``data`` is None where the bytes could not be read, with ``reason``."""

    attributes: Attributes
    names: list[bytes]
    target: bytes
    xattrs: dict[bytes, bytes]
    data: bytes | None
    reason: str = ""


class Snapshot:
    """All inodes below a directory, by path."""

    def __init__(self) -> None:
        self.seen: dict[Path, Seen] = {}

    @classmethod
    async def take(cls, user: User, excuse: Excuse) -> "Snapshot":
        """List and read everything. Errors without an excuse come through."""
        snapshot = cls()
        todo: list[Path] = [()]
        while todo:
            path = todo.pop()
            seen = await _look(user, path, excuse)
            snapshot.seen[path] = seen
            todo += [(*path, name) for name in seen.names]
        return snapshot


async def _look(user: User, path: Path, excuse: Excuse) -> Seen:
    attributes = await user.look(path)
    names: list[bytes] = []
    target = b""
    data: bytes | None = b""
    reason = ""
    if attributes.kind is Kind.DIRECTORY:
        names = sorted(entry.name for entry in await user.entries(path))
        assert len(names) == len(set(names)), f"{as_text(path)} lists a name twice: {names}"
    elif attributes.kind is Kind.SYMLINK:
        target = await user.readlink(path)
    elif attributes.kind is Kind.FILE:
        try:
            attributes, data = await user.read_all(path)
        except TideError as error:
            if not excuse(error.code, data=True):
                raise
            data, reason = None, str(error)
    xattrs = {name: await user.get_xattr(path, name) for name in await user.list_xattrs(path)}
    return Seen(attributes, names, target, xattrs, data, reason)


def differences(tree: Tree, snapshot: Snapshot) -> list[str]:
    """What a model tree and a snapshot disagree about, a sentence each."""
    wrong = []
    wanted: dict[Path, Node] = {(): tree.root, **dict(tree.paths())}
    for path, node in wanted.items():
        seen = snapshot.seen.get(path)
        if seen is None:
            wrong.append(f"{as_text(path)} is missing")
        else:
            shown = f"{as_text(path)} (#{seen.attributes.inode})"
            wrong += [f"{shown}: {reason}" for reason in _compare(node, seen)]
    wrong += [f"{as_text(path)} is there" for path in snapshot.seen if path not in wanted]
    return wrong


def _compare(node: Node, seen: Seen) -> list[str]:
    checks: list[Callable[[], str | None]] = [
        lambda: node.see(seen.attributes),
        lambda: None if node.xattrs == seen.xattrs else f"the xattrs are {sorted(seen.xattrs)}",
        lambda: None if node.target == seen.target else f"it points to {seen.target!r}",
        lambda: _compare_bytes(node, seen),
    ]
    return [reason for check in checks if (reason := check()) is not None]


def _compare_bytes(node: Node, seen: Seen) -> str | None:
    if node.kind is not Kind.FILE or seen.attributes.kind is not Kind.FILE:
        return None
    if seen.data is None:
        return f"cannot be read: {seen.reason}" if node.file.certain() else None
    return node.file.see_bytes(0, seen.attributes.size, seen.data)
