"""End a mount, and wait until everything that was written there is on the servers.

The kernel itself may have to wait first: umount2(2) sends what was written through mappings. So it
is called in a thread, and how it stands is told all the while.
"""

import ctypes
import errno
import os
import select
import shutil
import subprocess
import threading
from collections.abc import Callable

from ..fs.errors import Code, TideError
from . import notes
from .mounts import FUSERMOUNT, find

MNT_DETACH = 2  # umount2(2)
USERS_SHOWN = 5
LOOK_MS = 250
SAY_EACH = 8
"""One look in so many says something: every two seconds."""

Tell = Callable[[str], None]


def detach(point: str, *, lazy: bool) -> None:
    """Take a mount away; ``lazy``: even if it is in use, by and by.

    BUSY when it is in use, NOT_PERMITTED when this user may not, else DEVICE_ERROR.
    """
    number, reason = _by_root(point, lazy) if os.geteuid() == 0 else _by_user(point, lazy)
    if not number:
        return
    if number == errno.EBUSY:
        raise TideError(Code.BUSY, f"{point} is in use{_by_whom(point)}; close what is open there")
    code = Code.NOT_PERMITTED if number == errno.EPERM else Code.DEVICE_ERROR
    raise TideError(code, f"{point} cannot be unmounted: {reason}")


def _by_root(point: str, lazy: bool) -> tuple[int, str]:
    """An errno (0: it is done) and why, in words."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(point), MNT_DETACH if lazy else 0) == 0:
        return 0, ""
    number = ctypes.get_errno()
    return number, os.strerror(number)


def _by_user(point: str, lazy: bool) -> tuple[int, str]:
    """The same, by the set-user-id program that may unmount what its caller has mounted."""
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
        return 0, ""
    reason = done.stderr.strip()
    return errno.EBUSY if "busy" in reason else errno.EPERM, reason


def unmount(path: str, *, lazy: bool = False, tell: Tell | None = None) -> None:
    """Unmount, and wait until the process has written everything to the servers and ended.

    ``tell`` is called with what it waits for, when that takes more than a moment. ``lazy``: take
    the mount away also when it is in use, and do not wait. INVALID when nothing of ours is mounted
    there; DEVICE_ERROR when something that was written is lost.
    """
    point, mount = find(path)
    if mount is None:
        raise TideError(Code.INVALID, f"{point} is not mounted")
    if not mount.ours:
        raise TideError(Code.INVALID, f"{point} is a mount of {mount.type}, not of TideFS")
    watch = notes.watch(mount)
    if watch is None:
        detach(point, lazy=lazy)  # its process is gone, or not known
        return
    try:
        waiting = _Waiting(watch, tell or (lambda text: None))
        waiting.detach(point, lazy=lazy)
        if not lazy:
            waiting.until_ended()
            _judge(point, watch.look())
    finally:
        watch.close()


class _Waiting:
    """Waits for one process, and tells what for: when it takes a moment, and when that changes."""

    def __init__(self, watch: notes.Watch, tell: Tell) -> None:
        self._watch = watch
        self._tell = tell
        self._looks = 0
        self._told = ""

    def detach(self, point: str, *, lazy: bool) -> None:
        """Take the mount away, however long the kernel waits for the process meanwhile."""
        failures: list[TideError] = []

        def work() -> None:
            try:
                detach(point, lazy=lazy)
            except TideError as error:
                failures.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_MS / 1000)
            if thread.is_alive():
                self._say()
        if failures:
            raise failures[0]

    def until_ended(self) -> None:
        """Return when the process is gone."""
        poll = select.poll()
        poll.register(self._watch.process, select.POLLIN)
        while not poll.poll(LOOK_MS):
            self._say()

    def _say(self) -> None:
        self._looks += 1
        if self._looks % SAY_EACH:
            return
        text = _in_words(self._watch.look())
        if text != self._told:
            self._told = text
            self._tell(text)


def _in_words(note: notes.Note) -> str:
    if note.outcome is not None:
        return f"waiting for process {note.pid} to end, with the servers that it started"
    what = notes.waiting_for(note.unwritten_bytes, note.waits_for)
    return f"process {note.pid} is waiting for {what}"


def _judge(point: str, note: notes.Note) -> None:
    """DEVICE_ERROR when not all is well."""
    if note.outcome is None:
        raise TideError(
            Code.DEVICE_ERROR,
            f"{point} is unmounted, but process {note.pid}, which served it, was killed:"
            " what it had not yet written to the servers is lost",
        )
    if note.outcome:
        raise TideError(Code.DEVICE_ERROR, f"{point} is unmounted, but {note.outcome}")


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
