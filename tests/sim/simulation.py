"""One run from one seed: options are drawn, a cluster works under faults, heals, and is checked.

Safety phase: applications work while the nemesis does. Liveness phase: everything is healed, and
all that was asked must be answered within a bound of virtual time. Then each tree is compared with
its model through a client that was not there before, and the servers' own state is checked.
"""

import logging
import random
import traceback
from dataclasses import asdict, dataclass
from functools import partial
from typing import IO, Any

import trio

from . import determinism
from .client_host import Application, ClientHost
from .cluster import Cluster, ErrorLog, Lies
from .compose import build_cluster, check_servers, check_state, mount
from .conditions import Conditions, ViolationError
from .nemesis import FAULTS, Nemesis
from .rivals import Rival
from .taste import Taste
from .trace import Trace
from .user import User
from .watched_disk import NEVER, Lie
from .workload import Worker

SAFETY_MAX_S = 120.0
LIVENESS_MAX_S = 300.0
SESSIONS_END_S = 60.0
"""After the last unmount: sessions of crashed clients expire, the files that were unlinked and
open there are reaped, and their chunks, and those that were never committed, are deleted."""


@dataclass
class Options:
    """What kind of run this is. Drawn differently for every seed: swarm testing."""

    mode: str
    chunkservers: int
    replicas: int
    clients: int
    applications: int
    steps: int
    faults: list[str]
    pause_max_s: float
    think_max_s: float
    wandering: bool
    rivals: int
    kept_state: bool

    @classmethod
    def draw(cls, chance: random.Random) -> "Options":
        """Fewer kinds of faults in one run let it get further; over many runs all meet."""
        replicas = chance.choice((1, 2, 3))
        clients = chance.choice((1, 1, 2, 3))
        return cls(
            mode=chance.choice(("nfs", "uncached")),
            chunkservers=replicas + chance.choice((0, 0, 1)),
            replicas=replicas,
            clients=clients,
            applications=clients + chance.choice((0, 1)),
            steps=chance.choice((40, 80, 120)),
            faults=chance.sample(FAULTS, chance.choice((0, 1, 2, 3, 4, 6, len(FAULTS)))),
            pause_max_s=chance.choice((0.3, 1.0, 3.0, 10.0)),
            think_max_s=chance.choice((0.01, 0.1, 1.0)),
            wandering=chance.random() < 0.4,
            rivals=chance.choice((0, 0, 2, 3)),
            kept_state=chance.random() < 0.5,
        )


@dataclass
class Outcome:
    """What became of one run."""

    seed: int
    digest: str
    lines: int
    virtual_s: float
    options: dict[str, Any]
    violation: str
    tail: list[str]

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Outcome":
        return cls(**plain)

    def summary(self) -> str:
        """For the progress line."""
        return f"seed {self.seed}, {self.lines} events in {self.virtual_s:.0f} virtual s"

    def in_words(self) -> str:
        """For a person who wants to know why."""
        text = [f"seed {self.seed}: {self.options}", f"digest {self.digest}, {self.summary()}"]
        if self.violation:
            text += ["", *self.tail, "", self.violation]
        return "\n".join(text)


def late_below(folders: str | tuple[str, ...], delay_s: float) -> Lie:
    """Syncs of files in these folders are done so long after they returned."""
    return lambda path: delay_s if path.startswith(folders) else 0.0


MUTATIONS: dict[str, Lies] = {
    "metaserver-replies-early": Lies(metaserver=late_below("log/", 0.02)),
    "metaserver-never-syncs": Lies(metaserver=late_below("log/", NEVER)),
    "chunkserver-replies-early": Lies(chunkserver=late_below("chunks/", 10.0)),
    "client-closes-early": Lies(close_publishes_late=True),
}
"""Broken acknowledgements, to see that the simulator sees them."""


def simulate(seed: int, *, mutation: str | None = None, copy_to: IO[str] | None = None) -> Outcome:
    """Run one seed."""
    chance = random.Random(f"{seed} options")
    options = Options.draw(chance)
    trace = Trace(copy_to)
    lies = MUTATIONS[mutation] if mutation else Lies()
    log = ErrorLog(trace)
    root = logging.getLogger()
    root.addHandler(log)
    scenario = Scenario(seed, options, chance, trace, lies)
    violation = ""
    try:
        determinism.run(scenario.run, seed)
    except BaseException as error:
        if _has(error, (KeyboardInterrupt, SystemExit)):
            raise
        violation = _in_words(error)
    finally:
        root.removeHandler(log)
    if not violation and log.errors:
        violation = "the log has an error: " + log.errors[0]
    return Outcome(
        seed=seed,
        digest=trace.digest(),
        lines=trace.count,
        virtual_s=scenario.ended_s,
        options=asdict(options),
        violation=violation,
        tail=list(trace.tail),
    )


