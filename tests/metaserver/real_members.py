"""Members of a group with real drivers, on real connections, over disks in memory."""

import logging

import trio
from tidefs.fs.config import Duration
from tidefs.fs.messages.meta import MakeDirectory, SetXattr
from tidefs.fs.messages.raft import Greet, SnapshotPiece
from tidefs.metaserver.begin import start_driver
from tidefs.metaserver.config import MetaserverConfig
from tidefs.metaserver.entries import FormatCluster
from tidefs.metaserver.format import configuration_of
from tidefs.metaserver.recovery import recover
from tidefs.metaserver.snapshot_receiver import SnapshotReceiver
from tidefs.metaserver.snapshots import SnapshotSender
from tidefs.metaserver.store_memory import MemoryStores
from tidefs.tests.metaserver.fake_disk import FakeDisk
from tidefs.tests.metaserver.members import TestMember, until

CLUSTER = "cluster"
SEGMENT_BYTES = 64 * 1024
ELECTION_MS = 600
"""Long enough for a machine that does much else."""


class Member(TestMember):
    """A member with a driver. ``stop`` ends its life as if the process was killed."""

    def __init__(self, server, address, founders, nursery, *, election_ms=ELECTION_MS, ports=None):
        super().__init__(server, address, founders, cluster=CLUSTER, ports=ports)
        self.config = MetaserverConfig(
            cluster=CLUSTER,
            server=server,
            data="data",
            listen=[address],
            election_timeout=Duration(election_ms),
        )
        self.disk = FakeDisk()
        self.founders = configuration_of(founders)
        self.pieces = 0
        self.outer = nursery

    def handle(self, incoming):
        if incoming.is_notice:
            self.driver.deliver(self.group.received(incoming))
            return None
        if isinstance(incoming.request, Greet):
            return self.group.greeted(incoming)
        self.pieces += isinstance(incoming.request, SnapshotPiece)
        return self.receiver.handle(incoming)

    async def start(self):
        await self.outer.start(self._live)

    async def stop(self):
        self.scope.cancel()
        await self.ended.wait()

    async def _live(self, task_status):
        self.scope, self.ended = trio.CancelScope(), trio.Event()
        with self.scope:
            self.ports = self.ports._replace(disk=self.disk)
            recovered = await recover(
                self.disk, MemoryStores(self.disk), CLUSTER, segment_bytes=SEGMENT_BYTES
            )
            self.driver = driver = await start_driver(
                self.config, self.ports, recovered, self.founders
            )
            self.checkpoints = recovered.checkpoints
            self.receiver = SnapshotReceiver(self.disk, self.checkpoints, driver)
            async with self.living():
                self._join_group()
                self.nursery.start_soon(driver.run)
                self.nursery.start_soon(self.sender.run)
                task_status.started()
                await trio.sleep_forever()
        self.disk = self.disk.kill()
        self.ended.set()

    def _join_group(self):
        driver = self.driver
        self.group.deliver = driver.deliver
        self.group.learn(driver.core.configuration)
        driver.send = self.group.send
        driver.on_applied = lambda: self.group.learn(driver.core.configuration)
        self.sender = SnapshotSender(
            self.ports,
            self.group,
            self.checkpoints,
            driver.core.progress,
            lambda: driver.oplog.first_index,
        )

    async def make_checkpoint(self):
        """And keep nothing of the log that is in it."""
        totals = self.driver.state.totals
        await self.checkpoints.make(self.driver.store, totals.applied_index, totals.applied_term)
        self.driver.drop_log_before(totals.applied_index + 1)
        await until(lambda: self.driver.oplog.first_index > 1)

    @property
    def last_index(self):
        return self.driver.oplog.last_index

    @property
    def names(self):
        return {bytes(entry.name) for entry in self.driver.state.listing(1, 0, 10_000).entries}


async def started(*members):
    """The one of them that leads and serves."""
    for member in members:
        await member.start()
    return await leader_of(*members)


async def leader_of(*members):
    found = []

    async def wait(member, scope):
        await member.driver.wait_leading()
        found.append(member)
        scope.cancel()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(wait, member, nursery.cancel_scope)
    return found[0]


async def fill(leader, count, prefix="d", size_bytes=0):
    """So many directories, made by ``leader``."""
    if not leader.driver.state.totals.cluster:
        await leader.driver.perform(FormatCluster(CLUSTER, 1, 0o755, 0, 0))
    for number in range(count):
        name = b"%s%d" % (prefix.encode(), number)
        made = await leader.driver.perform(MakeDirectory(1, name, 0o755, 0, 0))
        if size_bytes:
            inode = made.attributes.inode
            await leader.driver.perform(SetXattr(inode, b"user.x", bytes(size_bytes), 0))


async def agree(*members):
    """All have applied the same, and have the same state."""
    await until(lambda: len({m.driver.state.totals.applied_index for m in members}) == 1)
    digests = {await member.driver.store.digest() for member in members}
    assert len(digests) == 1


def warnings(caplog, words=""):
    found = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    return [text for text in found if words in text]
