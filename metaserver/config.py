"""What a metaserver is told by its configuration file; `deploy/` writes one, or a person does."""

from ..fs.config import Config, Duration, Size
from ..fs.errors import Code, TideError
from ..fs.limits import (
    CHECKPOINT_ENTRIES,
    CHUNKSERVER_DEAD_MS,
    GARBAGE_GRACE_MS,
    HEARTBEAT_MS,
    LOG_RECORD_MAX_BYTES,
    LOG_SEGMENT_BYTES,
    REPLICAS_DEFAULT,
    REPLICAS_MAX,
    REPLICAS_MIN_DURING_REPAIR,
    SESSION_LEASE_MS,
)
from ..fs.log import LEVELS
from .oplog_records import CLUSTER_ID_MAX_BYTES


class MetaserverConfig(Config, frozen=True, kw_only=True):
    """One metaserver. What has a default may be left out."""

    cluster: str
    server: int
    data: str
    listen: list[str]
    host: str = ""
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
        ):
            if not good:
                raise TideError(Code.BAD_CONFIG, f"{name}: {key} {why}")


_CLUSTER = f"must be a name of 1 to {CLUSTER_ID_MAX_BYTES} bytes"
_SEGMENT = f"must be more than {LOG_RECORD_MAX_BYTES} bytes, the largest record"
