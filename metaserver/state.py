"""The replicated state machine: entries in, replies and effects out.

Pure and deterministic: members that applied the same entries hold the same bytes. It lives in a
key-value store; nothing but the totals is kept in memory, so a State over a store that somebody
else filled (a checkpoint) is as good as new.
"""

from ..fs.codec import Buffer
from ..fs.errors import Code, TideError
from ..fs.ids import NO_SESSION
from ..fs.limits import SESSION_SLOTS
from ..fs.messages.base import METHODS, Message
from .effects import Applied, Effect
from .entries import INTERNAL_METHODS, Entry
from .kv import KeyValue, digest_of
from .moment import Moment
from .operations.table import decide
from .records import SlotRecord
from .tables import Tables
from .views import Views


class State(Views):
    """All that the cluster has agreed on. The reads are those of Views."""

    def __init__(self, kv: KeyValue) -> None:
        """Over what ``kv`` holds; nothing is written before the first entry is applied."""
        super().__init__(Tables(kv))

    def apply(self, entry: Entry) -> Applied:
        """Carry out the entry that follows the last one (asserted: its index is the next).

        Never raises for anything a client could send: the error is the reply, it leaves no trace
        but in the slot, and a repetition gets it again.
        """
        totals = self.tables.totals
        assert entry.index == totals.applied_index + 1, (entry.index, totals.applied_index)
        effects: list[Effect] = []
        reply = self._answer(entry, effects)
        totals.applied_index = entry.index
        totals.applied_term = entry.term
        totals.time_ns = max(totals.time_ns, entry.time_ns)
        self.tables.put_totals()
        return Applied(reply, effects)

    def precheck(
        self,
        method: int,
        fields: list[object],
        payload: Buffer = b"",
        session: int = NO_SESSION,
    ) -> None:
        """Raise what ``apply`` would refuse on the state as it is; changes nothing."""
        decide(self.tables, method, fields, payload, session)

    def digest(self) -> int:
        """A checksum of everything: equal on members that applied the same entries."""
        return digest_of(self.tables.kv.scan(b""))

    def _answer(self, entry: Entry, effects: list[Effect]) -> Message | TideError:
        """Exactly once (RFC 8881 section 2.10.6): a repetition gets the first answer."""
        if entry.session == NO_SESSION:
            return self._carry_out(entry, effects)
        sessions = self.tables.sessions
        try:
            _check_mutation(entry)
            if sessions.get(entry.session) is None:
                raise TideError(Code.SESSION_EXPIRED, f"session {entry.session}")
            last = sessions.slot(entry.session, entry.slot)
            if last is not None and entry.sequence <= last.sequence:
                return _again(entry, last)
        except TideError as error:
            return error
        reply = self._carry_out(entry, effects)
        sessions.remember(entry.session, entry.slot, entry.sequence, entry.method, reply)
        return reply

    def _carry_out(self, entry: Entry, effects: list[Effect]) -> Message | TideError:
        try:
            perform = decide(self.tables, entry.method, entry.fields, entry.payload, entry.session)
        except TideError as error:
            return error
        return perform(Moment(entry.index, entry.time_ns, effects))


def _check_mutation(entry: Entry) -> None:
    if not 0 <= entry.slot < SESSION_SLOTS or entry.sequence < 1:
        raise TideError(Code.MALFORMED, f"slot {entry.slot}, sequence {entry.sequence}")
    if entry.method in INTERNAL_METHODS:
        raise TideError(Code.UNKNOWN_METHOD, f"{METHODS[entry.method].__name__} of a client")


def _again(entry: Entry, last: SlotRecord) -> Message | TideError:
    """The answer to a mutation that is not newer than the slot's last one."""
    if entry.sequence < last.sequence:
        raise TideError(
            Code.STALE_SEQUENCE,
            f"slot {entry.slot} of session {entry.session} is at {last.sequence}, not"
            f" {entry.sequence}",
        )
    if entry.method != last.method:
        raise TideError(
            Code.MALFORMED,
            f"sequence {entry.sequence} of slot {entry.slot} was another request before",
        )
    return last.answer()
