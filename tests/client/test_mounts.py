"""The kernel's list of mounts."""

import pytest
from tidefs.client import mounts
from tidefs.client.mounts import Mount

MOUNTINFO = rb"""22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
36 22 0:48 / /mnt/with\040space rw - fuse.tidefs tidefs:/data/t\134xefde user_id=10,group_id=20
37 22 0:49 / /mnt/\303\251 rw,nosuid shared:7 master:1 - fuse.other none rw
38 22 0:50 / /mnt/with\040space rw - tmpfs tmpfs rw
"""


@pytest.fixture
def listed(tmp_path, monkeypatch):
    file = tmp_path / "mountinfo"
    file.write_bytes(MOUNTINFO)
    real = mounts.Path

    def path(text):
        return file if text == "/proc/self/mountinfo" else real(text)

    monkeypatch.setattr(mounts, "Path", path)
    return mounts.mounts()


def test_the_kernels_list_is_read(listed):
    assert listed[0] == Mount("/", "ext4", "/dev/root", "259:1")
    tide = ("/mnt/with space", "fuse.tidefs", "tidefs:/data/t\xefde", "0:48")
    assert listed[1] == Mount(*tide, owner=10, group=20)
    assert listed[1].ours
    assert listed[2].point == "/mnt/\xe9"
    assert not listed[2].ours


def test_the_topmost_mount_counts(listed):
    assert mounts.mount_at("/mnt/with space").type == "tmpfs"
    assert mounts.mount_at("/nowhere") is None


@pytest.mark.parametrize(
    "name", ["/plain", "/with,comma", "/t\xefde \u2603", "/back\\slash", "/\udcff"]
)
def test_names_survive_the_kernels_list(name):
    source = mounts.source_of(name)
    assert source.isascii()
    assert mounts._read_source(source) == mounts.SOURCE_PREFIX + name


def test_a_link_to_a_mount_point_is_followed(tmp_path):
    (tmp_path / "link").symlink_to("/proc")
    assert mounts.find(str(tmp_path / "link"))[0] == "/proc"
    point, mount = mounts.find("/proc/../proc")
    assert point == "/proc"
    assert mount.type == "proc"
