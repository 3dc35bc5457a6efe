"""After a crash of the process or of the machine: what is trusted, replayed, and refused."""

import logging

import pytest
import trio
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.meta import MakeDirectory
from tidefs.fs.ports import Ports
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.fs.ports.randomness import RealRandomness
from tidefs.metaserver import keys
from tidefs.metaserver.begin import start_driver
from tidefs.metaserver.checkpoint import Checkpoints
from tidefs.metaserver.driver import Driver
from tidefs.metaserver.entries import FormatCluster
from tidefs.metaserver.format import configuration_of
from tidefs.metaserver.recovery import Recovered, recover
from tidefs.metaserver.store_lmdb import LmdbStores
from tidefs.metaserver.store_memory import MemoryStores
from tidefs.metaserver.upkeep import Upkeep

from .drivers import FakeClock, config_of
from .fake_disk import FakeDisk

CLUSTER = "cluster"
BEGINNING = 3
"""Records of every new log: the leader's first, its group, the cluster's id."""


class BootDisk(RealDisk):
    """A real folder on a machine that can be restarted."""

    boot = "first"

    def boot_id(self) -> str:
        return self.boot


class Server:
    """A driver over a folder, in memory or on a real disk."""

    started: "list[Server]" = []  # noqa: RUF012 - emptied after each test

    def __init__(self, disk, stores, every=1_000_000):
        self.disk, self.stores, self.every = disk, stores, every
        self.recovered: Recovered
        self.driver: Driver

    async def start(self, nursery):
        self.recovered = found = await recover(
            self.disk, self.stores, CLUSTER, segment_bytes=16 * 1024
        )
        self.started.append(self)
        self.replayed = found.oplog.last_index - found.state.totals.applied_index
        config = config_of(1)
        ports = Ports(FakeClock(), RealRandomness(), self.disk, None)
        founders = configuration_of([config.own_place])
        self.driver = await start_driver(config, ports, found, founders)
        self.driver.space = None
        self.upkeep = Upkeep(found, self.driver, FakeClock(), self.every)
        self._scope = trio.CancelScope()
        nursery.start_soon(self._run)
        await self.driver.wait_leading()
        if not found.state.totals.cluster:
            await self.driver.perform(FormatCluster(CLUSTER, 1, 0o755, 0, 0))
        return self

    async def _run(self):
        with self._scope:
            await self.driver.run()

    def stop(self):
        """Give the working copy back: the next process, or the next life, opens it."""
        if self in self.started:
            self.started.remove(self)
            self._scope.cancel()
            self.driver.store.close()

    @property
    def state(self):
        return self.driver.state

    async def fill(self, prefix: str, count: int):
        for number in range(count):
            await self.driver.perform(MakeDirectory(1, f"{prefix}{number}".encode(), 0o755, 0, 0))

    def contents(self):
        """All but the totals: each start adds a record of its own to the log."""
        return [pair for pair in self.state.tables.kv.scan(b"") if pair[0] != keys.TOTALS]

    def names(self):
        entries = self.state.listing(1, 0, 1_000).entries
        return {entry.name.decode() for entry in entries}


@pytest.fixture(autouse=True)
def stop_all():
    yield
    for server in list(Server.started):
        server.stop()


def on_disk(folder, boot="first") -> Server:
    disk = BootDisk(str(folder))
    disk.boot = boot
    return Server(disk, LmdbStores(disk, str(folder), CLUSTER))


def in_memory(disk: FakeDisk) -> Server:
    return Server(disk, MemoryStores(disk))


# --- in memory: every crash takes the working copy ---------------------------------------------


async def test_everything_is_replayed_from_the_log(nursery):
    server = await in_memory(FakeDisk()).start(nursery)
    await server.fill("d", 30)
    again = await in_memory(server.disk.crash()).start(nursery)
    assert again.replayed == server.state.totals.applied_index
    assert again.contents() == server.contents()


