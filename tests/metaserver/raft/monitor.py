"""What must hold at every moment: Figure 3 of the Raft paper, and what else members promise.

The five properties of the figure are kept by memory over all servers and all time, one entry per
term or index, so that each check costs as much as what has just happened:

- Election Safety: who was ever seen leading in a term.
- Leader Append-Only: what a leader has logged since it leads, against what it writes.
- Log Matching: each (index, term) has one content and one predecessor's term; by induction, logs
  that agree on one record agree on all before it.
- Leader Completeness: what was committed in earlier terms, against the log of each new leader.
- State Machine Safety: what was ever applied at an index.

Beside them: what is committed is on the disks of a majority (of both, when joint); a promise goes
out only when what it promises is on the disk; one vote a term; at most one lease; a strong read is
never older than what was committed when it was asked.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tidefs.fs.errors import TideError
from tidefs.fs.messages.raft import (
    Append,
    AppendReply,
    Configuration,
    Heartbeat,
    RequestVote,
    VoteReply,
)
from tidefs.metaserver.raft.contract import Envelope, HardState, Ready, Record, Role

from .fake_log import Checkpoint

if TYPE_CHECKING:
    from .harness import Server, World


class BrokenPromiseError(AssertionError):
    """A property does not hold."""


class Content(NamedTuple):
    """What a record is, and what stands before it."""

    term: int
    kind: int
    body: bytes


class Committed(NamedTuple):
    """A committed record, and the term in which it became so."""

    content: Content
    term: int


class Seen(NamedTuple):
    """One core as it was when it was last looked at."""

    role: Role
    term: int
    leader: int
    commit_index: int


def content(record: Record) -> Content:
    """The part of a record that is the same on all disks."""
    return Content(record.term, record.kind, record.body)


def promise(held: bool, words: str) -> None:
    """Fail, in words, when a property does not hold."""
    if not held:
        raise BrokenPromiseError(words)


class Monitor:
    """Watches all servers of one world."""

    world: "World"

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.terms_before: dict[tuple[int, int], int] = {}
        self.contents: dict[tuple[int, int], Content] = {}
        self.committed: dict[int, Committed] = {}
        self.committed_index = 0
        self.applied_ever: dict[int, Content] = {}
        self.acknowledged: dict[int, Content] = {}
        self.proposals: dict[int, dict[int, Content]] = {}
        self.asked: dict[tuple[int, int], int] = {}
        self.was: dict[int, Seen] = {}
        self.unproved: set[int] = set()
        """Leaders whose log was not compared yet with what is committed."""
        self.led: dict[int, tuple[int, list[Content], int]] = {}
        """Of each leader: its term, its log when it first wrote in it, that log's first index."""
        self.happened: Counter[str] = Counter()
        """How often what came about: a test that never sees an election proves nothing."""

    # --- a core was called -------------------------------------------------------------------

    def seen(self, server: "Server") -> None:
        """Look at it: roles, terms, what is committed, leases."""
        core = server.running
        now = Seen(core.role, core.term, core.leader, core.commit_index)
        before = self.was.get(server.server)
        self.leases()
        if now == before:
            return
        self.was[server.server] = now
        if before is not None:
            promise(now.term >= before.term, f"{server.server}'s term goes back: {before} {now}")
            promise(now.commit_index >= before.commit_index, f"{server.server}: {before} {now}")
        if now.role is Role.LEADER:
            self._seen_leading(server, before, now)
        self.commits(server, now.commit_index, core.configuration, core.term)

    def _seen_leading(self, server: "Server", before: Seen | None, now: Seen) -> None:
        leader = self.leaders.setdefault(now.term, server.server)
        promise(
            leader == server.server,
            f"Election Safety: {leader} and {server.server} lead in term {now.term}",
        )
        if before is None or before.role is not Role.LEADER or before.term != now.term:
            self.happened["elected"] += 1
            self.unproved.add(server.server)
            self.led.pop(server.server, None)

    def leases(self) -> None:
        """While a lease holds nobody leads in a later term."""
        servers = self.world.servers.values()
        leading = [server for server in servers if server.leads]
        if len(leading) < 2:
            return
        newest = max(server.running.term for server in leading)
        for server in leading:
            promise(
                server.running.term == newest or not server.lease_holds,
                f"{server.server} holds a lease of term {server.running.term},"
                f" and somebody leads in term {newest}",
            )

    def commits(self, server: "Server", commit_index: int, by: Configuration, term: int) -> None:
        """It takes all up to there for committed, as the leader of a term, in a configuration."""
        if commit_index <= self.committed_index:
            return
        promise(self.leaders.get(term) == server.server, f"{server.server} commits, not leading")
        self.happened["committed"] += commit_index - self.committed_index
        for index in range(self.committed_index + 1, commit_index + 1):
            record = server.log_view(index, server.unwritten)
            # The core may have logged it, in a Ready that is not out yet.
            last_term = record.term if record else term
            self._on_majorities(by, index, last_term)
            self.committed[index] = Committed(self.contents[index, last_term], term)
        self.committed_index = commit_index
        promise(last_term == term, f"{commit_index} of {last_term} is committed by counting")

    def _on_majorities(self, configuration: Configuration, index: int, term: int) -> None:
        for voters in (configuration.voters, configuration.voters_before):
            have = [voter for voter in voters if self._has(voter, index, term)]
            promise(
                not voters or 2 * len(have) > len(voters),
                f"{index} of term {term} is committed, and only {have} of {voters} have it",
            )

    def _has(self, server: int, index: int, term: int) -> bool:
        if server not in self.world.servers:
            return False
        disk = self.world.servers[server].disk
        return disk.checkpoint.index >= index or disk.term_at(index) == term

    # --- duties ------------------------------------------------------------------------------

    def ready_taken(self, server: "Server", ready: Ready) -> None:
        """The log of a new leader is known now: Leader Completeness."""
        if server.server not in self.unproved:
            return
        self.unproved.discard(server.server)
        core = server.running
        if core.role is not Role.LEADER:
            return
        for index in range(server.disk.first_index, self.committed_index + 1):
            committed = self.committed.get(index)
            if committed is None or committed.term >= core.term:
                continue
            record = server.log_view(index, ready.records)
            promise(
                record is not None and content(record) == committed.content,
                f"Leader Completeness: {server.server} leads in {core.term} without {index}:"
                f" {committed}, but {record}",
            )

    def hard_state(self, server: "Server", wanted: HardState) -> None:
        """It is about to be stored."""
        stored = server.disk.hard_state
        promise(wanted.term >= stored.term, f"{server.server} forgets a term: {stored} {wanted}")
        promise(
            wanted.term > stored.term or stored.vote in (0, wanted.vote),
            f"{server.server} changes its vote: {stored} {wanted}",
        )

    def writing(self, server: "Server", records: Sequence[Record]) -> None:
        """They are about to be stored: what they replace must be nobody's loss."""
        disk = server.disk
        for index in range(records[0].index, disk.last_index + 1):
            self.happened["replaced"] += 1
            old = disk.at(index)
            assert old is not None
            committed = self.committed.get(index)
            place = index - records[0].index
            same = place < len(records) and content(records[place]) == content(old)
            promise(
                same or committed is None or committed.content != content(old),
                f"{server.server} removes {index}, which is committed",
            )
        self._append_only(server, records)

    def _append_only(self, server: "Server", records: Sequence[Record]) -> None:
        core = server.running
        if core.role is not Role.LEADER:
            return
        term, log, first = self.led.get(server.server, (0, [], 0))
        if term != core.term:
            if records[-1].term == core.term:
                view = (*server.disk.records, *records)
                kept = {record.index: content(record) for record in view}
                first = min(kept)
                log = [kept[index] for index in range(first, records[-1].index + 1)]
                self.led[server.server] = (core.term, log, first)
            return
        for record in records:
            place = record.index - first
            promise(
                place == len(log) or log[place] == content(record),
                f"Leader Append-Only: {server.server} replaces {record.index}",
            )
            if place == len(log):
                log.append(content(record))

    def persisted(self, server: "Server", records: Sequence[Record]) -> None:
        """They are on the disk: Log Matching."""
        for record in records:
            key = record.index, record.term
            before = server.disk.term_at(record.index - 1)
            assert before is not None, f"a hole before {record.index} at {server.server}"
            here = self.contents.setdefault(key, content(record))
            promise(
                here == content(record)
                and self.terms_before.setdefault(key, before) == before
                and before <= record.term <= server.disk.hard_state.term,
                f"Log Matching: {record} at {server.server} after term {before}, {here} elsewhere",
            )

    def applied(self, server: "Server", record: Record) -> None:
        """It is in the state now: State Machine Safety; and its proposer may be told."""
        promise(
            self.applied_ever.setdefault(record.index, content(record)) == content(record),
            f"State Machine Safety: {server.server} applies {record} at {record.index},"
            f" somebody {self.applied_ever[record.index]}",
        )
        promise(
            record.index <= self.committed_index
            and self.committed[record.index].content == content(record),
            f"{server.server} applies {record}, which nobody committed",
        )
        mine = self.proposals.get(server.server, {}).pop(record.index, None)
        if mine == content(record):
            self.acknowledged[record.index] = mine

    def abandoned(self, server: "Server", ready: Ready) -> None:
        """Nothing of it is on the disk: it has to hear again of what was committed of it."""
        self.happened["abandoned"] += 1
        before = self.was[server.server]
        self.was[server.server] = before._replace(commit_index=server.running.commit_index)
        self.led.pop(server.server, None)

    # --- messages ----------------------------------------------------------------------------

    def sent(self, server: "Server", envelope: Envelope) -> None:
        """It goes out: what it promises is on this disk."""
        self.happened[type(envelope.message).__name__] += 1
        promise(envelope.sender == server.server, f"{server.server} signs as {envelope.sender}")
        promise(envelope.receiver != server.server, f"{server.server} writes to itself")
        message = envelope.message
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            vote = self.votes.setdefault((server.server, message.term), envelope.receiver)
            promise(vote == envelope.receiver, f"{server.server} votes twice in {message.term}")
            self._stored(server, message.term, envelope.receiver)
        elif isinstance(message, RequestVote) and not message.pre:
            vote = self.votes.setdefault((server.server, message.term), server.server)
            promise(vote == server.server, f"{server.server} votes twice in {message.term}")
            self._stored(server, message.term, server.server)
        elif isinstance(message, Append | Heartbeat):
            leader = self.leaders.get(message.term)
            promise(leader == server.server, f"{server.server} speaks for the leader {leader}")
            if isinstance(message, Append):
                self._append(server, message, envelope.records)
        elif isinstance(message, AppendReply) and message.accepted:
            self._accepted(server, message, envelope.receiver)

    def _stored(self, server: "Server", term: int, vote: int) -> None:
        stored = server.disk.hard_state
        promise(
            stored.term > term or stored == (term, vote),
            f"{server.server} promises term {term}, vote {vote}; its disk has {stored}",
        )

    def _append(self, server: "Server", message: Append, records: Sequence[Record]) -> None:
        promise(
            server.disk.hard_state.term >= message.term,
            f"{server.server} leads in {message.term}, its disk has {server.disk.hard_state}",
        )
        before = message.previous_term
        for index, record in enumerate(records, message.previous_index + 1):
            promise(
                record.index == index and before <= record.term <= message.term,
                f"{server.server} sends {record} in {message}",
            )
            before = record.term

    def _accepted(self, server: "Server", message: AppendReply, leader: int) -> None:
        disk = server.disk
        promise(
            disk.last_index >= message.index,
            f"{server.server} promises {message.index}, its disk ends at {disk.last_index}",
        )
        promise(
            disk.hard_state.term >= message.term,
            f"{server.server} answers in {message.term}, its disk has {disk.hard_state}",
        )
        there = self.world.servers[leader]
        if there.leads and there.running.term == message.term:
            record = there.log_view(message.index, there.unwritten)
            term = disk.term_at(message.index)
            promise(
                record is None or term is None or record.term == term,
                f"{server.server} promises {message.index}, of term {term}: {leader} has {record}",
            )

    def refused(self, server: "Server", envelope: Envelope, error: TideError) -> None:
        """A message was refused in words."""
        self.happened["refused"] += 1

    def proposed(self, server: "Server", records: Sequence[Record]) -> None:
        """A leader took them."""
        mine = self.proposals.setdefault(server.server, {})
        for record in records:
            mine[record.index] = content(record)

    def crashed(self, server: "Server") -> None:
        """What it had promised to nobody is forgotten."""
        self.happened["crashed"] += 1
        self.was.pop(server.server, None)
        self.led.pop(server.server, None)
        self.proposals.pop(server.server, None)
        self.unproved.discard(server.server)
        for key in [key for key in self.asked if key[0] == server.server]:
            del self.asked[key]

    def installed(self, server: "Server", checkpoint: Checkpoint) -> None:
        """A snapshot took the place of the log: it has only what is committed."""
        self.happened["installed"] += 1
        promise(checkpoint.index <= self.committed_index, f"{checkpoint.index} is not committed")
        found = server.running.configuration
        promise(found == checkpoint.configuration, f"{server.server} goes on with {found}")
        for record in checkpoint.applied:
            promise(self.applied_ever[record.index] == content(record), f"{record} in a snapshot")

    # --- reads -------------------------------------------------------------------------------

    def read_asked(self, server: "Server", token: int) -> None:
        """From now on, this much must be seen by it."""
        self.asked[server.server, token] = self.committed_index

    def read_done(self, server: "Server", token: int, read_index: int | None) -> None:
        """It is answered from the state as it is now; None: it is not."""
        asked = self.asked.pop((server.server, token), None)
        promise(asked is not None, f"{server.server}: nobody asked for {token}")
        if asked is None or read_index is None:
            return
        self.happened["read"] += 1
        promise(
            server.applied_index >= asked,
            f"{server.server} answers a read from {server.applied_index}, {asked} was committed",
        )

    # --- in the end --------------------------------------------------------------------------

    def nothing_is_lost(self) -> None:
        """What was acknowledged is in the state of every server that runs and is up to date."""
        for server in self.world.up():
            for index, found in self.acknowledged.items():
                if index <= server.applied_index:
                    promise(content(server.applied[index - 1]) == found, f"{index} is lost")
        promise(
            all(index <= self.committed_index for index in self.acknowledged),
            "something acknowledged is not committed",
        )


class Silent(Monitor):
    """Watches nothing: for made-up messages, and for measurements."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return _nothing if callable(found) and not name.startswith("_") else found


def _nothing(*_: object) -> None:
    pass
