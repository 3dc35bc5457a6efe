"""What a mount has asked the servers: its own counters, read through the mount."""

import json
import os
from pathlib import Path

from .model import Trips

ATTRIBUTE = "user.tidefs.stats"
BACKGROUND = frozenset({"KeepAlive", "GetMember", "Release", "NoteReadings"})
"""Questions that a mount asks whatever a program does, or some time after it."""


def read_trips(point: Path) -> Trips | None:
    """How often each question was asked since it was mounted; None when the mount does not say."""
    try:
        told = json.loads(os.getxattr(point, ATTRIBUTE))
    except (OSError, ValueError):
        return None
    trips = told.get("round_trips") if isinstance(told, dict) else None
    return trips if isinstance(trips, dict) else None


def between(before: Trips | None, after: Trips | None) -> Trips | None:
    """What was asked between two readings; None when that is not known. Pure."""
    if before is None or after is None:
        return None
    return {
        name: count - before.get(name, 0)
        for name, count in after.items()
        if count > before.get(name, 0) and name not in BACKGROUND
    }
