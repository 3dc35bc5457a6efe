"""Holes, seeks, copies and direct I/O on real mounts of real clusters, by each driver.

What pyfuse3 cannot serve is left out by name (see ``drivers``), nothing else.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import random
import signal
import subprocess

import pytest
from tidefs.client.vfs_ranges import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tidefs.fs.limits import CHUNK_BYTES, MIB
from tidefs.tests.conftest import LiveCluster, Stage
from tidefs.tests.mount.drivers import needs, needs_fuse
from tidefs.tests.mount.posix import failed

pytestmark = [pytest.mark.mount, needs_fuse]

PUNCH = PUNCH_HOLE | KEEP_SIZE
TIB = 1 << 40
PAGE_BYTES = 4096
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, _clean_machine):
    """Three chunkservers and two copies: a clone is sometimes made from a neighbour."""
    stage = Stage(tmp_path_factory.mktemp("ranges"))
    cluster = LiveCluster(stage.folder / "cluster")
    cluster.up("--chunkservers", 3, "--replicas", 2)
    cluster.mounted = {}
    yield cluster
    stage.close()


@pytest.fixture
def pair(cluster, driver_name):
    """A new folder on two mounts."""
    if driver_name not in cluster.mounted:
        cluster.mounted[driver_name] = [
            cluster.mount(f"{driver_name}-{name}", "-o", f"driver={driver_name}")
            for name in ("here", "there")
        ]
    here, there = cluster.mounted[driver_name]
    name = f"{driver_name}-{len(os.listdir(here))}"
    (here / name).mkdir()
    return here / name, there / name


@pytest.fixture
def here(pair):
    return pair[0]


@contextlib.contextmanager
def opened(path, flags=os.O_RDWR | os.O_CREAT):
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def fallocate(descriptor, mode, offset, length):
    result = LIBC.fallocate64(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def extents(descriptor):
    """Where lseek(2) finds data."""
    found = []
    at = 0
    while True:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return found
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        found.append((start, at))


def occupied_bytes(path):
    return path.stat().st_blocks * 512


def copy_range(source, target, length, source_offset=0, target_offset=0):
    """copy_file_range(2) until it is done; how often it was called."""
    calls = copied = 0
    while copied < length:
        count = os.copy_file_range(
            source, target, length - copied, source_offset + copied, target_offset + copied
        )
        assert count > 0
        copied += count
        calls += 1
    return calls


def write_noise(path, length, seed=1):
    noise = random.Random(seed).randbytes(4 * MIB)
    with open(path, "wb") as file:
        while file.tell() < length:
            file.write(noise[: length - file.tell()])
    return path.read_bytes()


# --- holes


@needs("fallocate", "lseek")
def test_holes_give_room_back_and_are_seen_elsewhere(pair):
    here, there = pair
    content = bytearray(write_noise(here / "file", 3 * CHUNK_BYTES))
    start, length = CHUNK_BYTES - 5, CHUNK_BYTES + 100_000
    with opened(here / "file") as file:
        fallocate(file, PUNCH, start, length)
        content[start : start + length] = bytes(length)
        assert os.pread(file, 20, start - 10) == content[start - 10 : start + 10]
        assert occupied_bytes(here / "file") == 2 * CHUNK_BYTES
        assert extents(file) == [(0, CHUNK_BYTES), (2 * CHUNK_BYTES, 3 * CHUNK_BYTES)]
    assert (there / "file").read_bytes() == content
    assert (here / "file").read_bytes() == content
    with opened(there / "file") as file:
        fallocate(file, PUNCH, 1000, 1 << 40)
    assert occupied_bytes(there / "file") == CHUNK_BYTES
    assert (here / "file").read_bytes() == content[:1000] + bytes(len(content) - 1000)


@needs("fallocate")
def test_fallocate(here):
    with opened(here / "file") as file:
        os.write(file, b"abcdef")
        fallocate(file, KEEP_SIZE, 0, MIB)
        assert os.fstat(file).st_size == 6
        fallocate(file, 0, 0, MIB)
        assert os.fstat(file).st_size == MIB
        fallocate(file, ZERO_RANGE, 2, 2)
        assert os.pread(file, 10, 0) == b"ab\0\0ef\0\0\0\0"
        fallocate(file, ZERO_RANGE, MIB - 1, 10)
        assert os.fstat(file).st_size == MIB + 9
        for mode in (0x08, 0x20, 0x40):  # COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE
            assert failed(lambda mode=mode: fallocate(file, mode, 0, 4096)) == "ENOTSUP"
        assert failed(lambda: fallocate(file, 0, 0, 1000 * TIB)) == "ENOSPC"
        assert os.fstat(file).st_size == MIB + 9
        os.posix_fallocate(file, MIB, 2 * MIB)
        assert os.fstat(file).st_size == 3 * MIB
    subprocess.run(["fallocate", "-p", "-o", "0", "-l", "5", here / "file"], check=True)
    assert (here / "file").read_bytes() == b"\0\0\0\0\0f" + bytes(3 * MIB - 6)


@needs("lseek")
def test_a_byte_at_eight_tib(pair):
    here, there = pair
    with opened(here / "file") as file:
        os.pwrite(file, b"x", 8 * TIB)
    assert ((here / "file").stat().st_size, occupied_bytes(here / "file")) == (8 * TIB + 1, 512)
    with opened(there / "file") as file:
        assert os.pread(file, MIB, 5 * TIB) == bytes(MIB)
        assert os.pread(file, 2, 8 * TIB) == b"x"
        assert extents(file) == [(8 * TIB, 8 * TIB + 1)]
        os.fsync(file)
    subprocess.run(["cp", here / "file", here / "copy"], check=True)
    assert ((here / "copy").stat().st_size, occupied_bytes(here / "copy")) == (8 * TIB + 1, 512)
    os.truncate(here / "file", 10)
    assert ((here / "file").stat().st_size, occupied_bytes(here / "file")) == (10, 0)


@needs("lseek")
def test_what_was_changed_through_a_mapping_is_data(here):
    with opened(here / "file") as file:
        os.ftruncate(file, MIB)
        with mmap.mmap(file, MIB) as mapped:
            mapped[500_000:500_003] = b"abc"
            assert os.lseek(file, 0, os.SEEK_DATA) <= 500_000
            mapped[600_000:600_003] = b"def"
            assert os.lseek(file, 600_000, os.SEEK_DATA) == 600_000
            assert mapped[500_000:600_003] == b"abc" + bytes(99_997) + b"def"


# --- copies


@needs("copy_file_range")
def test_a_clone_survives_a_kill_of_all_chunkservers(cluster, pair):
    here, there = pair
    length = 2 * CHUNK_BYTES + 12_345
    content = write_noise(here / "file", length)
    with opened(here / "file") as source, opened(here / "copy") as target:
        assert copy_range(source, target, length) == 1, "all in one, without the kernel's help"
        assert os.fstat(target).st_size == length
        os.pwrite(source, b"later", 10)
    for name, pid in cluster.pids().items():
        if name.startswith("chunk"):
            os.kill(pid, signal.SIGKILL)
    cluster.up()
    assert (there / "copy").read_bytes() == content
    assert (here / "copy").read_bytes() == content
    assert (there / "file").read_bytes() == content[:10] + b"later" + content[15:]


@needs("copy_file_range")
def test_what_cannot_be_cloned_is_copied(here):
    content = write_noise(here / "file", CHUNK_BYTES + 5 * MIB)
    with opened(here / "file") as source, opened(here / "copy") as target:
        os.pwrite(target, b"in the way", 3)
        copy_range(source, target, MIB, 1000, 5)
        copy_range(source, target, len(content), 0, CHUNK_BYTES)
        copy_range(target, target, 10 * MIB, CHUNK_BYTES, 7 * CHUNK_BYTES + 1)
        assert failed(lambda: copy_range(target, target, 10, 0, 5)) == "EINVAL"
    wanted = bytearray(7 * CHUNK_BYTES + 1 + 10 * MIB)
    wanted[3:13] = b"in the way"
    wanted[5 : 5 + MIB] = content[1000 : 1000 + MIB]
    wanted[CHUNK_BYTES : CHUNK_BYTES + len(content)] = content
    wanted[-10 * MIB :] = content[: 10 * MIB]
    assert (here / "copy").read_bytes() == wanted


def test_cp(here):
    content = bytearray(write_noise(here / "file", 3 * MIB))
    content += bytes(CHUNK_BYTES)
    os.truncate(here / "file", len(content))
    for name, options in {
        "auto": ["--reflink=auto", "--sparse=auto"],
        "sparse": ["--sparse=always"],
        "dense": ["--sparse=never", "--reflink=never"],
    }.items():
        subprocess.run(["cp", *options, here / "file", here / name], check=True)
        assert (here / name).read_bytes() == content


# --- past the kernel's pages


def test_direct_and_buffered_io_agree(here):
    """Also where offsets and lengths are those of no page."""
    length = 100 * PAGE_BYTES
    with (
        opened(here / "file") as buffered,
        opened(here / "file", os.O_RDWR | os.O_DIRECT) as direct,
        mmap.mmap(-1, length) as memory,
    ):
        chance = random.Random(3)
        model = bytearray(length)
        os.write(buffered, model)
        for step in range(200):
            unit = chance.choice((1, 512, PAGE_BYTES))
            start = chance.randrange(0, length, unit)
            count = chance.randrange(0, min(20 * PAGE_BYTES, length - start), unit) + unit
            count = min(count, length - start)
            writer = chance.choice((buffered, direct))
            view = memoryview(memory)[:count]
            if step % 2:
                view[:] = chance.randbytes(count)
                assert os.pwritev(writer, [view], start) == count
                model[start : start + count] = view
            for reader in (direct, buffered):
                assert os.preadv(reader, [view], start) == count
                assert view == model[start : start + count], (step, reader == direct)
            view.release()


# --- everything at once


class Random:
    """Random operations by two descriptors and a mapping, against a bytearray."""

    def __init__(self, path, seed):
        self.chance = random.Random(seed)
        self.path = path
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.base = self.chance.choice((0, CHUNK_BYTES - 150_000))
        self.model = bytearray(self.base)
        os.truncate(path, self.base)

    def offset(self):
        unit = self.chance.choice((1, 512, PAGE_BYTES, 65_536))
        return self.base + self.chance.randrange(0, 300_000, unit)

    def length(self):
        return self.chance.choice((self.chance.randint(1, 5000), self.chance.randint(1, 200_000)))

    def extend(self, size):
        self.model.extend(bytes(max(0, size - len(self.model))))

    def put(self, offset, data):
        self.extend(offset + len(data))
        self.model[offset : offset + len(data)] = data

    def write(self):
        offset, data = self.offset(), self.chance.randbytes(self.length())
        assert os.pwrite(self.file, data, offset) == len(data)
        self.put(offset, data)

    def read(self):
        offset, length = self.offset(), self.length()
        assert os.pread(self.file, length, offset) == self.model[offset : offset + length]

    def truncate(self):
        size = self.offset()
        os.ftruncate(self.file, size)
        del self.model[size:]
        self.extend(size)

    def punch(self):
        offset, length = self.offset(), self.length()
        fallocate(self.file, self.chance.choice((PUNCH, ZERO_RANGE | KEEP_SIZE)), offset, length)
        end = min(offset + length, len(self.model))
        self.put(offset, bytes(max(0, end - offset))) if offset < end else None

    def zero(self):
        offset, length = self.offset(), self.length()
        fallocate(self.file, ZERO_RANGE, offset, length)
        self.put(offset, bytes(length))

    def copy(self):
        source, target, length = self.offset(), self.offset(), self.length()
        length = min(length, len(self.model) - source)
        if 0 < length <= abs(source - target):
            copy_range(self.file, self.file, length, source, target)
            self.put(target, bytes(self.model[source : source + length]))

    def map(self):
        if len(self.model) <= self.base + 10:
            return
        start = self.chance.randrange(self.base, len(self.model) - 5)
        first = start - start % mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(self.file, len(self.model) - first, offset=first) as mapped:
            assert mapped[start - first :] == self.model[start:]
            mapped[start - first : start - first + 5] = b"mmap!"
            if self.chance.random() < 0.5:
                mapped.flush()
        self.put(start, b"mmap!")

    def seek(self):
        data = os.lseek(self.file, 0, os.SEEK_DATA) if any(self.model) else 0
        assert not any(self.model[:data])

    def reopen(self):
        os.fsync(self.file)
        os.close(self.file)
        self.file = os.open(self.path, os.O_RDWR)

    def run(self, steps):
        work = (self.write, self.write, self.read, self.read, self.truncate, self.punch, self.zero)
        work += (self.copy, self.map, self.seek, self.reopen)
        for step in range(steps):
            do = self.chance.choice(work)
            do()
            assert os.fstat(self.file).st_size == len(self.model), (step, do)
        os.close(self.file)
        assert self.path.read_bytes() == self.model


@needs("fallocate", "lseek", "copy_file_range")
@pytest.mark.parametrize("seed", range(4))
def test_random_operations(pair, seed):
    here, there = pair
    run = Random(here / "file", seed)
    run.run(200)
    assert (there / "file").read_bytes() == run.model
