"""The randomness port."""

import os
import random
from typing import Protocol


class Randomness(Protocol):
    """Where ids, nonces and jitter come from."""

    def bytes(self, count: int) -> bytes:
        """``count`` random bytes."""
        ...

    def below(self, limit: int) -> int:
        """A whole number in 0 to ``limit - 1``."""
        ...


class RealRandomness:
    """The operating system's randomness."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def below(self, limit: int) -> int:
        return self._random.randrange(limit)
