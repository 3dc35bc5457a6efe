"""Snapshots from a leader to a follower: sent in pieces, resumed, verified, installed."""

import contextlib
import logging

import pytest
import trio
from tidefs.fs.codec import checksum
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.raft import OfferSnapshot, SnapshotPiece, SnapshotWanted
from tidefs.fs.ports.disk_real import RealDisk
from tidefs.metaserver import incoming_snapshot, snapshot_receiver, snapshots
from tidefs.metaserver.checkpoint import Checkpoints
from tidefs.metaserver.incoming_snapshot import IncomingSnapshot, unfinished
from tidefs.metaserver.raft.contract import Progress
from tidefs.metaserver.snapshot_receiver import SnapshotReceiver
from tidefs.metaserver.snapshots import SnapshotSender
from tidefs.tests.metaserver.fake_disk import FakeDisk
from tidefs.tests.metaserver.members import CLUSTER, members_of, until

PIECE = 1000
STATE = bytes(range(256)) * 97 + b"the end"  # 25 pieces
LEADER, FOLLOWER = 1, 2


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(snapshots, "SNAPSHOT_PIECE_BYTES", PIECE)
    monkeypatch.setattr(snapshots, "SNAPSHOT_LOOK_MS", 2)
    monkeypatch.setattr(snapshots, "SNAPSHOT_RETRY_MAX_MS", 20)
    monkeypatch.setattr(snapshot_receiver, "SNAPSHOT_BUSY_MS", 1)
    monkeypatch.setattr(snapshot_receiver, "SNAPSHOT_SYNC_BYTES", 3 * PIECE)


class FakeStore:
    """A store whose copy is ``content``."""

    def __init__(self, disk, content):
        self._disk, self._content = disk, content

    async def copy_to(self, path):
        file = self._disk.open(path, create=True)
        file.truncate(0)
        file.write(0, [self._content])
        file.close()


class FakeDriver:
    """As much of a follower's driver and core as the receiver looks at."""

    def __init__(self, leader=LEADER, commit_index=0):
        self.core = self
        self.leader = leader
        self.commit_index = commit_index
        self.installed = []
        self.gate = None

    async def install(self, checkpoint):
        if self.gate is not None:
            await self.gate.wait()
        self.installed.append(checkpoint)
        self.commit_index = checkpoint.manifest.index


class Pair:
    """A leader with a checkpoint and a follower that needs it, on disks in memory."""

    def __init__(self, folder, disk=None, leader_disk=None):
        self.leader, self.follower = members_of(folder, 2)
        self.leader_disk = leader_disk or FakeDisk()
        self.leader_checkpoints = Checkpoints(self.leader_disk, CLUSTER)
        self.first_index = 100
        self.needs = True
        self.begin(disk or FakeDisk())

    def begin(self, disk, commit_index=0):
        """The follower starts, with what is on ``disk``."""
        self.disk = disk
        self.driver = FakeDriver(commit_index=commit_index)
        self.checkpoints = Checkpoints(disk, CLUSTER)
        self.receiver = SnapshotReceiver(disk, self.checkpoints, self.driver)
        self.taken = []
        self.on_take = lambda incoming: None
        self.follower.others = {
            OfferSnapshot: self.receiver.handle,
            SnapshotPiece: self._take,
        }

    def _take(self, incoming):
        self.taken.append(incoming.request.offset)
        self.on_take(incoming)
        return self.receiver.handle(incoming)

    async def make_checkpoint(self, content=STATE, index=120, term=7):
        await self.leader_checkpoints.make(FakeStore(self.leader_disk, content), index, term)

    def progress(self):
        needs = self.needs and self.driver.commit_index + 1 < self.first_index
        return {FOLLOWER: Progress(0, 1, needs, 0)}

    def sender(self):
        ports = self.leader.ports._replace(disk=self.leader_disk)
        return SnapshotSender(
            ports,
            self.leader.group,
            self.leader_checkpoints,
            self.progress,
            lambda: self.first_index,
        )

    @contextlib.asynccontextmanager
    async def living(self):
        async with self.leader.living(), self.follower.living():
            await until(lambda: self.leader.group.connected() and self.follower.group.connected())
            yield self
            self.receiver.close()

    @contextlib.asynccontextmanager
    async def sending(self):
        """The leader does its part."""
        async with trio.open_nursery() as nursery:
            sender = self.sender()
            nursery.start_soon(sender.run)
            yield sender
            nursery.cancel_scope.cancel()


