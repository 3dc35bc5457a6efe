"""A client machine: one mount without FUSE, and the applications that work on it.

An application may move on to another client after some steps, with everything closed. Its tree
then shows whether one client sees what another one published.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import trio
from tidefs.client.fuse.driver import FileSystem
from tidefs.fs.ports import Ports

from .cluster import Cluster, Process
from .rivals import Rival
from .sharers import Sharer
from .user import User
from .workload import Worker

RESTART_AFTER_S = 16.0
"""Longer than anything that a dead client sent can still be under way, and than its session."""

MountLife = Callable[[Ports, Callable[[FileSystem], Awaitable[None]], str], Awaitable[None]]
"""Mounts on the named host, runs the function on the vfs, and unmounts in good order."""


class Application:
    """A worker, how much it has yet to do, and where it goes."""

    def __init__(
        self,
        worker: Worker | Rival | Sharer,
        steps: int,
        route: "list[ClientHost]",
        stay: int,
        pause: Callable[[], float],
    ) -> None:
        """``route``: the clients it visits in turn; ``stay``: steps until it moves on; ``pause``:
        seconds between two steps."""
        self.worker = worker
        self._pause = pause
        self.left = steps
        self.done = trio.Event()
        self._route = route
        self._stay = min(stay, steps)

    async def visit(self, host: "ClientHost", vfs: FileSystem) -> None:
        """Work on ``host`` until it is time to move on."""
        await self.worker.attach(User(vfs, self.worker.base))
        while self.left:
            await trio.sleep(self._pause())
            await self.worker.work(1)
            self.left -= 1
            if len(self._route) > 1 and self.left % self._stay == 0:
                break
        await self.worker.finish()
        self.worker.detach()
        host.applications.remove(self)
        if not self.left:
            self.done.set()
        else:
            self._route.append(self._route.pop(0))
            self._route[0].receive(self)


class ClientHost(Process):
    """Mounted until ``released``; mounted again some time after a crash."""

    def __init__(self, cluster: Cluster, host: str, mount: MountLife) -> None:
        super().__init__(cluster, host)
        self.applications: list[Application] = []
        self.mounted = False
        self.finished = trio.Event()
        self._mount = mount
        self._released = trio.Event()
        self._arrivals = trio.Event()

    def start(self) -> None:
        """Begin a new life."""
        ports, scope = self._begin()
        self.cluster.nursery.start_soon(self._live, ports, scope)

    async def once(self, work: Callable[[User], Awaitable[None]]) -> None:
        """Mount, do this, unmount."""
        ports, scope = self._begin()

        async def visit(vfs: FileSystem) -> None:
            await work(User(vfs, ()))

        await self.live(scope, partial(self._mount, ports, visit, self.host))

    def _begin(self) -> tuple[Ports, trio.CancelScope]:
        return self.begin(self.no_disk())

    def release(self) -> None:
        """Unmount once nobody works here; there will be no more arrivals."""
        self._released.set()
        self._arrivals.set()

    def receive(self, application: Application) -> None:
        """An application moves here."""
        self.applications.append(application)
        self._arrivals.set()

    def stop(self, *, machine: bool) -> None:
        super().stop(machine=machine)
        self.mounted = False
        for application in self.applications:
            application.worker.client_died()
        self.cluster.postman.after(RESTART_AFTER_S, self.start)

    async def _live(self, ports: Ports, scope: trio.CancelScope) -> None:
        if await self.live(scope, partial(self._mount, ports, self._serve, self.host)):
            self.finished.set()

    async def _serve(self, vfs: FileSystem) -> None:
        self.mounted = True
        async with trio.open_nursery() as nursery:
            seen: list[Application] = []
            while not (self._released.is_set() and not self.applications):
                self._arrivals = trio.Event()
                seen = [application for application in seen if application in self.applications]
                for application in self.applications:
                    if application not in seen:
                        seen.append(application)
                        nursery.start_soon(self._host, application, vfs)
                await self._arrivals.wait()
        self.mounted = False

    async def _host(self, application: Application, vfs: FileSystem) -> None:
        await application.visit(self, vfs)
        self._arrivals.set()
