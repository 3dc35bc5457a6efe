"""One client without a kernel interface: session, servers and vfs, put together on given ports."""

from collections.abc import Sequence
from typing import NamedTuple

import trio

from ..fs.limits import FIRST_LINK_TIMEOUT_MS
from ..fs.members import Readdress
from ..fs.ports import Ports
from .chunkclient import ChunkClient
from .connections import Connections
from .link import Who
from .metaclient import MetaClient
from .options import AccessTimes, MountOptions
from .vfs import Surroundings, Vfs


class Identity(NamedTuple):
    """Which servers, and how this client is called there."""

    addresses: Sequence[str]
    """Of the metaservers: ``unix:/path`` or ``tcp:host:port``."""
    host: str
    """The machine's name: a replica on the same one is preferred."""
    pid: int
    readdress: Readdress | None = None
    """Gives ``addresses`` anew, where somebody keeps them up to date."""


class Standing(NamedTuple):
    """How far a client is with what was written here. ``waits_for``: a sentence about servers that
    are asked or missed, empty when there is none."""

    unwritten_bytes: int
    waits_for: str


class Client:
    """What is running; made by ``open_client``."""

    def __init__(
        self, meta: MetaClient, connections: Connections, vfs: Vfs, tasks: trio.Nursery
    ) -> None:
        self.meta = meta
        self.vfs = vfs
        self._connections = connections
        self._tasks = tasks

    @property
    def standing(self) -> Standing:
        """How it stands now."""
        troubles = [text for text in (self.meta.trouble, self._connections.trouble) if text]
        waits_for = "; ".join(troubles) or ", ".join(self._connections.busy)
        return Standing(self.vfs.files.account.bytes, waits_for)

    async def close(self) -> None:
        """Write everything that is dirty, end the session, and end all tasks.

        On a hard mount it waits for the servers as long as it takes. The first TideError says
        what could not be written; everything is ended all the same.
        """
        try:
            await self.vfs.close()
        finally:
            with trio.CancelScope(shield=True):
                await self.meta.close()
            self._connections.close()
            self._tasks.cancel_scope.cancel()


async def open_client(
    ports: Ports,
    identity: Identity,
    options: MountOptions,
    nursery: trio.Nursery,
    *,
    timeout_ms: int = FIRST_LINK_TIMEOUT_MS,
) -> Client:
    """A client with an open session. Its tasks run in ``nursery`` until ``Client.close``.

    TideError when within ``timeout_ms`` no metaserver takes it, or at once when none ever will.
    """
    who = Who(identity.host, identity.pid, options.timeout_ms, promises=options.mode.promises)
    meta = MetaClient(ports, identity.addresses, who, identity.readdress)
    tasks: trio.Nursery = await nursery.start(_hold_tasks)
    tasks.start_soon(meta.run)
    try:
        await meta.wait_linked(timeout_ms)
    except BaseException:
        tasks.cancel_scope.cancel()
        raise
    connections = Connections(ports, identity.host, meta.cluster, tasks)
    chunks = ChunkClient(ports, meta, connections, identity.host)
    vfs = Vfs(
        Surroundings(
            meta,
            chunks,
            ports.clock,
            options.mode,
            tasks,
            patience_ms=options.timeout_ms,
            cache_bytes=options.cache_bytes,
            host=identity.host,
            access_times=AccessTimes.NEVER if options.read_only else options.access_times,
            directory_access_times=options.directory_access_times,
        )
    )
    tasks.start_soon(vfs.run)
    return Client(meta, connections, vfs, tasks)


async def _hold_tasks(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """A nursery that lives until it is cancelled."""
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()
