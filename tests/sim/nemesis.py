"""Makes things go wrong, from a seed, within what TideFS promises to survive.

What it does, and why each is survivable:

- ``weather``: packets are slow, lost, doubled (at once, or late). Callers time out and ask again;
  request numbers and (session, slot, sequence) make a repetition harmless. What the members tell
  each other may be lost, doubled and late: Raft (section 5.1) asks for no more.
- ``reset``: all connections of one process break at once. They are made again.
- ``partition``: two hosts do not reach each other, in one direction or both, for less than a
  session lease, and not the same client twice within one: a longer one ends the session, which a
  mount may show to its applications.
- ``isolate``: a client does not reach the metaservers for longer than its session lives (and no
  members change meanwhile: it would not know whom to look for). It gets a new one. An operation
  that was under way then ends with "nobody knows", and files that were unlinked and open are gone;
  everything else is as if nothing had happened.
- ``kill_metaserver``, ``kill_leader``, ``kill_chunkserver``: kill -9. The page cache of the machine
  is kept, and the clients are told or reset; they find another leader, or wait for the server to
  come back.
- ``crash_metaserver``, ``crash_leader``, and ``crash_metaservers``, all of them at once: machines
  lose power: un-synced writes vanish or tear. Nothing is answered before a majority has synced it.
- ``crash_new_leader``: the next leader's machine loses power some milliseconds after it was
  elected, and maybe what it has sent with it. What it has told the others is only part of what it
  knows, or nothing.
- ``crash_after_promise``: a member's machine loses power just after it has sent a vote, an Append
  or its answer, or a reply. What these rely on is synced before.
- ``split_members``: some members do not reach the others, in one direction or both; everybody else
  reaches all of them. At most one side has a majority; no session ends while nobody leads, and a
  new leader gives each its whole time anew.
- ``cut_leader``: the same, of the leader alone: it must not answer from what it knows once others
  may lead.
- ``cut_leader_from_clients``: only the other members reach it, for less than a session lease.
- ``pause``: a process makes no step for up to 3 s while time goes on (SIGSTOP, a machine that is
  moved): a leader wakes up after its lease. Less than a session lease, less than what makes a
  chunkserver dead.
- ``drift_clock``: a monotonic clock goes faster or slower from now on, two of them never further
  apart than leases allow for.
- ``change_members``: the administrator (``admin.py``) adds, removes and replaces members, hands the
  leadership over, or a member's disk is lost for ever and it is replaced: one at a time, so that
  a majority of every configuration keeps its disks.
- ``crash_chunkserver``, ``crash_chunkservers``: the same for one, or for all of them at once. Only
  what an fsync was answered for is promised, and the model knows which bytes those are.
- ``kill_client``, ``crash_client``: what was neither closed nor synced may be lost.
- ``slow_disk``: syncs and cold reads take up to a second.
- ``full_disk``: one server has hardly any room for a while: ENOSPC is honest then, and everything
  else goes on.
- ``flip_bit``: one bit in one chunk file rots, once for each chunk, and only where all servers that
  have the chunk are up and hold the same bytes, synced: the read is served from another one.
- ``freeze_client``, ``strand_client``, ``strand_writer`` (only with locks): a client makes no
  step, or nothing that it sends or is sent arrives, for longer than its session lives; then it goes
  on, and all that arrives after all. Its locks are somebody else's by then, and what it writes late
  must not be taken.
- ``jump_clock``: a wall clock is set up to an hour forward or back. Leases do not depend on it.

Never done: losing what was synced on every copy, or on a majority of the members.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from tidefs.fs.limits import SESSION_LEASE_MS

from .cluster import DISK_LATENCY_S
from .crash_disk import TOTAL_BYTES
from .nemesis_base import PARTITION_MAX_S
from .nemesis_group import GROUP_FAULTS
from .nemesis_locks import LockFaults
from .network import Weather

if TYPE_CHECKING:
    from .cluster import Cluster, Process, Server

ISOLATION_MAX_S = 3 * SESSION_LEASE_MS / 1000

CHUNK_FAULTS = ("kill_chunkserver", "crash_chunkserver", "crash_chunkservers", "flip_bit")
"""Those that are about chunkservers."""

FAULTS = (
    *("weather", "reset", "partition", "isolate", "slow_disk", "full_disk", "jump_clock"),
    *("kill_metaserver", "kill_client", "crash_metaserver", "crash_client"),
    *CHUNK_FAULTS,
    *GROUP_FAULTS,
)

POWER_FAULTS = ("crash_metaservers", "crash_chunkservers")
"""Everything that is not synced is lost, everywhere at once."""


class Nemesis(LockFaults):
    """Works on one cluster until healed."""

    def __init__(
        self, cluster: "Cluster", seed: str, faults: Sequence[str], pause_max_s: float
    ) -> None:
        """``faults`` are names of FAULTS; between two of them up to ``pause_max_s`` pass."""
        super().__init__(cluster, seed)
        self._faults = faults
        self._pause_max_s = pause_max_s
        self._rotten: set[str] = set()

    async def run_forever(self) -> None:
        """One fault after the other; several may hold at once."""
        while True:
            await trio.sleep(self._random.uniform(0, self._pause_max_s))
            if self._faults:
                getattr(self, f"_{self._random.choice(self._faults)}")()

    # --- the network ---------------------------------------------------------------------------

    def _weather(self) -> None:
        network = self._cluster.network
        calm = network.weather
        if calm.slow or calm.drop or calm.duplicate or calm.late_duplicate:
            return
        chance = self._random
        network.weather = Weather(
            latency_max_s=chance.choice((0.002, 0.02, 0.1)),
            slow=chance.choice((0.0, 0.02, 0.1)),
            scatter=chance.choice((0.1, 1.0)),
            drop=chance.choice((0.0, 0.01, 0.05)),
            duplicate=chance.choice((0.0, 0.05)),
            late_duplicate=chance.choice((0.0, 0.02)),
        )
        self._note(f"weather {network.weather}")

        def clear_up() -> None:
            self._note("weather clears up")
            network.weather = calm

        self._for_a_while(5.0, clear_up)

    def _reset(self) -> None:
        process = self._random.choice(self._cluster.processes())
        if process.port is not None:
            self._note(f"reset {process.host}")
            process.port.reset_all()

    def _partition(self) -> None:
        one, other = self._random.sample([process.host for process in self._cluster.processes()], 2)
        if not self._may_cut((one, other), PARTITION_MAX_S):
            return
        hold = self._random.random() < 0.5
        links = [(one, other)] if self._random.random() < 0.4 else [(one, other), (other, one)]
        self._cut("partition", links, PARTITION_MAX_S, hold=hold)

    def _isolate(self) -> None:
        """At most once in a run: what it makes unclear takes a minute to settle."""
        conditions = self._cluster.conditions
        clients = [client for client in self._clients() if client.up]
        if conditions.session_was_lost or not clients or not self._cluster.admin.idle:
            return
        conditions.session_was_lost = True
        one = self._random.choice(clients).host
        others = [member.host for member in self._cluster.metaservers]
        links = [(one, other) for other in others] + [(other, one) for other in others]
        self._isolated = links[0]
        self._cut("isolate", links, ISOLATION_MAX_S)

    # --- processes and machines ----------------------------------------------------------------

    def _kill_chunkserver(self) -> None:
        if self._cluster.chunkservers:
            self._stop_server(self._random.choice(self._cluster.chunkservers), machine=False)

    def _crash_chunkserver(self) -> None:
        if self._cluster.chunkservers:
            self._stop_server(self._random.choice(self._cluster.chunkservers), machine=True)

    def _crash_chunkservers(self) -> None:
        for server in self._cluster.chunkservers:
            self._stop_server(server, machine=True)

    def _kill_client(self) -> None:
        self._stop_client(machine=False)

    def _crash_client(self) -> None:
        self._stop_client(machine=True)

    def _stop_client(self, *, machine: bool) -> None:
        clients: list[Process] = [client for client in self._clients() if client.up]
        if clients:
            client = self._random.choice(clients)
            self._note(f"{'crash' if machine else 'kill'} {client.host}")
            client.stop(machine=machine)

    # --- disks and clocks ----------------------------------------------------------------------

    def _slow_disk(self) -> None:
        server = self._random.choice(self._cluster.servers())
        disk = server.disk
        disk.latency_s = self._random.choice((0.01, 0.1, 1.0))
        self._note(f"slow disk {server.host} {disk.latency_s}")

        def mend() -> None:
            disk.latency_s = DISK_LATENCY_S

        self._for_a_while(4.0, mend)

    def _full_disk(self) -> None:
        server = self._random.choice(self._cluster.servers())
        disk = server.disk
        if disk.capacity_bytes < TOTAL_BYTES:
            return
        space = disk.space()
        used_bytes = space.total_bytes - space.free_bytes
        disk.capacity_bytes = used_bytes + self._random.choice((0, 50_000))
        self._cluster.conditions.disk_was_full = True
        self._note(f"full disk {server.host}")

        def make_room() -> None:
            self._note(f"room again {server.host}")
            disk.capacity_bytes = TOTAL_BYTES

        self._for_a_while(4.0, make_room)

    def _flip_bit(self) -> None:
        """In a chunk that every server that has it at all holds with the same bytes."""
        if not all(server.up for server in self._cluster.chunkservers):
            return
        copies: dict[str, list[tuple[Server, bytes]]] = {}
        for server in self._cluster.chunkservers:
            for path, data in server.chunk_files():
                copies.setdefault(path, []).append((server, data))
        places = [
            path
            for path, held in sorted(copies.items())
            if path not in self._rotten and len(held) > 1 and len({data for _, data in held}) == 1
        ]
        if not places:
            return
        path = self._random.choice(places)
        server, data = self._random.choice(copies[path])
        if not data:
            return
        offset, bit = self._random.randrange(len(data)), self._random.randrange(8)
        self._note(f"flip {server.host} {path} {offset}.{bit}")
        self._rotten.add(path)
        self._cluster.conditions.bits_rotted = True
        assert server.data_start is not None
        server.disk.flip_bit(path, server.data_start + offset, bit)

    def _jump_clock(self) -> None:
        process = self._random.choice(self._cluster.processes())
        process.clock.wall_offset_s += self._random.uniform(-3600, 3600)
        self._note(f"clock {process.host} {process.clock.wall_offset_s:.3f}")
