"""What lockers believe to hold, and whether they all can be right.

A belief counts as long as its client may act on it: the client lives, in the session in which it
was told, and by its own clock the lease of that session is not over. Of those no two may conflict,
and the metaservers must know each. Who believes in a session that is over is told as soon as he
does anything with the file; until then he is wrong, and harmless.
"""

from collections.abc import Callable
from typing import NamedTuple

from .conditions import ViolationError
from .lock_ledger import Ledger, Range, without
from .lock_watch import Lease


class Client(NamedTuple):
    """A mount in one life."""

    lease: Lease
    now_ns: Callable[[], int]

    def counts(self, session: int) -> bool:
        """Whether it may act on what it was told in this session."""
        lease = self.lease
        return lease.session == session and lease.lease_until_ns > self.now_ns()


class Belief(NamedTuple):
    """Somebody was told that he has it, under a token that is at most this one."""

    name: str
    client: Client
    what: Range
    token: int

    @property
    def counts(self) -> bool:
        """Whether its client may act on it."""
        return self.client.counts(self.what.who.session)


class Book:
    """The beliefs of one run."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._beliefs: list[Belief] = []
        self._past: list[Belief] = []

    def begin(self, belief: Belief) -> None:
        """It was granted, and told."""
        for past in self._past:
            if past.what.conflicts(belief.what) and past.token >= belief.token:
                raise ViolationError(
                    f"{belief.name} has {belief.what} under the token {belief.token}, and before it"
                    f" {past.name} had {past.what} under {past.token}"
                )
        self.end(belief.what)
        self._beliefs.append(belief)
        self._past.append(belief)
        self.look()

    def end(self, what: Range) -> None:
        """It is about to be given back."""
        self._beliefs = [
            belief._replace(what=part)
            for belief in self._beliefs
            for part in without(belief.what, what)
        ]

    def forget(self, name: str) -> None:
        """All that he believed: it is over."""
        self._beliefs = [belief for belief in self._beliefs if belief.name != name]

    def of(self, name: str) -> list[Range]:
        """What he believes."""
        return [belief.what for belief in self._beliefs if belief.name == name]

    def look(self) -> None:
        """All that count must agree."""
        beliefs = [belief for belief in self._beliefs if belief.counts]
        for at, one in enumerate(beliefs):
            if not self._ledger.covers(one.what):
                raise ViolationError(
                    f"{one.name} believes to have {one.what}, of which no metaserver knows"
                )
            for other in beliefs[:at]:
                if one.what.conflicts(other.what):
                    raise ViolationError(
                        f"{one.name} and {other.name} have {one.what} and {other.what} at once"
                    )
