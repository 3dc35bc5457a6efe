"""``tidefs umount``: end a mount, with everything that was written safe on the servers."""

from pathlib import Path

import click

from ..client import mounts
from ..client.unmounting import unmount
from ..fs.errors import Code, TideError
from .cluster import Cluster
from .cluster_file import read
from .exits import Exit, Failure
from .folder import is_cluster, locked
from .holds import stop_if_unused
from .tell import say


@click.command()
@click.argument("mount_point", metavar="MOUNTPOINT")
@click.option("--lazy", is_flag=True, help="Take the mount away now, though it is in use.")
def umount(mount_point: str, lazy: bool) -> None:
    """Unmount MOUNTPOINT.

    It returns when everything that was written is on the servers, and the servers that the mount
    started have ended, if it was the last one.
    """
    point, mount = mounts.find(mount_point)
    try:
        unmount(point, lazy=lazy, tell=lambda text: say(f"{text} ..."))
    except TideError as error:
        if error.code is Code.INVALID:
            raise Failure(Exit.WRONG, error.detail) from None
        raise
    if mount is not None and not lazy:
        _stop_abandoned(mount.source.removeprefix(mounts.SOURCE_PREFIX))


def _stop_abandoned(source: str) -> None:
    """Stop a cluster whose last client could not do so itself, because it was killed."""
    folder = Path(source)
    if folder.is_absolute() and is_cluster(folder):
        with locked(folder, say):
            stop_if_unused(Cluster(folder, read(folder)), say)
