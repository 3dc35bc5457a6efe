"""Which chunks need more copies, and where to make them: fewest copies first (GFS section 4.3).

Pure planners: what is known comes in, what is to be done goes out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .chunkservers import Chunkserver
from .placement import Candidate, place


class Need(NamedTuple):
    """A chunk with too few copies. Sorts by urgency."""

    copies: int  # that are good and up
    handle: int
    missing: int
    useless: tuple[int, ...]  # servers that are up and hold a copy that is of no use
    holders: tuple[int, ...]  # servers with a good copy, up or expected back


class CopyOrder(NamedTuple):
    """Make a copy of a chunk on a server; with ``replace``, in the place of a useless one."""

    handle: int
    target: int
    replace: bool


def need_of(
    handle: int,
    version: int,
    holders: Sequence[Chunkserver],
    wanted: int,
    is_awaited: Callable[[Chunkserver], bool],
) -> Need | None:
    """What the chunk at ``version`` lacks, None when it lacks nothing.

    ``is_awaited`` tells which servers that are down are expected back: copies are not made while
    a restart would do. A copy is of no use when it is stale, damaged, or was left unclean by a
    crash of its machine while there are clean ones.
    """
    current = [
        server
        for server in holders
        if server.replicas[handle].version >= version and handle not in server.damaged
    ]
    up = [server for server in current if server.connected]
    clean = [server for server in up if server.replicas[handle].clean]
    good = clean or up
    awaited = [server for server in current if not server.connected and is_awaited(server)]
    missing = wanted - len(good) - len(awaited)
    if missing <= 0:
        return None
    useless = tuple(s.server for s in holders if s.connected and s not in good)
    return Need(
        len(good), handle, missing, useless, tuple(server.server for server in good + awaited)
    )


def next_copies(
    needs: Sequence[Need],
    candidates: Sequence[Candidate],
    running: Mapping[int, int],
    parallel_total: int,
    parallel_per_server: int,
    below: Callable[[int], int],
) -> list[CopyOrder]:
    """The copies to begin now. ``running``: how many are on their way to each server.

    A chunk without any good copy cannot be helped; the caller tells people about it.
    """
    load = dict(running)
    orders: list[CopyOrder] = []
    hosts = {candidate.server: candidate.host for candidate in candidates}
    for need in sorted(need for need in needs if need.copies):
        free = [c for c in candidates if load.get(c.server, 0) < parallel_per_server]
        fresh = [c for c in free if c.server not in need.holders + need.useless]
        used = [hosts[server] for server in need.holders if server in hosts]
        targets = place(fresh, need.missing, below, hosts_used=used)
        again = [c.server for c in free if c.server in need.useless]
        chosen = [(target, False) for target in targets] + [(target, True) for target in again]
        for target, replace in chosen[: need.missing]:
            if sum(load.values()) >= parallel_total:
                return orders
            load[target] = load.get(target, 0) + 1
            orders.append(CopyOrder(need.handle, target, replace))
    return orders
