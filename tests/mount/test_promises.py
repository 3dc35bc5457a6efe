"""What docs/semantics.md promises, on real mounts of real clusters."""

import os
import random
import select
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount


@pytest.fixture
def noise():
    """Random bytes, the same in each run."""
    return random.Random(7).randbytes


def kill_and_wait(*pids):
    """kill -9, and wait until they are gone."""
    descriptors = [os.pidfd_open(pid) for pid in pids]
    for descriptor in descriptors:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 30)[0], "a killed process is still there"
        os.close(descriptor)


def client_pids(cluster):
    """The processes that serve mounts of a cluster."""
    return [mount["pid"] for mount in cluster.status()["mounts"]]


def test_closed_is_seen_at_the_next_open(make_cluster, noise):
    cluster = make_cluster()
    one, two = cluster.mount("one"), cluster.mount("two")
    (one / "file").write_bytes(b"first")
    assert (two / "file").read_bytes() == b"first"
    for size in (6, 5, 70_000, 9_000, 3_000_000, 100):
        content = noise(size)
        (one / "file").write_bytes(content)
        assert (two / "file").read_bytes() == content, f"{size} bytes, written over there"
        with open(two / "file", "r+b") as handle:
            handle.seek(size // 2)
            handle.write(b"middle")
        content = content[: size // 2] + b"middle" + content[size // 2 + 6 :]
        assert (one / "file").read_bytes() == content, f"{size} bytes, changed over there"


def test_uncached_sees_at_once_what_is_still_open(make_cluster, noise):
    cluster = make_cluster()
    one = cluster.mount("one", "--mode", "uncached")
    two = cluster.mount("two", "--mode", "uncached")
    with open(one / "file", "w+b", 0) as here, open(two / "file", "r+b", 0) as there:
        at = 0
        for size in (10, 1, 20_000, 500_000, 3):
            content = noise(size)
            here.write(content)
            assert os.fstat(there.fileno()).st_size == at + size
            assert os.pread(there.fileno(), size, at) == content
            at += size
        there.truncate(5)
        assert os.fstat(here.fileno()).st_size == 5
    (one / "file").rename(one / "other")
    assert os.listdir(two) == ["other"]
    with pytest.raises(FileNotFoundError):
        os.stat(two / "file")


def test_a_write_of_another_mode_is_seen_too(make_cluster):
    cluster = make_cluster()
    cached, uncached = cluster.mount("one"), cluster.mount("two", "--mode", "uncached")
    (cached / "file").write_bytes(b"from the cached one")
    assert (uncached / "file").read_bytes() == b"from the cached one"
    with open(uncached / "file", "r+b", 0) as handle:
        handle.write(b"FROM")
        assert (cached / "file").read_bytes() == b"FROM the cached one"


def test_a_flipped_bit_is_never_read(make_cluster, noise):
    cluster = make_cluster(chunkservers=3, replicas=3)
    point = cluster.mount()
    content = noise(1_000_000)
    with open(point / "file", "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    # Which copy is read first is not promised, so each is the damaged one in turn.
    told = []
    for name in ("chunk-1", "chunk-2", "chunk-3"):
        cluster.umount(point)
        cluster.down()
        flip_a_bit(cluster.folder / name)
        cluster.up()
        point = cluster.mount()
        assert (point / "file").read_bytes() == content, f"with a bit flipped on {name}"
        told = [text for text in cluster.status()["problems"] if "bad block" in text]
        if told:
            break
    assert told, "status tells of the damage"
    assert f"on {name}," in told[0]
    assert "offset" in told[0]


def flip_a_bit(folder):
    """In the stored bytes of the only large chunk file of a chunkserver."""
    (path,) = [
        path
        for path in folder.glob("data/chunks/*/*")
        if path.is_file() and path.stat().st_size > 500_000
    ]
    with open(path, "r+b") as file:
        file.seek(65_536 + 400_000)
        (byte,) = file.read(1)
        file.seek(65_536 + 400_000)
        file.write(bytes([byte ^ 0x10]))


def test_what_was_synced_survives_the_death_of_everything(make_cluster, noise):
    cluster = make_cluster(chunkservers=3, replicas=3)
    synced = {}
    for turn in range(3):
        point = cluster.mount()
        for name, content in synced.items():
            assert (point / name).read_bytes() == content, name
        for size in (0, 100, 9_000, 300_000):
            name, content = f"{turn}-{size}", noise(size)
            with open(point / name, "wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            synced[name] = content
            with open(point / f"{name}-unsynced", "wb") as handle:
                handle.write(content)
        kill_and_wait(*cluster.pids().values(), *client_pids(cluster))
        cluster.up()
    point = cluster.mount()
    for name, content in synced.items():
        assert (point / name).read_bytes() == content, name


def test_a_tree_is_the_same_as_on_a_local_disk(embedded, tmp_path, noise):
    local = tmp_path / "local"
    plant(local, noise)
    point = embedded.mount()
    subprocess.run(["cp", "-a", local, point], check=True)
    assert leaves(point / "local") == leaves(local)
    embedded.umount(point)
    point = embedded.mount()
    assert leaves(point / "local") == leaves(local)
    shutil.rmtree(point / "local")
    assert os.listdir(point) == []


def plant(top, noise):
    """A tree with one of everything."""
    (top / "a" / "b" / "c").mkdir(parents=True)
    for number, size in enumerate((0, 1, 4096, 8192, 8193, 65_536, 200_001)):
        path = top / "a" / f"file-{number}"
        path.write_bytes(noise(size))
        path.chmod((0o644, 0o600, 0o755, 0o444)[number % 4])
    os.link(top / "a" / "file-3", top / "a" / "b" / "linked")
    (top / "a" / "pointer").symlink_to("b/c/nowhere")
    os.mkfifo(top / "a" / "fifo", 0o640)
    (top / ("n" * 255)).write_text("a long name")
    os.mkdir(os.fsencode(top) + b"/\xff\xfe not utf-8")
    with open(top / "sparse", "wb") as handle:
        handle.truncate(10_000_000)
        handle.seek(9_000_000)
        handle.write(b"far out")
    os.setxattr(top / "sparse", "user.colour", b"blue\x00green")
    (top / "a" / "b" / "c").chmod(0o1777)
    for folder, folders, files in os.walk(top, topdown=False):
        for name in folders + files:
            when = 1_000_000_007 * hash_of(name), 1_234_567_891_234_567_890 + hash_of(name)
            os.utime(os.path.join(folder, name), ns=when, follow_symlinks=False)


def hash_of(name):
    return sum(os.fsencode(name)) % 1009


def leaves(top):
    """Each path with all that can be known of it."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in folders + files:
            path = os.path.join(folder, name)
            seen = os.lstat(path)
            content = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = Path(os.fsdecode(path)).read_bytes()
            links = None if os.path.isdir(path) else seen.st_nlink
            xattrs = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            found[os.path.relpath(path, os.fsencode(top))] = (
                *(seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, links),
                *(content, sorted(xattrs.items())),
            )
    return found


def test_an_open_file_outlives_its_name_on_another_mount(make_cluster, noise):
    cluster = make_cluster()
    one, two = cluster.mount("one"), cluster.mount("two")
    content = noise(300_000)
    (one / "file").write_bytes(content)
    with open(two / "file", "rb") as handle:
        (one / "file").unlink()
        assert handle.read() == content
        assert os.fstat(handle.fileno()).st_nlink in (0, 1), "believed for a while"
    with pytest.raises(FileNotFoundError):
        open(two / "file", "rb").close()


def test_a_soft_mount_gives_up_and_a_hard_one_waits(make_cluster, noise):
    cluster = make_cluster()
    soft = cluster.mount("soft", "-o", "soft,timeout=1s", "--mode", "uncached")
    hard = cluster.mount("hard")
    (hard / "file").write_bytes(b"there")
    kill_and_wait(*cluster.pids("metaserver").values())
    with pytest.raises(TimeoutError):
        os.stat(soft / "file")
    waiting = subprocess.Popen(["touch", hard / "later"])
    assert waiting.poll() is None
    cluster.up()
    assert waiting.wait(timeout=60) == 0
    assert os.stat(soft / "later").st_size == 0
