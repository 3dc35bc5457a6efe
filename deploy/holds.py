"""Who uses a one-machine cluster: it runs for as long as somebody does, or was told to stay.

A mount that started a cluster stops it when it is the last to go; one that `tidefs up` started
(there is a file ``keep``) stays until `tidefs down`. Each user is a file in ``mounts/`` with its
process id and the moment that process began, so that one that was killed counts no longer.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from .cluster import Cluster, make_folder, open_or_create
from .cluster_file import EMBEDDED
from .folder import Say, locked, os_failures, write_safely

KEEP_FILE = "keep"
HOLDS_FOLDER = "mounts"


class Hold(msgspec.Struct, frozen=True):
    """One user of a cluster. ``began`` is its start in clock ticks since the machine's."""

    pid: int
    began: int
    mount_point: str


def began(pid: int) -> int | None:
    """When a process began, in clock ticks; None when it is gone (proc(5): stat, field 22)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def holds(folder: Path) -> list[Hold]:
    """Everybody who uses the cluster and lives."""
    found = []
    with os_failures(folder):
        paths = sorted((folder / HOLDS_FOLDER).glob("*.json"))
        for path in paths:
            try:
                hold = msgspec.json.decode(path.read_bytes(), type=Hold)
            except (FileNotFoundError, msgspec.DecodeError):
                continue
            if began(hold.pid) == hold.began:
                found.append(hold)
    return found


def keep(folder: Path) -> None:
    """Let it run when nobody uses it."""
    write_safely(folder / KEEP_FILE, "started by `tidefs up`: runs until `tidefs down`\n")


def unkeep(folder: Path) -> None:
    """Let it end with its last user."""
    with os_failures(folder):
        (folder / KEEP_FILE).unlink(missing_ok=True)


def is_kept(folder: Path) -> bool:
    """Whether it runs when nobody uses it."""
    with os_failures(folder):
        return (folder / KEEP_FILE).exists()


def stop_if_unused(cluster: Cluster, say: Say) -> None:
    """Stop a cluster that nobody uses and that was not told to stay. Call it locked."""
    if not is_kept(cluster.folder) and not holds(cluster.folder):
        cluster.stop(say)


@contextmanager
def held(folder: Path, mount_point: Path, say: Say) -> Iterator[Cluster]:
    """Use the cluster in a folder: made when there is none, started when it does not run.

    At the end it is stopped, if it was neither told to stay nor is used by others.
    """
    folder = make_folder(folder)
    record = folder / HOLDS_FOLDER / f"{os.getpid()}.json"
    with locked(folder, say):
        cluster, made = open_or_create(folder, EMBEDDED)
        if made:
            say(f"made a new file system in {folder}")
        try:
            for trouble in cluster.start(say).troubles.values():
                say(f"going on without one metaserver: {trouble.message}")
            _register(record, mount_point)
        except BaseException:
            stop_if_unused(cluster, say)
            raise
    try:
        yield cluster
    finally:
        with locked(folder, say):
            record.unlink(missing_ok=True)
            stop_if_unused(cluster, say)


def _register(record: Path, mount_point: Path) -> None:
    pid = os.getpid()
    moment = began(pid)
    assert moment is not None, "this process lives"
    with os_failures(record.parent):
        record.parent.mkdir(mode=0o700, exist_ok=True)
        for other in record.parent.glob("*.json"):
            if began(int(other.stem)) is None:
                other.unlink(missing_ok=True)
    hold = Hold(pid=pid, began=moment, mount_point=str(mount_point))
    write_safely(record, msgspec.json.encode(hold).decode())
