"""How a mount is asked for: of the kernel, and of fusermount3."""

import os

import pytest
from tidefs.client import mounts
from tidefs.client.fuse import attach as module
from tidefs.client.fuse.attach import attach, flags_of, words_of
from tidefs.client.options import parse_options
from tidefs.fs.errors import Code, TideError

NOTHING_SPECIAL = module.MS_NOSUID | module.MS_NODEV | module.MS_RELATIME


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("", NOTHING_SPECIAL),
        ("ro", NOTHING_SPECIAL | module.MS_RDONLY),
        ("noexec", NOTHING_SPECIAL | module.MS_NOEXEC),
        ("suid", module.MS_NODEV | module.MS_RELATIME),
        ("dev", module.MS_NOSUID | module.MS_RELATIME),
        ("noatime,suid,dev", module.MS_NOATIME),
        ("strictatime,nodiratime,suid,dev", module.MS_STRICTATIME | module.MS_NODIRATIME),
    ],
)
def test_the_flags_of_mount(words, flags):
    assert flags_of(parse_options([words])) == flags


@pytest.mark.parametrize("uid", [0, 1234])
def test_the_words_for_fusermount(uid, monkeypatch):
    monkeypatch.setattr(module.os, "geteuid", lambda: uid)
    words = words_of("/a,b\\c", parse_options([""]))
    assert "fsname=tidefs:/a\\,b\\\\\\\\c" in words, "it takes one backslash of each pair away"
    assert "default_permissions" in words
    assert ("allow_other" in words) == (uid == 0)
    assert not {"suid", "dev", "ro", "noexec", "noatime"} & set(words)
    words = words_of("x", parse_options(["suid,dev,ro,noexec,noatime,allow_self"]))
    assert {"suid", "dev", "ro", "noexec", "noatime"} < set(words)
    assert "allow_other" not in words
    assert "allow_other" in words_of("x", parse_options(["allow_other"]))


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "DEVICE", str(tmp_path / "fuse"))
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    with pytest.raises(TideError) as failed:
        attach(str(tmp_path), "x", parse_options([]))
    assert failed.value.code is Code.NOT_SUPPORTED
    monkeypatch.setattr(module.os, "geteuid", lambda: 1234)
    monkeypatch.setattr(mounts, "FUSERMOUNT", "no-fusermount")
    with pytest.raises(TideError) as failed:
        attach(str(tmp_path), "x", parse_options([]))
    assert failed.value.code is Code.NOT_SUPPORTED
    assert "install fuse3" in str(failed.value)


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts by mount(2)")
def test_the_device_does_not_block_and_is_not_inherited(tmp_path):
    device = attach(str(tmp_path), "x", parse_options([]))
    try:
        assert not os.get_blocking(device)
        assert not os.get_inheritable(device)
        mount = mounts.mount_at(str(tmp_path))
        assert mount.ours
        assert mount.source == "tidefs:x"
    finally:
        os.close(device)
        mounts_left = mounts.mount_at(str(tmp_path))
        if mounts_left is not None:
            module.ctypes.CDLL(None).umount2(os.fsencode(tmp_path), 0)
    with pytest.raises(TideError) as failed:
        attach(str(tmp_path / "missing"), "x", parse_options([]))
    assert failed.value.code is Code.NOT_PERMITTED
    assert "No such file" in str(failed.value)
