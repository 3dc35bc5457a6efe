"""How long to wait before the next try: exponential, with jitter. Pure."""

from .limits import BACKOFF_FIRST_MS, BACKOFF_MAX_MS
from .ports.randomness import Randomness


class Backoff:
    """The delays of one series of tries. Each is drawn from the upper half of a doubling bound,
    so that those who failed together do not come back together."""

    def __init__(
        self,
        randomness: Randomness,
        *,
        first_ms: int = BACKOFF_FIRST_MS,
        max_ms: int = BACKOFF_MAX_MS,
        steady: int = 0,
    ) -> None:
        """``steady``: so many delays at the first bound, before it doubles."""
        assert 0 < first_ms <= max_ms
        self._randomness = randomness
        self._first_ms = first_ms
        self._max_ms = max_ms
        self._steady = steady
        self._bound_ms = first_ms
        self._left = steady

    def next_ms(self, at_least_ms: int = 0) -> int:
        """Milliseconds to wait now; ``at_least_ms`` is what a BUSY server asked for."""
        bound_ms = self._bound_ms
        if self._left:
            self._left -= 1
        else:
            self._bound_ms = min(2 * bound_ms, self._max_ms)
        drawn_ms = bound_ms - self._randomness.below(bound_ms // 2 + 1)
        return max(drawn_ms, at_least_ms)

    def reset(self) -> None:
        """It worked: begin anew."""
        self._bound_ms = self._first_ms
        self._left = self._steady
