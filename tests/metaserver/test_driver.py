"""The driver: persist, then apply, then answer; group commit; a full disk refuses and recovers."""

import pytest
import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import FRAME_PAYLOAD_MAX_BYTES, MIB
from tidefs.fs.messages.meta import Create, Entry, MakeDirectory, RemoveDirectory, Unlink
from tidefs.metaserver.driver import Driver
from tidefs.metaserver.entries import FormatCluster
from tidefs.metaserver.space import SpaceGuard
from tidefs.metaserver.state import State

from .drivers import FakeClock, start_one
from .fake_disk import FakeDisk


async def start(
    nursery: trio.Nursery, disk: FakeDisk, clock: FakeClock | None = None
) -> tuple[Driver, State]:
    """A driver that runs and leads a group of one, and its state."""
    driver = await start_one(disk, clock or FakeClock())
    nursery.start_soon(driver.run)
    await driver.wait_leading()
    return driver, driver.state


async def recovered(disk: FakeDisk) -> State:
    """What somebody who starts on this disk, and leads, has for a state."""
    async with trio.open_nursery() as nursery:
        _, state = await start(nursery, disk)
        nursery.cancel_scope.cancel()
    return state


def formatted() -> FormatCluster:
    return FormatCluster("cluster", 1, 0o755, 0, 0)


def mkdir(name: str) -> MakeDirectory:
    return MakeDirectory(1, name.encode(), 0o755, 0, 0)


class Answers:
    """What a driver answered, in order."""

    def __init__(self):
        self.outcomes: list[tuple[object, int]] = []
        self._more = trio.Event()

    def __call__(self, outcome, index):
        self.outcomes.append((outcome, index))
        self._more.set()

    async def wait(self, count):
        while len(self.outcomes) < count:
            self._more = trio.Event()
            await self._more.wait()


async def test_nothing_is_answered_before_it_is_synced(nursery):
    disk = FakeDisk()
    driver, state = await start(nursery, disk)
    await driver.perform(formatted())
    disk.sync_gate = trio.Event()
    answers = Answers()
    driver.propose(mkdir("a"), answers)
    await trio.testing.wait_all_tasks_blocked()
    assert not answers.outcomes
    with pytest.raises(TideError):
        state.lookup(1, b"a")
    crashed = disk.crash()
    disk.sync_gate.set()
    await answers.wait(1)
    assert isinstance(answers.outcomes[0][0], Entry)
    assert state.lookup(1, b"a")

    lost = await recovered(crashed)
    with pytest.raises(TideError):
        lost.lookup(1, b"a")
    kept = await recovered(disk.crash())
    assert kept.lookup(1, b"a")
    assert kept.listing(1, 0, 10) == state.listing(1, 0, 10)


async def test_all_that_wait_share_a_sync(nursery):
    disk = FakeDisk()
    driver, state = await start(nursery, disk)
    await driver.perform(formatted())
    answers = Answers()
    disk.syncs.clear()
    for number in range(16):
        driver.propose(mkdir(f"d{number}"), answers)
    await answers.wait(16)
    logs = [path for path in disk.syncs if path.startswith("log/0")]
    assert len(logs) == 1
    indexes = [index for _, index in answers.outcomes]
    assert indexes == list(range(indexes[0], indexes[0] + 16))
    assert len(state.listing(1, 0, 100).entries) == 16


async def test_what_arrives_during_a_sync_shares_the_next(nursery):
    disk = FakeDisk()
    driver, _ = await start(nursery, disk)
    await driver.perform(formatted())
    answers = Answers()
    disk.sync_gate = trio.Event()
    driver.propose(mkdir("first"), answers)
    await trio.testing.wait_all_tasks_blocked()
    disk.syncs.clear()
    for number in range(15):
        driver.propose(mkdir(f"d{number}"), answers)
    disk.sync_gate.set()
    await answers.wait(16)
    assert len([path for path in disk.syncs if path.startswith("log/0")]) == 1


async def test_time_never_goes_back(nursery):
    disk = FakeDisk()
    clock = FakeClock()
    driver, state = await start(nursery, disk, clock)
    await driver.perform(formatted())
    clock.wall = 5_000
    await driver.perform(mkdir("a"))
    first = state.lookup(1, b"a").attributes.ctime_ns
    clock.wall = 10
    await driver.perform(mkdir("b"))
    second = state.lookup(1, b"b").attributes.ctime_ns
    assert (first, second) == (5_000, 5_001)
    driver, state = await start(nursery, disk.crash(), clock)
    await driver.perform(mkdir("c"))
    assert state.lookup(1, b"c").attributes.ctime_ns > second


