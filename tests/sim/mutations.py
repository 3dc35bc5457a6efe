"""Products broken on purpose, to see that the simulator sees it.

The product's files are as they are: an acknowledgement is given too early through the ports, or a
method is replaced for as long as a run lasts.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from .cluster import Lies
from .watched_disk import NEVER, Lie


class Mutation(NamedTuple):
    """What is broken: on the disks and in the clients, or in the product's code."""

    lies: Lies = Lies()
    patched: Callable[[], AbstractContextManager[object]] = nullcontext


def late_below(folders: str | tuple[str, ...], delay_s: float) -> Lie:
    """Syncs of files in these folders are done so long after they returned."""
    return lambda path: delay_s if path.startswith(folders) else 0.0


MUTATIONS: dict[str, Mutation] = {
    "metaserver-replies-early": Mutation(Lies(metaserver=late_below("log/", 0.02))),
    "metaserver-never-syncs": Mutation(Lies(metaserver=late_below("log/", NEVER))),
    "chunkserver-replies-early": Mutation(Lies(chunkserver=late_below("chunks/", 10.0))),
    "client-closes-early": Mutation(Lies(close_publishes_late=True)),
}
