"""A group of members in one thread: virtual time, a disk each, a network, crashes at any moment.

``Server`` surrounds one core as the driver does: it performs the duties of ``raft/contract.py``
one by one, so that a test may crash it between any two. ``World`` holds the servers and the time.
Nothing happens by itself: a test steps servers and packets by hand, or lets ``World.run`` do it in
the order of time. A ``Monitor`` watches every step.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from tidefs.fs.codec import decode
from tidefs.fs.errors import TideError
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import Append, Configuration
from tidefs.metaserver.raft.contract import (
    Begin,
    Core,
    Envelope,
    Kind,
    Ready,
    Record,
    Role,
    Timing,
)
from tidefs.metaserver.raft.core import Member

from .fake_log import Checkpoint, FakeLog
from .monitor import Monitor
from .network import Network, Packet

MS = 1_000_000

TIMING = Timing(heartbeat_ns=50 * MS, election_min_ns=250 * MS, drift_parts=20, drift_ns=1 * MS)
"""Clocks here differ more than real ones, so that forgetting about it shows."""


TURNS_MAX = 1_000_000


class Duty(IntEnum):
    """How far a server is with a Ready."""

    NONE = 0
    EARLY = 1
    HARD_STATE = 2
    RECORDS = 3
    MESSAGES = 4
    APPLY = 5


class Read(NamedTuple):
    """A strong read that may be answered from the state at ``read_index``."""

    token: int
    read_index: int | None


def places(servers: Iterable[int]) -> list[ServerPlace]:
    """Where they are, as far as that matters here."""
    return [ServerPlace(server, f"host{server}", []) for server in sorted(servers)]


def founding(voters: Sequence[int], learners: Sequence[int] = ()) -> Configuration:
    """The configuration of a new group."""
    return Configuration(list(voters), [], list(learners), places([*voters, *learners]), [])


JOINING = Configuration([], [], [], [], [])
"""Of who was not told yet to which group it belongs."""


class Server:
    """One member with its disk and its clock; ``core`` is None while it is down."""

    def __init__(self, world: "World", server: int, configuration: Configuration) -> None:
        self.world = world
        self.server = server
        self.disk = FakeLog(configuration)
        self.core: Core | None = None
        self.clock_parts = 0
        """Its clock runs faster by so many millionths."""
        self.clock_ahead_ns = 0
        self.below: Callable[[int], int] = lambda bound: 0
        self.held = False
        """True: duties are performed one by one, by the test."""
        self.asleep = False
        """The process is stopped: it does not tick, and what comes is lost."""
        self.tears = True
        """Whether an abandoned Ready's hard state is on the disk all the same."""
        self.duty = Duty.NONE
        self.ticked_ns = 0
        self.applied: list[Record] = []
        self.configuration = configuration
        self.waiting_reads: list[Read] = []
        self.reads: list[Read] = []
        """Those answered, in order."""
        self._ready: Ready | None = None
        self._begun = configuration, 0
        self._rest: Iterator[Duty] | None = None

    # --- life --------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        return self.core is not None

    @property
    def running(self) -> Core:
        """The core of a member that is up."""
        assert self.core is not None, f"{self.server} is down"
        return self.core

    @property
    def now_ns(self) -> int:
        """By its own clock."""
        now_ns = self.world.now_ns
        return self.clock_ahead_ns + now_ns + now_ns * self.clock_parts // 1_000_000

    @property
    def leads(self) -> bool:
        return self.core is not None and self.core.role is Role.LEADER

    @property
    def lease_holds(self) -> bool:
        return self.leads and self.now_ns < self.running.lease_until_ns

    @property
    def applied_index(self) -> int:
        return len(self.applied)

    def draw(self, bound: int) -> int:
        """Where its core gets randomness from."""
        return self.below(bound)

    def start(self) -> None:
        """From what is on the disk: the newest checkpoint, and the log."""
        assert self.core is None
        disk, checkpoint = self.disk, self.disk.checkpoint
        self.applied = list(checkpoint.applied)
        self.configuration = checkpoint.configuration
        later = [pair for pair in disk.configurations() if pair[0] > checkpoint.index]
        begin = Begin(
            server=self.server,
            hard_state=disk.hard_state,
            terms=disk.terms(),
            applied_index=checkpoint.index,
            configuration=checkpoint.configuration,
            logged=checkpoint.index > 0,
            later=later,
            timing=self.world.timing,
            now_ns=self.now_ns,
            below=self.draw,
        )
        self.core = self.world.make(begin)
        self._seen()
        self.work()

    def crash(self, torn: int = 0) -> None:
        """The process is gone, and what was not on the disk with it.

        ``torn``: so many of the records that were being written had reached the disk.
        """
        if self._ready is not None and self.duty is Duty.HARD_STATE:
            written = self._ready.records[:torn]
            # Without room for the hard state there was none for them.
            if written and written[-1].term <= self.disk.hard_state.term:
                self.disk.write(written)
                self.world.monitor.persisted(self, written)
        self.core = self._ready = self._rest = None
        self.duty = Duty.NONE
        self.held = self.asleep = False
        self.waiting_reads.clear()
        self.world.monitor.crashed(self)

    # --- what happens to the core ------------------------------------------------------------

    def tick(self) -> None:
        """It is that late."""
        self.ticked_ns = self.now_ns
        self.running.tick(self.now_ns)
        self._seen()
        self.work()

    def step(self, envelope: Envelope) -> TideError | None:
        """A message comes in; why it was refused, if it was. It changed nothing then."""
        core = self.running
        before = _visible(core)
        try:
            core.step(envelope, self.now_ns)
        except TideError as error:
            refusal = error
        else:
            self._seen()
            self.work()
            return None
        assert _visible(core) == before, f"{self.server} refused it, and changed: {refusal}"
        assert refusal.detail, "refused without words"
        self.world.monitor.refused(self, envelope, refusal)
        return refusal

    def propose(self, *bodies: bytes) -> Sequence[Record]:
        """TideError as the core's."""
        records = self.running.propose(bodies, self.now_ns)
        self.world.monitor.proposed(self, records)
        self._seen()
        self.work()
        return records

    def read(self, token: int) -> None:
        """Ask for a strong read as the driver does: by the lease, else by ReadIndex.

        The lease promises that nobody else leads, but what is committed may not be applied yet.
        """
        core = self.running
        self.world.monitor.read_asked(self, token)
        if self.lease_holds:
            self._read_ready(Read(token, core.commit_index))
        else:
            core.read(token, self.now_ns)
        self._seen()
        self.work()

    def read_index(self, token: int) -> None:
        """Ask for one that does not trust the lease."""
        self.world.monitor.read_asked(self, token)
        self.running.read(token, self.now_ns)
        self._seen()
        self.work()

    def transfer(self, server: int) -> None:
        """TideError as the core's."""
        self.running.transfer(server, self.now_ns)
        self._seen()
        self.work()

    def change(self, voters: Sequence[int], learners: Sequence[int] = ()) -> None:
        """TideError as the core's."""
        where = places([*voters, *learners])
        self.running.change_members(voters, learners, where, self.now_ns)
        self._seen()
        self.work()

    def compact(self, index: int, keep: int = 0) -> None:
        """Make a checkpoint at ``index`` at most, and drop the log before it but for ``keep``."""
        index = min(index, self.applied_index)
        if index <= self.disk.checkpoint.index:
            return
        earlier = [pair for pair in self.disk.configurations() if pair[0] <= index]
        configuration = earlier[-1][1] if earlier else self.disk.checkpoint.configuration
        term = self.applied[index - 1].term
        self.disk.checkpoint = Checkpoint(index, term, configuration, tuple(self.applied[:index]))
        first = max(index + 1 - keep, self.disk.first_index)
        if first > self.disk.first_index:
            self.disk.drop_before(first)
            self.running.dropped_prefix(first)
        self._seen()
        self.work()

    def install(self, checkpoint: Checkpoint) -> bool:
        """A snapshot came in whole; False: it has all that already.

        A log that holds its last record is kept: what is behind that record may have been promised
        (Raft section 7).
        """
        assert self._ready is None
        core = self.running
        if not core.wants_snapshot(checkpoint.index, checkpoint.term):
            return False
        self.disk.take(checkpoint)
        self.applied = list(checkpoint.applied)
        self.configuration = checkpoint.configuration
        core.restored(checkpoint.index, checkpoint.term, checkpoint.configuration, self.now_ns)
        self.world.monitor.installed(self, checkpoint)
        self._answer_reads()
        self._seen()
        self.work()
        return True

    # --- the duties --------------------------------------------------------------------------

    def work(self) -> None:
        """Perform all duties there are, unless they are held."""
        while not self.held and self.core is not None and self.do_duty():
            pass

    def do_duty(self) -> bool:
        """The next one; False when there is nothing to do."""
        if self._rest is None:
            self._ready = self.running.ready()
            if self._ready is None:
                return False
            self._seen()
            # A majority of one commits with the Ready itself, by what is so now.
            self._begun = self.running.configuration, self.running.term
            self.world.monitor.ready_taken(self, self._ready)
            self._rest = self._duties(self._ready)
        duty = next(self._rest, None)
        if duty is None:
            self._ready = self._rest = None
            self.duty = Duty.NONE
        else:
            self.duty = duty
        return True

    @property
    def at_rest(self) -> bool:
        """No Ready is out."""
        return self._ready is None

    @property
    def unwritten(self) -> Sequence[Record]:
        """Records of the Ready in hand that are not on the disk yet."""
        if self._ready is None or self.duty >= Duty.RECORDS:
            return ()
        return self._ready.records

    def _duties(self, ready: Ready) -> Iterator[Duty]:
        disk, monitor = self.disk, self.world.monitor
        self._send(ready.early, ready.records)
        yield Duty.EARLY
        full = disk.full and ready.records
        if ready.hard_state is not None and (self.tears or not full):
            monitor.hard_state(self, ready.hard_state)
            disk.hard_state = ready.hard_state
        yield Duty.HARD_STATE
        if full:
            self.running.abandon(ready, self.now_ns)
            monitor.abandoned(self, ready)
            self._seen()
            return
        if ready.records:
            monitor.writing(self, ready.records)
            disk.write(ready.records)
            monitor.persisted(self, ready.records)
        yield Duty.RECORDS
        self._send(ready.messages, ())
        yield Duty.MESSAGES
        self._apply(ready.committed_index)
        for token, index in ready.reads:
            self._read_ready(Read(token, index))
        yield Duty.APPLY
        self.running.advance(ready, self.now_ns)
        self._seen()

    def log_view(self, index: int, at_hand: Sequence[Record]) -> Record | None:
        """A record as the log has it, or will have it when ``at_hand`` is written."""
        if at_hand and at_hand[0].index <= index:
            place = index - at_hand[0].index
            return at_hand[place] if place < len(at_hand) else None
        return self.disk.at(index)

    def _send(self, envelopes: Sequence[Envelope], at_hand: Sequence[Record]) -> None:
        for envelope in envelopes:
            filled = self._fill(envelope, at_hand)
            for piece in pieces(filled, self.world.piece_records) if filled else ():
                self.world.monitor.sent(self, piece)
                self.world.network.send(piece, self.world.now_ns)

    def _fill(self, envelope: Envelope, at_hand: Sequence[Record]) -> Envelope | None:
        """With its records; None when the log does not have them any more."""
        message = envelope.message
        assert not envelope.records, "the core keeps no bodies"
        if not isinstance(message, Append) or not message.count:
            return envelope
        first = message.previous_index + 1
        if first < self.disk.first_index:
            return None
        found = [self.log_view(first + place, at_hand) for place in range(message.count)]
        records = [record for record in found if record is not None]
        assert len(records) == message.count, f"{self.server} sends what it does not have: {found}"
        return envelope._replace(records=tuple(records))

    def _apply(self, committed_index: int) -> None:
        self.world.monitor.commits(self, committed_index, *self._begun)
        for index in range(self.applied_index + 1, committed_index + 1):
            record = self.disk.at(index)
            assert record is not None, f"{self.server} is to apply {index}, which it does not have"
            self.applied.append(record)
            if record.kind is Kind.MEMBERS:
                self.configuration = decode(Configuration, record.body)
            self.world.monitor.applied(self, record)
        self._answer_reads()

    def _read_ready(self, read: Read) -> None:
        self.waiting_reads.append(read)
        self._answer_reads()

    def _answer_reads(self) -> None:
        done = [
            read
            for read in self.waiting_reads
            if read.read_index is None or read.read_index <= self.applied_index
        ]
        for read in done:
            self.waiting_reads.remove(read)
            self.reads.append(read)
            self.world.monitor.read_done(self, read.token, read.read_index)

    def _seen(self) -> None:
        self.world.monitor.seen(self)


