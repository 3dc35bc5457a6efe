"""Faults that only those must survive who share files under locks: see ``nemesis.py``."""

from typing import TYPE_CHECKING

from tidefs.fs.limits import SESSION_LEASE_MS

from .nemesis_group import GroupFaults

if TYPE_CHECKING:
    from .cluster import Process

LOST_FOR_MAX_S = 2.5 * SESSION_LEASE_MS / 1000

LOCK_FAULTS = ("freeze_client", "strand_client")


class LockFaults(GroupFaults):
    """Part of the nemesis."""

    def _freeze_client(self) -> None:
        process = self._lose_session()
        if process is None:
            return
        self._note(f"freeze {process.host}")
        process.pause()
        life = process.lives

        def go_on() -> None:
            self._stranded.discard(process.host)
            if process.lives == life:
                self._note(f"{process.host} goes on")
                process.resume()

        self._for_a_while(LOST_FOR_MAX_S, go_on)

    def _strand_client(self) -> None:
        """All that it sends, or all that it is sent, or both, is under way for that long."""
        process = self._lose_session()
        if process is None:
            return
        host, network = process.host, self._cluster.network
        others = [server.host for server in self._cluster.servers()]
        to = [(host, other) for other in others]
        back = [(other, host) for other in others]
        links = self._random.choice((to, to + back, to + back, back))
        self._note(f"strand {links}")
        for link in links:
            network.block(*link, hold=True)

        def join() -> None:
            self._note(f"{host} is found again")
            self._stranded.discard(host)
            for link in links:
                network.open(*link)

        self._for_a_while(LOST_FOR_MAX_S, join)

    def _lose_session(self) -> "Process | None":
        """A client for which it may end. No members change meanwhile: it would not know whom to
        look for."""
        if not self._cluster.admin.idle:
            return None
        clients = [
            each
            for each in self._clients()
            if each.up and not each.paused and each.host not in self._stranded
        ]
        if not clients:
            return None
        client = self._random.choice(clients)
        self._stranded.add(client.host)
        self._cluster.conditions.session_was_lost = True
        return client
