"""What a metaserver is told by its configuration file; `deploy/` writes one, or a person does."""

import msgspec

from ..fs.config import Config, Duration, Size
from ..fs.errors import Code, TideError
from ..fs.limits import (
    CHECKPOINT_ENTRIES,
    CHUNKSERVER_DEAD_MS,
    GARBAGE_GRACE_MS,
    HEARTBEAT_MS,
    LOG_RECORD_MAX_BYTES,
    LOG_SEGMENT_BYTES,
    MEMBERS_MAX,
    RAFT_ELECTION_MIN_MS,
    RAFT_HEARTBEAT_MS,
    REPLICAS_DEFAULT,
    REPLICAS_MAX,
    REPLICAS_MIN_DURING_REPAIR,
    SESSION_LEASE_MS,
)
from ..fs.log import LEVELS
from ..fs.messages.places import ServerPlace
from .oplog_records import CLUSTER_ID_MAX_BYTES


class MemberConfig(Config, frozen=True, kw_only=True):
    """One metaserver of the group, and how the others reach it, the best way first."""

    server: int
    host: str = ""
    addresses: list[str]


class MetaserverConfig(Config, frozen=True, kw_only=True):
    """One metaserver. What has a default may be left out."""

    cluster: str
    server: int
    data: str
    listen: list[str]
    host: str = ""
    members: list[MemberConfig] = msgspec.field(default_factory=list)
    """The group: its founders when the folder is formatted, later where to reach whom. These
    addresses count more than those in the log. Empty: a group of one."""
    raft_heartbeat: Duration = Duration(RAFT_HEARTBEAT_MS)
    """How often a leader lets its followers know that it leads."""
    election_timeout: Duration = Duration(RAFT_ELECTION_MIN_MS)
    """Nothing heard of a leader for so long, and up to twice as long: a follower wants to lead."""
    replicas: int = REPLICAS_DEFAULT
    """Of a cluster that is formatted by this start; later the state knows it."""
    log_level: str = "info"
    ready_file: str = ""
    root_mode: int = 0o755
    root_uid: int = 0
    root_gid: int = 0
    session_lease: Duration = Duration(SESSION_LEASE_MS)
    heartbeat: Duration = Duration(HEARTBEAT_MS)
    chunkserver_dead: Duration = Duration(CHUNKSERVER_DEAD_MS)
    """Silent for so long, a chunkserver is down; after a start, so long for all to come back."""
    repair_after: Duration = Duration(2 * CHUNKSERVER_DEAD_MS)
    """Down for so long, its copies are made anew elsewhere; nor before, after a start."""
    garbage_grace: Duration = Duration(GARBAGE_GRACE_MS)
    replicas_min: int = REPLICAS_MIN_DURING_REPAIR
    checkpoint_entries: int = CHECKPOINT_ENTRIES
    log_segment: Size = Size(LOG_SEGMENT_BYTES)

    def check(self, name: str) -> None:
        """BAD_CONFIG, naming the file ``name`` and the key, when a value cannot be."""
        for key, good, why in (
            ("cluster", 0 < len(self.cluster.encode()) <= CLUSTER_ID_MAX_BYTES, _CLUSTER),
            ("server", 0 < self.server < 1 << 63, "must be between 1 and 2^63 - 1"),
            ("data", bool(self.data), "must name a folder"),
            ("listen", bool(self.listen), "must name an address, such as tcp:127.0.0.1:7000"),
            ("replicas", 0 < self.replicas <= REPLICAS_MAX, f"must be 1 to {REPLICAS_MAX}"),
            ("replicas_min", self.replicas_min > 0, "must be at least 1"),
            ("log_level", self.log_level in LEVELS, f"must be one of {', '.join(LEVELS)}"),
            ("checkpoint_entries", self.checkpoint_entries > 0, "must be at least 1"),
            ("log_segment", self.log_segment > LOG_RECORD_MAX_BYTES, _SEGMENT),
            ("raft_heartbeat", self.raft_heartbeat > 0, "must be at least 1ms"),
            ("election_timeout", self.election_timeout >= 4 * self.raft_heartbeat, _PATIENCE),
            ("members", len(self.members) <= MEMBERS_MAX, f"can be {MEMBERS_MAX} at most"),
        ):
            if not good:
                raise TideError(Code.BAD_CONFIG, f"{name}: {key} {why}")
        self._check_members(name)

    def _check_members(self, name: str) -> None:
        seen: dict[str, int] = {}
        ids = [member.server for member in self.members]
        for member in self.members:
            if not 0 < member.server < 1 << 63:
                raise _bad_member(name, f"server {member.server} must be between 1 and 2^63 - 1")
            if ids.count(member.server) > 1:
                raise _bad_member(name, f"names server {member.server} twice: each has its own id")
            if not member.addresses:
                raise _bad_member(name, f"server {member.server} needs an address")
            for address in member.addresses:
                if seen.setdefault(address, member.server) != member.server:
                    raise _bad_member(
                        name,
                        f"{address} cannot be of server {seen[address]} and of {member.server}",
                    )

    def founders(self, name: str) -> list[ServerPlace]:
        """Who founds the group, when its first folders are formatted; BAD_CONFIG as ``check``."""
        if not self.members:
            return [self.own_place]
        if self.server not in [member.server for member in self.members]:
            raise _bad_member(name, f"does not name this server itself, {self.server}")
        if len(self.members) % 2 == 0:
            raise _bad_member(
                name,
                f"names {len(self.members)} servers: a group of an even number survives no more"
                " failures than one less; name one less, or one more",
            )
        return self.places

    @property
    def places(self) -> list[ServerPlace]:
        """Where the configuration says that the members are."""
        return [ServerPlace(one.server, one.host, list(one.addresses)) for one in self.members]

    @property
    def own_place(self) -> ServerPlace:
        """Where this server is for the others."""
        for place in self.places:
            if place.server == self.server:
                return place
        return ServerPlace(self.server, self.host, list(self.listen))


def _bad_member(name: str, why: str) -> TideError:
    return TideError(Code.BAD_CONFIG, f"{name}: members {why}")


_CLUSTER = f"must be a name of 1 to {CLUSTER_ID_MAX_BYTES} bytes"
_SEGMENT = f"must be more than {LOG_RECORD_MAX_BYTES} bytes, the largest record"
_PATIENCE = "must be at least four times raft_heartbeat: some heartbeats may be lost"
