"""What a command is about: the cluster in a folder, or behind addresses; and its members' names."""

import os
import re
from collections.abc import Sequence

from ..fs.ids import ServerId, server_name
from ..fs.messages.hello import ANY_CLUSTER, METASERVER
from .ask import Asker
from .cluster import Cluster, open_cluster
from .exits import Exit, Failure
from .members import Lookout
from .sources import parse_source

HOST = re.escape(os.uname().nodename)
ID_PREFIX_MIN = 4
"""Fewer digits of an id are too easily somebody else's."""


class Target:
    """A SOURCE of the command line. ``cluster`` is None when it is addresses."""

    def __init__(self, text: str) -> None:
        source = parse_source(text)
        self.cluster = None if source.folder is None else open_cluster(source.folder)
        self.addresses: list[str] = source.addresses
        self.name = text if self.cluster is None else str(self.cluster.folder)

    def reopen(self) -> Cluster:
        """The cluster as its file says now; for who has just locked it."""
        assert self.cluster is not None
        self.cluster = open_cluster(self.cluster.folder)
        return self.cluster

    @property
    def cluster_id(self) -> str:
        """Whom to greet."""
        return ANY_CLUSTER if self.cluster is None else self.cluster.file.cluster

    def lookout(self, asker: Asker) -> Lookout:
        """To look at the group."""
        if self.cluster is None:
            return Lookout(asker, [], self.addresses)
        return lookout_of(self.cluster, asker)

    def name_of(self, server: int) -> str:
        """How a member is called: its name in the folder, or its id."""
        return self.names().get(server) or server_name(ServerId(server))

    def names(self) -> dict[int, str]:
        """Names of the metaservers in the folder, by id."""
        if self.cluster is None:
            return {}
        return {member.server: member.name for member in self.cluster.file.of(METASERVER)}

    def named(self, text: str) -> str:
        """The same sentence, with the names of the folder for the ids in it."""
        return text if self.cluster is None else named(self.cluster, text)

    def find(self, word: str, known: Sequence[int]) -> int:
        """The id of the metaserver that a person calls ``word``: a name, an id, or its beginning.

        Failure(USAGE), in words, when it is nobody's or not only one's.
        """
        names = self.names()
        for server, name in names.items():
            if name == word:
                return server
        found = [
            server
            for server in dict.fromkeys([*known, *names])
            if len(word) >= ID_PREFIX_MIN and server_name(ServerId(server)).startswith(word.lower())
        ]
        if len(found) == 1:
            return found[0]
        there = ", ".join(self.name_of(server) for server in dict.fromkeys([*known, *names]))
        why = "is the beginning of several ids" if found else "is no metaserver of this group"
        raise Failure(Exit.USAGE, f"{word} {why}; there are: {there}")


def named(cluster: Cluster, text: str) -> str:
    """A sentence of a server, with the names that its members have in the folder."""
    for member in cluster.file.members:
        words = rf"{member.role} {server_name(ServerId(member.server))}( on {HOST})?"
        text = re.sub(words, member.name, text)
    return text


def lookout_of(cluster: Cluster, asker: Asker) -> Lookout:
    """To look at the group of a cluster on this machine."""
    return Lookout(asker, [cluster.place(member) for member in cluster.file.of(METASERVER)], [])
