"""The language of the scripts in tests/scripts/raft: commands in, a trace out.

A line that begins with ``>`` is a command; the lines behind it, indented by two blanks, are what it
brought about; other lines are comments. Times are like ``300ms``. Members are numbers, or the names
that ``members`` gives them. Before ``start``:

    members 5                   servers 1 to 5 found a group; or: members L a b c
    spare 6 7                   servers that belong to no group yet
    log a 1 1 2                 its log has records of these terms
    term a 3 [b]                its term, and its vote

and then:

    start [a ...]               all, or these
    tick a                      time goes on until it loses patience, and it alone is told
    wait 300ms                  time goes by and members tick; nothing is delivered
    pause 300ms                 nobody ticks
    run 300ms                   time goes by, members tick, and each message arrives after 1 ms
    deliver a->b [2]            what is on its way between them, or the first so many
    settle                      deliver until nothing is on its way; no time goes by
    flying                      what is on its way
    say a->b has 3               an answer that a might give
    drop a->b [2]   double a->b   late a->b     lost; a copy of each; put behind the others
    cut a->b   isolate a   part a b | c d   heal     links
    propose a x y   transfer a b   change a b c [+ d]     asked of a
    read a 7   read-index a 7    a strong read, by the lease or not
    hold a   duty a   release a  perform its duties one by one
    crash a [1]   restart a      un-persisted things are lost, but so many torn records
    full a   room a              its disk
    compact a 5 [2]              checkpoint at 5, keep 2 records before it
    snapshot a->b                b gets a's newest checkpoint
    lease a   progress a   state [a]    what they know

``quietly`` before a command leaves out messages and disks, and shows roles and what is applied.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tidefs.fs.errors import TideError
from tidefs.fs.messages.raft import AppendReply
from tidefs.metaserver.raft.contract import Envelope, HardState, Ready, Record, Role

from . import words
from .fake_log import Checkpoint
from .harness import MS, Server, World, founding
from .monitor import Monitor, Seen

FIRST_NAMED = 1
APPLIES = " applies "


class TracingMonitor(Monitor):
    """Says what happens, besides watching it."""

    def __init__(self, say: Callable[[str], None], name: words.Name) -> None:
        super().__init__()
        self._say, self._name = say, name
        self.quiet = False

    def _detail(self, line: str) -> None:
        if not self.quiet:
            self._say(line)

    def seen(self, server: Server) -> None:
        before = self.was.get(server.server, Seen(Role.FOLLOWER, 0, 0, 0))
        core = server.running
        if (core.role, core.term) != (before.role, before.term):
            self._say(f"{self._name(server.server)} is {core.role.value} in term {core.term}")
        super().seen(server)

    def sent(self, server: Server, envelope: Envelope) -> None:
        self._detail(words.envelope(envelope, self._name))
        super().sent(server, envelope)

    def hard_state(self, server: Server, wanted: HardState) -> None:
        vote = self._name(wanted.vote) if wanted.vote else "nobody"
        self._detail(f"{self._name(server.server)} stores term {wanted.term}, vote {vote}")
        super().hard_state(server, wanted)

    def writing(self, server: Server, records: Sequence[Record]) -> None:
        replaced = server.disk.last_index - records[0].index + 1
        instead = f", instead of {replaced}" if replaced > 0 else ""
        what = words.records(records, self._name)
        self._detail(f"{self._name(server.server)} logs {what}{instead}")
        super().writing(server, records)

    def applied(self, server: Server, record: Record) -> None:
        self._say(f"{self._name(server.server)}{APPLIES}{words.record(record, self._name)}")
        super().applied(server, record)

    def abandoned(self, server: Server, ready: Ready) -> None:
        what = words.records(ready.records, self._name)
        self._say(f"{self._name(server.server)} has no room for {what}")
        super().abandoned(server, ready)

    def refused(self, server: Server, envelope: Envelope, error: TideError) -> None:
        self._say(f"{self._name(server.server)} refuses: {error}")
        super().refused(server, envelope, error)

    def installed(self, server: Server, checkpoint: Checkpoint) -> None:
        self._say(f"{self._name(server.server)} is at {checkpoint.index}/{checkpoint.term} now")
        super().installed(server, checkpoint)

    def read_done(self, server: Server, token: int, read_index: int | None) -> None:
        told = "nobody knows who leads" if read_index is None else f"at {server.applied_index}"
        self._say(f"{self._name(server.server)} answers read {token}: {told}")
        super().read_done(server, token, read_index)


class Script:
    """One run of one script."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, int] = {}
        self.monitor = TracingMonitor(self.lines.append, self.name)
        self.world = World((), monitor=self.monitor)

    def name(self, server: int) -> str:
        """As the script calls it."""
        return next((name for name, number in self.names.items() if number == server), str(server))

    def do(self, command: str) -> list[str]:
        """What a command brings about."""
        self.lines.clear()
        verb, *arguments = command.split()
        self.monitor.quiet = verb == "quietly"
        if self.monitor.quiet:
            verb, *arguments = arguments
        method = getattr(self, "do_" + verb.replace("-", "_"), None)
        assert method is not None, f"there is no command {verb!r}"
        try:
            method(*arguments)
        except TideError as error:
            self.lines.append(f"refused: {error}")
        return list(_joined(self.lines))

    # --- before the start

    def do_members(self, *names: str) -> None:
        if len(names) == 1 and names[0].isdigit():
            names = tuple(str(number + 1) for number in range(int(names[0])))
        self.names = {name: number for number, name in enumerate(names, FIRST_NAMED)}
        for server in self.names.values():
            self.world.add(server, founding(list(self.names.values())))

    def do_spare(self, *names: str) -> None:
        for name in names:
            self.names[name] = max(self.names.values()) + 1
            self.world.add(self.names[name])

    def do_log(self, name: str, *terms: str) -> None:
        server = self._server(name)
        numbered = list(enumerate((int(term) for term in terms), 1))
        made = [Record(term, index, b"") for index, term in numbered]
        server.disk.hard_state = HardState(made[-1].term, 0)
        server.disk.write(made)
        self.monitor.persisted(server, made)

    def do_term(self, name: str, term: str, vote: str = "") -> None:
        voted = self.names[vote] if vote else 0
        self._server(name).disk.hard_state = HardState(int(term), voted)

    def do_start(self, *names: str) -> None:
        for server in self._servers(names):
            server.start()

    # --- time and messages

    def do_tick(self, name: str) -> None:
        server = self._server(name)
        self._due(server)
        if server.running.role is Role.FOLLOWER:
            self._due(server)  # it found itself late, and gave the leader another moment

    def _due(self, server: Server) -> None:
        due_ns = self.world.due_ns(server)
        assert due_ns is not None, f"{server.server} waits for nothing"
        self.world.now_ns = max(self.world.now_ns, due_ns)
        server.tick()

    def do_say(self, link: str, *message: str) -> None:
        sender, receiver = self._link(link)
        term = self.world[sender].disk.hard_state.term
        assert message[0] == "has"
        said = AppendReply(term, True, int(message[1]), 0, 0)
        self.world[receiver].step(Envelope(sender, receiver, said))

    def do_wait(self, duration: str) -> None:
        self.world.wait(_ns(duration))

    def do_pause(self, duration: str) -> None:
        self.world.now_ns += _ns(duration)

    def do_run(self, duration: str) -> None:
        self.world.run(_ns(duration))

    def do_settle(self) -> None:
        self.world.settle()

    def do_deliver(self, link: str, count: str = "1000") -> None:
        for packet in self.world.network.flying(*self._link(link))[: int(count)]:
            self.world.deliver(packet)

    def do_flying(self) -> None:
        for packet in self.world.network.flying():
            self.lines.append(words.envelope(packet.envelope, self.name))

    def do_drop(self, link: str, count: str = "1000") -> None:
        for packet in self.world.network.flying(*self._link(link))[: int(count)]:
            packet.gone = True

    def do_double(self, link: str) -> None:
        for packet in self.world.network.flying(*self._link(link)):
            self.world.network.double(packet)

    def do_late(self, link: str, count: str = "1") -> None:
        for packet in self.world.network.flying(*self._link(link))[: int(count)]:
            self.world.network.double(packet)
            packet.gone = True

    def do_cut(self, link: str) -> None:
        sender, receiver = self._link(link)
        self.world.network.cut.add((sender, receiver))

    def do_isolate(self, name: str) -> None:
        self.world.isolate(self.names[name])

    def do_part(self, *names: str) -> None:
        sides = " ".join(names).split("|")
        self.world.partition(*([self.names[name] for name in side.split()] for side in sides))

    def do_heal(self) -> None:
        self.world.heal()

    # --- what is asked of a member

    def do_propose(self, name: str, *bodies: str) -> None:
        self._server(name).propose(*(body.encode() for body in bodies))

    def do_transfer(self, name: str, to: str) -> None:
        self._server(name).transfer(self.names.get(to) or int(to))

    def do_change(self, name: str, *names: str) -> None:
        voters, _, learners = " ".join(names).partition("+")
        self._server(name).change(
            [self.names[voter] for voter in voters.split()],
            [self.names[learner] for learner in learners.split()],
        )

    def do_read(self, name: str, token: str) -> None:
        self._server(name).read(int(token))

    def do_read_index(self, name: str, token: str) -> None:
        self._server(name).read_index(int(token))

    # --- crashes and disks

    def do_hold(self, name: str) -> None:
        self._server(name).held = True

    def do_duty(self, name: str) -> None:
        server = self._server(name)
        done = server.do_duty()
        self.lines.append(f"done: {server.duty.name.lower()}" if done else "nothing to do")

    def do_release(self, name: str) -> None:
        server = self._server(name)
        server.held = False
        server.work()

    def do_crash(self, name: str, torn: str = "0") -> None:
        self._server(name).crash(int(torn))

    def do_restart(self, name: str) -> None:
        self._server(name).start()

    def do_full(self, name: str) -> None:
        self._server(name).disk.full = True

    def do_room(self, name: str) -> None:
        self._server(name).disk.full = False

    def do_compact(self, name: str, index: str, keep: str = "0") -> None:
        self._server(name).compact(int(index), int(keep))

    def do_snapshot(self, link: str) -> None:
        sender, receiver = self._link(link)
        if not self.world[receiver].install(self.world[sender].disk.checkpoint):
            self.lines.append("it has all of that")

    # --- what is known

    def do_lease(self, name: str) -> None:
        server = self._server(name)
        left_ns = server.running.lease_until_ns - server.now_ns
        held = server.lease_holds
        self.lines.append(f"for {left_ns // MS} ms" if held else "none")

    def do_progress(self, name: str) -> None:
        for other, progress in sorted(self._server(name).running.progress().items()):
            snapshot = ", needs a snapshot" if progress.needs_snapshot else ""
            heard = f", heard at {progress.heard_ns // MS} ms" if progress.heard_ns else ""
            self.lines.append(
                f"{self.name(other)}: has {progress.match_index}, next {progress.next_index}"
                f"{heard}{snapshot}"
            )

    def do_state(self, *names: str) -> None:
        shown: dict[str, str] = {}
        for server in self._servers(names):
            log = words.records(server.disk.records, self.name)
            first = server.disk.first_index
            log = log if first == 1 else f"from {first}: {log}"
            same = shown.setdefault(log, self.name(server.server))
            if same != self.name(server.server):
                log = f"the log of {same}"
            self.lines.append(f"{self._role(server)}: {log}")

    def _role(self, server: Server) -> str:
        core, name = server.core, self.name(server.server)
        if core is None:
            return f"{name} is down"
        led = f" of {self.name(core.leader)}" if core.leader not in (0, server.server) else ""
        return f"{name} is {core.role.value}{led} in term {core.term}, commit {core.commit_index}"

    def _server(self, name: str) -> Server:
        assert name in self.names, f"there is no member {name}"
        return self.world[self.names[name]]

    def _servers(self, names: Sequence[str]) -> list[Server]:
        return [self._server(name) for name in names or self.names]

    def _link(self, link: str) -> tuple[int, int]:
        sender, _, receiver = link.partition("->")
        return self.names[sender], self.names[receiver]


def _joined(lines: Sequence[str]) -> Iterator[str]:
    """What one member applies in a row becomes one line."""
    for who, group in groupby(lines, lambda line: line.partition(APPLIES)[:2]):
        said = list(group)
        if not who[1]:
            yield from said
            continue
        first, last = (line.partition(APPLIES)[2] for line in (said[0], said[-1]))
        yield f"{who[0]}{APPLIES}{first}" + ("" if first == last else f" ... {last}")


def _ns(duration: str) -> int:
    found = re.fullmatch(r"(\d+)ms", duration)
    assert found, f"not a time: {duration}"
    return int(found[1]) * MS


def rewritten(text: str) -> str:
    """The script with the trace that it brings about now."""
    return "\n".join(_lines(text)) + "\n"


def _lines(text: str) -> Iterator[str]:
    script = Script()
    for line in text.rstrip("\n").split("\n"):
        if line.startswith(">"):
            yield line
            yield from ("  " + said for said in script.do(line.removeprefix(">")))
        elif not line.startswith("  "):
            yield line


def scripts() -> list[Path]:
    """All there are."""
    return sorted((Path(__file__).parents[2] / "scripts" / "raft").glob("*.txt"))