async def test_a_checkpoint_and_the_log_behind_it(nursery):
    server = await in_memory(FakeDisk()).start(nursery)
    await server.fill("a", 30)
    await server.upkeep.make_checkpoint()
    await server.fill("b", 10)
    again = await in_memory(server.disk.crash()).start(nursery)
    assert again.replayed == 10
    assert again.contents() == server.contents()


async def test_a_crash_in_the_middle_of_a_checkpoint_changes_nothing(nursery):
    server = await in_memory(FakeDisk()).start(nursery)
    await server.fill("a", 30)
    disk = server.disk
    crashed = []
    disk.on_sync = lambda path: crashed.append(disk.crash())
    await server.upkeep.make_checkpoint()
    assert len(crashed) >= 2
    for found in crashed:
        again = await in_memory(found).start(nursery)
        assert again.contents() == server.contents()


async def test_two_checkpoints_are_kept_and_the_log_from_the_older_on(nursery):
    server = await in_memory(FakeDisk()).start(nursery)
    indexes = []
    for prefix in "abcd":
        await server.fill(prefix, 100)
        await server.upkeep.make_checkpoint()
        indexes.append(server.state.totals.applied_index)
    await trio.testing.wait_all_tasks_blocked()
    assert server.disk.names("checkpoints") == [f"{index:020d}" for index in indexes[-2:]]
    assert 1 < server.recovered.oplog.first_index <= indexes[-2] + 1


async def test_the_log_is_held_for_who_gets_a_snapshot_but_not_for_ever(nursery):
    server = await in_memory(FakeDisk()).start(nursery)
    server.upkeep._every_entries = 100
    held_from = 40
    server.upkeep.held_from = lambda: held_from
    for prefix in "abcde":
        await server.fill(prefix, 100)
        await server.upkeep.make_checkpoint()
    await trio.testing.wait_all_tasks_blocked()
    assert 1 <= server.driver.oplog.first_index <= held_from
    for prefix in "fghijklmno":
        await server.fill(prefix, 100)
        await server.upkeep.make_checkpoint()
    await trio.testing.wait_all_tasks_blocked()
    applied_index = server.state.totals.applied_index
    assert held_from < server.driver.oplog.first_index <= applied_index - 1000


@pytest.mark.parametrize("file", ["state", "manifest"])
async def test_a_damaged_checkpoint_falls_back_to_the_older_one(nursery, file, caplog):
    server = await in_memory(FakeDisk()).start(nursery)
    for prefix in "abc":
        await server.fill(prefix, 100)
        await server.upkeep.make_checkpoint()
    disk = server.disk.crash()
    newest = disk.names("checkpoints")[-1]
    disk.files[f"checkpoints/{newest}/{file}"].data[30] ^= 1
    with caplog.at_level(logging.WARNING):
        again = await in_memory(disk).start(nursery)
    assert newest in caplog.text
    assert again.replayed == 100
    assert again.contents() == server.contents()


async def test_without_a_good_checkpoint_a_log_that_was_cut_off_is_refused(nursery):
    server = await in_memory(FakeDisk()).start(nursery)
    for prefix in "abcd":
        await server.fill(prefix, 100)
        await server.upkeep.make_checkpoint()
    await trio.testing.wait_all_tasks_blocked()
    disk = server.disk.crash()
    disk.remove("checkpoints")
    with pytest.raises(TideError, match="no good checkpoint") as caught:
        await in_memory(disk).start(nursery)
    assert caught.value.code is Code.CORRUPT


async def test_a_log_that_lost_its_end_is_refused(nursery):
    server = await in_memory(FakeDisk()).start(nursery)
    await server.fill("a", 30)
    await server.upkeep.make_checkpoint()
    disk = server.disk.crash()
    for name in disk.names("log"):
        disk.remove(f"log/{name}")
    with pytest.raises(TideError, match="records that were acknowledged are missing") as caught:
        await in_memory(disk).start(nursery)
    assert caught.value.code is Code.CORRUPT


