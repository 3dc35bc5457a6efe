"""Real clusters and real mounts for tests: always taken down, also after a run that was killed."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import pytest
from tidefs.tests.watchdog import Watch, cut_off, fuse_mounts

TIDEFS = [sys.executable, "-m", "tidefs.deploy"]
COMMAND_TIMEOUT_S = 100
UMOUNT_TIMEOUT_S = 20


class Stage:
    """A folder for clusters and mounts, which leaves nothing behind.

    A file in a fixed place names the folder for as long as it is in use; it is locked by the
    process that uses it. Whoever finds one that is not locked cleans up after a killed run.
    """

    RECORDS = Path(tempfile.gettempdir()) / f"tidefs-tests-{os.getuid()}"

    def __init__(self, folder):
        self.folder = folder
        self.RECORDS.mkdir(mode=0o700, exist_ok=True)
        self.path = self.RECORDS / uuid.uuid4().hex
        self.record = self.path.open("w")
        fcntl.flock(self.record, fcntl.LOCK_EX)
        json.dump(str(folder), self.record)
        self.record.flush()

    def close(self):
        """Unmount and stop everything below the folder."""
        clear(self.folder)
        self.path.unlink()
        self.record.close()

    @classmethod
    def clear_abandoned(cls):
        """Clean up after runs that did not."""
        for path in cls.RECORDS.glob("*"):
            with path.open() as record:
                try:
                    fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    folder = Path(json.load(record))
                except (BlockingIOError, ValueError):
                    continue
                clear(folder)
                path.unlink(missing_ok=True)


def clear(folder):
    """End every mount and every server below a folder, by force where asking does not help."""
    folder = folder.resolve()
    for point, _ in fuse_mounts(folder):
        asking = subprocess.Popen(
            [*TIDEFS, "umount", point], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            asking.wait(UMOUNT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            cut_off(folder)  # before it is killed: it may wait for the mount, deaf to signals
            asking.kill()
            asking.wait()
    for point in cut_off(folder):
        subprocess.run(["umount", "-l", point], capture_output=True, check=False)
    for pid in clients(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it would wait for servers that are gone
    for path in folder.glob("**/cluster.toml"):
        call("down", path.parent, "--force", check=False)


def clients(folder):
    """The processes of mounts below a folder, also of those that are unmounted by now."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if {"tidefs.deploy", "mount", "--foreground"} <= set(words) and any(
                Path(word).is_relative_to(folder) for word in words
            ):
                yield int(path.parent.name)


def call(*arguments, check=True):
    """Run ``tidefs``; with ``check`` it must succeed."""
    done = subprocess.run(
        [*TIDEFS, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if check:
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"tidefs {arguments} ended with {done.returncode}: {said}"
    return done


class LiveCluster:
    """A cluster of processes in a folder (it may not have been made yet)."""

    def __init__(self, folder):
        self.folder = folder

    def up(self, *options):
        """``tidefs up``."""
        return call("up", self.folder, *options)

    def down(self, *options):
        """``tidefs down``."""
        return call("down", self.folder, *options)

    def mount(self, name="mnt", *options):
        """``tidefs mount`` on a folder beside it, made when it is missing."""
        point = self.folder.parent / name
        with contextlib.suppress(FileExistsError):
            point.mkdir()
        call("mount", self.folder, point, *options)
        return point

    def umount(self, point):
        """``tidefs umount``."""
        return call("umount", point)

    def status(self):
        """``tidefs status --json``, whatever its exit code says."""
        return json.loads(call("status", self.folder, "--json", check=False).stdout)

    def pids(self, role=None):
        """Process ids of the servers that run, by name."""
        return {
            server["name"]: server["pid"]
            for server in self.status()["servers"]
            if server["pid"] and role in (None, server["role"])
        }


@pytest.fixture(scope="session")
def _clean_machine():
    Stage.clear_abandoned()


@pytest.fixture
def stage(tmp_path, _clean_machine):
    """A temporary folder below which clusters and mounts may be left: they are taken down."""
    stage = Stage(tmp_path)
    yield stage.folder
    stage.close()


@pytest.fixture
def tidefs_command():
    """Run the ``tidefs`` command: ``tidefs_command("up", folder, check=False).stderr``."""
    return call


@pytest.fixture
def make_cluster(stage):
    """Start clusters: ``make_cluster(chunkservers=3, replicas=3)`` gives a LiveCluster."""

    def make(name="cluster", chunkservers=1, replicas=1, metaservers=1):
        cluster = LiveCluster(stage / name)
        shape = ["--chunkservers", chunkservers, "--replicas", replicas]
        cluster.up("--metaservers", metaservers, *shape)
        return cluster

    return make


@pytest.fixture
def embedded(stage):
    """A LiveCluster that its first mount makes."""
    return LiveCluster(stage / "tide")


@pytest.fixture
def wait_until():
    """Look at a condition until it holds; the time-out of the test ends the wait."""

    def wait(condition):
        while not condition():
            threading.Event().wait(0.05)

    return wait


WATCH = pytest.StashKey[Watch]()


def pytest_configure(config):
    """Watch over the tests: the limit of pytest-timeout ends nobody who waits in the kernel."""
    config.stash[WATCH] = Watch()


def pytest_unconfigure(config):
    config.stash[WATCH].close()


@pytest.fixture(scope="session", autouse=True)
def _mounts_are_watched(request, tmp_path_factory):
    request.config.stash[WATCH].mounts_are_below(tmp_path_factory.getbasetemp())


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item, settings):
    item.config.stash[WATCH].begins(item.nodeid, settings.timeout)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    yield
    item.config.stash[WATCH].is_over()


def pytest_enter_pdb(config):
    """Somebody looks at it, as long as that takes."""
    config.stash[WATCH].is_over()


def pytest_collection_modifyitems(items):
    """Where the kernel has no FUSE, mount tests cannot be; but CI must have it."""
    if os.path.exists("/dev/fuse") or os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason="/dev/fuse is missing: `modprobe fuse`")
    for item in items:
        if item.get_closest_marker("mount"):
            item.add_marker(skip)
