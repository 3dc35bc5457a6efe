"""Random work of one application in a directory of its own, each answer checked against the model.

Nobody else touches that directory, so the model knows every answer. An operation whose answer
never came (the client crashed) may have happened or not: then the tree has two possible shapes,
and the first look through the next client decides which one it is.
"""

import random
from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from tidefs.client.fuse.driver import NewAttributes
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import CHUNK_BYTES, INLINE_MAX_BYTES
from tidefs.fs.messages.meta import RenameFlags, XattrFlags

from .model import Node, Path, Tree
from .snapshot import Snapshot, differences
from .trace import Trace
from .user import OpenFile, User, as_text

T = TypeVar("T")
S = TypeVar("S")

NAMES = tuple(b"%c" % letter for letter in b"abcdefgh")
DEPTH_MAX = 3
NODES_MAX = 40
OPEN_MAX = 4


class ViolationError(AssertionError):
    """The file system broke a promise."""


@dataclass
class Conditions:
    """What has happened to the cluster so far that makes some errors honest."""

    disk_was_full: bool = False
    power_was_lost: bool = False
    bits_rotted: bool = False

    def excuse(self, code: Code, *, data: bool) -> bool:
        """Whether an operation may end with this error; ``data``: one about bytes of a file."""
        if code is Code.NO_SPACE:
            return self.disk_was_full
        return data and self.power_was_lost and code in {Code.DEVICE_ERROR, Code.BAD_CHECKSUM}


@dataclass(eq=False)
class Handle:
    """An open file and the model's node that it stands for."""

    file: OpenFile
    node: Node


@dataclass
class Taste:
    """How often what is done, and how large things are; drawn once a run (swarm testing)."""

    weights: dict[str, float]
    write_max_bytes: int = 40_000
    far_offsets: bool = False

    @classmethod
    def draw(cls, chance: random.Random) -> "Taste":
        """Every kind of operation is rare, usual or frequent in this run."""
        weights = {name: chance.choice((0.2, 1.0, 1.0, 3.0)) for name in OPERATIONS}
        for name in ("create", "write", "fsync", "close"):
            weights[name] *= 4
        return cls(
            weights,
            write_max_bytes=chance.choice((200, INLINE_MAX_BYTES, 40_000, 300_000)),
            far_offsets=chance.random() < 0.2,
        )

    def only_bytes(self) -> None:
        """No names are made or taken away: for a mode whose clients believe names for a while."""
        self.weights = {name: self.weights[name] for name in ONLY_BYTES}


