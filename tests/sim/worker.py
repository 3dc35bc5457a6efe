"""How an application works: each operation is asked, then compared with what the model says.

An operation whose answer never came (the client crashed), or that ended with the word that nobody
knows (its session was lost), may have happened or not: then the tree has two possible shapes, and a
look at what is there decides which one it is.
"""

import random
from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, TypeVar

import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import TideError
from tidefs.fs.limits import NFS_TRUST_MAX_MS

from .conditions import Conditions, ViolationError
from .model import Node, Path, Tree
from .snapshot import Snapshot, differences
from .taste import Taste
from .trace import Trace
from .user import OpenFile, User, as_text

T = TypeVar("T")
S = TypeVar("S")

NAMES = tuple(b"%c" % letter for letter in b"abcdefgh")
DEPTH_MAX = 3
NODES_MAX = 40
BELIEF_S = NFS_TRUST_MAX_MS / 1000 + 1
"""After so long nothing is believed any more that a client learned before."""


@dataclass(eq=False)
class Handle:
    """An open file and the model's node that it stands for."""

    file: OpenFile
    node: Node


class Shape(NamedTuple):
    """What the tree may be, and which of its nodes the open files stand for."""

    tree: Tree
    nodes: list[Node]


class Work:
    """One application, without the operations."""

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
        self._shapes: list[Shape] = []

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
            await self._settle_shape("after a crash of the client")

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

    def detach(self) -> None:
        """Leave this mount in good order, with everything closed."""
        self._doing = "is done here"
        assert not self.handles
        self._user = None

    def client_died(self) -> None:
        """The mount is gone, and with it what it had not published."""
        if self._user is None:
            return  # it was not at work there yet
        self._trace.note("op", f"{self.name} lost its mount")
        self.handles.clear()
        if not self._shapes:
            self._shapes = self._possible_shapes(self._pending)
        for shape in self._shapes:
            shape.nodes.clear()
            for file in shape.tree.files():
                file.client_died()
        self._pending = None
        self._user = None

    def servers_lost_power(self) -> None:
        """A machine with chunks of ours crashed."""
        shapes = self._shapes or [Shape(self.tree, [handle.node for handle in self.handles])]
        for shape in shapes:
            held = {id(node.file): node.file for node in shape.nodes}
            files = {**{id(file): file for file in shape.tree.files()}, **held}
            for key, file in files.items():
                file.servers_lost_power(held_open=key in held)

    async def check_all(self, user: User) -> Snapshot:
        """Compare everything with the model; gives what was seen."""
        snapshot = await Snapshot.take(user, self._conditions.excuse)
        wrong = differences(self.tree, snapshot)
        if wrong:
            self._fail("the tree is not what it must be: " + "; ".join(wrong[:5]))
        return snapshot

    # --- when nobody knows ---------------------------------------------------------------------

    def _possible_shapes(self, pending: Callable[[Tree], object] | None) -> list[Shape]:
        """The tree without, and with, the operation that nobody saw the end of."""
        as_it_was = Shape(self.tree, [handle.node for handle in self.handles])
        if pending is None:
            return [as_it_was]
        changed = deepcopy(as_it_was)
        try:
            pending(changed.tree)
        except TideError:
            return [as_it_was]
        return [as_it_was, changed]

    async def _settle_shape(self, when: str) -> None:
        snapshot = await Snapshot.take(self.user, self._conditions.excuse)
        reasons = []
        for shape in self._shapes:
            wrong = differences(shape.tree, snapshot)
            if not wrong:
                self.tree, self._shapes = shape.tree, []
                for handle, node in zip(self.handles, shape.nodes, strict=True):
                    handle.node = node
                return
            reasons.append(" / ".join(wrong[:5]))
        self._fail(f"{when}: " + "; or ".join(reasons))

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
            if self._conditions.unclear(error.code):
                self._shapes = self._possible_shapes(change)
                await trio.sleep(BELIEF_S)
                await self._settle_shape(f"after {text} ended with {error!r}")
            else:
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
        node = node_at(self.tree, path)
        if node is not None and node.kind not in {Kind.FILE, Kind.DIRECTORY}:
            return (b"none",)
        return path

    def _full(self) -> bool:
        return len(self.tree.paths()) >= NODES_MAX


def node_at(tree: Tree, path: Path) -> Node | None:
    try:
        return tree.find(path)
    except TideError:
        return None


def same(wanted: object, got: object) -> str | None:
    return None if wanted == got else f"the answer is {got!r}, expected {wanted!r}"
