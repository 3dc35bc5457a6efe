"""The loop around consensus: messages and proposals in, persist, send, apply, answer.

One task runs ``run`` and does the five duties of ``raft/contract.py``. All that waits when a turn
begins goes into the log together and shares its sync (group commit); what arrives meanwhile shares
the next. Nothing is applied, and nobody answered, before the sync has returned. Only the applying
may lag behind its Ready: it is done in slices, so that a member with much to apply is still heard.
"""

import logging
from collections.abc import Callable, Sequence

import trio

from ..fs.errors import Code, TideError
from ..fs.ids import ServerId, server_name
from ..fs.log import Once
from ..fs.ports.clock import Clock
from .applying import Applier
from .checkpoint import Checkpoint
from .effects import Effect
from .feeding import Feeder, Tail
from .hard_state import HardStateFile
from .proposing import Proposals
from .raft.contract import Core, Envelope, Ready, Record, Role, Timing
from .reading import Reads
from .recovery import Recovered, begin_anew
from .space import SpaceGuard
from .state import State
from .store import Store

RETRY_READ_MS = 20
TICK_MIN_S = 1e-6

log = logging.getLogger(__name__)


class Loop:
    """Runs one core over one log and one state. What others want of it is in ``driver.py``."""

    _nursery: trio.Nursery
    """That of ``run``."""

    def __init__(
        self,
        core: Core,
        recovered: Recovered,
        hard_state: HardStateFile,
        clock: Clock,
        timing: Timing,
    ) -> None:
        """Takes over what was ``recovered``, and the file: ``close`` gives them back."""
        self._core = core
        self._log = recovered.oplog
        self._checkpoints = recovered.checkpoints
        self._stores = recovered.stores
        self._hard_state = hard_state
        self._clock = clock
        self._patience_s = 2 * timing.election_min_ns / 1e9
        """How long an election may take when all goes well."""
        self._tail = Tail()
        self._feeder = Feeder(self._log, self._tail, lambda term: self._term == term)
        self._applier = Applier(recovered.store, recovered.state, self._log, self._tail)
        self._proposals = Proposals(clock)
        self._applier.answer = self._proposals.answer
        self._applier.on_effects = self._take_effects
        self._reads = Reads()
        self._inbox: list[Envelope] = []
        self._calls: list[Callable[[int], None]] = []
        self._snapshots: list[tuple[Checkpoint, Store, trio.Event]] = []
        self._wake = trio.Event()
        self._watchers: list[tuple[Callable[[], bool], trio.Event]] = []
        """Who waits for what. It is looked at here: to wake a task costs more than the question."""
        self._armed_ns: int | None = None
        self._until_armed = trio.CancelScope()
        self._term = 0
        """The one that this member leads, 0: none."""
        self._log_needed_from = 0
        self._preparing_log = False
        self._once = Once(log)
        self.space: SpaceGuard | None = None
        """None: never refuse for want of room before the disk itself does."""
        self.on_effects: Callable[[Sequence[Effect]], None] = _ignore
        """Gets what each entry of the term that this member leads asks of the world, before its
        proposer is answered. Who does not lead does nothing."""
        self.on_applied: Callable[[], None] = _nothing
        """Called after each turn that applied something."""
        self.on_state_changed: Callable[[], None] = _nothing
        """Called when ``state`` is another object, after a snapshot was installed."""

    def leads(self) -> bool:
        """Whether this member is the leader, as far as it knows."""
        return self._core.role is Role.LEADER

    # --- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Work for ever. A failing disk (other than a full one) ends it with that TideError."""
        async with trio.open_nursery() as nursery:
            self._nursery = self._feeder.nursery = nursery
            nursery.start_soon(self._applier.keep_committing)
            nursery.start_soon(self._keep_ticking)
            self._wake.set()
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await self._turn()

    async def _turn(self) -> None:
        """Until there is nothing to do."""
        while True:
            self._hear(self._clock.monotonic_ns())
            if self._snapshots:
                await self._install(*self._snapshots.pop(0))
            ready = self._core.ready()
            self._note_leading()
            if ready is not None:
                await self._perform_duties(ready)
            elif self._applier.is_behind:
                await self._apply()
            else:
                break
            self._tell_watchers()
        if self._log.wants_preparation and not self._preparing_log:
            self._preparing_log = True
            self._nursery.start_soon(self._prepare_log)
        if self._log_needed_from:
            await self._shorten_log()
        self._tell_watchers()
        self._arm()

    def _hear(self, now_ns: int) -> None:
        """All that came in since the last turn, in this order: messages before the time, so that
        who was paused does not stand for election before it has read what lies there."""
        core = self._core
        if self._inbox:
            inbox, self._inbox = self._inbox, []
            for envelope in inbox:
                self._step(envelope, now_ns)
        deadline_ns = core.deadline_ns
        if deadline_ns is not None and deadline_ns <= now_ns:
            core.tick(now_ns)
        if self._calls:
            calls, self._calls = self._calls, []
            for call in calls:
                call(now_ns)
        self._reads.ask(core, now_ns)
        if self._proposals.waiting:
            self._propose_waiting(now_ns)

    def _step(self, envelope: Envelope, now_ns: int) -> None:
        try:
            self._core.step(envelope, now_ns)
        except TideError as error:
            sender, what = server_name(ServerId(envelope.sender)), type(envelope.message).__name__
            self._once.warn(
                f"{sender} {what} {error.code}", "%s of %s is refused: %s", what, sender, error
            )

    def _propose_waiting(self, now_ns: int) -> None:
        """Move what waits, as much as fits in one batch, into the core."""
        core, proposals = self._core, self._proposals
        state_ns = self._applier.state.totals.time_ns
        bodies = proposals.next_batch(core.next_index, core.term, state_ns)
        if not bodies:
            return
        try:
            proposals.accepted(core.propose(bodies, now_ns))
        except TideError as error:
            proposals.refuse(len(bodies), error)

    def _note_leading(self) -> None:
        """Whether this member leads is decided whenever the core is called; here it is noticed,
        before anything of another term is applied."""
        core = self._core
        term = core.term if core.role is Role.LEADER else 0
        if term != self._term:
            if self._term:
                log.info("this metaserver does not lead term %d any more", self._term)
                self._proposals.fail_all(self._not_leader())
            if term:
                log.info("this metaserver leads term %d", term)
            self._term = term

    def _not_leader(self) -> TideError:
        if self._core.leader and not self.leads():
            name = server_name(ServerId(self._core.leader))
            return TideError(Code.NOT_LEADER, f"metaserver {name} leads")
        return TideError(Code.NOT_LEADER, "it is not known which metaserver leads")

    # --- the five duties ---------------------------------------------------------------------

    async def _perform_duties(self, ready: Ready) -> None:
        """Those of ``raft/contract.py``, in their order."""
        self._tail.put(ready.records)
        if ready.early:
            self._feeder.post(ready.early)
        if self._term:
            await self._answer_early(ready)
        if ready.hard_state is not None:
            await self._hard_state.store(ready.hard_state)
        if ready.records:
            try:
                await self._append(ready.records)
            except TideError as error:
                if error.code is not Code.NO_SPACE:
                    raise
                self._abandon(ready, error)
                return
        if ready.messages:
            self._feeder.post(ready.messages)
        self._applier.committed(ready.committed_index)
        self._reads.learn(ready.reads)
        await self._apply()
        self._core.advance(ready, self._clock.monotonic_ns())

    async def _answer_early(self, ready: Ready) -> None:
        """Somebody waits for a leader: what is committed, and on this disk already, is applied and
        answered before the disk is waited for once more."""
        durable_index = ready.records[0].index - 1 if ready.records else self._log.last_index
        self._applier.committed(min(ready.committed_index, durable_index))
        if self._applier.is_behind:
            await self._apply()

    async def _append(self, records: Sequence[Record]) -> None:
        if records[0].index <= self._log.last_index:
            await self._log.truncate_suffix(records[0].index)
        await self._log.append(records)

    def _abandon(self, ready: Ready, error: TideError) -> None:
        """There is no room in the log. Who leads others does not any more, and nobody knows what
        they make of its records; who is alone knows that they are gone."""
        self._tail.drop_from(ready.records[0].index)
        self._core.abandon(ready, self._clock.monotonic_ns())
        log.warning("%d records found no room in the log: %s", len(ready.records), error)
        self._note_leading()
        self._proposals.fail(ready.records, error)

    async def _apply(self) -> None:
        """A slice of what is committed; then let others run, if that was not all."""
        before = self._applier.applied_index
        await self._applier.apply_slice()
        applied_index = self._applier.applied_index
        self._reads.applied(applied_index)
        if applied_index > before:
            self.on_applied()
        if self._applier.is_behind:
            await trio.lowlevel.checkpoint()

    def _take_effects(self, term: int, effects: Sequence[Effect]) -> None:
        if term == self._term:
            self.on_effects(effects)

    # --- time --------------------------------------------------------------------------------

    async def _keep_ticking(self) -> None:
        """Wake the loop whenever the core's deadline has come."""
        while True:
            deadline_ns = self._armed_ns = self._core.deadline_ns
            if deadline_ns is not None and deadline_ns <= self._clock.monotonic_ns():
                self._wake.set()
                await self.until(lambda: not self._is_due())
                continue
            with trio.CancelScope() as self._until_armed:
                if deadline_ns is None:
                    await trio.sleep_forever()
                left_ns = deadline_ns - self._clock.monotonic_ns()
                await trio.sleep(max(TICK_MIN_S, left_ns / 1e9))

    def _is_due(self) -> bool:
        deadline_ns = self._core.deadline_ns
        return deadline_ns is not None and deadline_ns <= self._clock.monotonic_ns()

    def _tell_watchers(self) -> None:
        """Wake those whose condition has come true."""
        for condition, happened in self._watchers:
            if condition():
                happened.set()

    def _arm(self) -> None:
        """Have the sleep end in time. Later deadlines, which come with every message, are found
        when it is over."""
        deadline_ns = self._core.deadline_ns
        if deadline_ns is not None and (self._armed_ns is None or deadline_ns < self._armed_ns):
            self._armed_ns = deadline_ns
            self._until_armed.cancel()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that only turns bring about."""
        while not condition():
            watcher = condition, trio.Event()
            self._watchers.append(watcher)
            try:
                await watcher[1].wait()
            finally:
                self._watchers.remove(watcher)

    # --- around it ---------------------------------------------------------------------------

    async def _install(self, checkpoint: Checkpoint, store: Store, installed: trio.Event) -> None:
        """Between two Readies."""
        state = State(store.kv)
        index, term = state.totals.applied_index, state.totals.applied_term
        if self.leads():
            store.close()  # elected meanwhile; if it is still needed one day, it is still there
        elif not self._core.wants_snapshot(index, term):
            store.close()
            await self._checkpoints.settle(checkpoint, index, term, received=False)
        else:
            self._applier.replace(store, state)
            await begin_anew(self._checkpoints, checkpoint, state, self._log)
            self._tail.clear()
            group = state.tables.servers.group() or self._core.configuration
            self._core.restored(index, term, group, self._clock.monotonic_ns())
            log.info("the checkpoint of %d that the leader sent is installed", index)
            self._reads.applied(index)
            self.on_state_changed()
            self.on_applied()
        installed.set()

    async def _shorten_log(self) -> None:
        needed_from, self._log_needed_from = self._log_needed_from, 0
        before = self._log.first_index
        await self._log.truncate_prefix(needed_from)
        if self._log.first_index > before:
            self._core.dropped_prefix(self._log.first_index)

    async def _prepare_log(self) -> None:
        """Beside the loop: it can take long, and is in no hurry."""
        try:
            await self._log.prepare()
        except TideError as error:
            if error.code is not Code.NO_SPACE:
                raise
            # Tried again after the next turn; until a segment is full nothing is missing.
        finally:
            self._preparing_log = False


def _ignore(effects: Sequence[Effect]) -> None:
    """As long as nobody leads here: the leader's tables are built from the state."""


def _nothing() -> None:
    pass