class Scenario:
    """The plot of one run."""

    def __init__(
        self, seed: int, options: Options, chance: random.Random, trace: Trace, lies: Lies
    ) -> None:
        self._seed = seed
        self._options = options
        self._chance = chance
        self._trace = trace
        self._lies = lies
        self._applications: list[Application] = []
        self.ended_s = 0.0

    async def run(self) -> None:
        """All phases; raises what went wrong."""
        try:
            async with trio.open_nursery() as nursery:
                await self._run(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self.ended_s = trio.current_time()

    async def _run(self, nursery: trio.Nursery) -> None:
        options = self._options
        cluster = build_cluster(self._seed, options, self._trace, self._lies, nursery)
        for server in cluster.servers():
            server.start()
        clients = self._make_clients(cluster)
        self._make_applications(cluster.conditions, clients)
        cluster.on_power_loss.append(self._lose_power)
        await self._prepare_folders(cluster)
        for client in clients:
            client.start()
        await self._work_under_faults(cluster, nursery)
        await self._finish(cluster)
        await self._check(cluster)

    def _make_clients(self, cluster: Cluster) -> list[ClientHost]:
        clients = [
            ClientHost(cluster, f"c{number}", mount(self._options, self._lies))
            for number in range(self._options.clients)
        ]
        cluster.clients.extend(clients)
        return clients

    def _make_applications(self, conditions: Conditions, clients: list[ClientHost]) -> None:
        for number in range(self._options.applications):
            wandering = self._options.wandering and len(clients) > 1
            taste = Taste.draw(self._chance)
            if wandering and self._options.mode == "nfs":
                taste.only_bytes()
            name = f"w{number}"
            worker = Worker(name, (name.encode(),), taste, conditions, self._trace)
            worker.seed(f"{self._seed} {name}")
            first = number % len(clients)
            route = [*clients[first:], *clients[:first]] if wandering else [clients[first]]
            self._place(worker, route)
        for number in range(self._options.rivals):
            name = f"r{number}"
            write_max_bytes = self._chance.choice((100, 5_000, 100_000))
            seed = f"{self._seed} {name}"
            rival = Rival(name, seed, write_max_bytes, conditions, self._trace)
            self._place(rival, [clients[number % len(clients)]])

    def _place(self, worker: Worker | Rival, route: list[ClientHost]) -> None:
        stay = self._chance.choice((5, 20))
        pause = partial(self._chance.uniform, 0.0, self._options.think_max_s)
        application = Application(worker, self._options.steps, route, stay, pause)
        self._applications.append(application)
        route[0].receive(application)

    def _lose_power(self) -> None:
        for application in self._applications:
            application.worker.servers_lost_power()

    async def _prepare_folders(self, cluster: Cluster) -> None:
        """Before anything goes wrong."""

        async def prepare(user: User) -> None:
            for base in sorted({application.worker.base for application in self._applications}):
                await user.mkdir(base, 0o755)
            for application in self._applications:
                await application.worker.prepare(User(user.vfs, application.worker.base))

        with trio.move_on_after(LIVENESS_MAX_S) as patience:
            await self._visit(cluster, "first", prepare)
        if patience.cancelled_caught:
            raise ViolationError("a healthy cluster does not come up")

    async def _work_under_faults(self, cluster: Cluster, nursery: trio.Nursery) -> None:
        options = self._options
        nemesis = Nemesis(cluster, f"{self._seed} nemesis", options.faults, options.pause_max_s)
        with trio.move_on_after(SAFETY_MAX_S):
            async with trio.open_nursery() as faults:
                faults.start_soon(nemesis.run_forever)
                await self._all_done()
                faults.cancel_scope.cancel()
        nemesis.heal()

    async def _all_done(self) -> None:
        for application in self._applications:
            await application.done.wait()

    async def _finish(self, cluster: Cluster) -> None:
        with trio.move_on_after(LIVENESS_MAX_S) as patience:
            await self._all_done()
            for client in cluster.clients:
                client.release()
            for client in cluster.clients:
                await client.finished.wait()
        if patience.cancelled_caught:
            stuck = [application.worker.doing() for application in self._applications]
            raise ViolationError(
                f"healed {LIVENESS_MAX_S:.0f} s ago, and still waiting: {'; '.join(stuck)}"
            )

    async def _check(self, cluster: Cluster) -> None:
        self._trace.note("check", "a fresh client looks at everything")

        async def look(user: User) -> None:
            for application in self._applications:
                worker = application.worker
                await worker.check_all(User(user.vfs, worker.base))

        with trio.move_on_after(LIVENESS_MAX_S) as patience:
            await self._visit(cluster, "last", look)
            await check_servers(cluster, [application.worker for application in self._applications])
            # A chunk that was begun and never committed is told of at the next registration.
            for server in cluster.chunkservers:
                server.stop(machine=False)
                server.start()
            await trio.sleep(SESSIONS_END_S)
            await check_state(cluster, self._options)
        if patience.cancelled_caught:
            raise ViolationError("the final checks do not come to an end")

    async def _visit(self, cluster: Cluster, host: str, work: Any) -> None:
        """Mount somewhere, do something, unmount."""
        visitor = ClientHost(cluster, host, mount(self._options, self._lies))
        await visitor.once(work)


def _has(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_has(inner, kinds) for inner in error.exceptions)
    return isinstance(error, kinds)


def _in_words(error: BaseException) -> str:
    """The violation if there is one among the errors, else everything."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ViolationError):
        return str(error)
    return "".join(traceback.format_exception(error))
