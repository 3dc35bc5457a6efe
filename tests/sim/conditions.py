"""What has happened to the cluster, and therefore which errors are honest."""

from dataclasses import dataclass

from tidefs.fs.errors import Code


class ViolationError(AssertionError):
    """The file system broke a promise."""


@dataclass
class Conditions:
    """What has happened so far."""

    disk_was_full: bool = False
    power_was_lost: bool = False
    bits_rotted: bool = False
    session_was_lost: bool = False

    def excuse(self, code: Code, *, data: bool) -> bool:
        """Whether an operation may end with this error, having done nothing; ``data``: one about
        bytes of a file, of which any may then be missing."""
        if code is Code.NO_SPACE:
            return self.disk_was_full
        if data and code in {Code.SESSION_EXPIRED, Code.STALE_HANDLE}:
            return self.session_was_lost
        return data and self.power_was_lost and code in {Code.DEVICE_ERROR, Code.BAD_CHECKSUM}

    def unclear(self, code: Code) -> bool:
        """Whether an operation that ended with this error may have been done or not."""
        return code is Code.SESSION_EXPIRED and self.session_was_lost
