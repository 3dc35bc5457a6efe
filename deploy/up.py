"""``tidefs up``: start a cluster on this machine, or what is missing of one."""

from pathlib import Path

import click

from ..fs.ids import ServerId, server_name
from ..fs.limits import REPLICAS_DEFAULT
from ..fs.messages.hello import CHUNKSERVER, METASERVER
from .ask import asking
from .cluster import Cluster, Started, make_folder, open_or_create
from .cluster_file import Shape, check_shape
from .exits import Exit, Failure
from .folder import is_cluster, locked
from .holds import keep
from .target import lookout_of
from .tell import count, say

CHUNKSERVERS_DEFAULT = 3


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--metaservers",
    type=int,
    metavar="N",
    help="How many metaservers: 1 unless told; 3 survive the loss of one, 5 of two.",
)
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
@click.pass_context
def up(
    context: click.Context,
    folder: Path,
    metaservers: int | None,
    chunkservers: int | None,
    replicas: int | None,
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
    context.exit(Exit.PARTLY if started.troubles else Exit.OK)


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
        "--metaservers": (metaservers, cluster.file.group_size()),
        "--chunkservers": (chunkservers, len(cluster.file.of(CHUNKSERVER))),
        "--replicas": (replicas, cluster.file.replicas),
    }
    remedies = {
        "--metaservers": f"`tidefs cluster add|remove {cluster.folder}` changes that,"
        " while it runs",
    }
    for option, (wanted, there) in found.items():
        if wanted is not None and wanted != there:
            remedy = remedies.get(option, "leave the option out, or name another folder")
            raise Failure(
                Exit.USAGE,
                f"{option} {wanted}: {cluster.folder} holds a cluster made with {there}; {remedy}",
            )


def _tell(cluster: Cluster, started: Started) -> None:
    metaservers, chunkservers = cluster.file.of(METASERVER), cluster.file.of(CHUNKSERVER)
    what = (
        f"{count(len(metaservers), 'metaserver')}, {count(len(chunkservers), 'chunkserver')},"
        f" {count(cluster.file.replicas, 'copy', 'copies')} of all data"
    )
    click.echo(f"{cluster.folder}: {what}")
    names = started.names
    click.echo(f"started {', '.join(names)}" if names else "everything was running already")
    leader = _leader(cluster)
    if len(metaservers) > 1:
        click.echo(leader)
    for trouble in started.troubles.values():
        say(f"tidefs: {trouble.message}")
    for member in metaservers:
        if member.joining:
            say(cluster.unfinished(member))
    click.echo(f"mount it:  tidefs mount {cluster.folder} MOUNTPOINT")
    click.echo(f"stop it:   tidefs down {cluster.folder}")


def _leader(cluster: Cluster) -> str:
    """As soon as there is one, and the files can be used."""
    leader = asking(
        cluster.file.cluster, lambda asker: lookout_of(cluster, asker).wait_leader()
    ).leader
    assert leader is not None, "it was waited for"
    assert leader.status is not None
    names = {member.server: member.name for member in cluster.file.of(METASERVER)}
    name = names.get(leader.server) or server_name(ServerId(leader.server))
    return f"{name} leads (term {leader.status.term})"
