"""Looking for the next request a moment longer, before going to sleep over it.

Who waits for an answer asks again as soon as it has it: a stat(2) is three requests. To fall asleep
in between and be woken costs several times what the answer costs, most of all when another CPU has
to be woken. So the device is looked at for some microseconds more. That is of use only while it
succeeds and while the CPU has nothing better to do: each time in vain makes the next attempts
rarer, down to one in VAIN_MAX.
"""

from collections.abc import Callable

LINGER_S = 50e-6
VAIN_MAX = 64


class Lingering:
    """Whether to look once more. ``now_s`` is a clock in s."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._vain = 0
        self._skipped = 0

    def look(self, receive: Callable[[], int]) -> int:
        """What ``receive`` gives as soon as it is not 0; 0 when that takes too long."""
        if self._skipped < self._vain:
            self._skipped += 1
            return 0
        self._skipped = 0
        end_s = self._now_s() + LINGER_S
        while True:
            length = receive()
            late = self._now_s() > end_s
            if late:  # also with a request: somebody else had the CPU meanwhile
                self._vain = min(2 * self._vain + 1, VAIN_MAX)
                return length
            if length:
                self._vain = 0
                return length
