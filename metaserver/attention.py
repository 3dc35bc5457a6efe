"""How long others have been listened to: time in which this process was paused does not count.

Who was stopped (a debugger, a virtual machine that was moved, a disk that hung) finds on its return
that everybody was silent, and what they said meanwhile unread. Deadlines of others are therefore
told by this clock. It may run late, never early: a lease is only ever waited for longer. Pure.
"""


class Attention:
    """Nanoseconds that passed while this process looked at the time often enough."""

    def __init__(self, now_ns: int, gap_max_ns: int) -> None:
        """``gap_max_ns``: two looks are never further apart unless there was a pause."""
        self._gap_max_ns = gap_max_ns
        self._looked_ns = now_ns
        self._attended_ns = now_ns

    def look(self, now_ns: int) -> int:
        """The time by this clock, when the real one shows ``now_ns``. Never goes back."""
        gap_ns = max(0, now_ns - self._looked_ns)
        self._looked_ns = max(self._looked_ns, now_ns)
        self._attended_ns += min(gap_ns, self._gap_max_ns)
        return self._attended_ns
