"""A whole cluster in one process: metaservers, chunkservers, clients without FUSE.

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
from tidefs.fs.limits import CLOCK_DRIFT_PARTS
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.ports import Ports
from tidefs.fs.ports.disk import Disk

from .conditions import Conditions, ViolationError
from .crash_disk import CrashDisk
from .determinism import HOST, ready_tasks
from .group_watch import GroupWatch
from .network import HostNetwork, SimulatedNetwork, Weather
from .ports import SimulatedClock, SimulatedRandomness
from .postman import Postman
from .trace import Trace
from .watched_disk import Lie, WatchedDisk, honest
from .wire import frames, split

if TYPE_CHECKING:
    from .admin import Admin
    from .callers import Caller
    from .client_host import ClientHost

DRIFT_MAX = 0.49 / CLOCK_DRIFT_PARTS
"""Two clocks differ by a little less than the one part in CLOCK_DRIFT_PARTS that leases allow."""

UPTIME_MAX_S = 1e6
"""Monotonic clocks of different machines, or of one machine before and after a crash, have
nothing to do with each other."""

START_AGAIN_S = 1.0
DISK_LATENCY_S = 0.0005


@dataclass
class Lies:
    """What is broken on purpose, by role: for tests that the simulator notices."""

    metaserver: Lie = honest
    chunkserver: Lie = honest
    close_publishes_late: bool = False
    """A client's close answers at once, and what it should publish comes later."""


class Cluster:
    """Everything that one run is made of. Servers are added, then started."""

    def __init__(self, seed: int, trace: Trace, watch: GroupWatch, nursery: trio.Nursery) -> None:
        self.seed = seed
        self.trace = trace
        self.nursery = nursery
        self.random = random.Random(f"{seed} cluster")
        self.postman = Postman()
        self.network = SimulatedNetwork(self.postman, f"{seed} network", trace, split, frames)
        self.network.weather = Weather(scatter=0.1)
        self.conditions = Conditions()
        self.watch = watch
        self.on_power_loss: list[Callable[[], None]] = []
        self.lives = 0
        self.metaservers: list[Server] = []
        """The members of the group, as far as the administrator knows."""
        self.chunkservers: list[Server] = []
        self.clients: list[ClientHost] = []
        self.callers: list[Caller] = []
        self.admin: Admin
        nursery.start_soon(self.postman.run_forever)

    def servers(self) -> "list[Server]":
        return [*self.metaservers, *self.chunkservers]

    def processes(self) -> "list[Process]":
        return [*self.servers(), *self.clients, *self.callers]

    def leader(self) -> "Server | None":
        """The member that led last, as far as anybody can know; it may be down."""
        return next((one for one in self.metaservers if one.host == self.watch.leader), None)

    def addresses(self) -> list[str]:
        """Where the members are, as a person would write it into a configuration file now."""
        return [address for place in self.places() for address in place.addresses]

    def places(self) -> list[ServerPlace]:
        """The members' places, for those who have not lost theirs."""
        return [member.place for member in self.metaservers if not member.lost]

    def new_life(self) -> int:
        """A number for each life of each process: its randomness differs each time."""
        self.lives += 1
        return self.lives


