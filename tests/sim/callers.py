"""Clients that speak with the metaservers directly, all about the same few names and registers,
and record what they are told: the history must be linearizable.

Changes go through the product's own metadata client, which follows the leader and sends again.
Reads go the same way, or straight to any member, whether it leads or not, and whatever it has
missed: every answer has to be strong. A straight read that fails is forgotten.
"""

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages import meta
from tidefs.fs.messages.base import Request
from tidefs.fs.messages.hello import ANY_CLUSTER, CLIENT
from tidefs.fs.ports import Ports
from tidefs.fs.rpc import Identity, Peer, connect, no_requests

from .cluster import Cluster, Process
from .conditions import ViolationError
from .history import History
from .objects import (
    EXISTS,
    NO_ATTRIBUTE,
    OK,
    Clear,
    Create,
    List,
    Look,
    Read,
    Rename,
    Unlink,
    Write,
)

FOLDERS = ("f", "g")
NAMES = ("a", "b", "c")
REGISTERS = ("r", "s")
XATTR = b"user.value"
RESTART_AFTER_S = 2.0
READ_TIMEOUT_MS = 1_500
FIRST_TAG = 1_000
"""Tags are numbers of owners; this much each caller may give out."""

ANSWERS = frozenset({Code.EXISTS, Code.NO_ENTRY, Code.NO_ATTRIBUTE})
"""Errors that say something about the object."""

NO_ANSWER = frozenset(
    {Code.DISCONNECTED, Code.TIMED_OUT, Code.NOT_LEADER, Code.UNAVAILABLE, Code.BUSY}
)
"""Errors of a member that cannot give a strong answer now."""


class Metaservers(Protocol):
    """What a caller needs of the product's metadata client."""

    async def call(self, request: Request[Any]) -> Any: ...


FLAGS = {
    None: meta.XattrFlags.NONE,
    EXISTS: meta.XattrFlags.CREATE,
    NO_ATTRIBUTE: meta.XattrFlags.REPLACE,
}

Mount = Callable[[Ports, Callable[[Metaservers], Awaitable[None]], str], Awaitable[None]]
"""Has a session for the named host, runs the function with it, and ends it in good order."""


class Places(NamedTuple):
    """The inodes of what the callers work on."""

    folders: dict[str, int]
    registers: dict[str, int]


async def prepare(metaservers: Metaservers, root: int) -> Places:
    """Make the folders and registers, before anything goes wrong."""
    folders, registers = {}, {}
    for name in FOLDERS:
        made = await metaservers.call(
            meta.MakeDirectory(root, b"of-%b" % name.encode(), 0o755, 0, 0)
        )
        folders[name] = made.attributes.inode
    for name in REGISTERS:
        made = await metaservers.call(_create(root, b"of-%b" % name.encode(), 0))
        registers[name] = made.attributes.inode
    return Places(folders, registers)


def _create(parent: int, name: bytes, uid: int) -> meta.Create:
    return meta.Create(parent, name, Kind.FILE, 0o644, uid, 0, 0, exclusive=True, open=False)