async def test_errors_of_the_state_are_answers(nursery):
    driver, _ = await start(nursery, FakeDisk())
    await driver.perform(formatted())
    with pytest.raises(TideError) as caught:
        await driver.perform(Unlink(1, b"nobody"))
    assert caught.value.code is Code.NO_ENTRY


async def test_a_log_without_room_fails_what_it_was_asked_and_nothing_else(nursery, caplog):
    disk = FakeDisk()
    driver, state = await start(nursery, disk)
    await driver.perform(formatted())
    await driver.perform(mkdir("before"))
    disk.capacity_bytes = disk.used_bytes
    answers = Answers()
    large = b"x" * 8_000
    requests = [mkdir(f"d{number}") for number in range(40)]
    for request in requests:
        driver.propose(request, answers, payload=large)
    await answers.wait(40)
    refused = {outcome.code for outcome, _ in answers.outcomes if isinstance(outcome, TideError)}
    assert refused == {Code.NO_SPACE}
    assert state.lookup(1, b"before")
    disk.capacity_bytes *= 10
    await driver.perform(mkdir("after"))
    assert state.lookup(1, b"after")
    again = await recovered(disk.crash())
    assert again.listing(1, 0, 10) == state.listing(1, 0, 10)


async def test_a_failing_disk_ends_the_driver():
    disk = FakeDisk()

    def fail(path):
        raise TideError(Code.DEVICE_ERROR, f"syncing {path}")

    with pytest.RaisesGroup(TideError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            driver, state = await start(nursery, disk)
            await driver.perform(formatted())
            disk.on_sync = fail
            driver.propose(mkdir("a"), lambda outcome, index: pytest.fail("it was answered"))
            await trio.sleep_forever()
    with pytest.raises(TideError):
        state.lookup(1, b"a")


async def test_a_batch_is_bounded_in_bytes(nursery):
    disk = FakeDisk()
    driver, _ = await start(nursery, disk)
    await driver.perform(formatted())
    answers = Answers()
    for number in range(5):
        driver.propose(mkdir(f"d{number}"), answers, payload=bytes(3 * MIB))
    await answers.wait(5)
    assert not any(isinstance(outcome, TideError) for outcome, _ in answers.outcomes)


async def test_an_entry_that_no_other_member_could_be_sent_is_refused(nursery):
    driver, state = await start(nursery, FakeDisk())
    await driver.perform(formatted())
    answers = Answers()
    driver.propose(mkdir("before"), answers)
    driver.propose(mkdir("large"), answers, payload=bytes(FRAME_PAYLOAD_MAX_BYTES))
    driver.propose(mkdir("after"), answers)
    await answers.wait(3)
    refused = [outcome for outcome, _ in answers.outcomes if isinstance(outcome, TideError)]
    assert [error.code for error in refused] == [Code.TOO_LARGE]
    names = {entry.name for entry in state.listing(1, 0, 10).entries}
    assert names == {b"before", b"after"}


# --- room on the disk ----------------------------------------------------------------------------


def guarded(driver: Driver, disk: FakeDisk) -> None:
    driver.space = SpaceGuard(disk, FakeClock(), "/the/folder")


async def test_changes_are_refused_before_the_disk_is_full(nursery, autojump_clock):
    disk = FakeDisk(1000 * MIB)
    driver, state = await start(nursery, disk)
    await driver.perform(formatted())
    await driver.perform(mkdir("kept"))
    await driver.perform(Create(1, b"file", Kind.FILE, 0o644, 0, 0, 0, True, False))
    guarded(driver, disk)
    disk.reserved_bytes = 1000 * MIB - 20 * MIB  # less than 32 MiB are free, more than half of it
    with pytest.raises(TideError) as caught:
        await driver.perform(mkdir("refused"))
    assert caught.value.code is Code.NO_SPACE
    assert "/the/folder" in caught.value.detail
    assert "MiB" in caught.value.detail
    assert state.lookup(1, b"kept"), "reads go on"
    await driver.perform(Unlink(1, b"file"))
    await driver.perform(RemoveDirectory(1, b"kept"))
    disk.reserved_bytes = 1000 * MIB - 5 * MIB
    await trio.sleep(0.2)  # it looks only now and then
    with pytest.raises(TideError):
        await driver.perform(Unlink(1, b"other"))
    disk.reserved_bytes = 0
    await trio.sleep(0.2)
    await driver.perform(mkdir("again"))


def test_a_small_disk_keeps_a_part_of_itself(autojump_clock):
    disk = FakeDisk(100 * MIB)
    disk.reserved_bytes = 94 * MIB

    async def main():
        guard = SpaceGuard(disk, FakeClock(), "f")
        guard.check(mkdir("a"))
        assert guard.room().reserve_bytes == 5 * MIB

    trio.run(main)
