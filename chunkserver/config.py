"""What a chunkserver is told by its configuration file."""

from ..fs.config import Config, Size
from ..fs.errors import Code, TideError
from ..fs.limits import MIB
from ..fs.log import LEVELS
from .records import RECORD_MAX_BYTES
from .store import SEGMENT_BYTES


class ChunkserverConfig(Config, frozen=True, kw_only=True):
    """One chunkserver. What has a default may be left out."""

    cluster: str
    server: int
    data: str
    listen: list[str]
    metaservers: list[str]
    host: str = ""
    """The machine's name: ``unix:`` addresses are good for those on the same one."""
    capacity: Size | None = None
    """Use no more than that of the disk."""
    log_level: str = "info"
    ready_file: str = ""
    journal_segment: Size = Size(SEGMENT_BYTES)
    scrub: Size = Size(4 * MIB)
    """So many bytes a second are checked in the background; 0: none."""

    def check(self, name: str) -> None:
        """BAD_CONFIG, naming the file ``name`` and the key, when a value cannot be."""
        for key, good, why in (
            ("cluster", bool(self.cluster), "must be the id of the cluster"),
            ("server", 0 < self.server < 1 << 63, "must be between 1 and 2^63 - 1"),
            ("data", bool(self.data), "must name a folder"),
            ("listen", bool(self.listen), "must name an address, such as tcp:127.0.0.1:0"),
            ("metaservers", bool(self.metaservers), "must name the address of a metaserver"),
            ("log_level", self.log_level in LEVELS, f"must be one of {', '.join(LEVELS)}"),
            (
                "journal_segment",
                self.journal_segment > RECORD_MAX_BYTES,
                f"must be more than {RECORD_MAX_BYTES} bytes, the largest record",
            ),
        ):
            if not good:
                raise TideError(Code.BAD_CONFIG, f"{name}: {key} {why}")
