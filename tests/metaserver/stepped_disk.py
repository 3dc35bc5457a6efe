"""A disk that forgets, and dies at one of its calls: for crashes at every step."""

import random

import trio
from tidefs.tests.sim.crash_disk import CrashDisk, Died


class Dice:
    """The randomness port."""

    def __init__(self, seed: object):
        self._random = random.Random(str(seed))

    def below(self, limit: int) -> int:
        return self._random.randrange(limit)


class SteppedDisk(CrashDisk):
    """Dies at its call number ``die_at`` (0: never)."""

    def __init__(self):
        super().__init__(Dice(0))
        self.steps = 0
        self.die_at = 0

    def check_alive(self) -> None:
        self.steps += 1
        if self.steps == self.die_at:
            self.dead = True
        super().check_alive()

    def fail(self, seed: object, *, crash: bool) -> None:
        """The machine loses power, or only the process has died."""
        self.die_at = 0
        if crash:
            self.crash(Dice(seed))
        else:
            self.kill()


def died(error: BaseException) -> bool:
    """Whether it was the death of the disk, and what follows from it, and nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(died(one) for one in error.exceptions)
    return isinstance(error, Died | trio.Cancelled)
