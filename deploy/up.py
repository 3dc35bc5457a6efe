"""``tidefs up``: start a cluster on this machine, or what is missing of one."""

from pathlib import Path

import click

from ..fs.limits import REPLICAS_DEFAULT
from ..fs.messages.hello import CHUNKSERVER, METASERVER
from .cluster import Cluster, make_folder, open_or_create
from .exits import Exit, Failure
from .folder import Shape, check_shape, is_cluster, locked
from .holds import keep
from .tell import count, say

CHUNKSERVERS_DEFAULT = 3


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--metaservers", type=int, metavar="N", help="How many metaservers: 1 for now.")
@click.option(
    "--chunkservers",
    type=int,
    metavar="N",
    help=f"How many chunkservers; {CHUNKSERVERS_DEFAULT} unless told.",
)
@click.option(
    "--replicas",
    type=int,
    metavar="N",
    help=f"How many copies of all data; {REPLICAS_DEFAULT}, or as many as chunkservers.",
)
def up(
    folder: Path, metaservers: int | None, chunkservers: int | None, replicas: int | None
) -> None:
    """Start a cluster of servers on this machine, kept in the folder DIR.

    DIR is made when it is missing. When it holds a cluster already, what is not running is
    started. The cluster runs until `tidefs down DIR`. DIR is a SOURCE for `tidefs mount` and
    `tidefs status`.
    """
    wanted = (metaservers, chunkservers, replicas)
    if not is_cluster(folder):
        check_shape(_shape(*wanted))
    folder = make_folder(folder)
    with locked(folder, say):
        cluster, made = open_or_create(folder, _shape(*wanted))
        if not made:
            _check_same(cluster, *wanted)
        keep(folder)
        started = cluster.start(say)
    _tell(cluster, started)


def _shape(metaservers: int | None, chunkservers: int | None, replicas: int | None) -> Shape:
    """What is asked for, with what was left out."""
    chunkservers = CHUNKSERVERS_DEFAULT if chunkservers is None else chunkservers
    return Shape(
        metaservers=1 if metaservers is None else metaservers,
        chunkservers=chunkservers,
        replicas=max(1, min(REPLICAS_DEFAULT, chunkservers)) if replicas is None else replicas,
        tcp=True,
    )


def _check_same(
    cluster: Cluster, metaservers: int | None, chunkservers: int | None, replicas: int | None
) -> None:
    """Failure(USAGE) when another shape is asked for than the cluster in the folder has."""
    found = {
        "--metaservers": (metaservers, len(cluster.members(METASERVER))),
        "--chunkservers": (chunkservers, len(cluster.members(CHUNKSERVER))),
        "--replicas": (replicas, cluster.file.replicas),
    }
    for option, (wanted, there) in found.items():
        if wanted is not None and wanted != there:
            raise Failure(
                Exit.USAGE,
                f"{option} {wanted}: {cluster.folder} holds a cluster made with {there};"
                " leave the option out, or name another folder",
            )


def _tell(cluster: Cluster, started: list[str]) -> None:
    metaservers, chunkservers = cluster.members(METASERVER), cluster.members(CHUNKSERVER)
    what = (
        f"{count(len(metaservers), 'metaserver')}, {count(len(chunkservers), 'chunkserver')},"
        f" {count(cluster.file.replicas, 'copy', 'copies')} of all data"
    )
    click.echo(f"{cluster.folder}: {what}")
    click.echo(f"started {', '.join(started)}" if started else "everything was running already")
    click.echo(f"mount it:  tidefs mount {cluster.folder} MOUNTPOINT")
    click.echo(f"stop it:   tidefs down {cluster.folder}")
