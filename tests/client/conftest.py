"""A cluster without network for the vfs: the real state machine, chunks in dicts, faults on demand.

Every call takes a moment before and after it is carried out, so that replies overtake each other.
Time is trio's, which tests let run on by itself.
"""

import random
import sys
from collections import Counter
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import pytest
import trio
from msgspec.structs import replace
from tidefs.client import reading
from tidefs.client.counters import Counters
from tidefs.client.modes import MODES
from tidefs.client.vfs import Surroundings, Vfs
from tidefs.fs.codec import pack, unpack
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import KIB
from tidefs.fs.messages import locks, meta
from tidefs.fs.messages.base import Done
from tidefs.fs.messages.places import ChunkPlace, ServerPlace
from tidefs.fs.messages.promises import Claim
from tidefs.metaserver.check import check
from tidefs.metaserver.effects import ChunksDropped, LocksGranted
from tidefs.metaserver.entries import (
    EndSession,
    Entry,
    FormatCluster,
    GrantChunk,
    Reap,
    ReserveHandles,
    StartSession,
)
from tidefs.metaserver.kv_memory import MemoryKeyValue
from tidefs.metaserver.locks_views import lock_in_the_way, session_locks
from tidefs.metaserver.state import State
from tidefs.metaserver.touched import asked, told, touched

START_NS = 1_700_000_000_000_000_000


class TrioClock:
    """The clock port, on trio's time."""

    def monotonic_ns(self):
        return int(trio.current_time() * 1e9)

    def wall_ns(self):
        return START_NS + self.monotonic_ns()


class Chunk:
    """One chunk on the only chunkserver."""

    def __init__(self, version):
        self.version = version
        self.data = bytearray()
        self.synced = b""
        self.lost = 0
        self.fence = 0  # the highest token seen at this version


class Weather:
    """How long things take, and what goes wrong."""

    def __init__(self, seed=0):
        self.random = random.Random(seed)
        self.slowest_s = 0.01
        self.write_failures = []  # errors for the next writes, None: let it pass
        self.sync_failures = []
        self.clone_failures = []
        self.read_failures = []
        self.call_failures = {}  # request class -> errors for the next calls
        self.lost_write_acknowledgements = 0

    async def delay(self):
        await trio.sleep(self.random.random() * self.slowest_s)


