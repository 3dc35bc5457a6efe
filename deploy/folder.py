"""The folder of a one-machine cluster: ``cluster.toml``, and which member has which folder.

::

    DIR/cluster.toml        what the cluster consists of; written once
    DIR/lock                held (flock) while a command changes what runs
    DIR/meta-1/             a member: config.toml, data/, log, pid, ready
    DIR/chunk-1/ ...
    DIR/run/                the servers' sockets, or a link to where they are
    DIR/mounts/             who uses it at the moment, see holds.py
    DIR/keep                there while it was started by `tidefs up`, see holds.py

``config.toml`` of each member is written anew from ``cluster.toml`` at each start, so that the
folder may be moved while nothing runs.
"""

import fcntl
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..fs.limits import REPLICAS_MAX
from ..fs.messages.hello import CHUNKSERVER, METASERVER
from ..fs.ports.randomness import RealRandomness
from .exits import Exit, Failure

FORMAT_VERSION = 1
CLUSTER_FILE = "cluster.toml"
LOCK_FILE = "lock"
CHUNKSERVERS_MAX = 64

Say = Callable[[str], None]
"""How a person is told what happens."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One server. ``port`` on 127.0.0.1, chosen once; 0: reached by its Unix socket only."""

    role: str
    name: str
    server: int
    port: int


class ClusterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in ``cluster.toml``."""

    version: int
    cluster: str
    replicas: int
    members: list[Member]
    log_level: str = "info"


class Shape(NamedTuple):
    """What a new cluster is to consist of. ``tcp``: reachable by port, not only from its folder."""

    metaservers: int
    chunkservers: int
    replicas: int
    tcp: bool


EMBEDDED = Shape(metaservers=1, chunkservers=1, replicas=1, tcp=False)
"""What `tidefs mount` makes in an empty folder."""


def check_shape(shape: Shape) -> None:
    """Failure(USAGE) when a cluster of that shape cannot be."""
    if shape.metaservers != 1:
        raise Failure(
            Exit.USAGE,
            f"--metaservers {shape.metaservers}: this version runs one metaserver; more than one"
            " comes with the replication of the operation log",
        )
    if not 1 <= shape.chunkservers <= CHUNKSERVERS_MAX:
        raise Failure(
            Exit.USAGE,
            f"--chunkservers {shape.chunkservers}: between 1 and {CHUNKSERVERS_MAX} are possible",
        )
    if not 1 <= shape.replicas <= REPLICAS_MAX:
        raise Failure(
            Exit.USAGE, f"--replicas {shape.replicas}: between 1 and {REPLICAS_MAX} are possible"
        )
    if shape.replicas > shape.chunkservers:
        raise Failure(
            Exit.USAGE,
            f"--replicas {shape.replicas}: each copy needs a chunkserver of its own, and there are"
            f" {shape.chunkservers}; give --chunkservers {shape.replicas}",
        )


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
    if found:
        raise Failure(
            Exit.FOREIGN,
            f"{folder} holds other things ({', '.join(found[:3])}{', ...' if found[3:] else ''})"
            " and no cluster; name an empty folder or a new one",
        )


@contextmanager
def locked(folder: Path, say: Say) -> Iterator[None]:
    """Keep every other command off this cluster; the folder must exist."""
    with os_failures(folder):
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another tidefs command on {folder} ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def create(folder: Path, shape: Shape, free_port: Callable[[], int]) -> ClusterFile:
    """Write ``cluster.toml`` of a new cluster; call it with the folder locked."""
    randomness = RealRandomness()
    roles = [(METASERVER, "meta", shape.metaservers), (CHUNKSERVER, "chunk", shape.chunkservers)]
    members = [
        Member(
            role=role,
            name=f"{front}-{number}",
            server=1 + randomness.below((1 << 63) - 1),
            port=free_port() if shape.tcp else 0,
        )
        for role, front, count in roles
        for number in range(1, count + 1)
    ]
    cluster = ClusterFile(
        version=FORMAT_VERSION,
        cluster=randomness.bytes(8).hex(),
        replicas=shape.replicas,
        members=members,
    )
    lines = ["# A TideFS cluster on this machine: see `tidefs up --help`."]
    values: dict[str, Any] = msgspec.to_builtins(cluster)
    tables = values.pop("members")
    lines += toml_lines(values)
    for member in tables:
        lines += ["", "[[members]]", *toml_lines(member)]
    write_safely(folder / CLUSTER_FILE, "\n".join(lines) + "\n")
    return cluster


def read(folder: Path) -> ClusterFile:
    """``cluster.toml``, checked. Failure(FOREIGN) names what is wrong with it."""
    path = folder / CLUSTER_FILE
    with os_failures(folder):
        text = path.read_bytes()
    try:
        values = tomllib.loads(text.decode())
        version = values.get("version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise Failure(
                Exit.FOREIGN,
                f"{path} has format {version}, this TideFS knows up to {FORMAT_VERSION}:"
                " use the TideFS that made it, or a newer one",
            )
        cluster = msgspec.convert(values, ClusterFile)
        _check(cluster)
    except (ValueError, msgspec.ValidationError) as error:
        raise Failure(
            Exit.FOREIGN, f"{path} is damaged: {error}; restore it from a copy, or mend that line"
        ) from None
    return cluster


def _check(cluster: ClusterFile) -> None:
    """ValueError when the parts of a cluster do not fit together."""
    if cluster.version != FORMAT_VERSION:
        raise ValueError(f"version is {cluster.version}, not {FORMAT_VERSION}")
    roles = [member.role for member in cluster.members]
    unknown = set(roles) - {METASERVER, CHUNKSERVER}
    if unknown:
        raise ValueError(f"no such role: {unknown.pop()}")
    for field in ("name", "server"):
        values = [getattr(member, field) for member in cluster.members]
        if len(set(values)) < len(values):
            raise ValueError(f"two members have the same {field}")
    for member in cluster.members:
        if not member.name or "/" in member.name or member.name.startswith("."):
            raise ValueError(f"{member.name!r} cannot be the name of a member")
        if not 0 <= member.port < 1 << 16:
            raise ValueError(f"{member.port} is not a port")
    if roles.count(METASERVER) != 1:
        raise ValueError("there must be one metaserver")
    if not 1 <= cluster.replicas <= roles.count(CHUNKSERVER):
        raise ValueError(f"{cluster.replicas} copies need as many chunkservers")


def toml_lines(values: dict[str, Any]) -> list[str]:
    """``key = value`` lines for text, whole numbers and lists of text.

    A JSON string is a TOML string, but for DEL, which TOML wants escaped.
    """
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for key, value in values.items()
    ]


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
