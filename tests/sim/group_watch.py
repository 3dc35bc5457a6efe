"""What must hold in the group at every moment, looked at from inside of the members.

Raft's figure 3, as far as it shows from outside of the core: at most one leader in a term
(election safety), and the entry that was applied at an index is the same everywhere and for ever
(state machine safety), through crashes, snapshots and replays.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from .conditions import ViolationError
from .determinism import HOST
from .lock_watch import LockWatch
from .trace import Trace


class Applied(NamedTuple):
    """What somebody applied at an index first."""

    checksum: int
    host: str


class GroupWatch:
    """One run's. The members' hosts are known by the task that reports."""

    def __init__(self, trace: Trace) -> None:
        self.locks = LockWatch(trace)
        self._trace = trace
        self._leaders: dict[int, str] = {}
        self._applied: dict[int, Applied] = {}
        self.drivers: dict[str, Any] = {}
        """The driver of the latest life of each member."""
        self.on_leader: Callable[[str], None] | None = None
        """Told the host of each new leader."""
        self.term = 0
        self.leader = ""
        """The host that led in the highest term that anybody has led in."""

    def leads(self, term: int) -> None:
        """The host whose task this is leads in ``term``."""
        host = HOST.get()
        first = self._leaders.setdefault(term, host)
        if first != host:
            raise self._violation(f"two leaders in term {term}: {first} and {host}")
        if term > self.term:
            self._trace.note("raft", f"{host} leads in term {term}")
            self.term, self.leader = term, host
            if self.on_leader is not None:
                self.on_leader(host)

    def applied(self, index: int, checksum: int) -> bool:
        """The host whose task this is applies the entry of that checksum at ``index``; whether it
        is the first one to do so."""
        host = HOST.get()
        is_new = index not in self._applied
        first = self._applied.setdefault(index, Applied(checksum, host))
        if first.checksum != checksum:
            raise self._violation(
                f"index {index}: {host} applied another entry than {first.host} did"
            )
        return is_new

    @property
    def elections(self) -> int:
        """In how many terms somebody led."""
        return len(self._leaders)

    def _violation(self, text: str) -> ViolationError:
        with suppress(RuntimeError):  # no loop: a test of its own
            self._trace.note("raft", text)
        return ViolationError(text)
