"""The plot of one run: a cluster works under faults, a majority heals, all heals, it is checked.

Safety phase: applications and callers work while the nemesis does. Liveness phase: a majority is
healed, and somebody new is served within a bound of virtual time; then everything is healed, and
all that was asked must be answered. Then the history of the callers must be linearizable, each
tree is compared with its model through a client that was not there before, and the servers' own
state is checked, before and after a power cut of all members.
"""

import random
from functools import partial
from typing import Any

import trio
from tidefs.client.modes import mode_named
from tidefs.fs.ids import ROOT
from tidefs.fs.limits import SESSION_LEASE_MS
from tidefs.fs.messages.meta import MakeDirectory

from .callers import Caller, Metaservers, Places, prepare
from .client_host import Application, ClientHost
from .cluster import Cluster, Lies, Process
from .compose import build_cluster, mount, open_session
from .conditions import Conditions, ViolationError
from .final_checks import check_servers
from .group_watch import GroupWatch
from .history import History
from .inside import check_state
from .linearizability import Verdict, check, explain
from .lock_callers import LockCaller
from .nemesis import Nemesis
from .objects import tree
from .options import Options
from .rivals import Rival
from .sharers import Sharer
from .sharing import make_sharers
from .taste import Taste
from .trace import Trace
from .user import User
from .witnesses import make_witnesses, taken_apart
from .workload import Worker

SAFETY_MAX_S = 60.0
MAJORITY_MAX_S = 10.0
"""So soon somebody new is served, once a majority of the members is healed."""
PROMISED_MAX_S = 1.25 * SESSION_LEASE_MS / 1000
"""And so much later where mounts that are gone, and were promised something, are waited for."""
LIVENESS_MAX_S = 300.0
SESSIONS_END_S = 60.0
"""After the last unmount: sessions of crashed clients expire, the files that were unlinked and
open there are reaped, and their chunks, and those that were never committed, are deleted."""


