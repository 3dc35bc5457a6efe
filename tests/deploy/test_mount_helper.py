"""mount(8), umount(8) and /etc/fstab with our helpers."""

import json
import os
import sys
import sysconfig
from pathlib import Path

import pytest
from tidefs.deploy.exits import Exit
from tidefs.deploy.install_helpers import LINKS
from tidefs.deploy.mount_words import ours
from tidefs.tests.deploy.private_machine import USER, Machine

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a machine of its own, as root")


class Cluster:
    """A cluster that runs on a machine of its own, and a mount point."""

    def __init__(self, machine):
        self.machine = machine
        self.folder = machine.folder / "cluster"
        self.point = machine.folder / "mnt"
        machine.root("install", "-d", "-o", USER.pw_uid, self.point)
        machine.tidefs("install-helpers", by=machine.root)
        shape = ["--chunkservers", 1, "--replicas", 1]
        machine.tidefs("up", self.folder, *shape, by=machine.root)
        addresses = self.status()["servers"][0]["addresses"]
        self.address = next(one[4:] for one in addresses if one.startswith("tcp:"))

    def status(self):
        done = self.machine.tidefs("status", self.folder, "--json", by=self.machine.root)
        return json.loads(done.stdout)

    def mount(self, *words, check=True):
        return self.machine.root("mount", "-t", "tidefs", *words, check=check)

    def line(self):
        return self.machine.mounted(self.point)


@pytest.fixture(scope="module")
def machine():
    machine = Machine()
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def made(machine):
    return Cluster(machine)


@pytest.fixture
def cluster(made):
    yield made
    while made.line():
        made.machine.root("umount", "-i", "-l", made.point)


@as_root
@pytest.mark.mount
def test_a_line_of_fstab(cluster):
    machine, point = cluster.machine, cluster.point
    machine.fstab(
        f"{cluster.folder} {point} tidefs noauto,_netdev,nofail,x-systemd.automount,noatime 0 0"
    )
    assert machine.root("mount", point).stdout == ""
    assert "noatime" in cluster.line()
    machine.root("sh", "-c", f"echo x > {point}/file")
    assert "already" in machine.root("mount", point).stderr, "as mount -a asks"
    assert cluster.line()
    assert [mount["mount_point"] for mount in cluster.status()["mounts"]] == [str(point)]
    machine.root("umount", point)
    assert not cluster.line()
    assert cluster.status()["mounts"] == [], "umount has waited for the process"


@as_root
@pytest.mark.mount
@pytest.mark.parametrize("kind", ["tidefs", "fuse.tidefs"])
def test_mount_by_addresses(kind, cluster):
    words = ["mount", "-v", "-t", kind, cluster.address, cluster.point, "-o"]
    done = cluster.machine.root(*words, "ro,mode=uncached,driver=kernel,nodiratime,allow_suid")
    assert "mounted" in done.stdout
    options = cluster.line().split()[5].split(",")
    assert {"ro", "nodev", "nodiratime"} <= set(options)
    assert "nosuid" not in options
    cluster.machine.root("umount", "-v", cluster.point)
    assert not cluster.line()


@as_root
@pytest.mark.mount
def test_a_user_whom_fstab_lets_mount(cluster):
    machine, point = cluster.machine, cluster.point
    machine.fstab(f"{cluster.address} {point} tidefs defaults,user,noauto 0 0")
    machine.user("mount", point)
    line = cluster.line()
    assert "nosuid,nodev,noexec" in line
    assert f"user_id={USER.pw_uid}" in line
    machine.root("umount", point)
    machine.user("mount", point)
    machine.user("umount", point)
    assert not cluster.line()


@as_root
@pytest.mark.mount
def test_what_a_crashed_client_left_is_replaced(cluster):
    machine, point = cluster.machine, cluster.point
    cluster.mount(cluster.folder, point)
    (mount,) = cluster.status()["mounts"]
    machine.kill(mount["pid"])
    assert machine.root("ls", point, check=False).returncode
    cluster.mount(cluster.folder, point)
    machine.root("ls", point)
    machine.root("umount", point)


@as_root
@pytest.mark.mount
def test_the_exit_codes_of_mount(cluster):
    machine, point, address = cluster.machine, cluster.point, cluster.address

    def fails(code, said, *words):
        done = cluster.mount(*words, check=False)
        assert said in done.stderr
        assert done.returncode == code, done.stderr
        assert not cluster.line()

    fails(1, "no such option", address, point, "-o", "frobnicate")
    fails(1, "mode=uncached", address, point, "-o", "sync")
    fails(1, "unmount it", address, point, "-o", "remount,ro")
    fails(32, "mkdir", address, machine.folder / "missing")
    fails(32, "make one with `tidefs up", machine.folder / "none", point)
    cluster.mount("-f", address, point)
    assert not cluster.line(), "-f: nothing is mounted"
    fails(1, "no such option", "-f", address, point, "-o", "frobnicate")
    helper = Path(sysconfig.get_path("scripts")) / "mount.tidefs"
    assert machine.root(helper, address, check=False).returncode == 1
    assert machine.root(helper, address, point, "-N", "1", check=False).returncode == 1

    cluster.mount("-s", address, point, "-o", "frobnicate,_netdev")
    done = cluster.mount(cluster.folder, point, check=False)
    assert done.returncode == 32
    assert "tidefs umount" in done.stderr
    busy = f"cd {point}; umount {point}"
    done = machine.root("sh", "-c", busy, check=False)
    assert done.returncode == 32
    assert "in use" in done.stderr
    machine.root("umount", point)
    assert machine.root("umount", point, check=False).returncode == 32


def test_links_are_made_and_taken_away(tidefs_command, tmp_path):
    done = tidefs_command("install-helpers", "--folder", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(LINKS)
    for name in LINKS:
        assert os.access(tmp_path / name, os.X_OK)
        assert str(tmp_path / name) in done.stdout
    tidefs_command("install-helpers", "--folder", tmp_path)
    (tmp_path / "mount.tidefs").unlink()
    (tmp_path / "mount.tidefs").symlink_to("/elsewhere/bin/mount.tidefs")
    tidefs_command("install-helpers", "--folder", tmp_path)
    assert os.access(tmp_path / "mount.tidefs", os.X_OK), "of an older installation"
    tidefs_command("install-helpers", "--folder", tmp_path, "--undo")
    assert not list(tmp_path.iterdir())


def test_what_is_not_ours_is_not_touched(tidefs_command, tmp_path):
    (tmp_path / "umount.tidefs").write_text("mine")
    for words in ([], ["--undo"]):
        done = tidefs_command("install-helpers", "--folder", tmp_path, *words, check=False)
        assert done.returncode == Exit.BUSY
        assert "umount.tidefs" in done.stderr
    assert (tmp_path / "umount.tidefs").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_words_of_mount_that_are_not_ours():
    words = "rw,_netdev,x-systemd.requires=a,X-b,noauto,nofail,user=me,comment=c,defaults,noexec"
    assert ours([words, "soft"]) == (["rw", "noexec", "soft"], {})
    kept, refused = ours(["sync,remount,bogus,ro"])
    assert kept == ["bogus", "ro"]
    assert set(refused) == {"sync", "remount"}
    assert ours(["bogus,ro,timeout=5s"], sloppy=True)[0] == ["ro", "timeout=5s"]


def test_a_python_of_ours_runs_the_helpers():
    for program in set(LINKS.values()):
        path = Path(sysconfig.get_path("scripts")) / program
        assert path.exists(), f"install this version: {sys.executable} -m pip install -e ."
