"""What a mount tells of itself, read through the mount: ``tidefs stats`` and ``tidefs why``."""

import errno
import json
import os
from typing import Any

from .exits import Exit, Failure

STATS = "user.tidefs.stats"
WHY = "user.tidefs.why"


def told(path: str, name: str) -> dict[str, Any]:
    """The JSON that ``name`` has for a path, links followed; Failure when there is none."""
    try:
        value = os.getxattr(path, name)
    except OSError as error:
        raise Failure(Exit.WRONG, _reason(path, error)) from None
    found: dict[str, Any] = json.loads(value)
    return found


def _reason(path: str, error: OSError) -> str:
    if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
        if os.path.ismount(path) or not os.path.exists(path):
            return f"{path} is not in a TideFS mount"
        return f"{path} is not in a TideFS mount, or in one of an older version: mount it again"
    if error.errno == errno.ENOTCONN:
        return f"{path}: its mount has died; unmount it with: tidefs umount MOUNTPOINT"
    return f"{path}: {error.strerror}"
