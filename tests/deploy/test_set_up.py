"""The set-up of a machine: what is missing is installed where that can be, and named elsewhere."""

import os
import shutil
import subprocess
import sys

import pytest
from tidefs.tests.tidy.packages import ROOT

SCRIPT = ROOT / "deploy" / "system-packages"
BASICS = ["sh", "env", "mktemp", "tail", "rm", "dirname", "ln"]
APT_GET = """#!/bin/sh
echo "$@" >>{log}
[ "$1" = update ] && exit 0
for name in gcc pkg-config fusermount3; do ln -s "$(command -v true)" {folder}/$name; done
"""


class Machine:
    """A PATH with only what is put into it."""

    def __init__(self, folder):
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.log = folder / "apt-log"
        for name in BASICS:
            (self.folder / name).symlink_to(shutil.which(name))
        (self.folder / "true").symlink_to(shutil.which("true"))
        self.put("id", "#!/bin/sh\necho 0\n")

    def put(self, name, text):
        """A program of our own."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def set_up(self, python=sys.executable):
        """Run the script."""
        return subprocess.run(
            [SCRIPT],
            env={"PATH": str(self.folder), "PYTHON": python},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_what_is_missing_is_installed(machine):
    machine.put("apt-get", APT_GET.format(log=machine.log, folder=machine.folder))
    done = machine.set_up()
    assert done.returncode == 0, done.stderr
    update, install = machine.log.read_text().splitlines()
    assert update.startswith("update")
    assert {"gcc", "pkg-config", "libfuse3-dev", "fuse3"} <= set(install.split())


def test_nothing_is_done_when_nothing_is_missing(machine):
    machine.put("apt-get", "#!/bin/sh\nexit 1\n")
    for name in ("gcc", "pkg-config", "fusermount3"):
        machine.put(name, "#!/bin/sh\n")
    done = machine.set_up()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_rights_it_says_what_to_install(machine):
    machine.put("apt-get", "#!/bin/sh\nexit 1\n")
    machine.put("id", "#!/bin/sh\necho 1000\n")
    done = machine.set_up()
    assert done.returncode == 1
    assert "no sudo" in done.stderr
    assert "libfuse3-dev" in done.stderr


def test_without_apt_it_says_what_to_install(machine):
    done = machine.set_up()
    assert done.returncode == 1
    assert "no apt-get" in done.stderr
    assert "libfuse3-dev" in done.stderr


def test_what_apt_said_is_shown_when_it_fails(machine):
    machine.put("apt-get", "#!/bin/sh\necho no such mirror >&2\nexit 100\n")
    done = machine.set_up()
    assert done.returncode == 1
    assert "no such mirror" in done.stderr


def test_a_python_that_is_too_old_is_named(machine):
    done = machine.set_up(python=str(machine.folder / "python2"))
    assert done.returncode == 1
    assert "older than 3.11" in done.stderr


def test_scripts_are_executable():
    for name in ("deploy/system-packages", "deploy/install-into", ".ci/run"):
        assert os.access(ROOT / name, os.X_OK), name
