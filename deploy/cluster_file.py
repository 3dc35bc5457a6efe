"""``cluster.toml``: what a one-machine cluster consists of, read with a check and written safely.

A metaserver that was put into the file and is not yet known to be a member of the group is
``joining``. With ``replaces`` it takes the place of a server whose data folder is lost: a server id
stands for a data folder, so the name stays and the id is a new one. Whatever is interrupted while
members change is told by these two, and done by asking for it again.
"""

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..fs.limits import MEMBERS_MAX, REPLICAS_MAX
from ..fs.messages.hello import CHUNKSERVER, METASERVER
from ..fs.ports.randomness import RealRandomness
from .exits import Exit, Failure
from .folder import CLUSTER_FILE, os_failures, write_safely

FORMAT_VERSION = 2
"""1 knew one metaserver only."""
CHUNKSERVERS_MAX = 64

GIVEN = frozenset(
    {"cluster", "server", "host", "data", "listen", "members", "metaservers", "ready_file"}
)
"""What follows from the members, and may not be set beside."""

_randomness = RealRandomness()


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One server. ``port`` on 127.0.0.1, chosen once; 0: reached by its Unix socket only."""

    role: str
    name: str
    server: int
    port: int
    joining: bool = False
    replaces: list[int] = []


class ClusterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in ``cluster.toml``."""

    version: int
    cluster: str
    replicas: int
    members: list[Member]
    log_level: str = "info"
    metaserver: dict[str, str | int] = {}
    """More for the configuration of each metaserver, such as ``election_timeout``."""
    chunkserver: dict[str, str | int] = {}
    """More for that of each chunkserver."""

    def of(self, role: str) -> list[Member]:
        """All members of one role."""
        return [member for member in self.members if member.role == role]

    def settled(self) -> list[Member]:
        """The metaservers that were members when the last change was complete."""
        return [member for member in self.of(METASERVER) if not member.joining]

    def group_size(self) -> int:
        """How many metaservers the group has: one that is being replaced counts once."""
        return sum(not one.joining or bool(one.replaces) for one in self.of(METASERVER))

    def with_members(self, members: Sequence[Member]) -> "ClusterFile":
        """The same with other members: metaservers first, by name."""
        ordered = sorted(members, key=lambda one: (one.role != METASERVER, len(one.name), one.name))
        return msgspec.structs.replace(self, version=FORMAT_VERSION, members=ordered)


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
    check_odd(shape.metaservers, f"--metaservers {shape.metaservers}")
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


def check_odd(metaservers: int, what: str) -> None:
    """Failure(USAGE) when no group can have so many members; ``what`` asked for it."""
    if not 1 <= metaservers <= MEMBERS_MAX:
        raise Failure(Exit.USAGE, f"{what}: between 1 and {MEMBERS_MAX} metaservers are possible")
    if metaservers % 2 == 0:
        raise Failure(
            Exit.USAGE,
            f"{what}: {metaservers} metaservers survive no more failures than {metaservers - 1},"
            f" for a majority of {metaservers} is {metaservers // 2 + 1}; have"
            f" {metaservers - 1} or {metaservers + 1} of them",
        )


def compose(shape: Shape, free_ports: Callable[[int], list[int]]) -> ClusterFile:
    """A new cluster, with an identity of its own."""
    roles = [(METASERVER, "meta", shape.metaservers), (CHUNKSERVER, "chunk", shape.chunkservers)]
    names = [
        (role, f"{front}-{number}")
        for role, front, count in roles
        for number in range(1, count + 1)
    ]
    ports = free_ports(len(names)) if shape.tcp else [0] * len(names)
    members = [
        Member(role=role, name=name, server=new_server_id(), port=port)
        for (role, name), port in zip(names, ports, strict=True)
    ]
    return ClusterFile(
        version=FORMAT_VERSION,
        cluster=_randomness.bytes(8).hex(),
        replicas=shape.replicas,
        members=members,
    )


def new_server_id() -> int:
    """63 random bits, not 0."""
    return 1 + _randomness.below((1 << 63) - 1)


def write(folder: Path, cluster: ClusterFile) -> None:
    """Durable when it returns; a crash leaves the old file or this one."""
    lines = ["# A TideFS cluster on this machine: see `tidefs up --help`."]
    values: dict[str, Any] = msgspec.to_builtins(cluster)
    tables = values.pop("members")
    more = {role: values.pop(role) for role in (METASERVER, CHUNKSERVER)}
    lines += toml_lines(values)
    for role, settings in more.items():
        if settings:
            lines += ["", f"[{role}]", *toml_lines(settings)]
    for member in tables:
        lines += ["", "[[members]]", *toml_lines(member)]
    write_safely(folder / CLUSTER_FILE, "\n".join(lines) + "\n")


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
    if cluster.version < 1:
        raise ValueError(f"version is {cluster.version}, not 1 to {FORMAT_VERSION}")
    roles = [member.role for member in cluster.members]
    unknown = set(roles) - {METASERVER, CHUNKSERVER}
    if unknown:
        raise ValueError(f"no such role: {unknown.pop()}")
    for field in ("name", "server"):
        values = [getattr(member, field) for member in cluster.members]
        if len(set(values)) < len(values):
            raise ValueError(f"two members have the same {field}")
    for member in cluster.members:
        _check_member(member)
    for role, settings in ((METASERVER, cluster.metaserver), (CHUNKSERVER, cluster.chunkserver)):
        if wrong := GIVEN & set(settings):
            raise ValueError(f"{role} may not have {min(wrong)}: that is given by the members")
    if not cluster.of(METASERVER):
        raise ValueError("there is no metaserver among the members")
    if not 1 <= cluster.replicas <= roles.count(CHUNKSERVER):
        raise ValueError(f"{cluster.replicas} copies need as many chunkservers")


def _check_member(member: Member) -> None:
    if not member.name or "/" in member.name or member.name.startswith("."):
        raise ValueError(f"{member.name!r} cannot be the name of a member")
    if not 0 <= member.port < 1 << 16:
        raise ValueError(f"{member.port} is not a port")
    if not 0 < member.server < 1 << 63:
        raise ValueError(f"{member.server} is not the id of a server")


def toml_lines(values: dict[str, Any]) -> list[str]:
    """``key = value`` lines for text, whole numbers, truth values and lists of these.

    A JSON string is a TOML string, but for DEL, which TOML wants escaped.
    """
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for key, value in values.items()
    ]
