"""A full disk under a whole cluster: changes get ENOSPC, reads go on, and it recovers."""

import errno
import os
import subprocess

import pytest

pytestmark = pytest.mark.mount

MIB = 1 << 20


@pytest.fixture
def small_disk(stage):
    """A file system of 200 MiB, for a cluster to fill."""
    folder = stage / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_refuses_writes_and_recovers(small_disk, stage, tidefs_command):
    point = stage / "mnt"
    point.mkdir()
    cluster = small_disk / "tide"
    tidefs_command("mount", cluster, point)
    (point / "kept").write_bytes(b"kept")
    with pytest.raises(OSError, match="No space left") as caught:
        fill(point / "big")
    assert caught.value.errno == errno.ENOSPC
    assert (point / "kept").read_bytes() == b"kept"
    assert (point / "big").stat().st_size <= 200 * MIB
    said = tidefs_command("status", cluster, check=False)
    assert "nearly full" in said.stdout
    assert said.returncode == 1

    (point / "big").unlink()
    content = os.urandom(20 * MIB)
    write_when_there_is_room(point / "again", content)
    assert (point / "again").read_bytes() == content
    tidefs_command("umount", point)
    tidefs_command("mount", cluster, point)
    assert (point / "again").read_bytes() == content
    assert (point / "kept").read_bytes() == b"kept"
    tidefs_command("umount", point)


def fill(path):
    with open(path, "wb", 0) as handle:
        for _ in range(300):
            handle.write(os.urandom(MIB))


def write_when_there_is_room(path, content):
    """What was deleted is reclaimed soon after, not at once; the test's time-out ends the wait."""
    room = False
    while not room:
        try:
            path.write_bytes(content)
            room = True
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
