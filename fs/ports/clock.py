"""The clock port: what time it is. (To wait, use trio.)"""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that only ever goes forward, one that people and files use."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since some moment; never goes back, may drift by CLOCK_DRIFT_PARTS."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970; may jump."""
        ...


class RealClock:
    """This machine's clocks."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()
