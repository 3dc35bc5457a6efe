"""An ordinary user mounts, works and unmounts without root; on both drivers."""

import json
import os

import pytest
from tidefs.deploy.exits import Exit
from tidefs.tests.deploy.private_machine import USER, Machine

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a machine of its own, as root"),
]

WORK = """
cd "$1"
mkdir -p d/e
echo one > d/e/f
cp -a d copy
mv copy/e/f g
ln g h
chmod 600 g
head -c 3000000 /dev/zero > big
sync big
ls -la . d
rm -r copy
cmp g d/e/f
"""


@pytest.fixture(scope="module")
def machine():
    machine = Machine()
    yield machine
    machine.close()


@pytest.fixture
def point(machine):
    """Where the user mounts; unmounted at the end."""
    point = machine.folder / "mnt"
    machine.user("mkdir", "-p", point)
    yield point
    while machine.mounted(point):
        machine.root("umount", "-i", "-l", point)


def kill_client(machine, folder):
    """kill -9 of the only client."""
    done = machine.tidefs("status", folder, "--json", check=False)
    (mount,) = json.loads(done.stdout)["mounts"]
    machine.kill(mount["pid"])


@pytest.mark.parametrize("driver", ["kernel", "pyfuse3"])
def test_a_user_mounts_works_and_unmounts(driver, machine, point):
    folder = machine.folder / driver
    machine.tidefs("mount", folder, point, "-o", f"driver={driver}")
    line = machine.mounted(point)
    assert f"user_id={USER.pw_uid}" in line
    assert "nosuid,nodev" in line
    assert f", {driver} driver)" in machine.tidefs("status", folder, check=False).stdout
    machine.user("sh", "-e", "-c", WORK, "work", point)
    assert machine.user("stat", "-c", "%u %a", point / "g").stdout == f"{USER.pw_uid} 600\n"
    machine.tidefs("umount", point)
    assert not machine.mounted(point)
    assert machine.user("ls", point).stdout == ""

    machine.tidefs("mount", folder, point, "-o", f"driver={driver}")
    assert machine.user("cat", point / "g").stdout == "one\n"
    assert machine.user("stat", "-c", "%s", point / "big").stdout == "3000000\n"
    machine.tidefs("umount", point)


@pytest.mark.parametrize(
    ("driver", "by"), [("kernel", "user"), ("pyfuse3", "user"), ("kernel", "root")]
)
def test_what_a_users_crashed_client_left_is_replaced(driver, by, machine, point):
    folder = machine.folder / f"crash-{driver}-{by}"
    machine.tidefs("mount", folder, point, "-o", f"driver={driver}")
    machine.user("touch", point / "file")
    kill_client(machine, folder)
    assert "not connected" in machine.user("ls", point, check=False).stderr
    who = machine.user if by == "user" else machine.root
    machine.tidefs("mount", folder, point, "-o", f"driver={driver}", by=who)
    assert who("ls", point).stdout == "file\n"
    machine.tidefs("umount", point, by=who)


def test_root_unmounts_what_a_user_has_mounted(machine, point):
    """And waits for the user's process as if it were its own."""
    folder = machine.folder / "by-root"
    machine.tidefs("mount", folder, point)
    machine.tidefs("umount", point, by=machine.root)
    assert not machine.mounted(point)
    done = machine.tidefs("status", folder, "--json", check=False)
    assert json.loads(done.stdout)["mounts"] == []


@pytest.mark.parametrize("driver", ["kernel", "pyfuse3"])
@pytest.mark.parametrize("word", ["suid", "dev"])
def test_what_only_root_may_ask_for(word, driver, machine, point):
    folder = machine.folder / "refused"
    words = ["mount", folder, point, "-o", f"{word},driver={driver}"]
    done = machine.tidefs(*words, check=False)
    assert done.returncode == Exit.LACKING
    assert f"-o {word}: only root" in done.stderr
    assert not machine.mounted(point)


@pytest.mark.parametrize("driver", ["kernel", "pyfuse3"])
def test_what_fusermount_refuses_is_said_in_its_words(driver, machine, point):
    folder = machine.folder / "refused"
    closed = machine.folder / "closed"
    machine.root("mkdir", "-p", closed)
    done = machine.tidefs("mount", folder, closed, "-o", f"driver={driver}", check=False)
    assert done.returncode == Exit.LACKING
    assert "no write access to mountpoint" in done.stderr
    assert str(closed) in done.stderr


def test_a_user_sees_what_sharing_means(machine, point):
    folder = machine.folder / "shared"
    chosen = ["--only", "read-after-close", "--rounds", "1", "--modes", "nfs"]
    machine.tidefs("mount", folder, point)
    done = machine.tidefs("semantics", folder, *chosen)
    assert "every outcome that was seen is allowed" in done.stdout
    assert machine.user("ls", point).stdout == "", "what was made for it is removed"

    machine.user("chmod", "500", point)
    done = machine.tidefs("semantics", folder, *chosen, check=False)
    assert done.returncode == Exit.LACKING
    assert "do it as a user who may write there" in done.stderr
    assert "Traceback" not in done.stderr
    machine.tidefs("umount", point)
