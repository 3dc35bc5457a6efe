"""What all faults have in common: they are drawn from a seed, noted, and end."""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio
from tidefs.fs.limits import SESSION_LEASE_MS

if TYPE_CHECKING:
    from .cluster import Cluster, Process

PARTITION_MAX_S = SESSION_LEASE_MS / 1000 / 3
QUIET_AFTER_PARTITION_S = SESSION_LEASE_MS / 1000


class Faults:
    """The tools of the nemesis."""

    def __init__(self, cluster: "Cluster", seed: str) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self._undo: dict[int, Callable[[], None]] = {}
        self._count = 0
        self._cut_after_s: dict[str, float] = {}
        self._isolated: tuple[str, str] | None = None
        """A link of the client that was cut off for longer than its session lives."""
        self._stranded: set[str] = set()
        """Clients that hear nothing for longer than that."""

    def heal(self) -> None:
        """End everything that holds."""
        self._note("heal")
        for undo in list(self._undo.values()):
            undo()
        self._undo.clear()

    def _for_a_while(self, most_s: float, undo: Callable[[], None]) -> None:
        """Call ``undo`` after at most that long, or at ``heal``."""
        self._count += 1
        number = self._count
        self._undo[number] = undo

        def end() -> None:
            if self._undo.pop(number, None) is not None:
                undo()

        self._cluster.postman.after(self._random.uniform(0.05, 1.0) * most_s, end)

    def _note(self, text: str) -> None:
        self._cluster.trace.note("fault", text)

    def _cut(
        self, what: str, links: Sequence[tuple[str, str]], most_s: float, *, hold: bool = False
    ) -> None:
        """Nothing passes these links, from one host to the other, for at most that long."""
        self._note(f"{what} {links} {'holds' if hold else 'loses'}")
        network = self._cluster.network
        for sender, receiver in links:
            network.block(sender, receiver, hold=hold)

        def join() -> None:
            self._note(f"joined: {what} {links}")
            for sender, receiver in links:
                network.open(sender, receiver)

        self._for_a_while(most_s, join)

    def _clients(self) -> "list[Process]":
        """Those with sessions."""
        return [*self._cluster.clients, *self._cluster.callers]

    def _may_cut(self, hosts: Sequence[str], most_s: float) -> bool:
        """Whether the clients among these hosts can do without the servers for so long: their
        sessions must not end for it, nor for two such faults in a row."""
        now_s = trio.current_time()
        clients = [each.host for each in self._clients() if each.host in hosts]
        if any(self._cut_after_s.get(host, 0.0) > now_s for host in clients):
            return False
        for host in clients:
            self._cut_after_s[host] = now_s + most_s + QUIET_AFTER_PARTITION_S
        return True
