"""A checkpoint from the leader is installed; power fails, or the process dies, at every step."""

import pytest
import trio
from tidefs.fs.codec import decode, pack
from tidefs.fs.messages.meta import MakeDirectory
from tidefs.fs.messages.places import ServerPlace
from tidefs.metaserver.checkpoint import Checkpoints, _digest
from tidefs.metaserver.entries import Entry, FormatCluster
from tidefs.metaserver.format import configuration_of
from tidefs.metaserver.hard_state import HardStateFile
from tidefs.metaserver.kv_memory import MemoryKeyValue
from tidefs.metaserver.oplog import Log
from tidefs.metaserver.raft.contract import HardState, Record
from tidefs.metaserver.recovery import recover
from tidefs.metaserver.state import State
from tidefs.metaserver.store_memory import MemoryStore, MemoryStores
from tidefs.tests.sim.kept_stores import Kept, KeptStores

from .drivers import SEGMENT_BYTES, FakeClock, start_one
from .stepped_disk import SteppedDisk, died

OLD_APPLIED, OLD_LAST = 50, 300
"""Of the member: state and log."""
FOUNDERS = configuration_of([ServerPlace(server, "", []) for server in (1, 2, 3)])


def entries(last: int, forked_from: int) -> list[Record]:
    """Of term 1, and from ``forked_from`` on of term 2, where they say something else."""
    records = []
    for index in range(1, last + 1):
        term = 1 if index < forked_from else 2
        request = (
            FormatCluster("cluster", 1, 0o755, 0, 0)
            if index == 1
            else MakeDirectory(1, f"t{term}-{index}".encode(), 0o755, 0, 0)
        )
        fields = [getattr(request, name) for name in request.__struct_fields__]
        entry = Entry(index, term, index, 0, 0, 0, request.METHOD, fields, b"x" * 300)
        records.append(Record(term, index, pack(entry)))
    return records


def state_at(records: list[Record], last: int) -> State:
    state = State(MemoryKeyValue())
    for record in records[:last]:
        state.apply(decode(Entry, record.body))
    return state


async def make_member(disk: SteppedDisk) -> None:
    """A checkpoint, a long log behind it, all of term 1."""
    records = entries(OLD_LAST, OLD_LAST + 1)
    log = await Log.open(disk, "cluster", segment_bytes=SEGMENT_BYTES)
    await log.append(records)
    log.close()
    store = MemoryStore(disk, state_at(records, OLD_APPLIED).tables.kv)
    await Checkpoints(disk, "cluster").make(store, OLD_APPLIED, 1)
    hard_state = await HardStateFile.open(disk)
    await hard_state.store(HardState(2, 2))
    hard_state.close()


async def receive(disk: SteppedDisk, index: int, term: int) -> None:
    """What the snapshot's receiver leaves: the whole file."""
    disk.make_folder("incoming")
    await disk.sync_folder("")
    store = MemoryStore(disk, state_at(entries(index, OLD_APPLIED + 1), index).tables.kv)
    await store.copy_to("incoming/state")
    file = disk.open("incoming/state")
    await file.sync()
    file.close()
    await disk.sync_folder("incoming")


async def install(disk: SteppedDisk, stores, index: int, term: int) -> None:
    driver = await start_one(disk, FakeClock(), stores=stores, founders=FOUNDERS)
    file = disk.open("incoming/state")
    length, digest = await _digest(file)
    file.close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        checkpoint = await Checkpoints(disk, "cluster").adopt(
            "incoming", index=index, term=term, length=length, checksum=digest
        )
        await driver.install(checkpoint)
        assert driver.state.totals.applied_index == index
        assert driver.core.commit_index == index
        assert driver.oplog.last_index == index
        nursery.cancel_scope.cancel()


async def check(disk: SteppedDisk, stores, index: int, *, finished: bool) -> None:
    """All of the old log, or the snapshot and nothing else."""
    recovered = await recover(disk, stores, "cluster", segment_bytes=SEGMENT_BYTES)
    log, applied_index = recovered.oplog, recovered.state.totals.applied_index
    if applied_index == index:
        assert (log.first_index, log.last_index, log.last_term) == (index + 1, index, 2)
        expected = state_at(entries(index, OLD_APPLIED + 1), index)
    else:
        assert not finished, "what was installed is there"
        assert (log.first_index, log.last_index, log.last_term) == (1, OLD_LAST, 1)
        assert applied_index == OLD_APPLIED
        expected = state_at(entries(OLD_APPLIED, OLD_LAST), OLD_APPLIED)
    assert recovered.state.digest() == expected.digest()
    records = entries(log.last_index + 3, OLD_APPLIED + 1)[log.last_index :]
    await log.append(records)
    log.close()
    again = await recover(disk, stores, "cluster", segment_bytes=SEGMENT_BYTES)
    assert again.oplog.last_index == log.last_index
    again.oplog.close()


CASES = [(400, 2), (120, 2)]
"""A snapshot ahead of the log's end, and one that the log contradicts."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("crash", [True, False])
@pytest.mark.parametrize("kept", [True, False])
def test_at_every_step(case, crash, kept):
    index, term = case

    async def attempt(die_at: int) -> bool:
        """Whether it was done before that step."""
        disk, keep = SteppedDisk(), Kept()

        def stores():
            return KeptStores(disk, keep) if kept else MemoryStores(disk)

        await make_member(disk)
        await receive(disk, index, term)
        disk.steps, disk.die_at = 0, die_at
        finished = False
        try:
            await install(disk, stores(), index, term)
            finished = True
        except BaseException as error:
            if not died(error):
                raise
        disk.fail((case, die_at), crash=crash)
        await check(disk, stores(), index, finished=finished)
        return finished

    async def main():
        die_at = 1
        while not await attempt(die_at):
            die_at += 1
        assert die_at > 40

    trio.run(main)
