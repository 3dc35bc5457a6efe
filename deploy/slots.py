"""Places for metaservers in a cluster's folder: taken by new ones, passed on, given up.

``cluster.toml`` is written before a new server may run, and again when the group has decided, so
that whatever is interrupted can be seen there. Call all of this with the folder locked.
"""

from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path

import msgspec

from ..fs.messages.hello import METASERVER
from . import homes
from .cluster import Cluster, free_ports
from .cluster_file import Member, new_server_id, write
from .folder import Say


def take_new(cluster: Cluster, number: int) -> list[Member]:
    """Make ``number`` metaservers more, with folders that are formatted to join the group."""
    file = cluster.file
    taken = {member.name for member in file.members}
    free = (f"meta-{number}" for number in count(1) if f"meta-{number}" not in taken)
    tcp = any(member.port for member in file.of(METASERVER))
    ports = free_ports(number) if tcp else [0] * number
    new = [Member(METASERVER, next(free), new_server_id(), port, joining=True) for port in ports]
    homes.clear_made(cluster.folder, file.members)
    homes.make(cluster.folder, file.cluster, [member.server for member in new], [])
    for member in new:
        homes.set_aside(cluster.folder, member.name)  # what an interrupted removal left there
    _rewrite(cluster, [*file.members, *new])
    return new


def pass_on(cluster: Cluster, old: Member, replaces: Sequence[int]) -> tuple[Member, Path | None]:
    """Make a metaserver under the name of one that does not run; and where its folder is kept.

    ``replaces``: the members that it is to come in the place of.
    """
    new = msgspec.structs.replace(
        old, server=new_server_id(), joining=True, replaces=list(replaces)
    )
    aside = homes.set_aside(cluster.folder, old.name)
    homes.clear_made(cluster.folder, cluster.file.members)
    homes.make(cluster.folder, cluster.file.cluster, [new.server], [])
    _rewrite(cluster, [new if one is old else one for one in cluster.file.members])
    return new, aside


def settle(cluster: Cluster, servers: Collection[int]) -> None:
    """These are members of the group now."""
    _rewrite(
        cluster,
        [
            msgspec.structs.replace(one, joining=False, replaces=[])
            if one.server in servers
            else one
            for one in cluster.file.members
        ],
    )


def give_up(cluster: Cluster, servers: Collection[int], say: Say) -> dict[str, Path | None]:
    """Stop these, which are no members any more; by name, where their folders are kept."""
    leaving = [one for one in cluster.file.of(METASERVER) if one.server in servers]
    names = [one.name for one in leaving]
    cluster.stop(say, kill=True, only=names)
    _rewrite(cluster, [one for one in cluster.file.members if one.server not in servers])
    return {name: homes.set_aside(cluster.folder, name) for name in names}


def _rewrite(cluster: Cluster, members: Sequence[Member]) -> None:
    cluster.file = cluster.file.with_members(members)
    write(cluster.folder, cluster.file)
    homes.put_in_place(cluster.folder, cluster.file.of(METASERVER))