def pieces(envelope: Envelope, records_max: int) -> Iterator[Envelope]:
    """An Append with many records goes off as several, one behind the other."""
    message, records = envelope.message, envelope.records
    if not isinstance(message, Append) or len(records) <= records_max:
        yield envelope
        return
    index, term = message.previous_index, message.previous_term
    for start in range(0, len(records), records_max):
        some = tuple(records[start : start + records_max])
        piece = Append(message.term, index, term, message.commit_index, len(some), [])
        yield envelope._replace(message=piece, records=some)
        index, term = some[-1].index, some[-1].term


def _visible(core: Core) -> tuple[object, ...]:
    return (
        core.role,
        core.term,
        core.leader,
        core.next_index,
        core.commit_index,
        core.configuration,
        core.deadline_ns,
        core.lease_until_ns,
    )


MAKE: Callable[[Begin], Core] = Member
"""What makes members, unless a world is told otherwise."""


class World:
    """Servers, the network between them, and the time."""

    def __init__(
        self,
        voters: Sequence[int] = (1, 2, 3),
        learners: Sequence[int] = (),
        *,
        make: Callable[[Begin], Core] | None = None,
        timing: Timing = TIMING,
        monitor: Monitor | None = None,
        latency_ns: Callable[[], int] = lambda: 1 * MS,
    ) -> None:
        self.make = make or MAKE
        self.timing = timing
        self.now_ns = 0
        self.piece_records = 1_000
        """So many records go into one Append; see ``pieces``."""
        self.monitor = monitor or Monitor()
        self.network = Network(latency_ns)
        self.servers: dict[int, Server] = {}
        self.monitor.world = self
        for server in (*voters, *learners):
            self.add(server, founding(voters, learners))

    def add(self, server: int, configuration: Configuration = JOINING) -> Server:
        """One more, not started yet; it joins unless it is told where it belongs."""
        made = self.servers[server] = Server(self, server, configuration)
        # The lowest id is the least patient, and nobody draws twice alike: tests can rely on it.
        made.below = lambda bound: (bound * server // 10) % bound
        return made

    def start(self) -> "World":
        """All that are down."""
        for server in self.servers.values():
            if not server.up:
                server.start()
        return self

    # --- who is what -------------------------------------------------------------------------

    def __getitem__(self, server: int) -> Server:
        return self.servers[server]

    def up(self) -> list[Server]:
        """Those that run."""
        return [server for server in self.servers.values() if server.up]

    def leader(self) -> Server | None:
        """Of the highest term."""
        leading = [server for server in self.up() if server.leads]
        return max(leading, key=lambda server: server.running.term, default=None)

    # --- packets -----------------------------------------------------------------------------

    def deliver(self, packet: Packet) -> TideError | None:
        """It arrives, if anybody is there."""
        envelope = self.network.take(packet)
        receiver = self.servers.get(packet.envelope.receiver)
        if envelope is None or receiver is None or not receiver.up or receiver.asleep:
            return None
        return receiver.step(envelope)

    def deliver_all(self, sender: int | None = None, receiver: int | None = None) -> None:
        """What is on its way now between them, not what it brings about."""
        for packet in self.network.flying(sender, receiver):
            if not packet.gone:
                self.deliver(packet)

    def settle(self, rounds: int = 200) -> None:
        """Deliver until nothing is on its way. No time goes by."""
        for _ in range(rounds):
            if not self.network.flying():
                return
            self.deliver_all()
        raise AssertionError("they do not stop talking")

    def isolate(self, server: int) -> None:
        """Cut all its links."""
        self.network.isolate(server, list(self.servers))

    def partition(self, *sides: Iterable[int]) -> None:
        """Links only within each of these sides."""
        side = {server: number for number, servers in enumerate(sides) for server in servers}
        self.network.cut = {
            (one, other)
            for one in self.servers
            for other in self.servers
            if side.get(one) != side.get(other)
        }

    def heal(self) -> None:
        """All links work."""
        self.network.cut.clear()

    # --- time --------------------------------------------------------------------------------

    def due_ns(self, server: Server) -> int | None:
        """When its core wants a tick, by the world's time."""
        deadline_ns = server.running.deadline_ns
        if deadline_ns is None or server.asleep:
            return None
        if server.held:
            # What is due may be waiting for its turn: no need to say the time again and again.
            deadline_ns = max(deadline_ns, server.ticked_ns + 1 * MS)
        left_ns = deadline_ns - server.now_ns
        if left_ns <= 0:
            return self.now_ns
        left_ns = left_ns * 1_000_000 // (1_000_000 + server.clock_parts) + 1
        if not server.clock_parts:
            left_ns -= 1
        return self.now_ns + left_ns

    def wait(self, duration_ns: int) -> None:
        """Time goes by, and who is due ticks; nothing is delivered."""
        self.run(duration_ns, deliver=False)

    def run(
        self,
        duration_ns: int,
        until: Callable[[], bool] = lambda: False,
        *,
        deliver: bool = True,
    ) -> bool:
        """Ticks and packets in the order of time; True when ``until`` came true."""
        end_ns = self.now_ns + duration_ns
        turns_left = TURNS_MAX
        while not until():
            turns_left -= 1
            assert turns_left, "they are busy without end"
            dues = [
                (due_ns, server)
                for server in self.servers.values()
                if server.core is not None and (due_ns := self.due_ns(server)) is not None
            ]
            tick_ns, ticked = min(dues, key=lambda due: due[0], default=(end_ns + 1, None))
            packet = self.network.first() if deliver else None
            if packet is not None and packet.due_ns <= min(tick_ns, end_ns):
                self.now_ns = max(self.now_ns, packet.due_ns)
                self.deliver(packet)
            elif ticked is not None and tick_ns <= end_ns:
                self.now_ns = max(self.now_ns, tick_ns)
                ticked.tick()
            else:
                self.now_ns = end_ns
                return until()
        return True

    def elect(self, server: int) -> Server:
        """Let this one become the leader: only it loses patience."""
        chosen = self.servers[server]
        for _ in range(5):
            if chosen.leads:
                return chosen
            self.now_ns = max(self.now_ns, self.due_ns(chosen) or 0)
            chosen.tick()
            self.settle()
        raise AssertionError(f"{server} is not elected")
