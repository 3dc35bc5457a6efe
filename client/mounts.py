"""The mounts of this machine: find ours, know their processes, unmount them.

The kernel's list (/proc/self/mountinfo) says what is mounted; a small file for each mount says
which process serves it. They lie in /run/tidefs for root, else in $XDG_RUNTIME_DIR/tidefs, or in
a folder of the user's own below the temporary one.

Nothing here looks *into* a mount: one whose servers are away would not answer.
"""

import contextlib
import ctypes
import errno
import json
import os
import re
import select
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..fs.errors import Code, TideError

TYPE = "fuse.tidefs"
SOURCE_PREFIX = "tidefs:"
FUSERMOUNT = "fusermount3"
MNT_DETACH = 2  # umount2(2)
USERS_SHOWN = 5


class Mount(NamedTuple):
    """One mount of the kernel's list. ``device`` is its st_dev as ``major:minor``."""

    point: str
    type: str
    source: str
    device: str

    @property
    def ours(self) -> bool:
        return self.type == TYPE


class Server(NamedTuple):
    """The process that serves a mount. ``began``: its start in clock ticks since the machine's."""

    pid: int
    began: int
    point: str


# --- the kernel's list -------------------------------------------------------------------------


def mounts() -> list[Mount]:
    """Everything that is mounted, in the order of mounting (proc(5): mountinfo)."""
    return list(_parse(Path("/proc/self/mountinfo").read_text(errors="surrogateescape")))


def mount_at(point: str) -> Mount | None:
    """What is mounted on ``point`` (an absolute path), the topmost; None when nothing is."""
    return next((mount for mount in reversed(mounts()) if mount.point == point), None)


def find(path: str) -> tuple[str, Mount | None]:
    """The mount point that a person means by ``path``, and what is mounted there.

    The last name is not resolved unless it must be: asking a mount whose servers are away, or
    whose process is gone, would hang or fail.
    """
    parent, name = os.path.split(os.path.abspath(path))
    point = os.path.join(os.path.realpath(parent), name)
    mount = mount_at(point)
    if mount is None:
        point = os.path.realpath(point)
        mount = mount_at(point)
    return point, mount


def _parse(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        front, _, back = line.partition(" - ")
        fields, (kind, source, *_) = front.split(" "), back.split(" ")
        source = _unescape(source)
        if kind == TYPE:
            source = _read_source(source)
        yield Mount(_unescape(fields[4]), kind, source, fields[2])


def source_of(name: str) -> str:
    """What the kernel's list shows as the source of one of our mounts: ASCII, for libfuse."""
    return SOURCE_PREFIX + name.encode("unicode_escape").decode("ascii")


def _read_source(text: str) -> str:
    try:
        return text.encode("ascii").decode("unicode_escape")
    except UnicodeError:
        return text  # not made by us


def _unescape(text: str) -> str:
    raw = re.sub(
        rb"\\([0-7]{3})",
        lambda found: bytes([int(found[1], 8)]),
        text.encode(errors="surrogateescape"),
    )
    return os.fsdecode(raw)


# --- who serves it -----------------------------------------------------------------------------


def runtime_folder() -> Path:
    """The folder for our small files, made when it is not there; only for this user."""
    uid = os.geteuid()
    if uid == 0:
        folder = Path("/run/tidefs")
    elif given := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(given) / "tidefs"
    else:
        folder = Path(tempfile.gettempdir()) / f"tidefs-{uid}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise TideError(Code.ACCESS_DENIED, f"{folder}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o022:
        raise TideError(
            Code.ACCESS_DENIED,
            f"{folder} must be a folder of user {uid} that nobody else may write to: remove it",
        )
    return folder


def note_server(mount: Mount) -> Path:
    """Write down that this process serves ``mount``. Remove the file that is returned at the
    end; one that is left behind does no harm."""
    path = _note_of(mount)
    began = _began(os.getpid())
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(Server(os.getpid(), began or 0, mount.point)._asdict()))
    new.rename(path)
    return path


def server_of(mount: Mount) -> Server | None:
    """The living process that serves ``mount``, if it was written down."""
    try:
        server = Server(**json.loads(_note_of(mount).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if server.point != mount.point or _began(server.pid) != server.began:
        return None
    return server


def _note_of(mount: Mount) -> Path:
    return runtime_folder() / f"mount-{mount.device.replace(':', '-')}.json"


def _began(pid: int) -> int | None:
    """When a process began; None when it is gone (proc(5): stat, field 22)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


# --- unmounting --------------------------------------------------------------------------------


def detach(point: str, *, lazy: bool) -> None:
    """Take a mount away; ``lazy``: even if it is in use, by and by.

    BUSY when it is in use, ACCESS_DENIED when this user may not, else DEVICE_ERROR.
    """
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(point), MNT_DETACH if lazy else 0) == 0:
            return
        number = ctypes.get_errno()
        reason = os.strerror(number)
    else:
        if shutil.which(FUSERMOUNT) is None:
            raise TideError(
                Code.NOT_SUPPORTED, f"{FUSERMOUNT} is missing: install fuse3, or unmount as root"
            )
        done = subprocess.run(
            [FUSERMOUNT, "-uz" if lazy else "-u", point],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        reason = done.stderr.strip()
        number = errno.EBUSY if "busy" in reason else errno.EPERM
    if number == errno.EBUSY:
        raise TideError(Code.BUSY, f"{point} is in use{_by_whom(point)}; close what is open there")
    code = Code.NOT_PERMITTED if number == errno.EPERM else Code.DEVICE_ERROR
    raise TideError(code, f"{point} cannot be unmounted: {reason}")


def unmount(path: str, *, lazy: bool = False, waiting: Callable[[int], None] | None = None) -> None:
    """Unmount, and wait until the process has written everything to the servers and ended.

    ``waiting`` is called with its process id if that takes more than a moment. INVALID when
    nothing of ours is mounted there.
    """
    point, mount = find(path)
    if mount is None:
        raise TideError(Code.INVALID, f"{point} is not mounted")
    if not mount.ours:
        raise TideError(Code.INVALID, f"{point} is a mount of {mount.type}, not of TideFS")
    server = server_of(mount)
    descriptor = None
    if server is not None:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(server.pid)
    try:
        detach(point, lazy=lazy)
        if server is not None and descriptor is not None and not lazy:
            _wait_end(descriptor, server.pid, waiting)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _wait_end(descriptor: int, pid: int, waiting: Callable[[int], None] | None) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(2_000):
        if waiting is not None:
            waiting(pid)
        poll.poll()


def _by_whom(point: str) -> str:
    """Processes that have something open below ``point``, for a message."""
    users = [str(pid) for pid in _processes() if _uses(pid, point)]
    if not users:
        return ""
    more = ", ..." if len(users) > USERS_SHOWN else ""
    return f" by process {', '.join(users[:USERS_SHOWN])}{more}"


def _processes() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _uses(pid: int, point: str) -> bool:
    links = [f"/proc/{pid}/cwd", f"/proc/{pid}/root", f"/proc/{pid}/exe"]
    try:
        links += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
        for link in links:
            target = os.readlink(link)
            if target == point or target.startswith(point + "/"):
                return True
    except OSError:
        return False  # gone, or another user's
    return False
