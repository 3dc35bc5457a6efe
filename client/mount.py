"""One mount as a process: real ports, a client, the driver, and a clean end.

It ends when the kernel unmounts, and on SIGTERM or SIGINT. Then everything that is dirty is
written and the session is closed. On a hard mount that may take as long as the servers are away;
a second signal gives up, and says what that loses.
"""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import trio

from ..fs.errors import Code, TideError
from ..fs.members import Readdress
from ..fs.ports import Ports
from ..fs.ports.clock import RealClock
from ..fs.ports.disk_real import RealDisk
from ..fs.ports.network_real import RealNetwork
from ..fs.ports.randomness import RealRandomness
from ..fs.process import use_memory_freely
from . import mounts, service_manager
from .client import Client, Identity, open_client
from .fuse.choice import MountedDriver, Place, candidates, open_driver
from .mount_point import check_machine, free_point
from .notes import NoteFile
from .options import DriverName, MountOptions
from .progress import Progress
from .unmounting import detach

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class MountRequest(NamedTuple):
    """What to mount where. ``name`` is what a list of mounts shows."""

    addresses: Sequence[str]
    point: str
    name: str
    options: MountOptions = MountOptions()
    readdress: Readdress | None = None
    """Gives ``addresses`` anew, where somebody keeps them up to date."""


async def run_mount(request: MountRequest, on_ready: Callable[[], None]) -> None:
    """Mount, call ``on_ready`` when the mount can be used, serve until it ends.

    TideError before that: what is wrong with the machine, the mount point or the servers. After:
    what could not be written at the end. A signal before ``on_ready`` just ends it.
    """
    check_machine()
    request = request._replace(point=await free_point(request.point))
    use_memory_freely()
    failures: list[TideError] = []
    try:
        with trio.CancelScope() as patience:
            async with trio.open_nursery() as nursery:
                end = _End(patience)
                nursery.start_soon(end.listen)
                await _mount_and_serve(request, on_ready, end, nursery)
                nursery.cancel_scope.cancel()
    except* TideError as group:
        failures += _leaves(group)
    if failures:
        raise failures[0]


async def _mount_and_serve(
    request: MountRequest, on_ready: Callable[[], None], end: "_End", nursery: trio.Nursery
) -> None:
    ports = Ports(RealClock(), RealRandomness(), RealDisk("/"), RealNetwork())
    identity = Identity(request.addresses, socket.gethostname(), os.getpid(), request.readdress)
    client = await open_client(ports, identity, request.options, nursery)
    progress = Progress(client)
    nursery.start_soon(progress.report_forever)
    try:
        await _Mounting(client, request, on_ready, end, progress).serve()
    finally:
        progress.ends()
        await _close(client, progress)


async def _close(client: Client, progress: Progress) -> None:
    """Write what is dirty, and say in the log and to who unmounts when some of it is lost."""
    reason = ""
    try:
        await client.close()
    except TideError as error:
        reason = str(error)
        raise
    finally:
        progress.close(reason)


class _End:
    """The first signal asks for a clean end, the second one for an end now."""

    def __init__(self, patience: trio.CancelScope) -> None:
        self.asked = trio.Event()
        self.mounted = False
        self._patience = patience

    async def listen(self) -> None:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async for number in signals:
                log.info("%s", signal.Signals(number).name)
                if self.asked.is_set() or not self.mounted:
                    self._patience.cancel()
                self.asked.set()


class _Mounting:
    """From the first driver that works to the end of the mount."""

    def __init__(
        self,
        client: Client,
        request: MountRequest,
        on_ready: Callable[[], None],
        end: _End,
        progress: Progress,
    ) -> None:
        self._client = client
        self._request = request
        self._on_ready = on_ready
        self._end = end
        self._progress = progress
        self._reasons: list[str] = []

    async def serve(self) -> None:
        """NOT_SUPPORTED, with all reasons, when no driver works here."""
        for name in candidates(self._request.options):
            try:
                await self._serve_with(name)
            except TideError as error:
                if error.code is not Code.NOT_SUPPORTED:
                    raise
                self._reasons.append(f"the {name} driver cannot be used: {error.detail}")
            else:
                log.info("%s is unmounted", self._request.point)
                return
        raise TideError(Code.NOT_SUPPORTED, "; ".join(self._reasons))

    async def _serve_with(self, name: DriverName) -> None:
        """NOT_SUPPORTED when this driver cannot be used here."""
        point, vfs = self._request.point, self._client.vfs
        place = Place(point, self._request.name, self._request.options)
        driver, vfs.kernel = open_driver(name, vfs, place)
        mount = mounts.mount_at(point)
        if mount is not None:
            self._progress.note = NoteFile(mount, name)
        self._end.mounted = True
        unusable: TideError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_unmount_when_asked, driver, point, self._end)
                nursery.start_soon(self._announce, name, mount)
                try:
                    await driver.serve_forever()
                except TideError as error:
                    unusable = error
                nursery.cancel_scope.cancel()
        finally:
            vfs.kernel = None
        if unusable is not None:
            if mount is not None and mount == mounts.mount_at(point):
                detach(point, lazy=True)
            raise unusable

    async def _announce(self, name: DriverName, mount: mounts.Mount | None) -> None:
        """The mount is of use when its root can be looked at."""
        point, options = self._request.point, self._request.options
        await trio.to_thread.run_sync(os.stat, point, abandon_on_cancel=True)
        if mount is not None:
            set_read_ahead(mount.device, options.read_ahead_bytes)  # the kernel has set its own
        why = "as asked for" if options.driver else "; ".join(self._reasons) or "the default"
        log.info("mounted on %s by the %s driver: %s", point, name, why)
        service_manager.tell("READY=1", f"STATUS=mounted on {point}")
        self._on_ready()


async def _unmount_when_asked(driver: MountedDriver, point: str, end: _End) -> None:
    await end.asked.wait()
    try:
        # What was written through a mapping is still in the kernel.
        await trio.to_thread.run_sync(driver.sync, abandon_on_cancel=True)
        await trio.to_thread.run_sync(_detach, point, False, abandon_on_cancel=True)
        return  # the driver sees that it is unmounted
    except TideError as error:
        log.warning("%s: they are cut off", error.detail)
    except OSError as error:
        log.warning("%s: %s", point, error)
    try:
        await trio.to_thread.run_sync(_detach, point, True, abandon_on_cancel=True)
    except TideError as error:
        log.warning("%s", error)
        driver.unmount()
    else:
        driver.unmount(detached=True)


def _detach(point: str, lazy: bool) -> None:
    detach(point, lazy=lazy)


def set_read_ahead(device: str, size_bytes: int) -> None:
    """How far the kernel reads ahead on a mount: 128 KiB, unless root says otherwise."""
    path = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
    try:
        path.write_text(f"{size_bytes // 1024}\n")
    except OSError as error:
        log.debug("%s: %s", path, error.strerror)


def _leaves(group: BaseExceptionGroup[TideError]) -> Iterator[TideError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
