"""Makes things go wrong, from a seed, within what TideFS promises to survive.

What it does, and why each is survivable:

- ``weather``: packets are slow, lost, doubled (at once, or late). Callers time out and ask again;
  request numbers and (session, slot, sequence) make a repetition harmless.
- ``reset``: all connections of one process break at once. They are made again.
- ``partition``: two hosts do not reach each other, in one direction or both, for less than a
  session lease, and not the same client twice within one: a longer one ends the session, which a
  mount may show to its applications.
- ``isolate``: a client does not reach the metaserver for longer than its session lives. It gets a
  new one. An operation that was under way then ends with "nobody knows", and files that were
  unlinked and open are gone; everything else is as if nothing had happened.
- ``kill_metaserver``, ``kill_chunkserver``: kill -9. The page cache of the machine is kept, and
  the clients are told or reset; they wait for the server to come back.
- ``crash_metaserver``: the machine loses power: un-synced writes vanish or tear. Nothing is
  answered before it is synced.
- ``crash_chunkserver``, ``crash_chunkservers``: the same for one, or for all of them at once. Only
  what an fsync was answered for is promised, and the model knows which bytes those are.
- ``kill_client``, ``crash_client``: what was neither closed nor synced may be lost.
- ``slow_disk``: syncs and cold reads take up to a second.
- ``full_disk``: one server has hardly any room for a while: ENOSPC is honest then, and everything
  else goes on.
- ``flip_bit``: one bit in one chunk file rots, once for each chunk, and only where all servers that
  have the chunk are up and hold the same bytes, synced: the read is served from another one.
- ``jump_clock``: a wall clock is set up to an hour forward or back. Leases do not depend on it.

Never done: losing what was synced on every copy.
"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from tidefs.fs.limits import SESSION_LEASE_MS

from .network import Weather

if TYPE_CHECKING:
    from .cluster import Cluster, Server

PARTITION_MAX_S = SESSION_LEASE_MS / 1000 / 3
ISOLATION_MAX_S = 3 * SESSION_LEASE_MS / 1000
QUIET_AFTER_PARTITION_S = SESSION_LEASE_MS / 1000
DOWN_MAX_S = 5.0

FAULTS = (
    *("weather", "reset", "partition", "isolate", "slow_disk", "jump_clock"),
    *("kill_metaserver", "kill_chunkserver", "kill_client"),
    *("crash_metaserver", "crash_chunkserver", "crash_chunkservers", "crash_client"),
    *("full_disk", "flip_bit"),
)


class Nemesis:
    """Works on one cluster until healed."""

    def __init__(
        self, cluster: "Cluster", seed: str, faults: list[str], pause_max_s: float
    ) -> None:
        """``faults`` are names of FAULTS; between two of them up to ``pause_max_s`` pass."""
        self._cluster = cluster
        self._random = random.Random(seed)
        self._faults = faults
        self._pause_max_s = pause_max_s
        self._undo: dict[int, Callable[[], None]] = {}
        self._count = 0
        self._partition_after_s: dict[str, float] = {}
        self._rotten: set[str] = set()

    async def run_forever(self) -> None:
        """One fault after the other; several may hold at once."""
        while True:
            await trio.sleep(self._random.uniform(0, self._pause_max_s))
            if self._faults:
                getattr(self, f"_{self._random.choice(self._faults)}")()

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
        now_s = trio.current_time()
        for host in (one, other):
            if self._partition_after_s.get(host, 0.0) > now_s:
                return
            if host in {client.host for client in self._cluster.clients}:
                self._partition_after_s[host] = now_s + PARTITION_MAX_S + QUIET_AFTER_PARTITION_S
        hold = self._random.random() < 0.5
        links = [(one, other)] if self._random.random() < 0.4 else [(one, other), (other, one)]
        self._note(f"partition {links} {'holds' if hold else 'loses'}")
        network = self._cluster.network
        for sender, receiver in links:
            network.block(sender, receiver, hold=hold)

        def join() -> None:
            self._note(f"joined {links}")
            for sender, receiver in links:
                network.open(sender, receiver)

        self._for_a_while(PARTITION_MAX_S, join)

    def _isolate(self) -> None:
        """At most once in a run: what it makes unclear takes a minute to settle."""
        client = self._random.choice(self._cluster.clients)
        conditions = self._cluster.conditions
        if conditions.session_was_lost or not client.up:
            return
        conditions.session_was_lost = True
        one, other = client.host, self._cluster.metaserver.host
        self._note(f"isolate {client.host}")
        network = self._cluster.network
        for sender, receiver in ((one, other), (other, one)):
            network.block(sender, receiver, hold=False)

        def join() -> None:
            self._note(f"joined {client.host}")
            for sender, receiver in ((one, other), (other, one)):
                network.open(sender, receiver)

        self._for_a_while(ISOLATION_MAX_S, join)

    # --- processes and machines ----------------------------------------------------------------

    def _stop_server(self, server: "Server", *, machine: bool) -> None:
        if not server.up:
            return
        self._note(f"{'crash' if machine else 'kill'} {server.host}")
        server.stop(machine=machine)

        def start() -> None:
            if not server.up:
                self._note(f"start {server.host}")
                server.start()

        self._for_a_while(DOWN_MAX_S, start)

    def _kill_metaserver(self) -> None:
        self._stop_server(self._cluster.metaserver, machine=False)

    def _crash_metaserver(self) -> None:
        self._stop_server(self._cluster.metaserver, machine=True)

    def _kill_chunkserver(self) -> None:
        self._stop_server(self._random.choice(self._cluster.chunkservers), machine=False)

    def _crash_chunkserver(self) -> None:
        self._stop_server(self._random.choice(self._cluster.chunkservers), machine=True)

    def _crash_chunkservers(self) -> None:
        for server in self._cluster.chunkservers:
            self._stop_server(server, machine=True)

    def _kill_client(self) -> None:
        self._stop_client(machine=False)

    def _crash_client(self) -> None:
        self._stop_client(machine=True)

    def _stop_client(self, *, machine: bool) -> None:
        client = self._random.choice(self._cluster.clients)
        if client.up:
            self._note(f"{'crash' if machine else 'kill'} {client.host}")
            client.stop(machine=machine)

    # --- disks and clocks ----------------------------------------------------------------------

    def _slow_disk(self) -> None:
        disk = self._random.choice(self._cluster.servers()).disk
        before = disk.latency_s
        disk.latency_s = self._random.choice((0.01, 0.1, 1.0))
        self._note(f"slow disk {disk.latency_s}")

        def mend() -> None:
            disk.latency_s = before

        self._for_a_while(4.0, mend)

    def _full_disk(self) -> None:
        server = self._random.choice(self._cluster.servers())
        disk = server.disk
        before = disk.capacity_bytes
        space = disk.space()
        if space.free_bytes < before // 2:
            return
        disk.capacity_bytes = (
            space.total_bytes - space.free_bytes + self._random.choice((0, 50_000))
        )
        self._cluster.conditions.disk_was_full = True
        self._note(f"full disk {server.host}")

        def make_room() -> None:
            self._note(f"room again {server.host}")
            disk.capacity_bytes = before

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
