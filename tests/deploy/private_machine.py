"""Mounts and processes of our own: namespaces in which everything ends when the test does.

In there /dev/fuse is open to all users, mount(8) finds our helpers, and an ordinary user may reach
this tree and its Python, wherever they lie. Nothing of that is seen outside.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tidefs

TREE = Path(tidefs.__file__).parent
USER = pwd.getpwnam("nobody")
"""fusermount3 wants one that has a name."""
COMMAND_TIMEOUT_S = 60
FIRST = """if True:
    import signal, sys
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel takes the dead away
    print("ready", flush=True)
    sys.stdin.read()
"""


class Machine:
    """``folder`` belongs to USER, and is of this test alone."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tidefs-machine-"))
        os.chown(self.folder, USER.pw_uid, USER.pw_gid)
        namespaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        self._holder = subprocess.Popen(
            ["unshare", *namespaces, "--mount-proc", sys.executable, "-c", FIRST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert self._holder.stdout.readline() == "ready\n"
            pid = self._holder.pid
            self._first = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
            self._furnish()
        except BaseException:
            self.close()
            raise

    def close(self):
        """All processes in there are killed, and with them go the mounts."""
        self._holder.kill()
        self._holder.communicate()
        shutil.rmtree(self.folder)

    def root(self, *words, check=True, **options):
        """Run a command as root; with ``check`` it must succeed."""
        return self._run([], words, check, **options)

    def user(self, *words, check=True, **options):
        """Run one as USER."""
        identity = ["--setuid", str(USER.pw_uid), "--setgid", str(USER.pw_gid)]
        return self._run(identity, words, check, **options)

    def _run(self, identity, words, check, **options):
        into = ["nsenter", "--target", self._first, "--mount", "--pid", f"--wd={self.folder}"]
        done = subprocess.run(
            [*into, *identity, "--", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": f"{self.folder}/run"},
            **options,
        )
        said = done.stdout + done.stderr
        assert not check or done.returncode == 0, f"{words} ended with {done.returncode}: {said}"
        assert "Traceback" not in said
        return done

    def _furnish(self):
        number = os.stat("/dev/fuse").st_rdev
        self.root("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt")
        self.root("mknod", "-m", "666", "/mnt/fuse", "c", os.major(number), os.minor(number))
        self.root("mount", "--bind", "/mnt/fuse", "/dev/fuse")
        self.root("cp", "-a", os.path.realpath("/sbin"), "/mnt/sbin")
        self.root("mount", "--bind", "/mnt/sbin", os.path.realpath("/sbin"))
        self.root("touch", "/mnt/fstab")
        self.root("mount", "--bind", "/mnt/fstab", "/etc/fstab")
        self.root("rm", "-rf", self.folder / "run")
        self.root("install", "-d", "-m", "700", "-o", USER.pw_uid, self.folder / "run")
        self._open_the_way({TREE, Path(sys.prefix), Path(sys.base_prefix)})

    def _open_the_way(self, paths):
        """Let the user reach folders that lie in closed ones, such as root's home."""
        blocked = {path: closed for path in paths if (closed := _closed_above(path))}
        for number, path in enumerate(blocked):
            self.root("mkdir", f"/mnt/{number}")
            self.root("mount", "--bind", path, f"/mnt/{number}")
        for closed in set(blocked.values()):
            self.root("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", closed)
        for number, path in enumerate(blocked):
            self.root("mkdir", "-p", path)
            self.root("mount", "--bind", f"/mnt/{number}", path)

    # --- words

    def tidefs(self, *words, by=None, check=True):
        """Run ``tidefs``, as USER unless told."""
        return (by or self.user)(sys.executable, "-m", "tidefs.deploy", *words, check=check)

    def kill(self, pid):
        """kill -9, and wait until it is gone."""
        self.root("sh", "-c", f"kill -9 {pid}; while kill -0 {pid} 2>&1; do sleep 0.05; done")

    def fstab(self, *lines):
        """Say what stands in /etc/fstab."""
        self.root("tee", "/etc/fstab", input="".join(f"{line}\n" for line in lines))

    def mounted(self, point):
        """The line of the kernel's list about a mount point; empty when it is none."""
        lines = self.root("cat", "/proc/self/mountinfo").stdout.splitlines()
        return next((line for line in lines if f" {point} " in line), "")


def _closed_above(path):
    """The topmost folder above ``path`` that others may not pass."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None
