"""No test hangs for ever: a process beside pytest that cuts its mounts off, and then ends it.

A thread that asks a mount whose servers are gone can be interrupted by nobody, not even by kill -9
(fuse: a request that the client has read is waited for). Only the end of the connection helps: then
the call fails with ENOTCONN, and so does the test. This is a process of its own because a thread
would not run while another one waits in a page fault, or while pytest holds on to the interpreter.

Standard input has one JSON object a line: ``folder``, below which the mounts are; ``test`` and
``limit_s``, what begins now and how long it may take, or no ``test`` at all. Its end is ours.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CONNECTIONS = Path("/sys/fs/fuse/connections")
MNT_FORCE = 1
UMOUNT_NOFOLLOW = 8

CUT_AFTER_S = 2.0
"""Beyond the limit: who only waits is told in words that it took too long."""
CLEAR_MAX_S = 150.0
"""So long a test may take to clear up when its mounts were cut off."""
LAST_WORDS_S = 10.0


def fuse_mounts(folder: Path) -> Iterator[tuple[Path, int]]:
    """FUSE mounts below a folder, the innermost first, with the numbers of their connections.

    They are read from the kernel's list (proc_pid_mountinfo(5)); no mount is touched.
    """
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        fields, _, filesystem = line.partition(" - ")
        _, _, device, _, escaped, *_ = fields.split()
        point = Path(escaped.encode().decode("unicode_escape"))
        if filesystem.startswith("fuse") and point.is_relative_to(folder):
            yield point, int(device.partition(":")[2])


def cut_off(folder: Path) -> list[Path]:
    """End the connections of all FUSE mounts below a folder: every call on them fails from now on.

    The mounts stay. The answer is where they are.
    """
    points = []
    for point, connection in fuse_mounts(folder):
        points.append(point)
        try:
            (CONNECTIONS / str(connection) / "abort").write_text("1")
        except OSError:  # fusectl is not mounted, as in some containers
            ctypes.CDLL(None).umount2(os.fsencode(point), MNT_FORCE | UMOUNT_NOFOLLOW)
    return points


class Watch:
    """The side of pytest: starts the watchdog, and tells it what is going on."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE)

    def mounts_are_below(self, folder: Path) -> None:
        """These mounts are cut off when something takes too long."""
        self._tell({"folder": str(folder.resolve())})

    def begins(self, test: str, limit_s: float) -> None:
        """It is to be over in time, with all that it sets up and clears."""
        self._tell({"test": test, "limit_s": limit_s})

    def is_over(self) -> None:
        """Nothing is going on."""
        self._tell({"test": ""})

    def close(self) -> None:
        """Nothing will go on any more."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, what: dict[str, object]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it was ended: then the tests go on without
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()


class Watchdog:
    """The process beside ``parent``."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._pidfd = os.pidfd_open(parent)
        self._folder: Path | None = None
        self._test = ""
        self._began_s = 0.0
        self._deadline_s = float("inf")
        self._was_cut = False

    def run(self) -> None:
        """Until there is nothing more to watch, or nobody."""
        woken, waker = os.pipe()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os.write(waker, b"!"))
        unread = b""
        while True:
            left_s = self._deadline_s - time.monotonic()
            wait_s = None if left_s == float("inf") else max(0.0, left_s)
            ready, _, _ = select.select([0, woken, self._pidfd], [], [], wait_s)
            if 0 in ready:
                said = os.read(0, 65_536)
                if not said:
                    return
                *lines, unread = (unread + said).split(b"\n")
                for line in lines:
                    self._hear(json.loads(line))
            elif woken in ready:
                os.read(woken, 1)
                if self._test and not self._was_cut:
                    self._cut("was interrupted")
            elif self._pidfd in ready:
                return
            elif self._was_cut:
                self._end_parent()
                return
            else:
                self._cut("takes too long")

    def _hear(self, said: dict[str, str | float]) -> None:
        if "folder" in said:
            self._folder = Path(str(said["folder"]))
            return
        self._test, self._was_cut = str(said["test"]), False
        self._began_s = time.monotonic()
        limit_s = float(said.get("limit_s", "inf"))
        self._deadline_s = self._began_s + limit_s + CUT_AFTER_S

    def _cut(self, why: str) -> None:
        points = cut_off(self._folder) if self._folder is not None else []
        self._say(why + "".join(f"; {point} is cut off" for point in points))
        self._was_cut = True
        self._deadline_s = time.monotonic() + CLEAR_MAX_S

    def _end_parent(self) -> None:
        """With a dump of what each thread does, by the faulthandler of pytest."""
        if self._folder is not None:
            cut_off(self._folder)
        self._say("does not end: the tests are ended, and stop here")
        for number in (signal.SIGABRT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
            if select.select([self._pidfd], [], [], LAST_WORDS_S)[0]:
                return

    def _say(self, what: str) -> None:
        passed_s = time.monotonic() - self._began_s
        sys.stderr.write(f"\nwatchdog: {self._test} ({passed_s:.0f} s) {what}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    Watchdog(os.getppid()).run()