class FakeCluster:
    """Shared by all mounts of a test."""

    def __init__(self, seed=0):
        self.weather = Weather(seed)
        self.state = State(MemoryKeyValue())
        self.chunks = {}
        self.reserved = {}  # (session, inode, index) -> handle: never shared, see below
        self.granted = {}  # handle -> version
        self.handles = []
        self.version = 0
        self.opens = {}  # (session, inode) -> 1
        self.calls = []
        self.writes = []  # (handle, offset, bytes)
        self.syncs = []
        self.clones = []  # (source, handle, length)
        self.garbage_stays = False
        self.place = ServerPlace(1, "here", ["unix:/nowhere"])
        self.sessions = 0
        self.metas = {}  # session -> FakeMeta
        self.contested = Counter()  # inodes of which promises are being recalled
        self.promises = {}  # inode -> {FakeMeta: whether it has it alone}
        self.clock_ns = START_NS
        self.apply(FormatCluster("test", 1, 0o755, 0, 0))

    def apply(self, request, payload=b"", session=0):
        with suppress(RuntimeError):  # before trio runs
            self.clock_ns = TrioClock().wall_ns()
        reply, effects = self.state.apply(
            Entry(
                self.state.totals.applied_index + 1,
                1,
                self.clock_ns,
                session,
                0,
                self.state.totals.applied_index + 1,
                request.METHOD,
                unpack(pack(request)),
                bytes(payload),
            )
        )
        for effect in effects:
            if isinstance(effect, ChunksDropped) and not self.garbage_stays:
                for handle in effect.handles:
                    self.chunks.pop(handle, None)
            if isinstance(effect, LocksGranted) and effect.session in self.metas:
                self.metas[effect.session].tell_granted(effect)
        if isinstance(reply, TideError):
            raise reply
        if isinstance(request, meta.Commit):
            committed = {chunk.handle for chunk in request.chunks}
            self.reserved = {
                key: handle for key, handle in self.reserved.items() if handle not in committed
            }
        return reply

    def open_session(self):
        self.sessions += 1
        return self.apply(StartSession(self.sessions.to_bytes(16), "host", 1)).session

    def reap(self):
        held = {inode for _, inode in self.opens}
        gone = [inode for inode in self.state.orphans() if inode not in held]
        if gone:
            self.apply(Reap(gone))

    def next_version(self):
        self.version += 1
        return 1 << 32 | self.version

    def grant(self, known):
        if known.cut < 0 and self.granted.get(known.handle) == known.version:
            return
        version = self.next_version()
        chunk = self.chunks.get(known.handle)
        if chunk is None:
            raise TideError(Code.UNAVAILABLE, "the chunk is nowhere")
        chunk.version = version
        chunk.fence = 0
        if known.cut >= 0:
            del chunk.data[known.cut :]
        self.granted[known.handle] = version
        self.apply(GrantChunk(known.handle, version, known.cut))

    def reserve(self, session, inode, index):
        """Each session has chunks of its own: two that make a small file large at once carry the
        same bytes over, and the later one's must not fall into a chunk that was committed."""
        key = (session, inode, index)
        handle = self.reserved.get(key)
        if handle is None:
            if not self.handles:
                reply = self.apply(ReserveHandles(100))
                self.handles = list(range(reply.first, reply.first + reply.count))
            handle = self.reserved[key] = self.handles.pop(0)
        return handle

    def crash_machine(self):
        """The chunkserver's machine loses what was not synced, and no grant is good any more."""
        for chunk in self.chunks.values():
            if chunk.data != chunk.synced:
                chunk.lost = max(chunk.version, chunk.lost)
            chunk.data = bytearray(chunk.synced)
            chunk.version = 0
        self.granted.clear()

    def content(self, inode):
        """What a new reader would see, asked without any client."""
        attributes, inline = self.state.content(inode)
        data = bytearray(attributes.size)
        if inline is not None:
            data[: len(inline)] = inline
            return bytes(data)
        chunk_bytes = reading.CHUNK_BYTES
        for known in self.state.chunks(inode, 0, attributes.size // chunk_bytes + 1):
            piece = bytes(self.chunks[known.handle].data)
            if known.cut >= 0:
                piece = piece[: known.cut]
            start = known.index * chunk_bytes
            piece = piece[: max(0, attributes.size - start)]
            data[start : start + len(piece)] = piece
        return bytes(data)


def needs_session(request):
    """Whether the servers refuse it when the session is over."""
    return isinstance(request, meta.Change | locks.GetSessionLocks) or (
        isinstance(request, meta.GetLayout) and request.write
    )


class FakeMeta:
    """MetaServers of one mount. ``promised``: it is promised what it is told."""

    def __init__(self, cluster, *, promised=False):
        self.promised = promised
        self.contested = 0  # so many replies promise nothing, as if somebody changed it just then
        self.counters = Counters()
        self.cluster = cluster
        self.session = cluster.open_session()
        cluster.metas[self.session] = self
        self.held = {}
        self.reservations = set()
        self.events = None
        self.deaf = False  # notices are lost
        self.may_write = set()  # chunks that were granted
        self.lease_until_ns = 1 << 62

    def listen(self, events):
        self.events = events

    async def settled(self):
        pass

    async def renew(self, session):
        await self.cluster.weather.delay()
        self.check_session(session)
        self.lease_until_ns = 1 << 62

    def tell_granted(self, effect):
        if not self.deaf:
            self.events.granted(locks.LocksGranted(effect.session, effect.grants))

    def check_session(self, session):
        if session not in (None, self.session):
            raise TideError(Code.SESSION_EXPIRED, f"session {session}")

    def expire_session(self):
        """The session expires, but we do not know yet."""
        cluster = self.cluster
        cluster.metas.pop(self.session, None)
        cluster.apply(EndSession(self.session, expired=True))
        for handle in self.may_write:
            cluster.granted.pop(handle, None)
        self.may_write.clear()

    def lose_session(self):
        """The session expired, and there is a new one."""
        cluster = self.cluster
        if self.session in cluster.metas:
            self.expire_session()
        self.events.expired(self.session)
        for key in [key for key in cluster.opens if key[0] == self.session]:
            del cluster.opens[key]
        for inode, index, handle in self.reservations:
            if cluster.reserved.pop((self.session, inode, index), None) == handle:
                cluster.chunks.pop(handle, None)
        self.reservations.clear()
        self.session = cluster.open_session()
        cluster.metas[self.session] = self
        self.events.linked()
        cluster.reap()

    async def call(self, request, payload=(), *, session=None):
        return (await self.exchange(request, payload, session=session))[0]

    def start(self, request):
        return self.call(request)

    def start_exchange(self, request):
        return self.exchange(request)

    async def exchange(self, request, payload=(), *, session=None):
        weather = self.cluster.weather
        self.cluster.calls.append(request)
        await weather.delay()
        self.check_session(session)
        failures = weather.call_failures.get(type(request))
        if failures:
            failure = failures.pop(0)
            if failure is not None:
                raise failure
        if self.session not in self.cluster.metas and needs_session(request):
            self.lose_session()
        self.check_session(session)
        cluster, changes = self.cluster, isinstance(request, meta.Change)
        inodes = touched(cluster.state, request) if changes else asked(cluster.state, request)
        if isinstance(request, Claim):
            inodes = (request.inode,)
        for_all = changes or isinstance(request, Claim)
        cluster.contested += Counter(inodes if for_all else ())
        await self.recall_others(inodes, alone=not for_all)
        cluster.contested -= Counter(inodes if for_all else ())
        reply, content = self.answer(request, b"".join(payload))
        if not changes and await self.recall_others(told(reply), alone=True):
            reply, content = self.answer(request, b"".join(payload))
        if self.promised and not changes and told(reply):
            reply = self.promise(request, reply)
        # With promises the order of replies and recalls counts: this stands for one connection.
        if self.promised:
            await trio.lowlevel.checkpoint()
        else:
            await weather.delay()
        return reply, memoryview(content)

    async def recall_others(self, inodes, *, alone):
        """``alone``: from who has it alone, only. Whether anybody had."""
        recalled = False
        for inode in inodes:
            for other, has_alone in list(self.cluster.promises.get(inode, {}).items()):
                if other is not self and (has_alone or not alone):
                    await settled(other.events.recalled([inode]))
                    self.cluster.promises[inode].pop(other, None)
                    recalled = True
        return recalled

    def promise(self, request, reply):
        if self.contested or any(inode in self.cluster.contested for inode in told(reply)):
            self.contested = max(0, self.contested - 1)
            return reply
        for inode in told(reply):
            alone = isinstance(request, Claim) or self.cluster.promises.get(inode, {}).get(self)
            self.cluster.promises.setdefault(inode, {})[self] = bool(alone)
        return replace(reply, promised=True)

    def answer(self, request, payload):
        cluster, state = self.cluster, self.cluster.state
        if isinstance(request, meta.Open | meta.GetContent):
            return self.content(request)
        if isinstance(request, meta.Change):
            reply = cluster.apply(request, payload, self.session)
            opens = isinstance(request, meta.Create) and request.open
            if opens or isinstance(request, meta.CreateUnnamed):
                cluster.opens[self.session, reply.attributes.inode] = 1
            cluster.reap()
            return reply, b""
        simple = {
            meta.Lookup: state.lookup,
            meta.GetAttributes: lambda inode: meta.Node(state.attributes(inode)),
            Claim: lambda inode: meta.Node(state.attributes(inode)),
            meta.ReadLink: lambda inode: meta.Target(state.read_link(inode)),
            meta.ReadDirectory: state.listing,
            meta.ListXattrs: lambda inode: meta.Names(state.xattr_names(inode)),
            meta.GetXattr: lambda *which: meta.Value(state.xattr(*which)),
            meta.GetSpace: lambda: meta.Space(1 << 40, 1 << 39, 10),
            meta.GetLayout: lambda *_: self.layout(request),
            meta.GetExtents: state.extents,
            locks.TestLock: lambda *_: lock_in_the_way(state.tables, request),
            locks.GetSessionLocks: lambda session: session_locks(state.tables, session),
            meta.ReportFailure: self.report_failure,
        }
        return simple[type(request)](*unpack(pack(request))), b""

    def content(self, request):
        attributes, inline = self.cluster.state.content(request.inode)
        if isinstance(request, meta.Open):
            self.cluster.opens[self.session, request.inode] = 1
        same = attributes.data_version == request.known_data_version
        reply = meta.Content(attributes, inline is not None)
        return reply, b"" if inline is None or same else inline

    def layout(self, request):
        cluster = self.cluster
        fields = (request.inode, request.first, request.count)
        found = {chunk.index: chunk for chunk in cluster.state.chunks(*fields)}
        places = []
        for index in range(request.first, request.first + request.count):
            known = found.get(index)
            if known is not None:
                if request.write or known.cut >= 0:
                    cluster.grant(known)
                version = cluster.state.chunk(known.handle).version
                places.append(ChunkPlace(index, known.handle, version, [cluster.place], False))
                if request.write:
                    self.may_write.add(known.handle)
            elif request.write:
                handle = cluster.reserve(self.session, request.inode, index)
                version = cluster.granted.setdefault(handle, cluster.next_version())
                if handle in cluster.chunks:
                    cluster.chunks[handle].version = version
                places.append(ChunkPlace(index, handle, version, [cluster.place], True))
                self.may_write.add(handle)
        return meta.Layout(cluster.state.attributes(request.inode), places)

    def report_failure(self, handle, version, servers):
        cluster = self.cluster
        found = [key for key, reserved in cluster.reserved.items() if reserved == handle]
        for key in found if not servers else ():
            assert key[0] == self.session
            del cluster.reserved[key]
            cluster.chunks.pop(handle, None)
        return Done()

    def opened(self, inode):
        self.held[inode] = self.held.get(inode, 0) + 1

    def released(self, inode, *, known=True):
        self.held[inode] -= 1
        if not self.held[inode]:
            del self.held[inode]
            self.cluster.opens.pop((self.session, inode), None)
            self.cluster.reap()

    def reserved(self, inode, index, handle):
        self.reservations.add((inode, index, handle))

    def committed(self, inode, index, handle):
        self.reservations.discard((inode, index, handle))


class FakeChunks:
    """ChunkServers of one mount. A payload is checked when it arrives: it must not have changed."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.writing = {}
        self.in_flight = 0
        self.in_flight_max = 0
        self.before_write = lambda: None

    async def read(self, place, offset, length):
        weather = self.cluster.weather
        await weather.delay()
        if weather.read_failures and (failure := weather.read_failures.pop(0)) is not None:
            raise failure
        chunk = self.cluster.chunks.get(place.handle)
        if chunk is None:
            raise TideError(Code.NO_CHUNK, f"chunk {place.handle}")
        if chunk.version < place.version:
            raise TideError(Code.STALE_VERSION, f"chunk {place.handle}")
        piece = bytes(chunk.data[offset : offset + length])
        await weather.delay()
        return [piece, bytes(length - len(piece))]

    async def write(self, place, offset, buffers, fence=0):
        cluster, weather = self.cluster, self.cluster.weather
        self.before_write()
        data = b"".join(buffers)
        end = offset + len(data)
        assert len(data) <= 4 << 20
        assert end <= reading.CHUNK_BYTES
        assert not any(
            handle == place.handle and first < end and offset < last
            for handle, first, last in self.writing
        ), "two writes of one byte are in flight"
        key = (place.handle, offset, end)
        self.writing[key] = True
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        try:
            await weather.delay()
            assert b"".join(buffers) == data, "the bytes changed on their way"
            failure = weather.write_failures.pop(0) if weather.write_failures else None
            if failure is not None and not failure.detail.startswith("after"):
                raise failure
            chunk = cluster.chunks.get(place.handle)
            if chunk is None:
                if not place.fresh or place.handle not in cluster.reserved.values():
                    raise TideError(Code.NO_CHUNK, f"chunk {place.handle}")
                chunk = cluster.chunks[place.handle] = Chunk(place.version)
            if chunk.version != place.version:
                raise TideError(Code.STALE_VERSION, f"chunk {place.handle}")
            if 0 < fence < chunk.fence:
                raise TideError(Code.FENCED, f"seen: {chunk.fence}")
            chunk.fence = max(chunk.fence, fence)
            if len(chunk.data) < end:
                chunk.data.extend(bytes(end - len(chunk.data)))
            chunk.data[offset:end] = data
            cluster.writes.append((place.handle, offset, data))
            if failure is not None:
                raise failure
            await weather.delay()
            assert b"".join(buffers) == data, "the bytes changed on their way"
        finally:
            self.in_flight -= 1
            del self.writing[key]

    async def sync(self, place, since):
        cluster, weather = self.cluster, self.cluster.weather
        await weather.delay()
        if weather.sync_failures and (failure := weather.sync_failures.pop(0)) is not None:
            raise failure
        chunk = cluster.chunks.get(place.handle)
        if chunk is None:
            raise TideError(Code.NO_CHUNK, f"chunk {place.handle}")
        if 0 < since <= chunk.lost:
            raise TideError(Code.OUT_OF_ORDER, f"chunk {place.handle}")
        if chunk.version < place.version:
            raise TideError(Code.STALE_VERSION, f"chunk {place.handle}")
        chunk.synced = bytes(chunk.data)
        cluster.syncs.append(place.handle)

    async def clone(self, place, source, length):
        cluster, weather = self.cluster, self.cluster.weather
        await weather.delay()
        failure = weather.clone_failures.pop(0) if weather.clone_failures else None
        if failure is not None and not failure.detail.startswith("after"):
            raise failure
        found = cluster.chunks.get(source.handle)
        if found is None:
            raise TideError(Code.NO_CHUNK, f"chunk {source.handle}")
        if found.version < source.version:
            raise TideError(Code.STALE_VERSION, f"chunk {source.handle}")
        assert place.fresh
        if place.handle not in cluster.reserved.values():
            raise TideError(Code.STALE_VERSION, f"chunk {place.handle}")
        assert place.handle not in cluster.chunks
        chunk = cluster.chunks[place.handle] = Chunk(place.version)
        chunk.data[:] = found.data[:length]
        chunk.synced = bytes(chunk.data)
        cluster.clones.append((source.handle, place.handle, length))
        await weather.delay()
        if failure is not None:
            raise failure


class Kernel:
    """Notes what it is told to forget."""

    def __init__(self):
        self.told = []

    def invalidate_inode(self, inode, *, attributes_only):
        self.told.append((inode, attributes_only))

    def invalidate_entry(self, parent, name):
        self.told.append((parent, name))

    async def forget_inode(self, inode):
        self.told.append((inode, "now"))


async def settled(answer):
    """What a driver does with an answer."""
    return await answer if hasattr(answer, "__await__") else answer


class Mount:
    """One vfs on the cluster, with the driver's part played by the test."""

    def __init__(self, cluster, mode, nursery, **options):
        self.cluster = cluster
        self.meta = FakeMeta(cluster, promised=MODES[mode].promises)
        self.chunks = FakeChunks(cluster)
        self.vfs = Vfs(
            Surroundings(self.meta, self.chunks, TrioClock(), MODES[mode], nursery, **options)
        )
        self.vfs.kernel = self.kernel = Kernel()

    def __getattr__(self, name):
        method = getattr(self.vfs, name)

        async def call(*arguments, **named):
            return await settled(method(*arguments, **named))

        return call

    def known_to_answer(self, name, *arguments):
        """The answer of a method that must not need to wait."""
        answer = getattr(self.vfs, name)(*arguments)
        assert not hasattr(answer, "__await__"), f"{name} had to go out"
        return answer


@asynccontextmanager
async def mounted(cluster, *modes, **options):
    """Mounts in these modes, closed in good order; then the state is checked."""
    async with trio.open_nursery() as nursery:
        mounts = [Mount(cluster, mode, nursery, **options) for mode in modes]
        yield mounts if len(mounts) > 1 else mounts[0]
        for mount in mounts:
            await mount.vfs.close()
        nursery.cancel_scope.cancel()
    assert check(cluster.state) == []


SMALL = {
    "CHUNK_BYTES": 256 * KIB,
    "CACHE_BLOCK_BYTES": 64 * KIB,
    "WRITE_BEHIND_BYTES": 64 * KIB,
    "COMMIT_BEHIND_BYTES": 128 * KIB,
    "DIRTY_MAX_BYTES": 512 * KIB,
    "READ_AHEAD_BYTES": 256 * KIB,
    "FETCH_MAX_BYTES": 64 * KIB,
    "EXTENT_CHUNKS_MAX": 2,
    "CLONE_MIN_BYTES": 64 * KIB,
}


@contextmanager
def small_limits():
    """Files of some hundred KiB cross all borders: of chunks, of blocks, of what may be dirty."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith(("tidefs.client.", "tidefs.metaserver.")):
                for limit, value in SMALL.items():
                    if hasattr(module, limit):
                        patch.setattr(module, limit, value)
        yield


@pytest.fixture
def small():
    """``with small():`` runs with small limits."""
    return small_limits


@pytest.fixture
def new_cluster():
    """What makes a cluster, for tests that need many."""
    return FakeCluster


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def mount_on():
    """``async with mount_on(cluster, "nfs", "uncached") as (first, second)``."""
    return mounted


@pytest.fixture
def on(cluster):
    """``mount_on`` for the one cluster of the test."""
    return partial(mounted, cluster)
