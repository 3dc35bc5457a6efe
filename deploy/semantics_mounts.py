"""Mounts for a while: one cluster mounted several times in one mode, in a temporary folder.

They are taken away whatever happens; what was written for the tests is removed before.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..client.litmus.lanes import Lane
from ..client.litmus.runner import Mounts
from ..client.litmus.steps import NAMES
from ..client.mounts import mount_at
from ..client.unmounting import unmount
from ..fs.errors import TideError
from ..fs.ports.randomness import RealRandomness
from .exits import Exit, Failure
from .folder import Say
from .processes import exit_of

FOLDER_PREFIX = "tidefs-semantics-"
"""How the folder in the root of the file system begins in which the tests work."""

REMOVAL_MAX_S = 30

_randomness = RealRandomness()


@contextmanager
def mounted(source: str, mode: str, count: int, say: Say) -> Iterator[Mounts]:
    """``count`` mounts of SOURCE, with a new folder in the root of the file system.

    Failure: it cannot be mounted, or the folder cannot be made.
    """
    top = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{mode}-"))
    points: list[Path] = []
    clean = False
    try:
        for name in NAMES[:count]:
            point = top / name
            point.mkdir()
            points.append(point)
            _mount(source, mode, point)
        with _folder(points[0], say) as folder:
            yield Mounts(points, folder)
        clean = True
    finally:
        _take_away(points, say, wait=clean)
        with suppress(OSError):
            top.rmdir()


def _mount(source: str, mode: str, point: Path) -> None:
    """In a session of its own: whoever interrupts this command must not leave half a mount."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tidefs.deploy", "mount", source, point, "--mode", mode],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # it ends the client that it has started
        process.wait()
        raise
    if process.returncode != 0:
        lines = said.strip().splitlines() or ["it said nothing"]
        reason = lines[-1].removeprefix("tidefs: ")
        raise Failure(exit_of(process.returncode), f"{source} cannot be mounted: {reason}")


@contextmanager
def _folder(point: Path, say: Say) -> Iterator[str]:
    """The name of a new folder in the root, removed with all that is in it."""
    name = f"{FOLDER_PREFIX}{_randomness.bytes(4).hex()}"
    try:
        (point / name).mkdir(mode=0o700)
    except OSError as error:
        raise Failure(
            Exit.LACKING,
            f"no folder can be made in the root of the file system ({error.strerror}): do it as a"
            " user who may write there",
        ) from None
    try:
        yield name
    finally:
        _remove(point / name, say)


def _remove(folder: Path, say: Say) -> None:
    """In a thread of its own: when the servers are away, that hears no Ctrl-C."""

    def remove() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not os.path.lexists(folder)

    lane = Lane("removal")
    removed = False
    with suppress(TimeoutError):
        removed = lane.start(remove).result(REMOVAL_MAX_S)
    lane.close()
    if not removed:
        say(f"{folder.name} in the root of the file system could not be removed: do it by hand")


def _take_away(points: list[Path], say: Say, *, wait: bool) -> None:
    """Unmount all. ``wait``: for what they still write; until somebody is tired of waiting."""
    interrupted = False
    for point in points:
        try:
            _unmount(str(point), say, wait=wait and not interrupted)
        except KeyboardInterrupt:
            interrupted = True
            _unmount(str(point), say, wait=False)
        with suppress(OSError):
            point.rmdir()
    if interrupted:
        raise KeyboardInterrupt


def _unmount(point: str, say: Say, *, wait: bool) -> None:
    if mount_at(point) is None:
        return
    try:
        unmount(point, lazy=not wait)
    except TideError as error:
        say(error.detail)
        if wait and mount_at(point) is not None:
            _unmount(point, say, wait=False)