async def test_a_checkpoint_that_finds_no_room_leaves_everything_as_it_was(nursery):
    server = await in_memory(FakeDisk()).start(nursery)
    await server.fill("a", 30)
    server.disk.capacity_bytes = server.disk.used_bytes
    with pytest.raises(TideError) as caught:
        await server.upkeep.make_checkpoint()
    assert caught.value.code is Code.NO_SPACE
    assert await Checkpoints(server.disk, CLUSTER).found() == []
    server.disk.capacity_bytes *= 10
    await server.upkeep.make_checkpoint()
    assert len(await Checkpoints(server.disk, CLUSTER).found()) == 1


async def test_a_checkpoint_is_made_when_the_log_is_long_enough(nursery):
    server = Server(disk := FakeDisk(), MemoryStores(disk), every=50)
    await server.start(nursery)
    nursery.start_soon(server.upkeep.run)
    await server.fill("a", 120)
    await trio.testing.wait_all_tasks_blocked()
    assert len(disk.names("checkpoints")) == 2


# --- LMDB: the working copy is believed while the machine has not been restarted -----------------


async def test_the_working_copy_survives_the_process(nursery, tmp_path):
    server = await on_disk(tmp_path).start(nursery)
    await server.fill("a", 30)
    server.driver.commit()
    await server.fill("b", 5)
    server.stop()
    again = await on_disk(tmp_path).start(nursery)
    assert again.replayed <= 5, "it is also committed when it was idle for a while"
    assert len(again.names()) == 35


async def test_after_a_restart_of_the_machine_the_log_is_replayed(nursery, tmp_path):
    server = await on_disk(tmp_path).start(nursery)
    await server.fill("a", 30)
    server.driver.commit()
    digest = server.contents()
    server.stop()
    again = await on_disk(tmp_path, boot="second").start(nursery)
    assert again.replayed == 30 + BEGINNING
    assert again.contents() == digest


async def test_after_a_restart_of_the_machine_the_checkpoint_is_taken(nursery, tmp_path):
    server = await on_disk(tmp_path).start(nursery)
    await server.fill("a", 30)
    await server.upkeep.make_checkpoint()
    await server.fill("b", 5)
    server.driver.commit()
    digest = server.contents()
    server.stop()
    # The working copy is what a crash of the machine may have left: anything.
    database = tmp_path / "working" / "database" / "data.mdb"
    database.write_bytes(bytes(database.stat().st_size))
    again = await on_disk(tmp_path, boot="second").start(nursery)
    assert again.replayed == 5
    assert again.contents() == digest


async def test_a_checkpoint_is_made_while_the_server_works(nursery, tmp_path):
    server = await on_disk(tmp_path).start(nursery)
    await server.fill("a", 200)
    async with trio.open_nursery() as both:
        both.start_soon(server.upkeep.make_checkpoint)
        both.start_soon(server.fill, "b", 200)
    digest = server.contents()
    server.stop()
    again = await on_disk(tmp_path, boot="second").start(nursery)
    assert again.contents() == digest
    assert 0 < again.replayed <= 200


async def test_a_working_copy_that_cannot_be_opened_is_made_anew(nursery, tmp_path, caplog):
    server = await on_disk(tmp_path).start(nursery)
    await server.fill("a", 30)
    server.driver.commit()
    server.stop()
    (tmp_path / "working" / "database" / "data.mdb").write_bytes(b"nonsense" * 2000)
    again = await on_disk(tmp_path).start(nursery)
    assert len(again.names()) == 30
    assert "working copy" in caplog.text


async def test_a_working_copy_ahead_of_the_log_is_refused(nursery, tmp_path):
    server = await on_disk(tmp_path).start(nursery)
    await server.fill("a", 30)
    server.driver.commit()
    server.stop()
    for path in (tmp_path / "log").iterdir():
        path.unlink()
    with pytest.raises(TideError, match="missing from the log"):
        await on_disk(tmp_path).start(nursery)