class Scenario:
    """One run."""

    def __init__(
        self,
        seed: int,
        options: Options,
        chance: random.Random,
        trace: Trace,
        watch: GroupWatch,
        lies: Lies,
    ) -> None:
        self._seed = seed
        self._options = options
        self._chance = chance
        self._trace = trace
        self._watch = watch
        self._lies = lies
        self._applications: list[Application] = []
        self._history = History()
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
        cluster = await build_cluster(
            self._seed, self._options, self._trace, self._watch, self._lies, nursery
        )
        for server in cluster.servers():
            server.start()
        clients = self._make_clients(cluster)
        self._make_applications(cluster.conditions, clients)
        self._make_sharers(cluster, clients)
        self._make_witnesses(cluster, clients)
        cluster.on_power_loss.append(self._lose_power)
        with trio.move_on_after(LIVENESS_MAX_S) as patience:
            await self._prepare(cluster)
        if patience.cancelled_caught:
            raise ViolationError("a healthy cluster does not come up")
        cluster.admin.start()
        for client in clients:
            client.start()
        for caller in cluster.callers:
            caller.start()
        nemesis = await self._work_under_faults(cluster)
        await self._majority_goes_on(cluster, nemesis)
        await self._finish(cluster)
        self._check_history()
        await self._check(cluster)

    # --- who works -----------------------------------------------------------------------------

    def _make_clients(self, cluster: Cluster) -> list[ClientHost]:
        clients = [
            ClientHost(cluster, f"c{number}", mount(cluster, self._options, self._lies))
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

    def _make_sharers(self, cluster: Cluster, clients: list[ClientHost]) -> None:
        sharers = make_sharers(cluster, self._options, self._chance)
        for number, sharer in enumerate(sharers):
            self._place(sharer, [clients[number % len(clients)]])

    def _make_witnesses(self, cluster: Cluster, clients: list[ClientHost]) -> None:
        witnesses = make_witnesses(cluster, self._options, self._history)
        for number, witness in enumerate(witnesses):
            self._place(witness, [clients[number % len(clients)]])

    def _place(self, worker: Worker | Rival | Sharer, route: list[ClientHost]) -> None:
        stay = self._chance.choice((5, 20))
        pause = partial(self._chance.uniform, 0.0, self._options.think_max_s)
        application = Application(worker, self._options.steps, route, stay, pause)
        self._applications.append(application)
        route[0].receive(application)

    def _make_callers(self, cluster: Cluster, places: Places) -> None:
        for number in range(self._options.callers):
            caller = Caller(
                cluster,
                number,
                open_session(cluster),
                places,
                self._history,
                count=self._options.calls,
                think_max_s=self._options.think_max_s,
                only_reads=number > 1 and self._chance.random() < 0.5,
            )
            cluster.callers.append(caller)
        for number in range(
            self._options.callers, self._options.callers + self._options.lock_callers
        ):
            locker = LockCaller(
                cluster,
                number,
                open_session(cluster),
                places,
                self._history,
                count=self._options.calls,
                think_max_s=self._options.think_max_s,
                only_reads=False,
            )
            cluster.callers.append(locker)

    def _lose_power(self) -> None:
        for application in self._applications:
            application.worker.servers_lost_power()

    # --- phases --------------------------------------------------------------------------------

    async def _prepare(self, cluster: Cluster) -> None:
        """Before anything goes wrong."""

        async def make_folders(user: User) -> None:
            for base in sorted({application.worker.base for application in self._applications}):
                await user.mkdir(base, 0o755)
            for application in self._applications:
                await application.worker.prepare(User(user.vfs, application.worker.base))

        async def make_places(metaservers: Metaservers) -> None:
            self._make_callers(cluster, await prepare(metaservers, ROOT))

        if self._applications:
            await self._visit(cluster, "first", make_folders)
        if self._options.callers or self._options.lock_callers:
            await self._speak(cluster, "zeroth", make_places)

    async def _work_under_faults(self, cluster: Cluster) -> Nemesis:
        options = self._options
        nemesis = Nemesis(cluster, f"{self._seed} nemesis", options.faults, options.pause_max_s)
        with trio.move_on_after(SAFETY_MAX_S):
            async with trio.open_nursery() as faults:
                faults.start_soon(nemesis.run_forever)
                await self._all_done(cluster)
                faults.cancel_scope.cancel()
        return nemesis

    async def _all_done(self, cluster: Cluster) -> None:
        for application in self._applications:
            await application.done.wait()
        for caller in cluster.callers:
            await caller.done.wait()

    async def _majority_goes_on(self, cluster: Cluster, nemesis: Nemesis) -> None:
        """With one member less, if the options say so."""
        nemesis.heal()
        absent = None
        if self._options.one_stays_down and cluster.admin.can_spare_one:
            absent = self._chance.choice([one for one in cluster.metaservers if one.up])
            self._trace.note("fault", f"crash {absent.host}, which stays down")
            absent.stop(machine=True)

        async def change(metaservers: Metaservers) -> None:
            await metaservers.call(MakeDirectory(ROOT, b"probe", 0o755, 0, 0))

        most_s = MAJORITY_MAX_S
        if mode_named(self._options.mode).promises:
            most_s += PROMISED_MAX_S
        with trio.move_on_after(most_s) as patience:
            await self._speak(cluster, "probe", change)
        if patience.cancelled_caught:
            who = f"all but {absent.host}" if absent else "everything"
            raise ViolationError(f"healed {who} {most_s:.0f} s ago, and no change is done")
        if absent is not None and not absent.up and not absent.retired:
            self._trace.note("fault", f"start {absent.host}")
            absent.start()

    async def _finish(self, cluster: Cluster) -> None:
        with trio.move_on_after(LIVENESS_MAX_S) as patience:
            await self._all_done(cluster)
            for client in cluster.clients:
                client.release()
            for client in cluster.clients:
                await client.finished.wait()
            await cluster.admin.wait_idle()
        if patience.cancelled_caught:
            stuck = [application.worker.doing() for application in self._applications]
            stuck += [caller.doing() for caller in cluster.callers]
            stuck.append(cluster.admin.doing())
            raise ViolationError(
                f"healed {LIVENESS_MAX_S:.0f} s ago, and still waiting: {'; '.join(stuck)}"
            )

    # --- checks --------------------------------------------------------------------------------

    def _check_history(self) -> None:
        operations = taken_apart(self._history, self._options)
        verdict = check(operations, tree())
        self._trace.note("check", f"{len(operations)} operations: {verdict.value}")
        if verdict is Verdict.VIOLATION:
            raise ViolationError(f"the history is not linearizable: {explain(operations, tree())}")

    async def _check(self, cluster: Cluster) -> None:
        self._trace.note("check", "a fresh client looks at everything")

        async def look(user: User) -> None:
            for application in self._applications:
                worker = application.worker
                await worker.check_all(User(user.vfs, worker.base))

        workers = [application.worker for application in self._applications]
        with trio.move_on_after(LIVENESS_MAX_S) as patience:
            if workers:
                await self._visit(cluster, "last", look)
            await check_servers(cluster, workers)
            if cluster.chunkservers:
                # A chunk that was begun and never committed is told of at the next registration.
                for server in cluster.chunkservers:
                    server.stop(machine=False)
                    server.start()
            if cluster.chunkservers or self._options.lock_callers:
                await trio.sleep(SESSIONS_END_S)
            for server in cluster.metaservers:
                server.stop(machine=True)
                server.start()
            await check_servers(cluster, [])
            check_state(cluster)
        if patience.cancelled_caught:
            raise ViolationError("the final checks do not come to an end")

    async def _visit(self, cluster: Cluster, host: str, work: Any) -> None:
        """Mount somewhere, do something, unmount."""
        visitor = ClientHost(cluster, host, mount(cluster, self._options, self._lies))
        await visitor.once(work)

    async def _speak(self, cluster: Cluster, host: str, work: Any) -> None:
        """Have a session somewhere, without a mount."""
        visitor = Process(cluster, host)
        ports, scope = visitor.begin(visitor.no_disk())
        await visitor.live(scope, partial(open_session(cluster), ports, work, host))
