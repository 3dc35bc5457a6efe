"""Who may have a lock now, who waits for whom, and who is served next.

Those that wait and conflict with each other are served in the order in which they came. A lock
that is waited for has two kinds of things in its way: locks that are *held*, and those that wait
*ahead* of it. Waiting for the former can be a deadlock. Waiting for the latter cannot: nobody
queues behind somebody who waits for him, over however many others. In a circle with such an edge
the youngest one would see the rest of the circle lead to its own owner, and go past.

For this an owner waits when any of its threads does: who of them could run is not known here.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..fs.messages.locks import LockKind
from .effects import Effect, LocksGranted
from .locks import Locks
from .locks_ranges import LockRecord, Owner, by_start, carve, conflict, overlap, replace

NEWEST = 1 << 64
"""The ticket of who has none yet: behind all others."""


class Place(NamedTuple):
    """Where locks can be in each other's way."""

    inode: int
    kind: LockKind


class Arbiter:
    """The locks that one entry has to do with; read when they are needed, written at once."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self._waiting: dict[Place, list[LockRecord]] = {}
        self._waits: dict[Owner, list[LockRecord]] = {}
        self._holders: dict[int, list[Owner]] = {}
        """Against who waits under a ticket. Both are asked for again and again between changes."""
        self._granted: dict[int, list[tuple[int, int]]] = {}

    # --- what is

    def waiting(self, place: Place) -> list[LockRecord]:
        """By ticket."""
        found = self._waiting.get(place)
        if found is None:
            self._waiting[place] = found = self._locks.waiting(*place)
        return found

    def own(self, lock: LockRecord) -> list[LockRecord]:
        """What its owner holds in its range and next to it, by start."""
        if not self._locks.count_of(lock.who, lock.inode):
            return []
        found = self._locks.overlapping(
            *place_of(lock), max(0, lock.start - 1), lock.end + 1, (True, False)
        )
        return sorted((one for one in found if one.who == lock.who), key=by_start)

    def in_the_way(self, lock: LockRecord) -> Iterator[LockRecord]:
        """Locks that are held and conflict with it."""
        modes = (True, False) if lock.exclusive else (True,)
        for one in self._locks.overlapping(*place_of(lock), lock.start, lock.end, modes):
            if one.who != lock.who:
                yield one

    def ahead(self, lock: LockRecord) -> Iterator[LockRecord]:
        """Those that wait, conflict with it and came earlier, by ticket."""
        for one in self.waiting(place_of(lock)):
            if one.ticket >= lock.ticket:
                return
            if conflict(one, lock):
                yield one

    def is_free(self, lock: LockRecord) -> bool:
        """Whether nobody holds what conflicts with it."""
        return next(self.in_the_way(lock), None) is None

    def has_its_turn(self, lock: LockRecord) -> bool:
        """Whether it can be granted now, if it is its owner's turn."""
        return self.is_free(lock) and all(self._goes_past(lock, one) for one in self.ahead(lock))

    def closes_circle(self, lock: LockRecord) -> bool:
        """Whether somebody who holds what is in its way waits for its owner: a deadlock.

        Over any number of others, but only by what is held.
        """
        return self._leads_to([one.who for one in self.in_the_way(lock)], lock.who, 0)

    # --- who waits for whom

    def _goes_past(self, lock: LockRecord, one: LockRecord) -> bool:
        """Whether ``one``, ahead of it, waits for its owner: it would wait for ever behind it.

        The queue counts only among those older than ``lock``: so the youngest of a circle goes
        past, and nobody else.
        """
        who = lock.who
        if not self._locks.holds_any(who) and not self._waits_elsewhere(lock):
            return False  # nobody waits for it
        return self._leads_to([one.who], who, lock.ticket)

    def _waits_elsewhere(self, lock: LockRecord) -> bool:
        return any(wait.ticket != lock.ticket for wait in self._waits_of(lock.who))

    def _leads_to(self, first: Iterable[Owner], goal: Owner, older_than: int) -> bool:
        return any(goal in step for step in self._walk(first, older_than))

    def _walk(self, first: Iterable[Owner], older_than: int) -> Iterator[list[Owner]]:
        """Whom they wait for, step by step, beginning with themselves. Tickets below
        ``older_than`` also wait for who is ahead of them."""
        todo = list(dict.fromkeys(first))
        seen = {*todo}
        yield [*todo]
        while todo:
            step = self._next(todo.pop(), older_than)
            yield step
            for who in step:
                if who not in seen:
                    seen.add(who)
                    todo.append(who)

    def _next(self, who: Owner, older_than: int) -> list[Owner]:
        found: list[Owner] = []
        for wait in self._waits_of(who):
            found += self._holders_against(wait)
            if wait.ticket < older_than:
                found += [one.who for one in self.ahead(wait)]
        return found

    def _waits_of(self, who: Owner) -> list[LockRecord]:
        found = self._waits.get(who)
        if found is None:
            self._waits[who] = found = self._locks.waits_of(who)
        return found

    def _holders_against(self, wait: LockRecord) -> list[Owner]:
        found = self._holders.get(wait.ticket)
        if found is None:
            found = list(dict.fromkeys(one.who for one in self.in_the_way(wait)))
            self._holders[wait.ticket] = found
        return found

    def _forget(self) -> None:
        """Something changes."""
        self._waits.clear()
        self._holders.clear()

    def _places_reached(self, first: Iterable[Owner]) -> set[Place]:
        """Where those wait for whom these wait, and they themselves: where somebody may go past
        others, if these are waited for from now on."""
        reached = {one for step in self._walk(first, NEWEST) for one in step}
        return {place_of(wait) for one in reached for wait in self._waits_of(one)}

    # --- changes

    def take(self, lock: LockRecord, token: int) -> LockRecord:
        """It is held from now on, at once. For who is granted something by that: as ``settle``."""
        held, moved = self._grant(lock, token)
        self.settle(moved, token)
        return held

    def _grant(self, lock: LockRecord, token: int) -> tuple[LockRecord, set[Place]]:
        """It takes the place of what its owner held there. Also where others may get something
        by that: there, when that was stronger; and if its owner waits as well, where those are for
        whom it does."""
        after_loss = self._locks.is_lost(lock.inode)
        if after_loss:
            self._locks.set_lost(lock.inode, False)
        held = lock._replace(token=token, after_loss=after_loss)
        own, moved = self.own(lock), set[Place]()
        if not lock.exclusive and any(one.exclusive and overlap(one, lock) for one in own):
            moved.add(place_of(lock))
        self._locks.change(own, replace(own, held))
        self._forget()
        if self._waits_of(lock.who):
            moved |= self._places_reached([lock.who])
        return held, moved

    def release(self, lock: LockRecord) -> None:
        """Its owner holds none of these bytes any more."""
        own = self.own(lock)
        self._locks.change(own, carve(own, lock.start, lock.end))
        self._forget()

    def release_all(self, place: Place, session: int) -> list[LockRecord]:
        """A session holds nothing there any more; what it held."""
        held = [lock for lock in self._locks.held(*place) if lock.session == session]
        for lock in held:
            self._locks.change([lock], [])
        self._forget()
        return held

    def add_wait(self, lock: LockRecord, token: int) -> None:
        """It waits from now on. Who holds what is in its way may go past others now, or somebody
        for whom he waits: ``token`` is theirs. (Whom it queues behind is not waited for by that:
        the queue of the youngest counts for nobody.)"""
        self._locks.add_wait(lock)
        self._forget()
        self._waiting.pop(place_of(lock), None)
        self.settle(self._places_reached([one.who for one in self.in_the_way(lock)]), token)

    def drop_wait(self, lock: LockRecord) -> None:
        """It waits no longer."""
        self._locks.drop_wait(lock)
        self._forget()
        place = place_of(lock)
        self._waiting[place] = [one for one in self.waiting(place) if one.ticket != lock.ticket]

    def settle(self, places: Iterable[Place], token: int) -> None:
        """Grant there all that can be granted, the oldest first."""
        todo = {*places}
        while not self._settled(todo, token):
            pass

    def _settled(self, todo: set[Place], token: int) -> bool:
        """One pass. False: it has to begin anew, for somebody older may have a turn now."""
        waiting = [lock for place in todo for lock in self.waiting(place)]
        for lock in sorted(waiting, key=lambda lock: lock.ticket):
            if self.has_its_turn(lock):
                self.drop_wait(lock)
                _, moved = self._grant(lock, token)
                self._granted.setdefault(lock.session, []).append((lock.ticket, token))
                if moved:
                    todo |= moved
                    return False
        return True

    def effects(self) -> list[Effect]:
        """What those who waited are to be told."""
        return [LocksGranted(session, grants) for session, grants in self._granted.items()]


def place_of(lock: LockRecord) -> Place:
    """Where it is."""
    return Place(lock.inode, lock.kind)


def end_locks(locks: Locks, session: int, *, expired: bool, token: int) -> list[Effect]:
    """All of a session's locks and waits go; what others are to be told.

    Who held an exclusive lock when it expired may still be writing, and who was to see to that may
    not have come to it: that is noted.
    """
    arbiter = Arbiter(locks)
    places: set[Place] = set()
    for lock in locks.waits_in(session):
        arbiter.drop_wait(lock)
        places.add(place_of(lock))
    for inode in locks.inodes_of(session):
        for kind in LockKind:
            released = arbiter.release_all(Place(inode, kind), session)
            if released:
                places.add(Place(inode, kind))
            if expired and any(lock.exclusive or lock.after_loss for lock in released):
                locks.set_lost(inode, True)
    arbiter.settle(places, token)
    return arbiter.effects()
