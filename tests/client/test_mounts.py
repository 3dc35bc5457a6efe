"""The list of mounts, and the notes about who serves them."""

import os
import stat

import pytest
from tidefs.client import mounts
from tidefs.client.mounts import Mount
from tidefs.fs.errors import Code, TideError

MOUNTINFO = rb"""22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
36 22 0:48 / /mnt/with\040space rw,nosuid - fuse.tidefs tidefs:/data/t\134xefde rw,user_id=0
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
    assert listed[1] == Mount("/mnt/with space", "fuse.tidefs", "tidefs:/data/t\xefde", "0:48")
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


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(mounts, "runtime_folder", lambda: folder)
    folder.mkdir()
    return folder


def test_a_living_server_is_known_until_its_note_goes(runtime):
    mount = Mount("/mnt", mounts.TYPE, "tidefs:x", "0:48")
    assert mounts.server_of(mount) is None
    note = mounts.note_server(mount)
    assert mounts.server_of(mount).pid == os.getpid()
    assert mounts.server_of(mount._replace(point="/other")) is None
    assert list(runtime.iterdir()) == [note]
    note.write_text(note.read_text().replace(str(os.getpid()), "1"))
    assert mounts.server_of(mount) is None, "another process has that number now"
    note.write_text("{")
    assert mounts.server_of(mount) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_the_runtime_folder_must_be_our_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(mounts.os, "geteuid", lambda: 1234)
    with pytest.raises(TideError) as failed:
        mounts.runtime_folder()
    assert failed.value.code is Code.ACCESS_DENIED
    assert str(tmp_path) in str(failed.value)
    os.chown(tmp_path / "tidefs", 1234, 1234)
    assert stat.S_IMODE(mounts.runtime_folder().stat().st_mode) == 0o700
    (tmp_path / "tidefs").chmod(0o777)
    with pytest.raises(TideError):
        mounts.runtime_folder()


def test_what_is_not_ours_is_not_unmounted(tmp_path):
    for path, said in ((str(tmp_path), "not mounted"), ("/proc", "proc")):
        with pytest.raises(TideError) as failed:
            mounts.unmount(path)
        assert failed.value.code is Code.INVALID
        assert said in str(failed.value)
    assert os.path.ismount("/proc")
