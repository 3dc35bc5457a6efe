"""What a lock table may do, whoever keeps it: it is told what was granted, and says what is wrong.
Pure.

It decides nothing. Each entry of the log that has to do with locks is told as it was carried out,
and then these must hold:

- nobody holds what conflicts with what somebody else holds;
- a grant's token is the number of its entry, so that tokens rise;
- who waits is not overtaken by a conflicting one that came later, unless he waits for that one;
- nobody waits for nothing, and nobody waits in a circle (fcntl(2)'s locks).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tidefs.fs.messages.locks import LockKind


class Owner(NamedTuple):
    """Who locks: fcntl(2) and flock(2) do not see each other."""

    kind: LockKind
    session: int
    owner: int


class Range(NamedTuple):
    """Bytes ``start`` to ``end - 1`` of a file, as somebody holds or wants them."""

    who: Owner
    inode: int
    exclusive: bool
    start: int
    end: int

    def conflicts(self, other: "Range") -> bool:
        """Whether not both can be held."""
        return (
            self.who != other.who
            and self.who.kind is other.who.kind
            and self.inode == other.inode
            and (self.exclusive or other.exclusive)
            and self.start < other.end
            and other.start < self.end
        )


class Ledger:
    """All locks of all files, as far as it was told."""

    def __init__(self) -> None:
        self.held: list[Range] = []
        self.waiting: dict[int, Range] = {}
        """By ticket: the number of the entry that asked."""

    # --- what happened -------------------------------------------------------------------------

    def granted(self, index: int, wanted: Range, token: int) -> Iterator[str]:
        """At once, by the entry ``index``; an older token is that of a lock that it had already."""
        if token != index and not self.covers(wanted, same_mode=True):
            yield f"the entry {index} grants {wanted} with the token {token}"
        if token == index:
            yield from self._hold(wanted, index)

    def granted_at_once(self, index: int, wanted: Range, token: int) -> Iterator[str]:
        """As ``granted``, to one that would have waited: he has a place in the queue."""
        if token == index:
            yield from self._overtaken(index, wanted)
        yield from self.granted(index, wanted, token)

    def queued(self, index: int, wanted: Range, ticket: int) -> Iterator[str]:
        """Somebody waits from now on."""
        if ticket != index:
            yield f"the entry {index} gives the ticket {ticket}"
        self.waiting[ticket] = wanted

    def served(self, index: int, session: int, ticket: int, token: int) -> Iterator[str]:
        """Somebody who waited holds it now."""
        wanted = self.waiting.get(ticket)
        if wanted is None or wanted.who.session != session:
            yield f"session {session} is granted ticket {ticket}, which is {wanted}"
            return
        del self.waiting[ticket]
        yield from self._overtaken(ticket, wanted)
        yield from self.granted(index, wanted, token)

    def unlocked(self, given: Range) -> None:
        """Its owner holds nothing there."""
        self.held = [part for one in self.held for part in without(one, given)]

    def withdrawn(self, ticket: int) -> None:
        """Nobody waits under this ticket."""
        self.waiting.pop(ticket, None)

    def ended(self, session: int) -> None:
        """A session is over, and all its locks with it."""
        self.held = [one for one in self.held if one.who.session != session]
        self.waiting = {
            ticket: one for ticket, one in self.waiting.items() if one.who.session != session
        }

    def gone(self, inode: int) -> None:
        """A file is gone, and its locks with it."""
        self.held = [one for one in self.held if one.inode != inode]
        self.waiting = {ticket: one for ticket, one in self.waiting.items() if one.inode != inode}

    # --- what must hold ------------------------------------------------------------------------

    def findings(self) -> Iterator[str]:
        """What is wrong with those that wait, when an entry has been carried out."""
        for ticket, one in self.waiting.items():
            if not self.in_the_way(one) and not any(self._ahead(ticket, one)):
                yield f"{one} waits under {ticket}, and nothing is in its way"
            if one.who.kind is LockKind.RANGE and self.closes_circle(one):
                yield f"{one} waits under {ticket} for its own owner: a deadlock"

    def in_the_way(self, wanted: Range) -> list[Range]:
        """What is held and conflicts with it."""
        return [one for one in self.held if one.conflicts(wanted)]

    def covers(self, what: Range, *, same_mode: bool = False) -> bool:
        """Whether its owner holds all of it, in this mode (or in a stronger one)."""
        at = what.start
        for one in sorted(self.held, key=lambda held: held.start):
            if (one.who, one.inode) != (what.who, what.inode) or one.start > at:
                continue
            if one.exclusive == what.exclusive or (one.exclusive and not same_mode):
                at = max(at, one.end)
        return at >= what.end

    def closes_circle(self, wanted: Range) -> bool:
        """Whether somebody who holds what is in its way waits for its owner."""
        first = [one.who for one in self.in_the_way(wanted)]
        return wanted.who in self._waited_for(first, queue=False)

    # --- inside --------------------------------------------------------------------------------

    def _hold(self, wanted: Range, index: int) -> Iterator[str]:
        for other in self.in_the_way(wanted):
            yield f"the entry {index} grants {wanted}, though {other} is held"
        self.unlocked(wanted)
        self.held.append(wanted)

    def _overtaken(self, ticket: int, wanted: Range) -> Iterator[str]:
        for earlier, one in self._ahead(ticket, wanted):
            if wanted.who not in self._waited_for([one.who]):
                yield f"{wanted} of {ticket} is served before {one}, which waits under {earlier}"

    def _ahead(self, ticket: int, wanted: Range) -> Iterator[tuple[int, Range]]:
        return (
            (earlier, one)
            for earlier, one in self.waiting.items()
            if earlier < ticket and one.conflicts(wanted)
        )

    def _waited_for(self, first: Iterable[Owner], *, queue: bool = True) -> set[Owner]:
        """Whom these wait for, over any number of others: for what is held, and in the ``queue``
        for those who came earlier (unless they wait for him: then he goes past)."""
        todo, found = list(first), set[Owner]()
        while todo:
            who = todo.pop()
            for ticket, wait in self.waiting.items():
                if wait.who != who:
                    continue
                others = self.in_the_way(wait)
                others += [one for _, one in self._ahead(ticket, wait) if queue]
                more = {one.who for one in others} - found
                found |= more
                todo += more
        return found


def without(one: Range, given: Range) -> list[Range]:
    """What is left of ``one`` when its owner gives ``given`` back."""
    if (one.who, one.inode) != (given.who, given.inode):
        return [one]
    parts = [
        one._replace(end=min(one.end, given.start)),
        one._replace(start=max(one.start, given.end)),
    ]
    return [part for part in parts if part.start < part.end]
