"""Appends get their records: from memory, from the log, in order, in pieces, or not at all."""

import pytest
import trio
from tidefs.fs.limits import APPEND_MAX_BYTES
from tidefs.fs.messages.raft import Append, Heartbeat
from tidefs.metaserver import feeding
from tidefs.metaserver.feeding import Feeder, Tail, split
from tidefs.metaserver.oplog import Log
from tidefs.metaserver.raft.contract import Envelope, Record

from .fake_disk import SMALL_SEGMENT_BYTES, FakeDisk

LAST = 300


def record(index: int, *, term: int = 1, size: int = 100) -> Record:
    return Record(term, index, bytes([index % 256]) * size)


def append(first: int, last: int, *, receiver: int = 2, term: int = 1) -> Envelope:
    previous_term = 0 if first == 1 else 1
    return Envelope(1, receiver, Append(term, first - 1, previous_term, 0, last - first + 1, []))


class Bench:
    """A feeder over a log; ``gate`` holds its reads up."""

    def __init__(self, nursery: trio.Nursery):
        self.sent: list[Envelope] = []
        self.term = 1
        self.tail = Tail()
        self.gate = trio.Event()
        self._nursery = nursery

    async def open(self) -> "Bench":
        self.log = await Log.open(FakeDisk(), "cluster", segment_bytes=SMALL_SEGMENT_BYTES)
        await self.log.append([record(index) for index in range(1, LAST + 1)])
        read = self.log.read

        async def gated(first, last, **options):
            await self.gate.wait()
            return await read(first, last, **options)

        self.log.read = gated
        self.feeder = Feeder(self.log, self.tail, lambda term: term == self.term)
        self.feeder.nursery = self._nursery
        self.feeder.send = self.sent.extend
        return self

    def indexes(self, receiver: int = 2) -> list[int]:
        return [
            one.index for sent in self.sent if sent.receiver == receiver for one in sent.records
        ]


async def settled():
    await trio.testing.wait_all_tasks_blocked()


async def test_what_is_in_memory_is_sent_at_once(nursery):
    bench = await Bench(nursery).open()
    bench.tail.put([record(index) for index in range(100, LAST + 1)])
    bench.feeder.post([append(100, 150), append(151, 160)])
    assert bench.indexes() == list(range(100, 161))


async def test_other_messages_do_not_wait_for_the_disk(nursery):
    bench = await Bench(nursery).open()
    bench.feeder.post([append(1, 50), Envelope(1, 2, Heartbeat(1, 0, 1)), append(1, 0)])
    assert [type(one.message) for one in bench.sent] == [Heartbeat, Append]
    bench.gate.set()
    await settled()
    assert bench.indexes() == list(range(1, 51))


async def test_appends_to_one_member_keep_their_order(nursery):
    """Those that are in memory wait behind those that have to be read; other members' do not."""
    bench = await Bench(nursery).open()
    bench.tail.put([record(index) for index in range(200, LAST + 1)])
    bench.feeder.post([append(100, 199), append(200, 250), append(200, 210, receiver=3)])
    assert bench.indexes(3) == list(range(200, 211))
    assert not bench.indexes(2)
    bench.gate.set()
    await settled()
    assert bench.indexes(2) == list(range(100, 251))
    for one in bench.sent:
        assert one.message.previous_index + 1 == one.records[0].index
        assert one.message.count == len(one.records)


async def test_what_waits_already_is_not_sent_twice(nursery):
    bench = await Bench(nursery).open()
    bench.feeder.post([append(1, 50), append(51, 100), append(101, 150)])
    await settled()  # the first one is being read
    bench.feeder.post([append(51, 100)])
    bench.gate.set()
    await settled()
    assert bench.indexes() == list(range(1, 151))


async def test_who_goes_back_makes_what_waits_out_of_date(nursery):
    bench = await Bench(nursery).open()
    bench.feeder.post([append(101, 150), append(151, 200), append(201, 250)])
    await settled()
    bench.feeder.post([append(120, 160)])
    bench.gate.set()
    await settled()
    assert bench.indexes() == [*range(101, 151), *range(120, 161)]


async def test_nothing_is_sent_for_a_term_that_is_over(nursery):
    bench = await Bench(nursery).open()
    bench.feeder.post([append(1, 50), append(51, 100)])
    await settled()
    bench.term = 2
    bench.feeder.post([append(1, 20, term=2)])
    bench.gate.set()
    await settled()
    assert bench.indexes() == list(range(1, 21))
    assert {one.message.term for one in bench.sent} == {2}


async def test_what_is_not_in_the_log_any_more_is_dropped(nursery):
    bench = await Bench(nursery).open()
    await bench.log.truncate_prefix(200)
    bench.gate.set()
    bench.feeder.post([append(1, 50), append(250, 260)])
    await settled()
    assert bench.indexes() == list(range(250, 261))


# --- pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[10] * 7, [APPEND_MAX_BYTES], [APPEND_MAX_BYTES + 1, 5, 5]])
def test_pieces_have_all_records_in_order(sizes):
    records = [record(index, size=size) for index, size in enumerate(sizes, 5)]
    envelope = append(5, 4 + len(records))
    pieces = split(envelope, envelope.message, records)
    assert [one for piece in pieces for one in piece.records] == records
    previous = (4, 1)
    for piece in pieces:
        assert (piece.message.previous_index, piece.message.previous_term) == previous
        assert piece.message.count == len(piece.records)
        assert len(piece.records) == 1 or sum(len(one.body) for one in piece.records) <= (
            APPEND_MAX_BYTES
        )
        previous = (piece.records[-1].index, piece.records[-1].term)


# --- the tail ------------------------------------------------------------------------------------


def test_the_tail_is_bounded_in_records_and_bytes(monkeypatch):
    monkeypatch.setattr(feeding, "TAIL_MAX_RECORDS", 20)
    monkeypatch.setattr(feeding, "TAIL_MAX_BYTES", 1_500)
    tail = Tail()
    for index in range(1, 100):
        tail.put([record(index)])
        assert tail.get(index, index)
    held = [index for index in range(1, 100) if tail.get(index, index)]
    assert 5 <= len(held) <= 15
    tail.put([record(100, size=5_000)])
    assert not tail.get(100, 100), "larger than all of it"


def test_what_is_contradicted_leaves_the_tail():
    tail = Tail()
    tail.put([record(index) for index in range(1, 11)])
    tail.put([record(6, term=2)])
    assert [one.term for one in tail.get(4, 10)] == [1, 1, 2]
    tail.put([record(20, term=2)])
    assert not tail.get(6, 6)
    assert tail.get(20, 25)
    tail.drop_from(20)
    assert not tail.get(20, 20)
