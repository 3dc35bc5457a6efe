"""The loop around consensus: collect proposals, persist, send, apply, answer.

One task runs ``run``. All proposals that wait when a turn begins go into the log together and
share its sync (group commit); those that arrive meanwhile share the next. Nothing is applied, and
nobody answered, before the sync has returned.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import trio

from ..fs.codec import Buffer, decode, pack
from ..fs.errors import Code, TideError
from ..fs.limits import LOG_BATCH_MAX_ENTRIES, MIB
from ..fs.messages.base import Message, Request
from ..fs.ports.clock import Clock
from ..fs.ports.disk import Disk
from .effects import Effect
from .entries import Entry
from .hard_state import store_hard_state
from .oplog import Log
from .raft.contract import Record
from .raft.sole import Core, Envelope, Ready
from .space import SpaceGuard
from .state import State
from .store import Store

BATCH_MAX_BYTES = 8 * MIB
COMMIT_ENTRIES = 2_000
"""After so many applied entries the working copy is committed, in the middle of the work."""
COMMIT_IDLE_MS = 200
"""And so long after the first one that is not, whatever happens."""

log = logging.getLogger(__name__)

DoneCallback = Callable[[Message | TideError, int], None]
"""Gets the reply, or why there is none, and the index of the entry (0: it was never logged)."""


class Origin(NamedTuple):
    """Whose change it is: what makes it happen exactly once. All zeros: the leader's own."""

    session: int = 0
    slot: int = 0
    sequence: int = 0


OWN = Origin()


class _Proposal(NamedTuple):
    request: Request[Any]
    payload: Buffer
    origin: Origin
    done: DoneCallback


