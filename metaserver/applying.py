"""The state and its working copy: what is committed is applied in slices, and kept now and then."""

import logging
from collections.abc import Callable, Sequence

import trio

from ..fs.codec import decode, unpack
from ..fs.errors import TideError
from ..fs.messages.base import Message
from .effects import Effect
from .entries import Entry, Noop, SetMembers
from .feeding import Tail
from .oplog import Log
from .raft.contract import Kind, Record
from .state import State
from .store import Store

SLICE_ENTRIES = 256
"""So many are applied (some 10 ms) before messages are heard again: who has much to catch up with
must not look dead."""
COMMIT_ENTRIES = 2_000
"""After so many applied entries the working copy is committed, in the middle of the work."""
COMMIT_IDLE_MS = 200
"""And so long after the first one that is not, whatever happens."""

log = logging.getLogger(__name__)


class Applier:
    """Applies records of ``oplog``, from memory where ``tail`` has them."""

    def __init__(self, store: Store, state: State, oplog: Log, tail: Tail) -> None:
        self.store = store
        self.state = state
        self._log = oplog
        self._tail = tail
        self._committed_index = state.totals.applied_index
        self._half_applied = False
        self._uncommitted = 0
        self.applied_count = 0
        """Entries since the start."""
        self._uncommitted_some = trio.Event()
        self.answer: Callable[[int, Message | TideError], None] = _nobody
        """Gets the index of each entry and its reply."""
        self.on_effects: Callable[[int, Sequence[Effect]], None] = _nobody
        """Gets the term of an entry and what it asks of the world, before it is answered."""

    @property
    def applied_index(self) -> int:
        return self.state.totals.applied_index

    @property
    def is_behind(self) -> bool:
        """Whether there is something to apply."""
        return self.state.totals.applied_index < self._committed_index

    def committed(self, index: int) -> None:
        """Entries up to ``index`` are committed, and in the log."""
        self._committed_index = max(self._committed_index, index)

    async def apply_slice(self) -> None:
        """Apply what is to be applied, or as much as may be done at once."""
        first = self.applied_index + 1
        last = min(self._committed_index, first + SLICE_ENTRIES - 1)
        if first > last:
            return
        records = self._tail.get(first, last) or await self._log.read(first, last)
        for record in records:
            self._apply(record)
        self.applied_count += len(records)

    def _apply(self, record: Record) -> None:
        # From the bytes, as at a replay: what was logged is what is applied.
        entry = decode(Entry, record.body) if record.kind is Kind.ENTRY else self._entry_of(record)
        assert entry.index == record.index, (entry.index, record.index)
        self._half_applied = True
        applied = self.state.apply(entry)
        self._half_applied = False
        if applied.effects:
            self.on_effects(record.term, applied.effects)
        self.answer(record.index, applied.reply)
        self._uncommitted += 1
        if self._uncommitted >= COMMIT_ENTRIES:
            self.commit()
        elif self._uncommitted == 1:
            self._uncommitted_some.set()

    def _entry_of(self, record: Record) -> Entry:
        """A record of consensus' own, for the state: the same on every member."""
        members = record.kind is Kind.MEMBERS
        return Entry(
            index=record.index,
            term=record.term,
            time_ns=self.state.totals.time_ns,
            session=0,
            slot=0,
            sequence=0,
            method=SetMembers.METHOD if members else Noop.METHOD,
            fields=[unpack(record.body)] if members else [],
            payload=b"",
        )

    def replace(self, store: Store, state: State) -> None:
        """Go on with these, of which all is committed; the ones so far are given back."""
        self.store.close()
        self.store, self.state = store, state
        self._uncommitted = 0
        self.committed(state.totals.applied_index)

    def commit(self) -> None:
        """Let the working copy keep what was applied. A failure loses nothing: the log has it."""
        if self._half_applied:
            return  # an entry could not be applied to its end: this process is about to end
        try:
            self.store.commit()
        except TideError as error:
            log.warning("the working copy of the state cannot be written: %s", error)
        self._uncommitted = 0

    async def keep_committing(self) -> None:
        """For ever."""
        while True:
            await self._uncommitted_some.wait()
            self._uncommitted_some = trio.Event()
            await trio.sleep(COMMIT_IDLE_MS / 1000)
            if self._uncommitted:
                self.commit()


def _nobody(which: int, what: object) -> None:
    pass