async def content(disk, checkpoint):
    file = disk.open(checkpoint.state_path)
    try:
        return await file.read(0, file.size())
    finally:
        file.close()


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.fixture
async def pair(tmp_path):
    pair = Pair(tmp_path)
    await pair.make_checkpoint()
    return pair


async def installed(pair):
    """The one checkpoint that the follower got; it is good, and all there is of it."""
    await until(lambda: pair.driver.installed)
    (checkpoint,) = pair.driver.installed
    assert await content(pair.disk, checkpoint) == STATE
    assert (checkpoint.manifest.index, checkpoint.manifest.term) == (120, 7)
    (found,) = await pair.checkpoints.found()
    assert found == checkpoint
    await pair.checkpoints.verify(found)
    assert not pair.disk.exists("incoming")
    return checkpoint


async def test_a_snapshot_is_sent_and_installed(pair, caplog):
    async with pair.living(), pair.sending() as sender:
        await installed(pair)
        await until(lambda: not sender._sending)
    assert pair.taken == list(range(0, len(STATE), PIECE))
    assert "no snapshot for" not in caplog.text


async def test_on_a_real_disk(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    pair = Pair(tmp_path, RealDisk(str(tmp_path / "a")), RealDisk(str(tmp_path / "b")))
    await pair.make_checkpoint()
    async with pair.living(), pair.sending() as sender:
        await installed(pair)
        await until(lambda: not sender._sending)


async def test_the_file_of_a_whole_number_of_pieces_and_a_tiny_one(tmp_path):
    for state in (bytes(8 * PIECE), b"x"):
        pair = Pair(tmp_path)
        await pair.make_checkpoint(state)
        async with pair.living(), pair.sending():
            await until(lambda pair=pair: pair.driver.installed)
            assert await content(pair.disk, pair.driver.installed[0]) == state


async def test_who_does_not_need_it_gets_nothing(pair):
    pair.driver.commit_index = 120
    pair.progress = lambda: {FOLLOWER: Progress(0, 1, True, 0)}
    async with pair.living():
        peer = await pair.leader.group.reach(FOLLOWER)
        offer = OfferSnapshot(index=120, term=7, length=500, checksum=1)
        assert await peer.call(offer) == SnapshotWanted(500)
    assert not pair.disk.exists("incoming")


async def test_a_broken_connection_costs_only_what_was_in_flight(pair):
    breaks = [4, 9, 10]

    def on_take(incoming):
        if breaks and len(pair.taken) > breaks[0]:
            del breaks[0]
            incoming.peer.close("the cable is cut")

    pair.on_take = on_take
    async with pair.living(), pair.sending():
        await installed(pair)
    assert len(pair.taken) <= len(range(0, len(STATE), PIECE)) + 3 * 4


@pytest.mark.parametrize("power", [False, True])
async def test_a_restart_of_the_receiver_goes_on_with_what_is_on_its_disk(pair, power):
    """Killed, it has all it took; after a power failure, what was synced."""
    stop = trio.Event()

    def on_take(incoming):
        if len(pair.taken) == 12:
            stop.set()
        if stop.is_set():
            raise TideError(Code.BUSY, "dead", delay_ms=5)

    pair.on_take = on_take
    async with pair.living(), pair.sending():
        await stop.wait()
        await until(lambda: not pair.receiver._syncs)
        disk = pair.disk.crash() if power else pair.disk.kill()
        pair.begin(disk)
        await pair.receiver.tidy()
        offset = pair.receiver._snapshot.offset
        assert (9 if power else 11) * PIECE <= offset <= 11 * PIECE
        await installed(pair)
        assert pair.taken[0] == offset


async def test_what_rotted_meanwhile_is_asked_for_again(pair):
    stop = trio.Event()

    def on_take(incoming):
        if len(pair.taken) == 12:
            stop.set()
        if stop.is_set():
            raise TideError(Code.BUSY, "dead", delay_ms=5)

    pair.on_take = on_take
    async with pair.living(), pair.sending():
        await stop.wait()
        disk = pair.disk.kill()
        disk.files["incoming/state"].data[4 * PIECE + 7] ^= 1
        pair.begin(disk)
        await installed(pair)
        assert pair.taken[0] == 4 * PIECE


async def test_a_bad_piece_is_asked_for_again(pair, caplog):
    bad = [3 * PIECE, 7 * PIECE, 8 * PIECE]

    def on_take(incoming):
        if incoming.request.offset in bad:
            bad.remove(incoming.request.offset)
            incoming.payload = memoryview(b"!" + bytes(incoming.payload)[1:])

    pair.on_take = on_take
    async with pair.living(), pair.sending():
        await installed(pair)
    assert not bad


async def test_a_bad_whole_is_thrown_away_said_once_and_begun_anew(pair, caplog, monkeypatch):
    real, wrong = IncomingSnapshot.take, [5]

    def take(snapshot, piece, payload):
        real(snapshot, piece, payload)
        if wrong and snapshot._pieces == wrong[0]:
            del wrong[0]
            snapshot._state_file.write(17, [b"rot"])

    monkeypatch.setattr(IncomingSnapshot, "take", take)
    async with pair.living(), pair.sending():
        await installed(pair)
    said = [text for text in warnings(caplog) if "does not match its checksum" in text]
    assert len(said) == 1
    assert "thrown away and begun anew" in said[0]
    assert pair.taken.count(0) == 2


async def test_a_leader_does_not_send_what_rotted(tmp_path, caplog):
    pair = Pair(tmp_path)
    await pair.make_checkpoint()
    await pair.make_checkpoint(b"y" * 5000, index=130)
    pair.leader_disk.files["checkpoints/00000000000000000130/state"].data[5] ^= 1
    async with pair.living(), pair.sending():
        await installed(pair)
    assert len([text for text in warnings(caplog) if "130 is not sent" in text]) == 1


async def test_a_leader_without_a_checkpoint_that_helps_says_so_once(tmp_path, caplog):
    pair = Pair(tmp_path)
    await pair.make_checkpoint(index=90)
    async with pair.living(), pair.sending():
        await until(lambda: "no good checkpoint of this member reaches it" in caplog.text)
        await pair.make_checkpoint()
        await installed(pair)
    assert len([text for text in warnings(caplog) if "no good checkpoint" in text]) == 1


@pytest.mark.parametrize("breaks", [False, True])
async def test_a_newer_checkpoint_does_not_disturb_a_transfer(pair, breaks):
    halfway = trio.Event()

    def on_take(incoming):
        if len(pair.taken) == 10:
            halfway.set()
            if breaks:
                incoming.peer.close("the cable is cut")

    pair.on_take = on_take
    async with pair.living(), pair.sending():
        await halfway.wait()
        for index in (130, 140, 150):
            await pair.make_checkpoint(b"z" * 3000, index=index)
        assert "checkpoints/00000000000000000120/state" not in pair.leader_disk.files
        await installed(pair)
    if not breaks:
        assert pair.taken == list(range(0, len(STATE), PIECE))


async def test_while_it_is_sent_the_log_behind_it_is_held(pair):
    """So a member that takes long is not behind the log again when it has it."""
    halfway, go_on = trio.Event(), trio.Event()
    handle = pair.receiver.handle

    def take(incoming):
        if incoming.request.offset == 10 * PIECE:
            halfway.set()
            return after(go_on, handle, incoming)
        return handle(incoming)

    pair.follower.others[SnapshotPiece] = take
    async with pair.living(), pair.sending() as sender:
        assert sender.needed_from() is None
        await halfway.wait()
        assert sender.needed_from() == 121
        pair.follower.peers[-1].close("the cable is cut")
        await until(lambda: sender.needed_from() is None)
        go_on.set()
        await installed(pair)
        await until(lambda: not sender._sending)
        assert sender.needed_from() is None
        assert sender.sent_count == 1


async def after(event, handle, incoming):
    await event.wait()
    later = handle(incoming)
    if later is not None:
        await later


async def test_when_the_log_left_it_behind_the_newer_one_is_sent(pair):
    halfway = trio.Event()

    def on_take(incoming):
        if len(pair.taken) == 10:
            halfway.set()
            raise TideError(Code.BUSY, "later", delay_ms=5)

    pair.on_take = on_take
    async with pair.living(), pair.sending():
        await halfway.wait()
        await pair.make_checkpoint(b"z" * 3000, index=200)
        pair.first_index = 150
        await until(lambda: pair.driver.installed)
        assert pair.driver.installed[0].manifest.index == 200
        assert await content(pair.disk, pair.driver.installed[0]) == b"z" * 3000


async def test_while_it_is_installed_offers_wait(pair, caplog, monkeypatch):
    """However long that takes, nothing is sent twice, and nothing is called wrong."""
    monkeypatch.setattr(snapshots, "SNAPSHOT_PIECE_MS", 20)
    pair.driver.gate = trio.Event()
    async with pair.living(), pair.sending():
        await until(lambda: len(pair.taken) == 25)
        connections = len(pair.follower.peers)
        await until(lambda: len(pair.follower.peers) > connections + 3)
        peer = await pair.leader.group.reach(FOLLOWER)
        with pytest.raises(TideError) as caught:
            await peer.call(OfferSnapshot(index=120, term=7, length=1, checksum=1))
        assert (caught.value.code, caught.value.delay_ms) == (Code.BUSY, 1)
        pair.driver.gate.set()
        await installed(pair)
    assert len(pair.taken) == 25
    assert "no snapshot for" not in caplog.text


async def test_an_install_that_fails_is_tried_again(pair, caplog):
    real, fails = pair.driver.install, [TideError(Code.NO_SPACE, "the disk is full")]

    async def install(checkpoint):
        if fails:
            raise fails.pop()
        await real(checkpoint)

    pair.driver.install = install
    async with pair.living(), pair.sending():
        await until(lambda: pair.driver.installed)
    assert len(pair.taken) == 25  # nothing was sent again
    assert len([text for text in warnings(caplog) if "the disk is full" in text]) == 1


async def test_one_that_rotted_before_it_was_installed_is_sent_again(pair, caplog):
    async def fail(checkpoint):
        pair.disk.files[checkpoint.state_path].data[3] ^= 1
        del pair.driver.install
        raise TideError(Code.NO_SPACE, "the disk is full")

    pair.driver.install = fail
    async with pair.living(), pair.sending():
        await installed(pair)
    assert len([text for text in warnings(caplog) if "is not installed" in text]) == 1
    assert len(pair.taken) == 50


async def test_a_full_disk_refuses_and_harms_nothing(pair, caplog):
    pair.disk.capacity_bytes = 5000
    async with pair.living(), pair.sending():
        await until(lambda: "make room on it" in caplog.text)
        assert not pair.disk.exists("incoming")
        pair.disk.capacity_bytes = 12_000
        pair.disk.space = lambda: FakeDisk().space()  # others take the room meanwhile
        await until(lambda: len(pair.taken) > 20)
        pair.disk.capacity_bytes = 1 << 30
        await installed(pair)
    assert len([text for text in warnings(caplog) if "no snapshot for" in text]) == 1


class SlowStore(FakeStore):
    """A store whose copy is begun at once, and ends when ``gate`` opens."""

    def __init__(self, disk, content):
        super().__init__(disk, content)
        self.gate = trio.Event()

    async def copy_to(self, path):
        await super().copy_to(path)
        await self.gate.wait()


async def test_a_checkpoint_of_its_own_and_one_that_came_do_not_mix(nursery):
    disk = FakeDisk()
    checkpoints = Checkpoints(disk, CLUSTER)
    disk.open("came/state", create=True).write(0, [STATE])
    store = SlowStore(disk, b"own")
    nursery.start_soon(checkpoints.make, store, 100, 6)
    await trio.testing.wait_all_tasks_blocked()
    await checkpoints.adopt("came", index=120, term=7, length=len(STATE), checksum=checksum(STATE))
    store.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    newer, older = await checkpoints.found()
    assert [newer.manifest.index, older.manifest.index] == [120, 100]
    assert await content(disk, newer) == STATE
    assert await content(disk, older) == b"own"
    for checkpoint in (newer, older):
        await checkpoints.verify(checkpoint)


# --- who may send one, and what ---------------------------------------------------------------


async def asked(pair, *requests, payload=b"abc"):
    """The codes of the errors that the requests get on one connection, or their replies."""
    outcomes = []
    peer = await pair.leader.group.reach(FOLLOWER)
    for request in requests:
        try:
            with_payload = [payload] if isinstance(request, SnapshotPiece) else ()
            outcomes.append((await peer.call(request, payload=with_payload)).offset)
        except TideError as error:
            outcomes.append(error.code)
    peer.close("done")
    return outcomes


OFFER = OfferSnapshot(index=120, term=7, length=10, checksum=5)


async def test_only_the_leader_may_offer(pair):
    async with pair.living():
        for leader in (0, FOLLOWER, 9):
            pair.driver.leader = leader
            assert await asked(pair, OFFER) == [Code.NOT_LEADER]
        pair.driver.leader = LEADER
        assert await asked(pair, OFFER) == [0]
        pair.leader.group._identity = pair.leader.identity._replace(role="chunkserver")
        assert await asked(pair, OFFER) == [Code.WRONG_ROLE]


async def test_pieces_that_do_not_belong_are_refused(pair):
    def piece(offset, data=b"abc", index=120):
        return SnapshotPiece(index=index, offset=offset, checksum=checksum(data))

    async with pair.living():
        assert await asked(pair, piece(0)) == [Code.INVALID]
        assert await asked(
            pair, OFFER, piece(0, index=121), piece(5), piece(0, b"xyz"), piece(0), piece(0)
        ) == [0, Code.INVALID, 0, Code.BAD_CHECKSUM, 3, 3]
        assert await asked(pair, OFFER, piece(3), piece(6), piece(9)) == [3, 6, 9, Code.MALFORMED]
        assert await asked(pair, OFFER, piece(9, b""), payload=b"") == [9, Code.MALFORMED]
        assert await asked(pair, piece(9)) == [Code.INVALID]
    assert not pair.driver.installed


async def test_another_offer_replaces_the_one_before(pair):
    other = OfferSnapshot(index=121, term=7, length=10, checksum=6)
    first = SnapshotPiece(index=120, offset=0, checksum=checksum(b"abc"))
    async with pair.living():
        assert await asked(pair, OFFER, first, OFFER, other, first) == [0, 3, 3, 0, Code.INVALID]
        assert (await unfinished(pair.disk)).offer == other


async def test_tidying_at_the_start(pair):
    async with pair.living():
        first = SnapshotPiece(index=120, offset=0, checksum=checksum(b"abc"))
        assert await asked(pair, OFFER, first) == [0, 3]
    pair.begin(pair.disk.kill(), commit_index=119)
    await pair.receiver.tidy()
    assert pair.disk.exists("incoming/state")
    pair.begin(pair.disk.kill(), commit_index=120)
    await pair.receiver.tidy()
    assert not pair.disk.exists("incoming")
    await pair.receiver.tidy()


@pytest.mark.parametrize("name", ["offer", "state", "pieces"])
@pytest.mark.parametrize("damage", ["gone", "empty", "flipped"])
async def test_whatever_a_crash_left_is_never_believed_too_much(tmp_path, name, damage):
    disk = FakeDisk()
    offer = OfferSnapshot(index=120, term=7, length=30, checksum=5)
    snapshot = await IncomingSnapshot.begin(disk, offer)
    for offset, data in ((0, b"abc"), (3, b"de"), (5, b"fghi")):
        snapshot.take(SnapshotPiece(index=120, offset=offset, checksum=checksum(data)), data)
    assert (await unfinished(disk)).offset == 9
    path = f"{incoming_snapshot.FOLDER}/{name}"
    if damage == "gone":
        disk.remove(path)
    elif damage == "empty":
        disk.files[path].data.clear()
    else:
        disk.files[path].data[-1] ^= 1
    found = await unfinished(disk)
    if name == "offer" or damage == "gone":
        assert found is None
    else:
        assert found.offset == (0 if damage == "empty" else 5)
        found.take(SnapshotPiece(index=120, offset=found.offset, checksum=checksum(b"x")), b"x")
        assert (await unfinished(disk)).offset == found.offset
