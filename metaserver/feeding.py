"""What the other members still need of the log: Appends get their records here.

The core says which records are meant. Those written of late are in memory; older ones are read
from the log in a task of their own, one for each receiver, so that nobody waits for a member that
has fallen behind.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate

import msgspec
import trio

from ..fs.limits import APPEND_MAX_BYTES, MIB
from ..fs.messages.raft import Append
from .oplog import Log
from .raft.contract import Envelope, Record

TAIL_MAX_BYTES = 8 * MIB
TAIL_MAX_RECORDS = 8_192
_DROPPED_PARTS = 4
"""When it is full, one part in so many goes at once."""


class Tail:
    """The last records of the log, in memory; they follow one another."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._size_bytes = 0

    def put(self, records: Sequence[Record]) -> None:
        """These are the last ones now; what they contradict goes."""
        if not records:
            return
        self.drop_from(records[0].index)
        if self._records and self._records[-1].index + 1 != records[0].index:
            self.clear()
        self._records.extend(records)
        self._size_bytes += sum(len(record.body) for record in records)
        while self._size_bytes > TAIL_MAX_BYTES or len(self._records) > TAIL_MAX_RECORDS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        count = -(-len(self._records) // _DROPPED_PARTS)
        self._size_bytes -= sum(len(record.body) for record in self._records[:count])
        del self._records[:count]

    def drop_from(self, index: int) -> None:
        """The record at ``index`` and those behind it are not in the log any more."""
        while self._records and self._records[-1].index >= index:
            self._size_bytes -= len(self._records.pop().body)

    def clear(self) -> None:
        """The log goes another way."""
        self._records.clear()
        self._size_bytes = 0

    def get(self, first: int, last: int) -> Sequence[Record]:
        """Records ``first`` to ``last``; none at all when the first is not here."""
        if not self._records or not self._records[0].index <= first <= self._records[-1].index:
            return ()
        start = first - self._records[0].index
        return self._records[start : start + last - first + 1]


class Feeder:
    """Fills Appends with records. Its tasks run in ``nursery``, which the driver sets."""

    nursery: trio.Nursery

    def __init__(self, oplog: Log, tail: Tail, leads_in: Callable[[int], bool]) -> None:
        """``leads_in``: whether this member is still the leader of that term."""
        self._log = oplog
        self._tail = tail
        self._leads_in = leads_in
        self._queues: dict[int, deque[Envelope]] = {}
        """Appends that need the disk, and those behind them, by receiver; each has a task."""
        self.send: Callable[[Sequence[Envelope]], None] = _nobody

    def post(self, envelopes: Sequence[Envelope]) -> None:
        """Send all of them, those whose records must be read a little later."""
        filled: list[Envelope] = []
        for envelope in envelopes:
            message = envelope.message
            if type(message) is not Append or message.count == 0:
                filled.append(envelope)
            elif envelope.receiver in self._queues:
                self._wait(envelope)
            else:
                first = message.previous_index + 1
                records = self._tail.get(first, message.previous_index + message.count)
                if len(records) == message.count:
                    filled.extend(split(envelope, message, records))
                else:
                    self._wait(envelope)
        if filled:
            self.send(filled)

    def _wait(self, envelope: Envelope) -> None:
        """Put it behind the others for that receiver, if it goes on where they end. If not the
        core has gone back, and they are out of date; unless they are at that point themselves:
        heartbeats overtake Appends that wait here, and so they may seem to be lost."""
        queue = self._queues.get(envelope.receiver)
        if queue is None:
            queue = self._queues[envelope.receiver] = deque()
            self.nursery.start_soon(self._work_off, envelope.receiver, queue)
        first, _ = _range(envelope)
        if queue and queue[0].message.term != envelope.message.term:
            queue.clear()
        if queue and first == _range(queue[0])[0]:
            return
        if queue and first != _range(queue[-1])[1]:
            queue.clear()
        queue.append(envelope)

    async def _work_off(self, receiver: int, queue: deque[Envelope]) -> None:
        try:
            while queue:
                envelope = queue.popleft()
                assert isinstance(envelope.message, Append)
                await self._read_and_send(envelope, envelope.message)
        finally:
            del self._queues[receiver]

    async def _read_and_send(self, envelope: Envelope, message: Append) -> None:
        """Piece by piece; what is out of date by the time it was read is dropped."""
        last = message.previous_index + message.count
        while message.previous_index < last:
            if not self._may_send(message):
                return
            records = await self._log.read(
                message.previous_index + 1, last, bytes_max=APPEND_MAX_BYTES
            )
            if not records or not self._leads_in(message.term):
                return
            for piece in split(envelope, message, records):
                self.send([piece])
            message = msgspec.structs.replace(
                message,
                previous_index=records[-1].index,
                previous_term=records[-1].term,
                count=last - records[-1].index,
            )

    def _may_send(self, message: Append) -> bool:
        """Whether it is still the leader's word, and the log still has it."""
        first = message.previous_index + 1
        return (
            self._leads_in(message.term)
            and self._log.terms.at(message.previous_index) == message.previous_term
            and self._log.first_index <= first
            and message.previous_index + message.count <= self._log.last_index
        )


def split(envelope: Envelope, message: Append, records: Sequence[Record]) -> list[Envelope]:
    """The Append as one or more with its records, none with more bytes than APPEND_MAX_BYTES
    unless it is of one record."""
    pieces: list[Envelope] = []
    previous_index, previous_term = message.previous_index, message.previous_term
    ends = list(accumulate(len(record.body) for record in records))
    start = 0
    while start < len(records):
        before_bytes = ends[start - 1] if start else 0
        stop = max(start + 1, bisect_right(ends, before_bytes + APPEND_MAX_BYTES))
        piece = records[start:stop]
        part = msgspec.structs.replace(
            message,
            previous_index=previous_index,
            previous_term=previous_term,
            count=len(piece),
        )
        pieces.append(envelope._replace(message=part, records=piece))
        previous_index, previous_term = piece[-1].index, piece[-1].term
        start = stop
    return pieces


def _range(envelope: Envelope) -> tuple[int, int]:
    """The first record that an Append means, and the one behind its last."""
    message = envelope.message
    assert isinstance(message, Append)
    return message.previous_index + 1, message.previous_index + 1 + message.count


def _nobody(envelopes: Sequence[Envelope]) -> None:
    """As long as nobody sends them, messages are lost: that may always happen."""
