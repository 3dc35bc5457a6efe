"""One mount as a process: real ports, a client, the driver, and a clean end.

It ends when the kernel unmounts, and on SIGTERM or SIGINT. Then everything that is dirty is
written and the session is closed. On a hard mount that may take as long as the servers are away;
a second signal gives up, and says what that loses.
"""

import contextlib
import errno
import logging
import os
import shutil
import signal
import socket
import stat
import tempfile
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
from . import mounts
from .client import Client, Identity, open_client
from .fuse.pyfuse3_driver import Invalidation, Pyfuse3Driver
from .options import MountOptions

log = logging.getLogger(__name__)

FUSE_DEVICE = "/dev/fuse"
STALE_CHECK_S = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class MountRequest(NamedTuple):
    """What to mount where. ``name`` is what a list of mounts shows."""

    addresses: Sequence[str]
    point: str
    name: str
    options: MountOptions = MountOptions()
    readdress: Readdress | None = None
    """Gives ``addresses`` anew, where somebody keeps them up to date."""


def check_machine() -> None:
    """NOT_SUPPORTED when this machine cannot mount anything, with the remedy."""
    try:
        mode = os.stat(FUSE_DEVICE).st_mode
    except OSError as error:
        raise TideError(
            Code.NOT_SUPPORTED,
            f"{FUSE_DEVICE}: {error.strerror}; load the kernel module (modprobe fuse), or give the"
            " container the device (--device /dev/fuse --cap-add SYS_ADMIN)",
        ) from None
    if not stat.S_ISCHR(mode):
        raise TideError(Code.NOT_SUPPORTED, f"{FUSE_DEVICE} is not a device")
    if os.geteuid() == 0:
        return
    if shutil.which(mounts.FUSERMOUNT) is None:
        raise TideError(
            Code.NOT_SUPPORTED, f"{mounts.FUSERMOUNT} is missing: install fuse3, or mount as root"
        )


async def free_point(path: str) -> str:
    """The absolute path of a mount point that can be used now.

    What a crashed client left there is taken away first. NO_ENTRY, NOT_A_DIRECTORY, ACCESS_DENIED;
    BUSY when something is mounted there.
    """
    point, mount = mounts.find(path)
    if mount is not None and mount.ours and await _is_stale(mount):
        log.warning("%s is the mount of a client that is gone: it is replaced", point)
        mounts.detach(point, lazy=True)
        point, mount = mounts.find(path)
    if mount is not None:
        name = mount.source.removeprefix(mounts.SOURCE_PREFIX)
        remedy = f"tidefs umount {point}" if mount.ours else f"umount {point}"
        raise TideError(
            Code.BUSY, f"{name} ({mount.type}) is mounted on {point}; first do: {remedy}"
        )
    try:
        if not stat.S_ISDIR(os.stat(point).st_mode):
            raise TideError(Code.NOT_A_DIRECTORY, f"mount point {point}")
    except FileNotFoundError:
        raise TideError(Code.NO_ENTRY, f"mount point {point} (make it first: mkdir)") from None
    except OSError as error:
        raise TideError(Code.ACCESS_DENIED, f"mount point {point}: {error.strerror}") from None
    return point


async def _is_stale(mount: mounts.Mount) -> bool:
    """Whether its process is gone: then the kernel has cut the connection."""
    if mounts.server_of(mount) is not None:
        return False

    def ask() -> bool:
        try:
            os.statvfs(mount.point)  # never answered from the kernel's caches
        except OSError as error:
            return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        return False

    with trio.move_on_after(STALE_CHECK_S):
        return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
    return False


def fuse_options(request: MountRequest) -> set[str]:
    """What libfuse is to tell the kernel."""
    options = request.options
    source = mounts.source_of(request.name).replace("\\", "\\\\").replace(",", "\\,")
    chosen = {"default_permissions", "subtype=tidefs", f"fsname={source}"}
    allow_other = options.allow_other
    if allow_other or (allow_other is None and os.geteuid() == 0):
        chosen.add("allow_other")
    if options.read_only:
        chosen.add("ro")
    return chosen


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
    try:
        await _serve(client, request, on_ready, end)
    finally:
        try:
            await client.close()
        finally:
            unwritten_bytes = client.vfs.files.account.bytes
            if unwritten_bytes:
                log.error("%d bytes that were written here have not reached the servers and are"
                          " lost", unwritten_bytes)  # fmt: skip


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


async def _serve(
    client: Client, request: MountRequest, on_ready: Callable[[], None], end: _End
) -> None:
    point = request.point
    invalidation = Invalidation()
    driver = _mount(client, request, invalidation)
    mount = mounts.mount_at(point)
    note = None if mount is None else mounts.note_server(mount)
    client.vfs.kernel = invalidation
    end.mounted = True
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_unmount_when_asked, driver, point, end)
            nursery.start_soon(_announce, point, mount, request.options, on_ready)
            await driver.serve_forever()
            nursery.cancel_scope.cancel()
    finally:
        client.vfs.kernel = None
        if note is not None:
            note.unlink(missing_ok=True)
    log.info("%s is unmounted", point)


def _mount(client: Client, request: MountRequest, invalidation: Invalidation) -> Pyfuse3Driver:
    with _said_by_libfuse() as said:
        try:
            return Pyfuse3Driver(client.vfs, request.point, fuse_options(request), invalidation)
        except (RuntimeError, OSError) as error:
            raise TideError(
                Code.NOT_PERMITTED, f"{request.point} cannot be mounted: {said() or error}"
            ) from None


async def _announce(
    point: str,
    mount: mounts.Mount | None,
    options: MountOptions,
    on_ready: Callable[[], None],
) -> None:
    """The mount is of use when its root can be looked at."""
    await trio.to_thread.run_sync(os.stat, point, abandon_on_cancel=True)
    if mount is not None:
        set_read_ahead(mount.device, options.read_ahead_bytes)  # the kernel has set its own by now
    log.info("mounted on %s", point)
    on_ready()


async def _unmount_when_asked(driver: Pyfuse3Driver, point: str, end: _End) -> None:
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
    mounts.detach(point, lazy=lazy)


def set_read_ahead(device: str, size_bytes: int) -> None:
    """How far the kernel reads ahead on a mount: 128 KiB, unless root says otherwise."""
    path = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
    try:
        path.write_text(f"{size_bytes // 1024}\n")
    except OSError as error:
        log.debug("%s: %s", path, error.strerror)


@contextlib.contextmanager
def _said_by_libfuse() -> Iterator[Callable[[], str]]:
    """What is written to standard error meanwhile: libfuse tells its reasons nowhere else."""
    with tempfile.TemporaryFile() as said:
        saved = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:

            def text() -> str:
                said.seek(0)
                return " | ".join(said.read().decode(errors="replace").split("\n")).strip(" |")

            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _leaves(group: BaseExceptionGroup[TideError]) -> Iterator[TideError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
