"""A whole cluster in one process: a metaserver, chunkservers, clients without FUSE.

Each process has a cancel scope. To kill it, its ports are cut off first, then the scope is
cancelled: what its tasks do while they unwind reaches nobody. A killed process leaves its disk's
page cache behind, a crashed machine only what was synced, and a new boot id.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.ports import Ports
from tidefs.fs.ports.disk import Disk

from .conditions import Conditions, ViolationError
from .crash_disk import CrashDisk
from .network import HostNetwork, SimulatedNetwork
from .ports import SimulatedClock, SimulatedRandomness
from .postman import Postman
from .trace import Trace
from .watched_disk import Lie, WatchedDisk, honest
from .wire import split

if TYPE_CHECKING:
    from .client_host import ClientHost

DRIFT_MAX = 0.009
"""Less than the one part in CLOCK_DRIFT_PARTS that leases allow for."""

START_AGAIN_S = 1.0


@dataclass
class Lies:
    """What is broken on purpose, by role: for tests that the simulator notices."""

    metaserver: Lie = honest
    chunkserver: Lie = honest
    close_publishes_late: bool = False
    """A client's close answers at once, and what it should publish comes later."""


class Cluster:
    """Everything that one run is made of. Servers are added, then started."""

    def __init__(self, seed: int, trace: Trace, nursery: trio.Nursery) -> None:
        self.seed = seed
        self.trace = trace
        self.nursery = nursery
        self.random = random.Random(f"{seed} cluster")
        self.postman = Postman()
        self.network = SimulatedNetwork(self.postman, f"{seed} network", trace, split)
        self.conditions = Conditions()
        self.on_power_loss: list[Callable[[], None]] = []
        self.lives = 0
        self.metaserver: Server
        self.chunkservers: list[Server] = []
        self.clients: list[ClientHost] = []
        nursery.start_soon(self.postman.run_forever)

    def servers(self) -> "list[Server]":
        return [self.metaserver, *self.chunkservers]

    def processes(self) -> "list[Process]":
        return [*self.servers(), *self.clients]

    def new_life(self) -> int:
        """A number for each life of each process: its randomness differs each time."""
        self.lives += 1
        return self.lives


class Process:
    """One host with one process on it: ``up`` while that lives."""

    def __init__(self, cluster: Cluster, host: str) -> None:
        self.cluster = cluster
        self.host = host
        self.clock = SimulatedClock(cluster.random.uniform(-DRIFT_MAX, DRIFT_MAX))
        self.port: HostNetwork | None = None
        self._scope: trio.CancelScope | None = None

    @property
    def up(self) -> bool:
        return self._scope is not None

    def begin(self, disk: Disk) -> tuple[Ports, trio.CancelScope]:
        """What a new life is lived with; hand both to ``live``."""
        assert self._scope is None, f"{self.host} lives already"
        self._scope = trio.CancelScope()
        self.port = self.cluster.network.attach(self.host)
        seed = f"{self.cluster.seed} {self.host} {self.cluster.new_life()}"
        return Ports(self.clock, SimulatedRandomness(seed), disk, self.port), self._scope

    def no_disk(self) -> WatchedDisk:
        """For a process that keeps nothing: an empty one."""
        disk = CrashDisk(SimulatedRandomness(f"{self.cluster.seed} {self.host} disk"))
        return WatchedDisk(disk, self.host, self.cluster.trace, self.cluster.postman)

    async def live(self, scope: trio.CancelScope, life: Callable[[], Awaitable[None]]) -> bool:
        """Run ``life`` to its end or to ``stop``; whether it came to its end."""
        with scope:
            try:
                await life()
            except BaseException as error:
                if not scope.cancel_called:
                    raise
                # Whatever a dying process still did is nobody's business any more; but what
                # cancels the whole run must go on.
                rest: BaseException | None = error
                if isinstance(error, BaseExceptionGroup):
                    rest = error.split(Exception)[1]
                if rest is not None and not isinstance(rest, Exception):
                    raise rest from None
        if self._scope is scope:
            self._scope = None
        return not scope.cancel_called

    def stop(self, *, machine: bool) -> None:
        """The process is killed, or the machine it runs on loses power."""
        assert self._scope is not None
        assert self.port is not None
        self.port.kill(machine=machine)
        scope, self._scope = self._scope, None
        scope.cancel()


class Server(Process):
    """A server: a process with a disk that outlives it."""

    def __init__(
        self,
        cluster: Cluster,
        host: str,
        run: Callable[[Ports, "Server"], Awaitable[None]],
        *,
        lie: Lie = honest,
        data_start: int | None = None,
    ) -> None:
        """``data_start``: where the bytes begin in chunk files; None: it holds none."""
        super().__init__(cluster, host)
        self._run = run
        self._lie = lie
        self.data_start = data_start
        self.disk = CrashDisk(SimulatedRandomness(f"{cluster.seed} {host} disk"), latency_s=0.0005)
        self._watched: WatchedDisk | None = None
        self._serving = False

    def start(self) -> None:
        """Begin a new life on the same disk."""
        self._watched = WatchedDisk(
            self.disk, self.host, self.cluster.trace, self.cluster.postman, self._lie
        )
        ports, scope = self.begin(self._watched)
        self.cluster.nursery.start_soon(self._live, ports, scope)

    def chunks(self) -> set[int]:
        """The handles of all chunks held."""
        names = [path for path in self.disk.paths() if path.startswith("chunks/")]
        return {int(path.rpartition("/")[2], 16) for path in names}

    def chunk_files(self) -> list[tuple[str, bytes]]:
        """Path and bytes of each chunk held, when all that was ever written here is synced."""
        if any(inode.dirty for inode in self.disk._files.values()):
            return []
        return [
            (path, bytes(inode.cache[self.data_start :]))
            for path, inode in sorted(self.disk._files.items())
            if path.startswith("chunks/")
        ]

    async def _live(self, ports: Ports, scope: trio.CancelScope) -> None:
        self._serving = False
        try:
            ended = await self.live(scope, lambda: self._run(ports, self))
        except* TideError as group:
            error = _first(group)
            if self._serving or error.code is not Code.NO_SPACE:
                raise
            self._try_again(error)
        else:
            if ended:
                raise ViolationError(f"{self.host} ended by itself")

    def started(self, _addresses: object = None) -> None:
        """The server serves: from now on nothing may end it. (As a trio.TaskStatus.)"""
        self._serving = True

    def _try_again(self, error: TideError) -> None:
        """It had no room to start in, and said so: a service manager would start it again."""
        self.cluster.trace.note("fault", f"{self.host} does not start: {error}")
        self.stop(machine=False)

        def start() -> None:
            if not self.up:
                self.start()

        self.cluster.postman.after(START_AGAIN_S, start)

    def stop(self, *, machine: bool) -> None:
        assert self._watched is not None
        self._watched.dead = True
        super().stop(machine=machine)
        if machine:
            seed = f"{self.cluster.seed} {self.host} crash {self.cluster.new_life()}"
            self.disk.crash(SimulatedRandomness(seed))
        else:
            self.disk.kill()
        if machine and self.data_start is not None:
            self.cluster.conditions.power_was_lost = True
            for notice in self.cluster.on_power_loss:
                notice()


def _first(error: BaseException) -> TideError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, TideError)
    return error


class ErrorLog(logging.Handler):
    """Warnings go to the trace; an error in the log is a violation (it is a bug of ours)."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.WARNING)
        self._trace = trace
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self._trace.note("log", text.splitlines()[0])
        if record.levelno >= logging.ERROR:
            self.errors.append(text)
