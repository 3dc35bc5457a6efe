"""What every campaign needs: a cluster of real processes, mounts, kills by pid, comparisons.

A campaign works as a person would: through the `tidefs` command, on a real mount, with real
programs. It needs root, /dev/fuse, and the programs that it names.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TIDEFS = [sys.executable, "-m", "tidefs.deploy"]


class CampaignError(Exception):
    """Something that was promised did not happen."""


def say(text: str) -> None:
    """One line of what is being done, with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def run(
    *command: str | Path, cwd: Path | None = None, quiet: bool = True, timeout_s: float = 900
) -> str:
    """Run a program to its end; its output. CampaignError with the output when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise CampaignError(f"{command} -> {done.returncode}:\n{(done.stdout or '')[-3000:]}")
    return done.stdout or ""


def tidefs(*arguments: str | Path) -> str:
    """Run the `tidefs` command."""
    return run(*TIDEFS, *arguments)


class Stage:
    """A cluster below ``folder``, and the mounts made here."""

    def __init__(self, folder: Path, chunkservers: int, replicas: int, metaservers: int) -> None:
        self.folder = folder
        self.cluster = folder / "cluster"
        self.chunkservers = chunkservers
        self.replicas = replicas
        self.metaservers = metaservers
        self.mounts: list[Path] = []

    def up(self) -> None:
        """Start whatever is not running."""
        arguments: list[str | Path] = ["up", self.cluster]
        if not self.cluster.exists():
            arguments += ["--metaservers", str(self.metaservers)]
            arguments += ["--chunkservers", str(self.chunkservers)]
            arguments += ["--replicas", str(self.replicas)]
        tidefs(*arguments)

    def down(self) -> None:
        """Stop all servers."""
        tidefs("down", self.cluster)

    def mount(self, name: str = "mnt", *options: str) -> Path:
        """Mount the cluster; the mount point."""
        point = self.folder / name
        with contextlib.suppress(FileExistsError):
            point.mkdir()
        tidefs("mount", self.cluster, point, *options)
        if point not in self.mounts:
            self.mounts.append(point)
        return point

    def umount(self, point: Path) -> None:
        """Unmount."""
        tidefs("umount", point)
        self.mounts.remove(point)

    def status(self) -> dict[str, object]:
        """`tidefs status --json`; its exit code says health, which is not asked here."""
        done = subprocess.run(
            [*TIDEFS, "status", str(self.cluster), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def check_status(self) -> None:
        """CampaignError when `tidefs status` has something to complain about."""
        if problems := self.status()["problems"]:
            raise CampaignError(f"status says: {problems}")

    def pids(self, role: str) -> list[int]:
        """The process ids of the running servers of a role."""
        servers = self.status()["servers"]
        assert isinstance(servers, list)
        return [server["pid"] for server in servers if server["role"] == role and server["pid"]]

    def members(self) -> list[dict[str, object]]:
        """`tidefs cluster status --json`: one dictionary for each metaserver."""
        done = subprocess.run(
            [*TIDEFS, "cluster", "status", str(self.cluster), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        found: list[dict[str, object]] = json.loads(done.stdout)["members"]
        return found

    def leader(self) -> dict[str, object]:
        """The member that leads in the highest term; waits until there is one."""
        found: list[dict[str, object]] = []

        def led() -> bool:
            found[:] = [member for member in self.members() if member["role"] == "leader"]
            return bool(found)

        wait_until(led, "a metaserver leads")
        return max(found, key=lambda member: int(str(member["term"])))

    def client_pids(self) -> list[int]:
        """The process ids of the clients that serve mounts of this cluster."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"mount" in words and os.fsencode(self.cluster) in words:
                    found.append(int(entry.name))
        return found

    def client_pid(self, point: Path) -> int:
        """The process id of the client that serves one mount point."""
        for pid in self.client_pids():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(point) in words:
                return pid
        raise CampaignError(f"no process serves {point}")

    def kill(self, *pids: int) -> None:
        """kill -9, then wait until they are gone."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(alive(pid) for pid in pids), "the killed processes are gone")

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        for point in list(self.mounts):
            subprocess.run([*TIDEFS, "umount", str(point)], capture_output=True, check=False)
            if os.path.ismount(point):
                subprocess.run(["umount", "-l", str(point)], capture_output=True, check=False)
        subprocess.run([*TIDEFS, "down", str(self.cluster)], capture_output=True, check=False)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: "object", what: str, timeout_s: float = 60) -> None:
    """Look at a condition until it holds."""
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise CampaignError(f"waited {timeout_s} s in vain: {what}")
        os.sched_yield()
        _pause()


def _pause() -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["sleep", "0.05"], timeout=5, check=False)


@contextlib.contextmanager
def stage(
    chunkservers: int, replicas: int, *, metaservers: int = 1, keep: bool = False
) -> Iterator[Stage]:
    """A running cluster in a temporary folder; removed at the end, whatever happened."""
    folder = Path(tempfile.mkdtemp(prefix="tidefs-campaign."))
    made = Stage(folder, chunkservers, replicas, metaservers)
    try:
        made.up()
        yield made
    finally:
        made.close()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def unpack(tarball: Path, into: Path) -> Path:
    """`tar -x` as root keeps owners, modes and times; the tree's top."""
    run("tar", "-xf", tarball, "-C", into)
    return into / top_of(tarball)


def top_of(tarball: Path) -> str:
    """The one folder that everything in a source distribution is in."""
    with tarfile.open(tarball) as archive:
        return archive.getnames()[0].split("/")[0]


def local_copy(tarball: Path) -> Path:
    """The same tree on the local disk."""
    return unpack(tarball, Path(tempfile.mkdtemp(prefix="tidefs-local.")))


def manifest(top: Path, leave_out: frozenset[str] = frozenset()) -> dict[str, tuple[object, ...]]:
    """Each path below ``top`` with kind, mode, owner, time, link count, and content or target."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in leave_out)
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            seen = os.lstat(path)
            content: object = None
            if stat.S_ISREG(seen.st_mode):
                with open(path, "rb") as handle:
                    content = hashlib.file_digest(handle, "sha256").hexdigest()
            elif stat.S_ISLNK(seen.st_mode):
                content = os.readlink(path)
            links = seen.st_nlink if not stat.S_ISDIR(seen.st_mode) else None
            when = seen.st_mtime_ns
            found[os.path.relpath(path, top)] = (
                *(stat.S_IFMT(seen.st_mode), stat.S_IMODE(seen.st_mode)),
                *(seen.st_uid, seen.st_gid, when, links, content),
            )
    return found


def compare(here: Path, there: Path) -> int:
    """The number of entries; CampaignError naming the first differences."""
    left, right = manifest(here), manifest(there)
    if left == right:
        return len(left)
    wrong = [
        f"{path}: {left.get(path)} / {right.get(path)}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    ]
    raise CampaignError(f"{len(wrong)} entries differ, such as\n" + "\n".join(wrong[:10]))
