"""The folder of a one-machine cluster: what is where in it, who may work in it, safe writing.

::

    DIR/cluster.toml        what the cluster consists of, see cluster_file.py
    DIR/lock                held (flock) while a command changes what runs
    DIR/lock.members        held (flock) while a command changes who the metaservers are
    DIR/meta-1/             a member: config.toml, data/, log, pid, ready
    DIR/chunk-1/ ...
    DIR/run/                the servers' sockets, or a link to where they are
    DIR/mounts/             who uses it at the moment, see holds.py
    DIR/keep                there while it was started by `tidefs up`, see holds.py
    DIR/new-ID/             a metaserver's folder that is being made, see homes.py
    DIR/removed-NAME/       the folder of one that is no member any more; nobody reads it

``config.toml`` of each member is written anew from ``cluster.toml`` at each start, so that the
folder may be moved while nothing runs.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .exits import Exit, Failure

CLUSTER_FILE = "cluster.toml"
LOCK_FILE = "lock"
MEMBERS_LOCK_FILE = "lock.members"
NEW_HOME = re.compile("new-[0-9a-f]{16}")
"""The folder of a metaserver that is not in the cluster yet."""

Say = Callable[[str], None]
"""How a person is told what happens."""


@contextmanager
def os_failures(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses below ``folder`` into a sentence."""
    try:
        yield
    except OSError as error:
        name = error.filename if error.filename is not None else folder
        raise Failure(Exit.LACKING, f"{name}: {error.strerror or error}") from None


def is_cluster(folder: Path) -> bool:
    """Whether a cluster lives there."""
    with os_failures(folder):
        return (folder / CLUSTER_FILE).exists()


def check_vacant(folder: Path) -> None:
    """Failure(FOREIGN) unless a new cluster may be made there: missing, or an empty folder."""
    with os_failures(folder):
        if not folder.exists():
            if not folder.parent.is_dir():
                raise Failure(
                    Exit.FOREIGN, f"{folder}: the folder above it does not exist; make it first"
                )
            return
        if not folder.is_dir():
            raise Failure(Exit.FOREIGN, f"{folder} is not a folder; name one that is, or a new one")
        ours = {LOCK_FILE, CLUSTER_FILE + ".new"}
        found = sorted(set(os.listdir(folder)) - ours)
    found = [name for name in found if not NEW_HOME.fullmatch(name)]
    if found:
        raise Failure(
            Exit.FOREIGN,
            f"{folder} holds other things ({', '.join(found[:3])}{', ...' if found[3:] else ''})"
            " and no cluster; name an empty folder or a new one",
        )


@contextmanager
def locked(folder: Path, say: Say, file: str = LOCK_FILE) -> Iterator[None]:
    """Keep every other command off this cluster; the folder must exist."""
    with os_failures(folder):
        lock = os.open(folder / file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another tidefs command on {folder} ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write_safely(path: Path, text: str) -> None:
    """Write a file so that a crash leaves either the old one or the new one."""
    new = path.with_name(path.name + ".new")
    with os_failures(path.parent):
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
