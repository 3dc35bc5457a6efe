"""What may happen to a group, as single acts: Hypothesis puts them together, or ``walk`` does.

Faults that are injected, and why a group must survive them: messages are lost, doubled, late and
out of order (Raft assumes no more of a network); links fail in one direction; processes stop
between any two duties, and lose what is not on their disk, down to single records; they pause;
disks fill up; clocks run at different rates, within the drift that the members are told; members
come and go, are handed the leadership, and fall behind the log. A disk never lies, and is never
lost.
"""

import random
from collections.abc import Callable

from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.raft import TimeoutNow
from tidefs.metaserver.raft.contract import Begin, Core
from tidefs.metaserver.raft.core import Member

from .fake_log import Checkpoint
from .harness import MS, TIMING, Server, World

WILD = TIMING._replace(drift_parts=4)
"""Clocks that differ by a quarter, so that who forgets about it gives leases that are too long."""

VOTERS = (1, 2, 3)
SPARES = (4, 5, 6)
LIVELY_NS = 20_000 * MS
"""How long a healed group may take to make progress."""
EXPECTED = {Code.NOT_LEADER, Code.UNAVAILABLE, Code.BUSY, Code.INVALID}


class Nemesis:
    """A world and what is done to it. Arguments are any numbers: each act makes sense of them."""

    def __init__(
        self, make: Callable[[Begin], Core] = Member, draws: Callable[[int], int] | None = None
    ) -> None:
        self.world = World(VOTERS, make=make, timing=WILD)
        for spare in SPARES:
            self.world.add(spare)
        self.count = 0
        self.snapshots: list[tuple[int, Checkpoint]] = []
        if draws:
            for server in self.world.servers.values():
                server.below = draws

    def begin(self, clocks: int) -> None:
        """Clocks are apart, and run at rates that differ by no more than is allowed."""
        widest = 1_000_000 // WILD.drift_parts // 2 - 10_000
        for server in self.world.servers.values():
            clocks, step = divmod(clocks, 3)
            server.clock_parts = (step - 1) * widest
            server.clock_ahead_ns = server.server * 1_000 * MS
        self.world.start()

    def _server(self, number: int) -> Server:
        servers = list(self.world.servers.values())
        return servers[number % len(servers)]

    def _up(self, number: int) -> Server | None:
        servers = self.world.up()
        return servers[number % len(servers)] if servers else None

    def _leading(self, number: int) -> Server | None:
        """One that believes to lead; when there is none, any."""
        leading = [server for server in self.world.up() if server.leads and not server.asleep]
        return leading[number % len(leading)] if leading else self._up(number)

    # --- time and messages

    def run(self, ms: int, _: int = 0) -> None:
        """All is well for a while, as far as links and members are."""
        self.world.run((ms % 600 + 1) * MS)

    def pause(self, ms: int, _: int = 0) -> None:
        """Nobody does anything."""
        self.world.now_ns += (ms % 600 + 1) * MS

    def tick(self, number: int, _: int = 0) -> None:
        """One member looks at its clock."""
        server = self._up(number)
        if server:
            server.tick()

    def impatient(self, number: int, _: int = 0) -> None:
        """One member alone sees its time come."""
        server = self._up(number)
        due_ns = self.world.due_ns(server) if server else None
        if server and due_ns is not None:
            self.world.now_ns = max(self.world.now_ns, due_ns)
            server.tick()

    def deliver(self, number: int, _: int = 0) -> None:
        """Any packet arrives, before those sent earlier."""
        flying = self.world.network.flying()
        if flying:
            self.world.deliver(flying[number % len(flying)])

    def deliver_all(self, _: int = 0, __: int = 0) -> None:
        """Everything arrives that is on its way now."""
        self.world.deliver_all()

    def lose(self, number: int, _: int = 0) -> None:
        """A packet is gone."""
        flying = self.world.network.flying()
        if flying:
            flying[number % len(flying)].gone = True

    def double(self, number: int, _: int = 0) -> None:
        """A packet will arrive twice."""
        flying = self.world.network.flying()
        if flying:
            self.world.network.double(flying[number % len(flying)])

    def delay(self, number: int, ms: int) -> None:
        """A packet comes much later."""
        flying = self.world.network.flying()
        if flying:
            self.world.network.delay(flying[number % len(flying)], (ms % 2_000) * MS)

    # --- links

    def cut(self, one: int, other: int) -> None:
        """A link fails in one direction."""
        self.world.network.cut.add((self._server(one).server, self._server(other).server))

    def part(self, mask: int, _: int = 0) -> None:
        """Two sides that do not hear each other."""
        sides: tuple[list[int], list[int]] = ([], [])
        for server in self.world.servers:
            sides[mask >> server & 1].append(server)
        self.world.partition(*sides)

    def isolate_leader(self, _: int = 0, __: int = 0) -> None:
        """It goes on leading, as far as it knows."""
        leader = self.world.leader()
        if leader:
            self.world.isolate(leader.server)

    def part_from_leader(self, number: int, _: int = 0) -> None:
        """It does not hear the leader, nor the leader it; all others hear both."""
        leader, other = self.world.leader(), self._server(number)
        if leader and leader is not other:
            self.world.network.isolate(other.server, [leader.server])

    def heal(self, _: int = 0, __: int = 0) -> None:
        """All links work."""
        self.world.heal()

    # --- processes and disks

    def crash(self, number: int, torn: int) -> None:
        """It loses what is not on its disk."""
        server = self._up(number)
        if server:
            server.crash(torn % 4)

    def crash_leader(self, _: int, torn: int) -> None:
        """The same, of the one that matters most."""
        leader = self.world.leader()
        if leader:
            leader.crash(torn % 4)

    def restart(self, number: int, _: int = 0) -> None:
        """One that is down comes back."""
        down = [server for server in self.world.servers.values() if not server.up]
        if down:
            down[number % len(down)].start()

    def restart_at_once(self, number: int, torn: int) -> None:
        """One crashes, and is back before anybody notices."""
        server = self._up(number)
        if server:
            server.crash(torn % 4)
            server.start()

    def restart_all(self, _: int = 0, __: int = 0) -> None:
        """All that are down."""
        self.world.start()

    def hold(self, number: int, _: int = 0) -> None:
        """Its disk is slow: its duties go on only when ``duty`` or ``release`` says so."""
        server = self._up(number)
        if server:
            server.held = True

    def duty(self, number: int, _: int = 0) -> None:
        """One duty of one that is held, or the next to be."""
        held = [server for server in self.world.up() if server.held]
        if held:
            held[number % len(held)].do_duty()

    def release(self, number: int, _: int = 0) -> None:
        """Its disk is fast again."""
        held = [server for server in self.world.up() if server.held]
        if held:
            held[number % len(held)].held = False
            held[number % len(held)].work()

    def fill(self, number: int, tears: int) -> None:
        """No room on a disk; ``tears``: its hard state gets there all the same."""
        server = self._server(number)
        server.disk.full, server.tears = True, bool(tears % 2)

    def free(self, _: int = 0, __: int = 0) -> None:
        """Room on all disks."""
        for server in self.world.servers.values():
            server.disk.full = False

    # --- requests

    def propose(self, number: int, count: int) -> None:
        """Whoever leads, perhaps long no more, gets something to log."""
        server = self._leading(number)
        if server:
            self.count += 1
            bodies = [f"p{self.count}.{place}".encode() for place in range(count % 3 + 1)]
            allowed(server.propose, *bodies)

    def read(self, number: int, _: int = 0) -> None:
        """From whoever, by the lease when it is there."""
        server = self._up(number)
        if server:
            self.count += 1
            server.read(self.count)

    def read_from_leader(self, number: int, _: int = 0) -> None:
        """From one that believes to lead."""
        server = self._leading(number)
        if server:
            self.count += 1
            server.read(self.count)

    def read_index(self, number: int, _: int = 0) -> None:
        """From whoever, without the lease."""
        server = self._up(number)
        if server:
            self.count += 1
            server.read_index(self.count)

    def transfer(self, number: int, to: int) -> None:
        """The leadership goes to somebody else, perhaps."""
        server = self._leading(number)
        if server:
            allowed(server.transfer, self._server(to).server)

    def transfer_late(self, to: int, ms: int) -> None:
        """The word to stand for election arrives when the leader has given it up."""
        leader, target = self.world.leader(), self._server(to)
        if leader is None:
            return
        allowed(leader.transfer, target.server)
        for packet in self.world.network.flying(leader.server, target.server):
            if isinstance(packet.envelope.message, TimeoutNow):
                self.world.network.delay(packet, (550 + ms % 500) * MS)
        link = leader.server, target.server
        self.world.network.cut.add(link)
        self.world.run(540 * MS)
        self.world.network.cut.discard(link)

    def coup(self, number: int, _: int = 0) -> None:
        """One that does not hear the leader stands just when all who hear it have restarted."""
        self.part_from_leader(number)
        leader, other = self.world.leader(), self._server(number)
        if leader is None or leader is other or not other.up:
            return
        due_ns = self.world.due_ns(other)
        if due_ns is None:
            return
        self.world.run(max(0, due_ns - self.world.now_ns - 1))
        for server in self.world.up():
            if server not in (leader, other):
                server.crash()
                server.start()
        self.world.run(20 * MS)

    def sleep(self, ms: int, count: int) -> None:
        """The leader is stopped for a while, and asked for a read as soon as it goes on."""
        leader = self.world.leader()
        if leader is None:
            return
        leader.asleep = True
        self.world.run((300 + ms % 500) * MS)
        self.propose(0, count)
        self.world.run(5 * MS)
        leader.asleep = False
        self.count += 1
        leader.read(self.count)

    def change(self, number: int, mask: int) -> None:
        """Other members; the rules refuse most of these.

        Who is to vote has been a member and has got some of the log before: one that knows of no
        group gives no vote, so a group that rests on such ones may wait for ever.
        """
        server = self._leading(number)
        if not server:
            return
        progress = server.running.progress()
        known = [one for one in progress if progress[one].match_index] + [server.server]
        voters = sorted(one for one in known if mask >> one & 1)
        if len(voters) % 2 == 0:
            others = [one for one in sorted(known) if one not in voters]
            voters = [*voters, *others[:1]]
        learners = [one for one in self.world.servers if mask >> 8 >> one & 1]
        allowed(server.change, voters, [one for one in learners if one not in voters])

    def compact(self, number: int, keep: int) -> None:
        """A checkpoint, and the log begins behind it, or a little before."""
        server = self._up(number)
        if server and server.at_rest:
            server.compact(server.applied_index, keep % 3)

    def offer(self, number: int, to: int) -> None:
        """A checkpoint goes off; it may arrive much later, and more than once."""
        server = self._leading(number)
        if server and server.disk.checkpoint.index:
            self.snapshots.append((self._server(to).server, server.disk.checkpoint))

    def install(self, number: int, _: int = 0) -> None:
        """One that is on its way arrives."""
        if self.snapshots:
            self._install(*self.snapshots[number % len(self.snapshots)])

    def _install(self, to: int, checkpoint: Checkpoint) -> None:
        server = self.world[to]
        if server.up and server.at_rest:
            server.install(checkpoint)

    # --- in the end

    def recover(self) -> None:
        """All faults are over: it must make progress, and all must agree in the end."""
        self.free()
        self.heal()
        for server in self.world.up():
            server.held = False
            server.work()
        self.world.start()
        asked = self._commit_something()
        end_ns = self.world.now_ns + LIVELY_NS
        while not self._all_have(asked):
            assert self.world.now_ns < end_ns, f"they do not catch up with {asked}"
            self._tend()
        self.world.monitor.nothing_is_lost()

    def _commit_something(self) -> int:
        end_ns = self.world.now_ns + LIVELY_NS
        body = b"the end"
        while True:
            assert self.world.now_ns < end_ns, "nothing is committed in a healed group"
            self._tend()
            leader = self.world.leader()
            if leader is None:
                continue
            self.propose(self.world.up().index(leader), 0)
            records = allowed(leader.propose, body) if leader.leads else None
            if not records:
                continue
            for _ in range(20):
                self._tend()
                if self.world.monitor.committed_index >= records[0].index:
                    return int(records[0].index)

    def _tend(self) -> None:
        """Time goes by; who needs a snapshot gets one."""
        self.world.run(100 * MS)
        for server in self.world.up():
            if not server.leads:
                continue
            for other, progress in server.running.progress().items():
                if progress.needs_snapshot:
                    server.compact(server.applied_index, 2)
                    self._install(other, server.disk.checkpoint)

    def _all_have(self, index: int) -> bool:
        leader = self.world.leader()
        if leader is None or leader.running.configuration.voters_before:
            return False
        members = leader.running.configuration
        return all(
            self.world[server].applied_index >= index
            for server in (*members.voters, *members.learners)
        )


