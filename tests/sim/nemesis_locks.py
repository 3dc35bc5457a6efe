"""Faults that only those must survive who share files under locks: see ``nemesis.py``."""

from typing import TYPE_CHECKING

import trio
from tidefs.fs.limits import SESSION_LEASE_MS

from .nemesis_group import TRAP_MAX_S, GroupFaults

if TYPE_CHECKING:
    from .cluster import Process

LOST_FOR_MAX_S = 2.5 * SESSION_LEASE_MS / 1000
QUIET_MAX_S = 6.0
"""Then all clients can work together for a while."""

LOCK_FAULTS = ("freeze_client", "strand_client", "strand_writer")

WORK = ("WriteChunk", "Commit", "Compound", "SetLock", "Unlock")
"""What the trace calls messages that should not arrive late."""


class LockFaults(GroupFaults):
    """Part of the nemesis."""

    _quiet_until_s = 0.0

    def _freeze_client(self) -> None:
        process = self._lose_session()
        if process is None:
            return
        self._note(f"freeze {process.host}")
        process.pause()
        life = process.lives

        def go_on() -> None:
            self._is_back(process.host)
            if process.lives == life:
                self._note(f"{process.host} goes on")
                process.resume()

        self._for_a_while(LOST_FOR_MAX_S, go_on)

    def _strand_client(self) -> None:
        """All that it sends, or all that it is sent, or both, is under way for that long."""
        process = self._lose_session()
        if process is not None:
            self._strand(process.host)

    def _strand_writer(self) -> None:
        """The same, from when it has sent something that must not arrive late."""
        process = self._lose_session()
        traps = self._cluster.network.on_sent
        if process is None or process.host in traps:
            return
        host, work = process.host, self._random.choice(WORK)
        self._note(f"{host} will be stranded when it sends {work}")

        def sent(frames: list[str]) -> None:
            if any(frame.startswith(work) for frame in frames):
                del traps[host]
                self._strand(host)

        traps[host] = sent

        def take_away() -> None:
            if traps.pop(host, None) is not None:
                self._is_back(host)

        self._for_a_while(TRAP_MAX_S, take_away)

    def _strand(self, host: str) -> None:
        network = self._cluster.network
        others = [server.host for server in self._cluster.servers()]
        to = [(host, other) for other in others]
        back = [(other, host) for other in others]
        links = self._random.choice((to, to + back, to + back, back))
        self._note(f"strand {links}")
        for link in links:
            network.block(*link, hold=True)

        def join() -> None:
            self._note(f"{host} is found again")
            self._is_back(host)
            for link in links:
                network.open(*link)

        self._for_a_while(LOST_FOR_MAX_S, join)

    def _lose_session(self) -> "Process | None":
        """A client for which it may end; most of them go on. No members change meanwhile: it would
        not know whom to look for."""
        clients = self._clients()
        few = len(self._stranded) < max(1, len(clients) // 2)
        if not few or not self._cluster.admin.idle or trio.current_time() < self._quiet_until_s:
            return None
        up = [one for one in clients if one.up and not one.paused]
        possible = [one for one in up if one.host not in self._stranded]
        if not possible:
            return None
        client = self._random.choice(possible)
        self._stranded.add(client.host)
        self._cluster.conditions.session_was_lost = True
        return client

    def _is_back(self, host: str) -> None:
        self._stranded.discard(host)
        self._quiet_until_s = trio.current_time() + self._random.uniform(0, QUIET_MAX_S)
