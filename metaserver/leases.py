"""Until when each session lives, by the leader's clock. Pure: every call is given the time.

A session is told a lease of ``lease_ms`` from when it *asked*; the leader waits longer than that
by what the two clocks may drift apart, so the client always stops first.
"""

from ..fs.limits import CLOCK_DRIFT_MS, CLOCK_DRIFT_PARTS

_MS = 10**6


class Leases:
    """One deadline for each living session."""

    def __init__(self, lease_ms: int) -> None:
        self.lease_ms = lease_ms
        drift_ms = lease_ms / CLOCK_DRIFT_PARTS + CLOCK_DRIFT_MS
        self._wait_ns = int((lease_ms + drift_ms) * _MS)
        self._deadlines: dict[int, int] = {}
        self._expired: set[int] = set()
        self._given_up: set[int] = set()

    def renew(self, session: int, now_ns: int) -> None:
        """It was heard of. Too late for one that has expired, or is given up: its end is on its
        way."""
        if session not in self._expired and session not in self._given_up:
            # Taken out first: the dict stays in the order of the deadlines.
            self._deadlines.pop(session, None)
            self._deadlines[session] = now_ns + self._wait_ns

    def is_alive(self, session: int) -> bool:
        return session in self._deadlines and session not in self._given_up

    def expire(self, now_ns: int) -> list[int]:
        """Sessions whose lease has just ended."""
        ended: list[int] = []
        for session, deadline_ns in self._deadlines.items():
            if deadline_ns > now_ns:
                break
            ended.append(session)
        for session in ended:
            del self._deadlines[session]
            self._expired.add(session)
        self._given_up.difference_update(ended)
        return ended

    def give_up(self, session: int) -> None:
        """It is refused from now on. But it was told a lease, in which its client may act on what
        it believes, and which the client may not know to be its last: so it expires in its time."""
        if session in self._deadlines:
            self._given_up.add(session)

    def unended(self) -> list[int]:
        """Sessions that expired and whose end is not in the log yet."""
        return sorted(self._expired)

    def end(self, session: int) -> None:
        """The session is over."""
        self._deadlines.pop(session, None)
        self._expired.discard(session)
        self._given_up.discard(session)

    def next_deadline_ns(self) -> int | None:
        """When ``expire`` will have something to say, None when there is no session."""
        return next(iter(self._deadlines.values()), None)
