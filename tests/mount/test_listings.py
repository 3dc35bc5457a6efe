"""Listings of directories that the kernel keeps, by each driver: what is shown is never too old."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tidefs.client.fuse.driver import Caller, Known, OpenedDirectory
from tidefs.client.options import DriverName
from tidefs.fs.attributes import Kind
from tidefs.fs.messages.meta import DirectoryEntry
from tidefs.tests.mount.drivers import mounted, needs, needs_fuse
from tidefs.tests.mount.memory_file_system import MemoryFileSystem

pytestmark = [pytest.mark.mount, needs_fuse]

ENTRIES = 1_500
HOUR_MS = 3_600_000


@pytest.fixture
def pair(make_cluster, driver_name):
    """One directory on two mounts that cache."""
    cluster = make_cluster()
    points = [cluster.mount(name, "-o", f"driver={driver_name}") for name in ("one", "two")]
    (points[0] / "folder").mkdir()
    return [point / "folder" for point in points]


def make_files(folder, count=ENTRIES):
    names = {f"file-{at}" for at in range(count)}
    for name in names:
        os.close(os.open(folder / name, os.O_CREAT))
    return names


def listed(folder):
    """The names, once each."""
    found = os.listdir(folder)
    names = set(found)
    assert len(found) == len(names)
    return names


def have_the_kernel_keep_it(folder):
    for _ in range(3):
        listed(folder)


def test_what_another_mount_did_is_seen_at_the_next_opendir(pair):
    here, there = pair
    names = make_files(there)
    for at in range(3):
        have_the_kernel_keep_it(here)
        assert listed(here) == names
        (there / f"more-{at}").touch()
        names.add(f"more-{at}")
        assert listed(here) == names
        (there / f"file-{at}").unlink()
        names.remove(f"file-{at}")
        assert listed(here) == names
        (there / f"file-{at + 10}").rename(there / f"other-{at}")
        names.remove(f"file-{at + 10}")
        names.add(f"other-{at}")
        assert listed(here) == names


def test_what_this_mount_did_is_seen_at_rewinddir(pair):
    here, _ = pair
    names = make_files(here)
    have_the_kernel_keep_it(here)
    folder = os.open(here, os.O_RDONLY)
    for at in range(3):
        assert listed(folder) == names  # os.listdir() rewinds a descriptor
        (here / f"more-{at}").touch()
        names.add(f"more-{at}")
        assert listed(folder) == names
        (here / f"file-{at}").unlink()
        names.remove(f"file-{at}")
        assert listed(folder) == names
    os.close(folder)


def by_a_name_that_is_not_there(here, there, at):
    """As git does: having seen one change of another mount, this one looks whether there are more
    before it says that there is no such name."""
    (there.parent / "sibling" / f"{at}").touch()
    listed(here.parent / "sibling")
    assert not (here / f"nothing-{at}").exists()


def by_an_error(here, there, at):
    with pytest.raises(FileExistsError):
        (here / f"more-{at}").mkdir()


@pytest.mark.parametrize("learn", [by_a_name_that_is_not_there, by_an_error])
def test_what_is_known_of_another_mount_is_seen_at_rewinddir(pair, learn):
    here, there = pair
    names = make_files(there)
    (there.parent / "sibling").mkdir()
    listed(here.parent / "sibling")
    have_the_kernel_keep_it(here)
    folder = os.open(here, os.O_RDONLY)
    for at in range(3):
        assert listed(folder) == names
        (there / f"more-{at}").touch()
        names.add(f"more-{at}")
        learn(here, there, at)
        assert listed(folder) == names
    os.close(folder)


def test_removing_what_a_kept_listing_shows(pair):
    here, _ = pair
    make_files(here)
    have_the_kernel_keep_it(here)
    with os.scandir(here) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert listed(here) == set()
    here.rmdir()


@pytest.mark.parametrize("keeps", [False, True])
def test_a_listing_that_another_mount_changes(pair, keeps):
    """What the kernel has read of it then is not taken for a listing of any version."""
    here, there = pair
    names = make_files(there)
    if keeps:
        have_the_kernel_keep_it(here)
    seen = []
    with os.scandir(here) as entries:
        for entry in entries:
            seen.append(entry.name)
            at = len(seen)
            if at % 300 == 0:
                # One that was shown, one that was not, and a new one.
                for name in (seen[at - 10], min(names - set(seen))):
                    (there / name).unlink()
                    names.remove(name)
                (there / f"new-{at}").touch()
                names.add(f"new-{at}")
                listed(there)
    assert len(seen) == len(set(seen)), "none twice"
    assert {name for name in names if name.startswith("file")} <= set(seen)
    for _ in range(3):
        assert listed(here) == names


class Keeper(MemoryFileSystem):
    """Lets the kernel keep listings, or not, and counts how often it is asked for more."""

    keeps = False
    read = 0

    def opendir(self, inode: int) -> OpenedDirectory:
        return super().opendir(inode)._replace(keep_listing=self.keeps, cache_listing=True)

    def readdir(self, handle: int, cookie: int) -> Iterator[tuple[DirectoryEntry, Known]]:
        self.read += 1
        return super().readdir(handle, cookie)


@needs("listings")
async def test_the_kernel_reads_again_what_it_may_not_keep(
    tmp_path: Path, driver_name: DriverName
) -> None:
    file_system = Keeper(trust_ms=HOUR_MS)
    for at in range(ENTRIES):
        file_system.mknod(1, b"%d" % at, Kind.FILE, 0o644, 0, Caller(0, 0, 0, 0))
    async with mounted(tmp_path / "mnt", file_system, driver_name) as mount:
        whole = await mount.run(listed)
        for keeps in (True, False, True):
            file_system.keeps, file_system.read = keeps, 0
            assert await mount.run(listed) == whole
            assert bool(file_system.read) is not keeps
        await mount.run(lambda path: (path / "7").unlink())
        assert "7" not in await mount.run(listed), "it knows what it did itself"
