"""Simulated clock and randomness: virtual time as one host sees it, and seeded bytes."""

import random

import trio

EPOCH_NS = 1_750_000_000 * 10**9
"""What a wall clock without error shows at the start of a run, in nanoseconds since 1970."""


class SimulatedClock:
    """One host's clocks: the monotonic one drifts, the wall clock is off and can be set."""

    def __init__(
        self, drift: float = 0.0, wall_offset_s: float = 0.0, monotonic_s: float = 0.0
    ) -> None:
        """``drift``: the host's second is ``1 + drift`` seconds long on its own clock, which shows
        ``monotonic_s`` at the start."""
        self._rate = 1 + drift
        self._shown_ns = int(monotonic_s * 1e9)
        self._since_s = 0.0
        self.wall_offset_s = wall_offset_s

    def monotonic_ns(self) -> int:
        return self._shown_ns + self._gone_ns()

    def wall_ns(self) -> int:
        return EPOCH_NS + int((trio.current_time() + self.wall_offset_s) * 1e9)

    def set_drift(self, drift: float) -> None:
        """From now on the clock is that much too fast."""
        self._shown_ns += self._gone_ns()
        self._since_s = trio.current_time()
        self._rate = 1 + drift

    def _gone_ns(self) -> int:
        return int((trio.current_time() - self._since_s) * self._rate * 1e9)


class SimulatedRandomness:
    """The randomness port, drawn from one seeded generator."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def below(self, limit: int) -> int:
        return self._random.randrange(limit)