def allowed(ask: Callable[..., object], *arguments: object) -> object:
    """What it gives, None when it is refused in a way that may be."""
    try:
        return ask(*arguments)
    except TideError as error:
        if error.code not in EXPECTED or not error.detail:
            raise
        return None


ACTS = {
    "run": 12,
    "pause": 3,
    "tick": 6,
    "impatient": 4,
    "deliver": 25,
    "deliver_all": 12,
    "lose": 4,
    "double": 4,
    "delay": 3,
    "cut": 2,
    "part_from_leader": 3,
    "part": 3,
    "isolate_leader": 2,
    "heal": 6,
    "crash": 3,
    "crash_leader": 2,
    "restart": 4,
    "restart_all": 3,
    "restart_at_once": 3,
    "hold": 4,
    "duty": 10,
    "release": 6,
    "fill": 1,
    "free": 2,
    "propose": 20,
    "read": 5,
    "read_from_leader": 8,
    "read_index": 6,
    "transfer": 3,
    "transfer_late": 2,
    "coup": 1,
    "sleep": 1,
    "change": 3,
    "compact": 4,
    "offer": 3,
    "install": 4,
}
"""Every act, and how often it happens in a walk."""

USUAL = {"run", "deliver_all", "heal", "restart_all", "release", "free", "propose", "read"}
"""What happens all the time in a group that is well."""


def walk(seed: int, steps: int, make: Callable[[Begin], Core] = Member) -> Nemesis:
    """Random acts, the same for the same seed; then it must recover."""
    dice = random.Random(seed)
    # Now and then two are equally patient, or one as little as it may be.
    nemesis = Nemesis(make, lambda bound: dice.randrange(bound) * dice.randrange(3) // 2)
    nemesis.world.piece_records = dice.choice((1, 100))
    nemesis.begin(dice.randrange(1_000_000))
    # Not everything happens every time: quiet runs get further.
    calm = dice.choice((1, 1, 4, 16))
    acts = {
        act: weight * (calm if act in USUAL else 1)
        for act, weight in ACTS.items()
        if dice.random() < 0.8
    }
    for act in dice.choices(list(acts), list(acts.values()), k=steps):
        getattr(nemesis, act)(dice.randrange(1 << 16), dice.randrange(1 << 16))
    nemesis.recover()
    return nemesis
