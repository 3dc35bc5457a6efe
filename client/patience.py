"""How long to go on trying when the chunkservers cannot do what was asked."""

import trio

from ..fs.errors import Code, TideError
from ..fs.limits import BACKOFF_FIRST_MS, BACKOFF_MAX_MS, DATA_PATIENCE_MS
from ..fs.ports.clock import Clock

NS_PER_MS = 1_000_000

_WORLD_ERRORS = frozenset({Code.BAD_CHECKSUM, Code.NO_CHUNK})
"""No replica that is reachable has the bytes. Perhaps a server that has them is coming up; but if
it does not, an application must not hang for ever over bytes that are lost."""


class Patience:
    """For one operation: waits a little longer after each failure, or gives up.

    ``limit_ms`` None: a hard mount, which waits for servers as long as it takes.
    """

    def __init__(self, clock: Clock, limit_ms: int | None) -> None:
        self._clock = clock
        self._limit_ms = limit_ms
        self._since_ns = clock.monotonic_ns()
        self._delay_ms = BACKOFF_FIRST_MS

    async def wait(self, error: TideError) -> None:
        """Return after a delay, or raise: TIMED_OUT on a soft mount, ``error`` when the bytes
        seem to be gone."""
        tried_ms = (self._clock.monotonic_ns() - self._since_ns) // NS_PER_MS
        if self._limit_ms is not None and tried_ms >= self._limit_ms:
            raise TideError(Code.TIMED_OUT, f"gave up after {tried_ms} ms; {error}") from error
        if error.code in _WORLD_ERRORS and tried_ms >= DATA_PATIENCE_MS:
            raise error
        await trio.sleep(max(self._delay_ms, error.delay_ms) / 1000)
        self._delay_ms = min(2 * self._delay_ms, BACKOFF_MAX_MS)
