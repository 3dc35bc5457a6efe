"""A snapshot comes in while the receiver dies again and again: what arrives is what was sent."""

import contextlib
import random

import pytest
import trio
from tidefs.fs.codec import checksum
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.hello import METASERVER, Hello
from tidefs.fs.messages.raft import OfferSnapshot, SnapshotPiece
from tidefs.fs.ports.disk import DiskSpace
from tidefs.metaserver import snapshot_receiver
from tidefs.metaserver.checkpoint import Checkpoints
from tidefs.metaserver.incoming_snapshot import unfinished
from tidefs.metaserver.snapshot_receiver import SnapshotReceiver
from tidefs.tests.sim.crash_disk import CrashDisk, Died
from tidefs.tests.sim.ports import SimulatedRandomness

CLUSTER = "sea"
LEADER = 1
PIECE = 3000
STATE = random.Random(5).randbytes(40_007)
OFFER = OfferSnapshot(index=120, term=7, length=len(STATE), checksum=checksum(STATE))


class Leader:
    """The connection of a leader, and a request on it, whose outcome is kept."""

    name = "the leader"
    remote = Hello(1, 1, CLUSTER, METASERVER, LEADER)

    async def ask(self, receiver, request, payload=b""):
        self.request, self.payload, self.peer = request, memoryview(payload), self
        later = receiver.handle(self)
        if later is not None:
            await later
        return self.offset

    def reply(self, wanted):
        self.offset = wanted.offset


class FakeDriver:
    """A follower that has nothing yet."""

    def __init__(self):
        self.core = self
        self.leader = LEADER
        self.commit_index = 0
        self.installed = None

    async def install(self, checkpoint):
        self.installed = checkpoint
        self.commit_index = checkpoint.manifest.index


async def one_life(disk, sent):
    """Start, and take pieces until all is installed."""
    driver, checkpoints = FakeDriver(), Checkpoints(disk, CLUSTER)
    receiver = SnapshotReceiver(disk, checkpoints, driver)
    for checkpoint in await checkpoints.found():
        await checkpoints.verify(checkpoint)  # as recovery does, which would install it
        return checkpoint
    await receiver.tidy()
    leader = Leader()
    offset = await leader.ask(receiver, OFFER)
    while offset < len(STATE):
        data = STATE[offset : offset + PIECE]
        sent.append(offset)
        piece = SnapshotPiece(index=120, offset=offset, checksum=checksum(data))
        wanted = await leader.ask(receiver, piece, data)
        assert wanted == offset + len(data), "no piece is taken for a bad one"
        offset = wanted
    assert driver.installed is not None
    return driver.installed


async def die_somewhere(disk, sent, dice, randomness):
    """A life that ends in a write, at a wait, or well; for the machine as well, or not."""
    fate = dice.choice(["write", "wait", "wait", "power", "power"])
    if fate == "write":
        disk.die_after_writes(dice.randrange(1, 40), randomness)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def live():
                with contextlib.suppress(Died):
                    await one_life(disk, sent)
                nursery.cancel_scope.cancel()

            nursery.start_soon(live)
            if fate != "write":
                for _ in range(dice.randrange(1, 60)):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    if fate == "power":
        disk.crash(randomness)
    else:
        disk.kill()


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_happens_on_the_way(seed, monkeypatch):
    monkeypatch.setattr(snapshot_receiver, "SNAPSHOT_SYNC_BYTES", 3 * PIECE)
    dice, randomness = random.Random(seed), SimulatedRandomness(f"{seed}")
    disk, sent = CrashDisk(randomness), []
    for _ in range(dice.randrange(1, 12)):
        before = len(sent)
        await die_somewhere(disk, sent, dice, randomness)
        found = await unfinished(disk)
        if found is not None and len(sent) > before:
            assert found.offset <= sent[-1] + PIECE
    checkpoint = await one_life(disk, sent)
    file = disk.open(checkpoint.state_path)
    assert await file.read(0, file.size()) == STATE
    assert (checkpoint.manifest.index, checkpoint.manifest.term) == (120, 7)
    assert sorted({*sent}) == list(range(0, len(STATE), PIECE)), "all of it came from the leader"


async def test_a_killed_receiver_asks_for_nothing_twice():
    """The page cache outlives the process."""
    disk, sent = CrashDisk(SimulatedRandomness("kills")), []
    for _ in range(10):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one_life, disk, sent)
                for _ in range(9):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        disk.kill()
    await one_life(disk, sent)
    assert sent == list(range(0, len(STATE), PIECE))


async def test_a_disk_that_is_full_on_the_way():
    """Wherever room ends: it is said, and nothing that came is sent again."""
    for free_bytes in range(0, 60 * 1024, 1024):
        disk, sent = CrashDisk(SimulatedRandomness("full")), []
        disk.space = lambda: DiskSpace(1 << 30, 1 << 30)  # others are faster
        disk.capacity_bytes = free_bytes
        refused = 0
        for _ in range(3):
            try:
                await one_life(disk, sent)
            except TideError as error:
                refused += error.code is Code.NO_SPACE
            disk.kill()
        disk.capacity_bytes = 80 * 1024
        checkpoint = await one_life(disk, sent)
        await Checkpoints(disk, CLUSTER).verify(checkpoint)
        assert refused in (0, 3)
        again = len(sent) - len({*sent})
        assert again <= 3, "only the piece that found no room"


async def test_a_disk_that_has_too_little_room_is_not_begun_to_be_filled():
    disk, sent = CrashDisk(SimulatedRandomness("small"), capacity_bytes=40_000), []
    with pytest.raises(TideError, match="make room on it"):
        await one_life(disk, sent)
    assert not disk.exists("incoming")