class Caller(Process):
    """One client, and how much it has yet to ask. Lives again some time after it was killed."""

    def __init__(
        self,
        cluster: Cluster,
        number: int,
        mount: Mount,
        places: Places,
        history: History,
        *,
        count: int,
        think_max_s: float,
        only_reads: bool,
    ) -> None:
        super().__init__(cluster, f"q{number}")
        self.done = trio.Event()
        self._mount = mount
        self._places = places
        self._history = history
        self._left = count
        self._think_max_s = think_max_s
        self._only_reads = only_reads
        self._random = random.Random(f"{cluster.seed} {self.host}")
        self._next_tag = (number + 1) * FIRST_TAG
        self._doing = "has not begun"

    def start(self) -> None:
        """Begin a new life."""
        ports, scope = self.begin(self.no_disk())
        self.cluster.nursery.start_soon(self._live, ports, scope)

    def stop(self, *, machine: bool) -> None:
        super().stop(machine=machine)
        self.cluster.postman.after(RESTART_AFTER_S, self.start)

    def doing(self) -> str:
        """What it waits for, for the reader of a failure."""
        return f"{self.host} {self._doing}"

    async def _live(self, ports: Ports, scope: trio.CancelScope) -> None:
        if await self.live(
            scope, partial(self._mount, ports, partial(self._work, ports), self.host)
        ):
            self._doing = "is done"
            self.done.set()

    async def _work(self, ports: Ports, metaservers: Metaservers) -> None:
        async with trio.open_nursery() as nursery:
            straight = Straight(ports, nursery)
            while self._left:
                await trio.sleep(self._random.uniform(0, self._think_max_s))
                self._left -= 1
                await self._ask(metaservers, straight)
            nursery.cancel_scope.cancel()

    # --- one operation -------------------------------------------------------------------------

    async def _ask(self, metaservers: Metaservers, straight: "Straight") -> None:
        what = self._something()
        reads = isinstance(what, Look | List | Read)
        address = self._random.choice(self.cluster.addresses())
        if not reads or self._random.random() < 0.3:
            address = ""
        self._doing = f"{what} {address}"
        self.cluster.trace.note("op", self.doing())
        number = self._history.call(self.host, what)
        try:
            if address:
                reply = await straight.call(address, self._request(what))
            else:
                reply = await self._ask_metaservers(metaservers, what)
            answer = self._answer(what, reply)
        except TideError as error:
            self._failed(number, error, straight=bool(address))
            return
        self._say(number, answer)

    async def _ask_metaservers(self, metaservers: Metaservers, what: object) -> Any:
        return await metaservers.call(self._request(what))

    def _refused(self, error: TideError) -> bool:
        """Whether the error is an answer about the object."""
        return error.code in ANSWERS

    def _failed(self, number: int, error: TideError, *, straight: bool) -> None:
        conditions = self.cluster.conditions
        if self._refused(error):
            self._say(number, error.code.name)
            return
        self.cluster.trace.note("answer", f"{self.host} {error.code.name}")
        unheard = straight and error.code in NO_ANSWER
        if unheard or conditions.excuse(error.code, data=False):
            self._history.came_to_nothing(number)
        elif not conditions.unclear(error.code):
            raise ViolationError(f"{self.doing()} failed with {error!r}")

    def _say(self, number: int, answer: object) -> None:
        self.cluster.trace.note("answer", f"{self.host} {answer}")
        self._history.returned(number, answer)

    # --- choosing ------------------------------------------------------------------------------

    def _something(self) -> object:
        chance = self._random
        name, other = chance.sample([f"{f}/{n}" for f in FOLDERS for n in NAMES], 2)
        register = chance.choice(REGISTERS)
        looks = (Look(name), List(chance.choice(FOLDERS)), Read(register))
        if self._only_reads or chance.random() < 0.3:
            return chance.choice(looks)
        self._next_tag += 1
        tag = self._next_tag
        return chance.choice(
            (
                Create(name, tag),
                Create(name, tag),
                Unlink(name),
                Rename(name, other),
                Rename(name, other, noreplace=True),
                Rename(name, other, exchange=True),
                Write(register, tag),
                Write(register, tag, EXISTS),
                Write(register, tag, NO_ATTRIBUTE),
                Clear(register),
            )
        )

    # --- on the wire ---------------------------------------------------------------------------

    def _request(self, what: object) -> Request[Any]:
        return self._of_register(what) if hasattr(what, "register") else self._of_names(what)

    def _of_names(self, what: object) -> Request[Any]:
        match what:
            case Create(name, tag):
                return _create(*self._at(name), tag)
            case Unlink(name):
                return meta.Unlink(*self._at(name))
            case Rename(name, new_name, noreplace, exchange):
                flags = noreplace * meta.RenameFlags.NOREPLACE
                flags |= exchange * meta.RenameFlags.EXCHANGE
                return meta.Rename(*self._at(name), *self._at(new_name), flags)
            case Look(name):
                return meta.Lookup(*self._at(name))
            case List(folder):
                return meta.ReadDirectory(self._places.folders[folder], 0, len(NAMES) + 1)
        raise AssertionError(what)

    def _of_register(self, what: object) -> Request[Any]:
        assert isinstance(what, Write | Clear | Read), what
        inode = self._places.registers[what.register]
        if isinstance(what, Write):
            return meta.SetXattr(inode, XATTR, b"%d" % what.value, FLAGS[what.only])
        kind = meta.RemoveXattr if isinstance(what, Clear) else meta.GetXattr
        return kind(inode, XATTR)

    def _at(self, name: str) -> tuple[int, bytes]:
        folder, _, last = name.partition("/")
        return self._places.folders[folder], last.encode()

    def _answer(self, what: object, reply: Any) -> object:
        match what:
            case Look():
                return reply.attributes.uid
            case List(folder):
                found = [(f"{folder}/{e.name.decode()}", e.attributes.uid) for e in reply.entries]
                return tuple(sorted(found))
            case Read():
                return int(reply.value)
        return OK


class Straight:
    """Connections to single members."""

    def __init__(self, ports: Ports, nursery: trio.Nursery) -> None:
        self._ports = ports
        self._nursery = nursery
        self._peers: dict[str, Peer] = {}

    async def call(self, address: str, request: Request[Any]) -> Any:
        """The answer of the member there; TideError when there is none soon."""
        peer = self._peers.get(address)
        if peer is None or peer.closed:
            hello = Identity(ANY_CLUSTER, CLIENT, 0).hello()
            peer = await connect(self._ports, address, hello, no_requests, self._nursery)
            self._peers[address] = peer
        return await peer.call(request, timeout_ms=READ_TIMEOUT_MS)