class Process:
    """One host with one process on it: ``up`` while that lives."""

    def __init__(self, cluster: Cluster, host: str) -> None:
        self.cluster = cluster
        self.host = host
        self.drift = draw_drift(cluster.random)
        self.clock = SimulatedClock(self.drift, 0.0, cluster.random.uniform(0, UPTIME_MAX_S))
        self.port: HostNetwork | None = None
        self.lives = 0
        self._scope: trio.CancelScope | None = None

    @property
    def up(self) -> bool:
        return self._scope is not None

    @property
    def paused(self) -> bool:
        return ready_tasks().is_frozen(self.host)

    def begin(self, disk: Disk) -> tuple[Ports, trio.CancelScope]:
        """What a new life is lived with; hand both to ``live``."""
        assert self._scope is None, f"{self.host} lives already"
        self._scope = trio.CancelScope()
        self.lives += 1
        self.port = self.cluster.network.attach(self.host)
        seed = f"{self.cluster.seed} {self.host} {self.cluster.new_life()}"
        return Ports(self.clock, SimulatedRandomness(seed), disk, self.port), self._scope

    def no_disk(self) -> WatchedDisk:
        """For a process that keeps nothing: an empty one."""
        disk = CrashDisk(SimulatedRandomness(f"{self.cluster.seed} {self.host} disk"))
        return WatchedDisk(disk, self.host, self.cluster.trace, self.cluster.postman)

    async def live(self, scope: trio.CancelScope, life: Callable[[], Awaitable[None]]) -> bool:
        """Run ``life`` to its end or to ``stop``; whether it came to its end."""
        before = HOST.set(self.host)
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
            finally:
                HOST.reset(before)
        if self._scope is scope:
            self._scope = None
        return not scope.cancel_called

    def pause(self) -> None:
        """The process makes no step (SIGSTOP, a virtual machine that is moved) while time goes on:
        what is sent to it arrives, and waits."""
        ready_tasks().freeze(self.host)

    def resume(self) -> None:
        """It goes on, if it was paused."""
        if self.paused:
            ready_tasks().thaw(self.host)

    def stop(self, *, machine: bool) -> None:
        """The process is killed, or the machine it runs on loses power."""
        assert self._scope is not None
        assert self.port is not None
        self.resume()
        if machine:
            uptime_s = self.cluster.random.uniform(0, UPTIME_MAX_S)
            self.clock = SimulatedClock(self.drift, self.clock.wall_offset_s, uptime_s)
        self.port.kill(machine=machine)
        scope, self._scope = self._scope, None
        scope.cancel()


def draw_drift(chance: random.Random) -> float:
    """How wrong a clock is: often as wrong as it may be."""
    return chance.choice((-DRIFT_MAX, DRIFT_MAX, chance.uniform(-DRIFT_MAX, DRIFT_MAX)))


class Server(Process):
    """A server: a process with a disk that outlives it."""

    def __init__(
        self,
        cluster: Cluster,
        host: str,
        run: Callable[[Ports, "Server"], Awaitable[None]],
        *,
        server: int,
        lie: Lie = honest,
        data_start: int | None = None,
    ) -> None:
        """``server``: its id; ``data_start``: where the bytes begin in chunk files, None: it holds
        none."""
        super().__init__(cluster, host)
        self.place = ServerPlace(server, host, [f"tcp:{host}:1"])
        self.retired = False
        """It was removed from the group: it may end by itself."""
        self.lost = False
        """Its disk is gone: it must not start."""
        self._run = run
        self._lie = lie
        self.data_start = data_start
        self.disk = self._new_disk()
        self._watched: WatchedDisk | None = None
        self._serving = False

    def start(self) -> None:
        """Begin a new life on the same disk."""
        self._watched = self.watched()
        ports, scope = self.begin(self._watched)
        self.cluster.nursery.start_soon(self._live, ports, scope)

    def watched(self) -> WatchedDisk:
        """The disk port for one life."""
        return WatchedDisk(
            self.disk, self.host, self.cluster.trace, self.cluster.postman, self._lie
        )

    def lose_disk(self) -> None:
        """The machine is gone with its disk; another one of its name has an empty disk."""
        if self.up:
            self.stop(machine=True)
        self.lost = True
        self.disk = self._new_disk()

    def _new_disk(self) -> CrashDisk:
        seed = f"{self.cluster.seed} {self.host} disk"
        return CrashDisk(SimulatedRandomness(seed), latency_s=DISK_LATENCY_S)

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
            error = first(group)
            if self.retired or (self.lost and not self._serving):
                self.cluster.trace.note("fault", f"{self.host} ends: {error}")
                self.stop(machine=False)
            elif self._serving or error.code is not Code.NO_SPACE:
                raise
            else:
                self._try_again(error)
        else:
            if ended and not self.retired:
                raise ViolationError(f"{self.host} ended by itself")

    def started(self, _addresses: object = None) -> None:
        """The server serves: from now on nothing may end it. (As a trio.TaskStatus.)"""
        if self.lost:
            raise ViolationError(f"{self.host} serves on an empty disk, though it was a member")
        self._serving = True

    def _try_again(self, error: TideError) -> None:
        """It had no room to start in, and said so: a service manager would start it again."""
        self.cluster.trace.note("fault", f"{self.host} does not start: {error}")
        self.stop(machine=False)

        def start() -> None:
            if not self.up and not self.retired and not self.lost:
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


def first(error: BaseException) -> TideError:
    """The TideError inside of a group of them."""
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
