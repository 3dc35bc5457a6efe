"""``tidefs down``: stop a cluster on this machine."""

from pathlib import Path

import click

from .cluster import open_cluster
from .exits import Exit, Failure
from .folder import locked
from .holds import holds, unkeep
from .tell import say


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--force",
    is_flag=True,
    help="Also while it is mounted (the mounts then wait for `tidefs up`), and kill servers that"
    " do not stop when asked.",
)
def down(folder: Path, force: bool) -> None:
    """Stop all servers of the cluster in the folder DIR."""
    cluster = open_cluster(folder)
    with locked(cluster.folder, say):
        mounts = [hold.mount_point for hold in holds(cluster.folder)]
        if mounts and not force:
            raise Failure(
                Exit.BUSY,
                f"{cluster.folder} is mounted on {', '.join(mounts)}; first `tidefs umount"
                f" {mounts[0]}`, or use --force: then its files wait until `tidefs up`",
            )
        stopped = cluster.stop(say, kill=force)
        unkeep(cluster.folder)
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
