"""Counters and latency histograms in memory. Whoever counts is given a ``Metrics``; nothing here
is global."""

from collections import defaultdict
from typing import NamedTuple

BUCKETS = 48
"""Powers of two of nanoseconds, up to 39 hours."""


class Histogram:
    """Durations in buckets that double: cheap to add to, exact to a factor of two."""

    __slots__ = ("_buckets", "count", "max_ns", "total_ns")

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self.count = 0
        self.total_ns = 0
        self.max_ns = 0

    def add(self, duration_ns: int) -> None:
        self._buckets[min(max(duration_ns, 0).bit_length(), BUCKETS - 1)] += 1
        self.count += 1
        self.total_ns += duration_ns
        self.max_ns = max(self.max_ns, duration_ns)

    def quantile_ns(self, fraction: float) -> int:
        """No more than this for ``fraction`` (0 to 1) of the durations; 0 when there are none."""
        wanted = fraction * self.count
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= wanted:
                return min((1 << index) - 1, self.max_ns)
        return 0


class Latency(NamedTuple):
    """A histogram in a few numbers, in microseconds."""

    times: int
    mean_us: float
    half_us: float
    most_us: float  # 99 %
    max_us: float


class Snapshot(NamedTuple):
    """All there is, at one moment, by name in order."""

    counters: dict[str, int]
    latencies: dict[str, Latency]


class Metrics:
    """The counters and histograms of one process or part; made on first use."""

    def __init__(self) -> None:
        self._counters: defaultdict[str, int] = defaultdict(int)
        self._histograms: defaultdict[str, Histogram] = defaultdict(Histogram)

    def count(self, name: str, amount: int = 1) -> None:
        self._counters[name] += amount

    def took(self, name: str, duration_ns: int) -> None:
        """``name`` happened and took so long."""
        self._histograms[name].add(duration_ns)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            counters=dict(sorted(self._counters.items())),
            latencies={
                name: Latency(
                    times=found.count,
                    mean_us=found.total_ns / found.count / 1000,
                    half_us=found.quantile_ns(0.5) / 1000,
                    most_us=found.quantile_ns(0.99) / 1000,
                    max_us=found.max_ns / 1000,
                )
                for name, found in sorted(self._histograms.items())
            },
        )