class Worker:
    """One application. ``tree`` is what its directory must look like."""

    def __init__(
        self, name: str, base: Path, taste: Taste, conditions: Conditions, trace: Trace
    ) -> None:
        self.name = name
        self.base = base
        self.tree = Tree()
        self.handles: list[Handle] = []
        self._taste = taste
        self._conditions = conditions
        self._trace = trace
        self._random = random.Random()
        self._user: User | None = None
        self._doing = "has not begun"
        self._pending: Callable[[Tree], object] | None = None
        self._shapes: list[Tree] = []  # after a crash: what the tree may be

    @property
    def user(self) -> User:
        assert self._user is not None, "work happens between attach and client_died"
        return self._user

    def seed(self, seed: str) -> None:
        self._random.seed(seed)

    # --- life ----------------------------------------------------------------------------------

    async def attach(self, user: User) -> None:
        """Work goes on through this mount; after a crash, first look at what is there."""
        self._user = user
        if self._shapes:
            await self._settle_shape()

    async def prepare(self, user: User) -> None:
        """Make the files that a taste for bytes alone works on."""
        if "create" in self._taste.weights:
            return
        for name in NAMES[:3]:
            file = await user.create((name,), 0o644)
            await file.close()
            self.tree.make((name,), Node(Kind.FILE, 0o644, inode=file.inode))

    def doing(self) -> str:
        """What it waits for, for the reader of a failure."""
        return f"{self.name} {self._doing}"

    async def work(self, steps: int) -> None:
        """Do that many random operations."""
        names = sorted(self._taste.weights)
        weights = [self._taste.weights[name] for name in names]
        for _ in range(steps):
            (name,) = self._random.choices(names, weights)
            await getattr(self, f"_{name}")()

    async def finish(self) -> None:
        """Close everything."""
        while self.handles:
            await self._close()

    def detach(self) -> None:
        """Leave this mount in good order, with everything closed."""
        self._doing = "is done here"
        assert not self.handles
        self._user = None

    def client_died(self) -> None:
        """The mount is gone, and with it what it had not published."""
        if self._user is None:
            return  # it was not at work there yet, or still looks at the results of a crash
        self._trace.note("op", f"{self.name} lost its mount")
        if not self._shapes:
            self._shapes = [self.tree, *self._maybe()]
        for tree in self._shapes:
            for file in tree.files():
                file.client_died()
        self._pending = None
        self._user = None
        self.handles.clear()

    def _maybe(self) -> list[Tree]:
        """The tree with the operation that nobody saw the end of, if it could have succeeded."""
        if self._pending is None:
            return []
        tree = deepcopy(self.tree)
        try:
            self._pending(tree)
        except TideError:
            return []
        return [tree]

    def servers_lost_power(self) -> None:
        """A machine with chunks of ours crashed."""
        held = {id(handle.node.file) for handle in self.handles}
        trees = self._shapes or [self.tree]
        files = {id(file): file for tree in trees for file in tree.files()}
        files.update((id(handle.node.file), handle.node.file) for handle in self.handles)
        for key, file in files.items():
            file.servers_lost_power(held_open=key in held)

    async def check_all(self, user: User) -> Snapshot:
        """Compare everything with the model; gives what was seen."""
        snapshot = await Snapshot.take(user, self._conditions.excuse)
        wrong = differences(self.tree, snapshot)
        if wrong:
            self._fail("the tree is not what it must be: " + "; ".join(wrong[:5]))
        return snapshot

    async def _settle_shape(self) -> None:
        snapshot = await Snapshot.take(self.user, self._conditions.excuse)
        reasons = []
        for shape in self._shapes:
            wrong = differences(shape, snapshot)
            if not wrong:
                self.tree, self._shapes = shape, []
                return
            reasons.append(" / ".join(wrong[:5]))
        self._fail("after a crash of the client: " + "; or ".join(reasons))

    # --- one operation -------------------------------------------------------------------------

    def _begin(self, text: str) -> None:
        self._doing = text
        self._trace.note("op", f"{self.name} {text}")

    async def _step(
        self,
        text: str,
        change: Callable[[Tree], T],
        ask: Callable[[], Awaitable[S]],
        see: Callable[[T, S], str | None] = lambda _model, _answer: None,
        *,
        data: bool = False,
    ) -> tuple[T, S] | None:
        """Ask the file system, then the model; None when both refuse for the same reason."""
        self._begin(text)
        self._pending = change
        try:
            answer = await ask()
        except TideError as error:
            self._pending = None
            self._trace.note("answer", f"{self.name} {error.code.name}")
            self._refused(text, change, error, data=data)
            return None
        self._pending = None
        self._trace.note("answer", f"{self.name} ok")
        try:
            known = change(self.tree)
        except TideError as error:
            self._fail(f"{text} succeeded, expected {error}")
        if wrong := see(known, answer):
            self._fail(f"{text}: {wrong}")
        return known, answer

    def _refused(
        self, text: str, change: Callable[[Tree], object], error: TideError, *, data: bool
    ) -> None:
        if self._conditions.excuse(error.code, data=data):
            return
        try:
            change(self.tree)
        except TideError as expected:
            if expected.code is not error.code:
                self._fail(f"{text} failed with {error!r}, expected {expected!r}")
            return
        self._fail(f"{text} failed with {error!r}, should have succeeded")

    def _fail(self, reason: str) -> NoReturn:
        raise ViolationError(f"{self.name} in {as_text(self.base)}: {reason}")

    # --- choosing ------------------------------------------------------------------------------

    def _some(self, *kinds: Kind) -> Path:
        """An existing path of one of these kinds if there is one; now and then any, or none."""
        if self._random.random() < 0.05:
            return self._fresh()
        paths = [path for path, node in self.tree.paths() if not kinds or node.kind in kinds]
        return self._random.choice(paths) if paths else self._fresh()

    def _fresh(self) -> Path:
        """A place for a new name, which may be taken."""
        places: list[Path] = [()]
        for path, node in self.tree.paths():
            if node.kind is Kind.DIRECTORY and len(path) < DEPTH_MAX:
                places.append(path)
        place = self._random.choice(places)
        free = [name for name in NAMES if name not in self.tree.find(place).names]
        wanted = NAMES if self._random.random() < 0.15 or not free else free
        return (*place, self._random.choice(wanted))

    def _some_with_xattrs(self) -> Path:
        """The kernel lets only files and directories have attributes of users."""
        path = self._some(Kind.FILE, Kind.DIRECTORY)
        node = _found(self.tree, path)
        if node is not None and node.kind not in {Kind.FILE, Kind.DIRECTORY}:
            return (b"none",)
        return path

    def _full(self) -> bool:
        return len(self.tree.paths()) >= NODES_MAX

    # --- names ---------------------------------------------------------------------------------

    async def _create(self) -> None:
        if self._full() or len(self.handles) >= OPEN_MAX:
            return
        path, mode = self._fresh(), self._random.choice((0o600, 0o644, 0o755))
        done = await self._step(
            f"create {as_text(path)}",
            lambda tree: tree.make(path, Node(Kind.FILE, mode)),
            lambda: self.user.create(path, mode),
        )
        if done is not None:
            node, file = done
            node.inode = file.inode
            self.handles.append(Handle(file, node))

    async def _mkdir(self) -> None:
        if self._full():
            return
        path, mode = self._fresh(), self._random.choice((0o700, 0o755))
        await self._step(
            f"mkdir {as_text(path)}",
            lambda tree: tree.make(path, Node(Kind.DIRECTORY, mode)),
            lambda: self.user.mkdir(path, mode),
            Node.see,
        )

    async def _mknod(self) -> None:
        if self._full():
            return
        path = self._fresh()
        kind = self._random.choice((Kind.FIFO, Kind.SOCKET))
        await self._step(
            f"mknod {as_text(path)}",
            lambda tree: tree.make(path, Node(kind, 0o644)),
            lambda: self.user.mknod(path, kind, 0o644),
            Node.see,
        )

    async def _symlink(self) -> None:
        if self._full():
            return
        path, target = self._fresh(), b"to/" + self._random.choice(NAMES)
        await self._step(
            f"symlink {as_text(path)}",
            lambda tree: tree.make(path, Node(Kind.SYMLINK, 0o777, target=target)),
            lambda: self.user.symlink(path, target),
            Node.see,
        )

    async def _readlink(self) -> None:
        path = self._some(Kind.SYMLINK)
        node = _found(self.tree, path)
        if node is not None and node.kind is not Kind.SYMLINK:
            return
        await self._step(
            f"readlink {as_text(path)}",
            lambda tree: tree.find(path).target,
            lambda: self.user.readlink(path),
            _same,
        )

    async def _link(self) -> None:
        path, new_path = self._some(), self._fresh()
        node = _found(self.tree, path)
        if node is not None and node.kind is Kind.DIRECTORY and _found(self.tree, new_path):
            return  # two reasons to refuse: the kernel looks at the name first
        await self._step(
            f"link {as_text(path)} {as_text(new_path)}",
            lambda tree: tree.link(path, new_path),
            lambda: self.user.link(path, new_path),
        )

    async def _unlink(self) -> None:
        path = self._some(Kind.FILE, Kind.SYMLINK, Kind.FIFO, Kind.SOCKET)
        await self._step(
            f"unlink {as_text(path)}",
            lambda tree: tree.unlink(path),
            lambda: self.user.unlink(path),
        )

    async def _rmdir(self) -> None:
        path = self._some(Kind.DIRECTORY)
        await self._step(
            f"rmdir {as_text(path)}",
            lambda tree: tree.rmdir(path),
            lambda: self.user.rmdir(path),
        )

    async def _rename(self) -> None:
        path = self._some()
        new_path = self._some() if self._random.random() < 0.3 else self._fresh()
        flags = self._random.choice(
            (RenameFlags.NONE, RenameFlags.NONE, RenameFlags.NOREPLACE, RenameFlags.EXCHANGE)
        )
        node = _found(self.tree, path)
        upwards = new_path == path[: len(new_path)] and new_path != path
        if upwards and node is not None and node.kind is not Kind.DIRECTORY:
            return  # two reasons to refuse: the kernel has its own first
        await self._step(
            f"rename {as_text(path)} {as_text(new_path)} {flags.name}",
            lambda tree: tree.rename(path, new_path, flags),
            lambda: self.user.rename(path, new_path, flags),
        )

    async def _list(self) -> None:
        path = self._some(Kind.DIRECTORY)
        node = _found(self.tree, path)
        if node is not None and node.kind is not Kind.DIRECTORY:
            return
        await self._step(
            f"list {as_text(path)}",
            lambda tree: sorted(tree.find(path).names),
            lambda: self.user.entries(path),
            lambda names, entries: _same(names, sorted(entry.name for entry in entries)),
        )

    # --- attributes ----------------------------------------------------------------------------

    async def _stat(self) -> None:
        path = self._some()
        await self._step(
            f"stat {as_text(path)}",
            lambda tree: tree.find(path),
            lambda: self.user.look(path),
            Node.see,
        )

    async def _chmod(self) -> None:
        path, mode = self._some(Kind.FILE, Kind.DIRECTORY), self._random.choice((0o640, 0o711))
        node = _found(self.tree, path)
        if node is not None and node.kind is Kind.SYMLINK:
            return

        def change(tree: Tree) -> Node:
            node = tree.find(path)
            node.mode = mode
            return node

        await self._step(
            f"chmod {as_text(path)} {mode:o}",
            change,
            lambda: self.user.change(path, NewAttributes(mode=mode)),
            Node.see,
        )

    async def _utime(self) -> None:
        path, mtime_ns = self._some(), self._random.randrange(10**18)
        node = _found(self.tree, path)
        if any(handle.node is node for handle in self.handles):
            return  # its bytes may still be on their way, with a time of their own

        def change(tree: Tree) -> Node:
            node = tree.find(path)
            node.mtime_ns = mtime_ns
            return node

        await self._step(
            f"utime {as_text(path)} {mtime_ns}",
            change,
            lambda: self.user.change(path, NewAttributes(mtime_ns=mtime_ns)),
            Node.see,
        )

    async def _set_xattr(self) -> None:
        path = self._some_with_xattrs()
        name = b"user." + self._random.choice(NAMES[:3])
        value = self._random.randbytes(self._random.choice((0, 10, 300)))
        flags = self._random.choice((*XattrFlags, XattrFlags.NONE, XattrFlags.NONE))
        await self._step(
            f"set_xattr {as_text(path)} {name.decode()} {flags.name}",
            lambda tree: tree.set_xattr(path, name, value, flags),
            lambda: self.user.set_xattr(path, name, value, flags),
        )

    async def _get_xattr(self) -> None:
        path = self._some_with_xattrs()
        name = b"user." + self._random.choice(NAMES[:3])
        await self._step(
            f"get_xattr {as_text(path)} {name.decode()}",
            lambda tree: tree.get_xattr(path, name),
            lambda: self.user.get_xattr(path, name),
            _same,
        )

    async def _list_xattrs(self) -> None:
        path = self._some_with_xattrs()
        await self._step(
            f"list_xattrs {as_text(path)}",
            lambda tree: sorted(tree.find(path).xattrs),
            lambda: self.user.list_xattrs(path),
            _same,
        )

    async def _remove_xattr(self) -> None:
        path = self._some_with_xattrs()
        name = b"user." + self._random.choice(NAMES[:3])
        await self._step(
            f"remove_xattr {as_text(path)} {name.decode()}",
            lambda tree: tree.remove_xattr(path, name),
            lambda: self.user.remove_xattr(path, name),
        )

    async def _forget(self) -> None:
        self._trace.note("op", f"{self.name} forget")
        self.user.forget()

    # --- bytes ---------------------------------------------------------------------------------

    async def _open(self) -> None:
        path = self._some(Kind.FILE)
        node = _found(self.tree, path)
        if len(self.handles) >= OPEN_MAX or (node is not None and node.kind is not Kind.FILE):
            return
        done = await self._step(
            f"open {as_text(path)}", lambda tree: tree.find(path), lambda: self.user.open(path)
        )
        if done is not None:
            found, file = done
            found.mtime_ns = None
            self.handles.append(Handle(file, found))

    async def _write(self) -> None:
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        offset = self._offset(handle.node)
        data = self._random.randbytes(self._random.randint(1, self._taste.write_max_bytes))
        handle.node.mtime_ns = None
        handle.node.file.write(offset, data)
        await self._data_step(
            f"write #{handle.node.inode} {offset}+{len(data)}",
            handle,
            lambda: handle.file.write(offset, data),
        )

    async def _read(self) -> None:
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        offset = self._offset(handle.node)
        length = self._random.randint(1, 2 * self._taste.write_max_bytes)
        await self._step(
            f"read #{handle.node.inode} {offset}+{length}",
            lambda _: handle.node.file,
            lambda: handle.file.read(offset, length),
            lambda file, data: file.see_bytes(offset, length, data),
            data=True,
        )

    async def _truncate(self) -> None:
        path = self._some(Kind.FILE)
        node = _found(self.tree, path)
        if node is not None and node.kind is not Kind.FILE:
            return
        size = self._offset(node) if node is not None else 0

        def change(tree: Tree) -> Node:
            node = tree.find(path)
            node.file.cut(size)
            node.mtime_ns = None
            return node

        await self._step(
            f"truncate {as_text(path)} {size}",
            change,
            lambda: self.user.change(path, NewAttributes(size=size)),
            Node.see,
            data=True,
        )

    async def _fsync(self) -> None:
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        if await self._data_step(f"fsync #{handle.node.inode}", handle, handle.file.fsync):
            handle.node.file.synced()

    async def _close(self) -> None:
        if not self.handles:
            return
        handle = self._random.choice(self.handles)
        done = await self._data_step(f"close #{handle.node.inode}", handle, handle.file.close)
        self.handles.remove(handle)
        if done:
            handle.node.file.published()
        if not any(other.node is handle.node for other in self.handles):
            handle.node.file.let_go()

    async def _data_step(
        self, text: str, handle: Handle, ask: Callable[[], Awaitable[None]]
    ) -> bool:
        """As ``_step``, for what has no other error than an accident's; whether it succeeded."""
        self._begin(text)
        try:
            await ask()
        except TideError as error:
            self._trace.note("answer", f"{self.name} {error.code.name}")
            if not self._conditions.excuse(error.code, data=True):
                self._fail(f"{text} failed with {error!r}")
            handle.node.file.failed()
            return False
        self._trace.note("answer", f"{self.name} ok")
        return True

    def _offset(self, node: Node) -> int:
        """Somewhere in the file, at its end, behind it, or around the border of a chunk."""
        size = node.file.size
        reach = self._taste.write_max_bytes
        if self._taste.far_offsets and self._random.random() < 0.2:
            return CHUNK_BYTES - self._random.randint(1, min(reach, CHUNK_BYTES))
        return self._random.choice(
            (0, self._random.randint(0, size), size, size + self._random.randint(0, reach))
        )


def _found(tree: Tree, path: Path) -> Node | None:
    try:
        return tree.find(path)
    except TideError:
        return None


def _same(wanted: object, got: object) -> str | None:
    return None if wanted == got else f"the answer is {got!r}, expected {wanted!r}"


OPERATIONS = (
    *("create", "mkdir", "mknod", "symlink", "readlink", "link", "unlink", "rmdir", "rename"),
    *("list", "stat", "chmod", "utime", "set_xattr", "get_xattr", "list_xattrs", "remove_xattr"),
    *("forget", "open", "write", "read", "truncate", "fsync", "close"),
)

ONLY_BYTES = ("open", "write", "read", "truncate", "fsync", "close")
