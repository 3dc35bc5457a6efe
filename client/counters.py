"""What one mount has done so far, for people and for tests: numbers that only go up."""

from collections import Counter
from typing import Any

from ..fs.messages.base import Request


class Counters:
    """Counters of one mount.

    ``operations``: what the kernel asked, by its name for it; ``waited``: those of them that could
    not be answered from memory. ``round_trips``: requests to servers, by the name of the message;
    one that is sent again counts again. ``recalls``: inodes whose promise was recalled.
    """

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.waited: Counter[str] = Counter()
        self.round_trips: Counter[str] = Counter()
        self.recalls = 0

    def asks(self, request: Request[Any]) -> None:
        """A request goes out."""
        self.round_trips[type(request).__name__] += 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "operations": dict(self.operations),
            "waited": dict(self.waited),
            "round_trips": dict(self.round_trips),
            "recalls": self.recalls,
        }