class Driver:
    """Runs one core over one log and one state."""

    def __init__(
        self, core: Core, oplog: Log, store: Store, state: State, disk: Disk, clock: Clock
    ) -> None:
        self._core = core
        self._log = oplog
        self._store = store
        self._state = state
        self._disk = disk
        self._clock = clock
        self._stamped_ns = 0
        self._waiting: list[_Proposal] = []
        self._pending: dict[int, _Proposal] = {}
        self._wake = trio.Event()
        self._log_needed_from = 0
        self._half_applied = False
        self._uncommitted = 0
        self._uncommitted_some = trio.Event()
        self.space: SpaceGuard | None = None
        """None: never refuse for want of room before the disk itself does."""
        self.on_effects: Callable[[Sequence[Effect]], None] = _ignore
        """Gets what each entry asks of the world, before its proposer is answered."""
        self.on_applied: Callable[[], None] = _nothing
        """Called after each turn that applied something."""
        self.send: Callable[[Sequence[Envelope]], None] = _no_peers

    @property
    def term(self) -> int:
        return self._core.term

    # --- proposing ---------------------------------------------------------------------------

    def propose(
        self,
        request: Request[Any],
        done: DoneCallback,
        *,
        payload: Buffer = b"",
        origin: Origin = OWN,
    ) -> None:
        """Put a change into the log; ``done`` is called once, in the driver's task.

        NO_SPACE is raised at once when the disk has no room for it.
        """
        if self.space is not None:
            self.space.check(request)
        self._waiting.append(_Proposal(request, payload, origin, done))
        self._wake.set()

    async def perform(self, request: Request[Any]) -> Message:
        """Propose a change of the leader's own, and wait for its reply."""
        finished = trio.Event()
        outcome: list[Message | TideError] = []

        def done(reply: Message | TideError, index: int) -> None:
            outcome.append(reply)
            finished.set()

        self.propose(request, done)
        await finished.wait()
        if isinstance(outcome[0], TideError):
            raise outcome[0]
        return outcome[0]

    # --- the loop ----------------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Begin the term, and apply what the log holds beyond the state. Before ``run``."""
        while ready := self._core.ready():
            await self._perform_duties(ready)

    async def run(self) -> None:
        """Work for ever. A failing disk (other than a full one) ends it with that TideError."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_committing)
            if self._core.tick_ms:
                nursery.start_soon(self._keep_ticking)
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await self._turn()

    async def _turn(self) -> None:
        while self._waiting or (ready := self._core.ready()):
            if self._waiting:
                self._propose_waiting()
                ready = self._core.ready()
            if ready:
                await self._perform_duties(ready)
        if self._log.wants_preparation:
            await self._prepare_log()
        if self._log.first_index < self._log_needed_from:
            await self._log.truncate_prefix(self._log_needed_from)

    def _propose_waiting(self) -> None:
        """Move what waits, as much as fits in one batch, into the core."""
        first = self._core.next_index
        bodies: list[bytes] = []
        size_bytes = 0
        for proposal in self._waiting[:LOG_BATCH_MAX_ENTRIES]:
            body = self._stamp(proposal, first + len(bodies))
            size_bytes += len(body)
            if bodies and size_bytes > BATCH_MAX_BYTES:
                break
            bodies.append(body)
        batch = self._waiting[: len(bodies)]
        del self._waiting[: len(bodies)]
        try:
            records = self._core.propose(bodies)
        except TideError as error:
            for proposal in batch:
                _answer(proposal, error, 0)
            return
        for record, proposal in zip(records, batch, strict=True):
            self._pending[record.index] = proposal

    def _stamp(self, proposal: _Proposal, index: int) -> bytes:
        """The entry, with what only the leader may decide: its place and its time."""
        self._stamped_ns = max(
            self._stamped_ns + 1, self._state.totals.time_ns + 1, self._clock.wall_ns()
        )
        request, origin = proposal.request, proposal.origin
        return pack(
            Entry(
                index=index,
                term=self._core.term,
                time_ns=self._stamped_ns,
                session=origin.session,
                slot=origin.slot,
                sequence=origin.sequence,
                method=request.METHOD,
                fields=list(msgspec.structs.astuple(request)),
                payload=bytes(proposal.payload),
            )
        )

    async def _perform_duties(self, ready: Ready) -> None:
        """The four duties of ``raft/contract.py``, in their order."""
        if ready.hard_state is not None:
            await store_hard_state(self._disk, ready.hard_state)
        if ready.records:
            try:
                await self._append(ready.records)
            except TideError as error:
                if error.code is not Code.NO_SPACE:
                    raise
                self._core.abandon(ready)
                self._fail(ready.records, error)
                return
        if ready.messages:
            self.send(ready.messages)
        await self._apply_up_to(ready.committed_index, ready.records)
        self._core.advance(ready)

    async def _append(self, records: Sequence[Record]) -> None:
        if records[0].index <= self._log.last_index:
            await self._log.truncate_suffix(records[0].index)
        await self._log.append(records)

    def _fail(self, records: Sequence[Record], error: TideError) -> None:
        log.warning("%d changes are refused: %s", len(records), error)
        for record in records:
            proposal = self._pending.pop(record.index, None)
            if proposal is not None:
                _answer(proposal, error, 0)

    # --- applying ----------------------------------------------------------------------------

    async def _apply_up_to(self, committed_index: int, at_hand: Sequence[Record]) -> None:
        """Apply what is committed, from ``at_hand`` where it is, else from the log."""
        before = next_index = self._state.totals.applied_index + 1
        while next_index <= committed_index:
            if at_hand and at_hand[0].index <= next_index <= at_hand[-1].index:
                records: Sequence[Record] = at_hand[next_index - at_hand[0].index :]
            else:
                records = await self._log.read(next_index, committed_index)
            for record in records:
                if record.index <= committed_index:
                    self._apply(record)
            next_index = self._state.totals.applied_index + 1
        if next_index > before:
            self.on_applied()

    def _apply(self, record: Record) -> None:
        # From the bytes, as at a replay: what was logged is what is applied.
        entry = decode(Entry, record.body)
        assert entry.index == record.index, (entry.index, record.index)
        self._half_applied = True
        applied = self._state.apply(entry)
        self._half_applied = False
        if applied.effects:
            self.on_effects(applied.effects)
        proposal = self._pending.pop(record.index, None)
        if proposal is not None:
            _answer(proposal, applied.reply, record.index)
        self._uncommitted += 1
        if self._uncommitted >= COMMIT_ENTRIES:
            self.commit()
        elif self._uncommitted == 1:
            self._uncommitted_some.set()

    # --- around it ---------------------------------------------------------------------------

    def commit(self) -> None:
        """Let the working copy keep what was applied. A failure loses nothing: the log has it."""
        if self._half_applied:
            return  # an entry could not be applied to its end: this process is about to end
        try:
            self._store.commit()
        except TideError as error:
            log.warning("the working copy of the state cannot be written: %s", error)
        self._uncommitted = 0

    def drop_log_before(self, index: int) -> None:
        """Records before ``index`` are in a checkpoint, and may go."""
        self._log_needed_from = index
        self._wake.set()

    async def _keep_committing(self) -> None:
        while True:
            await self._uncommitted_some.wait()
            self._uncommitted_some = trio.Event()
            await trio.sleep(COMMIT_IDLE_MS / 1000)
            if self._uncommitted:
                self.commit()

    async def _keep_ticking(self) -> None:
        while True:
            await trio.sleep(self._core.tick_ms / 1000)
            self._core.tick()
            self._wake.set()

    async def _prepare_log(self) -> None:
        try:
            await self._log.prepare()
        except TideError as error:
            if error.code is not Code.NO_SPACE:
                raise
            # Tried again after the next turn; until a segment is full nothing is missing.


def _answer(proposal: _Proposal, outcome: Message | TideError, index: int) -> None:
    try:
        proposal.done(outcome, index)
    except Exception:
        log.exception("answering %s failed", type(proposal.request).__name__)


def _ignore(effects: Sequence[Effect]) -> None:
    """During the replay nobody is listening: the leader's tables are built from the state."""


def _nothing() -> None:
    pass


def _no_peers(messages: Sequence[Envelope]) -> None:
    raise AssertionError("a group of one has nobody to send to")
