"""What a mount has asked the servers: its own counters, read through the mount."""

import json
import os
from pathlib import Path

from .model import Trips

ATTRIBUTE = "user.tidefs.stats"
BACKGROUND = frozenset({"KeepAlive", "GetMember", "Release", "NoteReadings"})
"""Questions that a mount asks whatever a program does, or some time after it."""


class Meter:
    """Counts the round trips of one mount, from one reading to the next.

    To read an attribute costs some itself, where the kernel asks who may (no attributes are kept).
    So it is read twice at the beginning, and what lies between is taken away from each reading.
    """

    def __init__(self, point: Path) -> None:
        self._point = point
        first = _told(point)
        self._last = _told(point)
        self._cost = between(first, self._last)

    def read(self) -> Trips | None:
        """What was asked since the last reading; None when the mount does not say."""
        before, self._last = self._last, _told(self._point)
        return between(self._cost, between(before, self._last))


def _told(point: Path) -> Trips | None:
    """How often each question was asked since it was mounted."""
    try:
        told = json.loads(os.getxattr(point, ATTRIBUTE))
    except (OSError, ValueError):
        return None
    trips = told.get("round_trips") if isinstance(told, dict) else None
    return trips if isinstance(trips, dict) else None


def between(before: Trips | None, after: Trips | None) -> Trips | None:
    """How much more it is of each; None when one of both is not known. Pure."""
    if before is None or after is None:
        return None
    return {
        name: count - before.get(name, 0)
        for name, count in after.items()
        if count > before.get(name, 0) and name not in BACKGROUND
    }
