"""Faults that are about the group of metaservers: see ``nemesis.py`` for what and why."""

from functools import partial
from typing import TYPE_CHECKING

from .cluster import draw_drift
from .nemesis_base import PARTITION_MAX_S, Faults

if TYPE_CHECKING:
    from .cluster import Process, Server

SPLIT_MAX_S = 8.0
PAUSE_MAX_S = 3.0
DOWN_MAX_S = 5.0
TRAP_MAX_S = 10.0
MUTE_MAX_S = 0.5
STEP_S = 0.0003
"""Enough for what has arrived to be dealt with, less than a sync takes."""

GROUP_FAULTS = (
    *("split_members", "cut_leader", "cut_leader_from_clients", "pause", "drift_clock"),
    *("kill_leader", "crash_leader", "crash_metaservers", "crash_after_promise"),
    *("crash_new_leader", "change_members"),
)

PROMISES = ("VoteReply", "AppendReply", "Append", "RequestVote", "reply")
"""What the trace calls messages by which others rely on what is on the sender's disk."""


class GroupFaults(Faults):
    """Part of the nemesis."""

    # --- the network between the members -------------------------------------------------------

    def _split_members(self) -> None:
        hosts = [member.host for member in self._cluster.metaservers]
        if len(hosts) < 2:
            return
        some = self._random.sample(hosts, self._random.randrange(1, len(hosts)))
        self._split("split", some, [host for host in hosts if host not in some])

    def _cut_leader(self) -> None:
        """Clients still reach it."""
        leader = self._cluster.leader()
        if leader is not None:
            hosts = [member.host for member in self._cluster.metaservers]
            self._split(
                "cut leader", [leader.host], [host for host in hosts if host != leader.host]
            )

    def _split(self, what: str, some: list[str], others: list[str]) -> None:
        to = [(one, other) for one in some for other in others]
        back = [(other, one) for one, other in to]
        links = self._random.choice((to, back, to + back, to + back))
        if links:
            self._cut(what, links, SPLIT_MAX_S, hold=self._random.random() < 0.3)

    def _cut_leader_from_clients(self) -> None:
        """The other members still reach it: it goes on leading."""
        leader = self._cluster.leader()
        hosts = [client.host for client in self._clients()]
        if leader is None or not hosts or not self._may_cut(hosts, PARTITION_MAX_S):
            return
        links = [(host, leader.host) for host in hosts] + [(leader.host, host) for host in hosts]
        self._cut("cut clients from leader", links, PARTITION_MAX_S)

    # --- time ----------------------------------------------------------------------------------

    def _pause(self) -> None:
        leader = self._cluster.leader()
        processes: list[Process] = [each for each in self._cluster.processes() if each.up]
        if leader is not None and leader.up and self._random.random() < 0.4:
            processes = [leader]
        if not processes:
            return
        process = self._random.choice(processes)
        if process.paused or not self._may_cut([process.host], PAUSE_MAX_S):
            return
        self._note(f"pause {process.host}")
        process.pause()
        life = process.lives

        def go_on() -> None:
            if process.lives == life:
                self._note(f"{process.host} goes on")
                process.resume()

        self._for_a_while(PAUSE_MAX_S, go_on)

    def _drift_clock(self) -> None:
        process = self._random.choice(self._cluster.processes())
        process.drift = draw_drift(self._random)
        process.clock.set_drift(process.drift)
        self._note(f"drift {process.host} {process.drift:.5f}")

    # --- members -------------------------------------------------------------------------------

    def _stop_server(self, server: "Server", *, machine: bool) -> None:
        if not server.up:
            return
        self._note(f"{'crash' if machine else 'kill'} {server.host}")
        server.stop(machine=machine)

        def start() -> None:
            if not server.up and not server.retired and not server.lost:
                self._note(f"start {server.host}")
                server.start()

        self._for_a_while(DOWN_MAX_S, start)

    def _kill_metaserver(self) -> None:
        self._stop_server(self._random.choice(self._cluster.metaservers), machine=False)

    def _crash_metaserver(self) -> None:
        self._stop_server(self._random.choice(self._cluster.metaservers), machine=True)

    def _kill_leader(self) -> None:
        leader = self._cluster.leader()
        if leader is not None:
            self._stop_server(leader, machine=False)

    def _crash_leader(self) -> None:
        leader = self._cluster.leader()
        if leader is not None:
            self._stop_server(leader, machine=True)

    def _crash_after_promise(self) -> None:
        """The next time that a member sends such a message, its machine loses power."""
        member = self._random.choice(self._cluster.metaservers)
        promise = self._random.choice(PROMISES)
        traps = self._cluster.network.on_sent
        if member.host in traps:
            return
        self._note(f"{member.host} will crash after {promise}")

        def sent(frames: list[str]) -> None:
            if any(frame.startswith(promise) for frame in frames):
                traps.pop(member.host, None)
                self._cluster.postman.after(0, lambda: self._stop_server(member, machine=True))

        traps[member.host] = sent

        def take_away() -> None:
            traps.pop(member.host, None)

        self._for_a_while(TRAP_MAX_S, take_away)

    def _crash_new_leader(self) -> None:
        watch = self._cluster.watch
        if watch.on_leader is not None:
            return
        self._note("the next leader will crash")
        crash = self._random.choice((self._crash_soon, self._crash_soon, self._crash_when_answered))

        def led(host: str) -> None:
            watch.on_leader = None
            member = next((one for one in self._cluster.metaservers if one.host == host), None)
            if member is not None:
                crash(member)

        watch.on_leader = led

        def take_away() -> None:
            watch.on_leader = None

        self._for_a_while(TRAP_MAX_S, take_away)

    def _crash_soon(self, member: "Server") -> None:
        after = self._cluster.postman.after
        delay_s = self._random.choice((0.001, 0.003, 0.005, 0.01, 0.1))
        mute = self._random.choice((0.0, 0.0, 0.0, delay_s, None))
        if mute is not None:
            after(mute, lambda: self._mute(member))
        after(delay_s, lambda: self._stop_server(member, machine=True))

    def _crash_when_answered(self, member: "Server") -> None:
        """As soon as it has heard that somebody has an entry of its log, or some more."""
        traps = self._cluster.network.on_arrived
        left = self._random.choice((1, 1, 2, 3))

        def arrived(what: str) -> None:
            nonlocal left
            left -= "AppendReply" in what
            if not left:
                traps.pop(member.host, None)
                self._mute(member)
                stop = partial(self._stop_server, member, machine=True)
                self._cluster.postman.after(STEP_S, stop)

        traps[member.host] = arrived

        def take_away() -> None:
            traps.pop(member.host, None)

        self._for_a_while(TRAP_MAX_S, take_away)

    def _mute(self, member: "Server") -> None:
        """What it has sent to the other members and is still on its way is lost, and what it will
        send for a moment."""
        others = [one.host for one in self._cluster.metaservers if one is not member]
        if others:
            self._cut("mute", [(member.host, other) for other in others], MUTE_MAX_S)

    def _crash_metaservers(self) -> None:
        for server in list(self._cluster.metaservers):
            self._stop_server(server, machine=True)

    def _change_members(self) -> None:
        """Not while a client is cut off from all that it knows."""
        if self._isolated not in self._cluster.network.blocked() and not self._stranded:
            self._cluster.admin.ask()
