"""What locks are, byte by byte: for each owner and byte a mode, and one queue for everything.

Made to be obvious, not fast: every question is answered by looking at everything. A file has a
dozen bytes and one last cell, which is all the rest of it.
"""

import dataclasses
import itertools

from tidefs.fs.errors import Code
from tidefs.fs.limits import LOCK_END
from tidefs.fs.messages.locks import LockKind

LAST = 12
"""The cell that stands for all bytes from 12 on."""


class RefusedError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Cell:
    exclusive: bool
    token: int
    ticket: int
    after_loss: bool


@dataclasses.dataclass(frozen=True)
class Wish:
    """``place``: (inode, kind); ``owner``: (session, owner)."""

    place: tuple
    owner: tuple
    exclusive: bool
    cells: range
    ticket: int = 1 << 70

    @property
    def who(self):
        return self.place[1], *self.owner


def cells_of(start, end):
    assert start <= LAST
    assert end <= LAST or end == LOCK_END
    return range(start, LAST + 1 if end == LOCK_END else end)


class LockModel:
    def __init__(self):
        self.held = {}  # (place, owner) -> {cell number: Cell}
        self.queue = []
        self.lost = set()
        self.index = 0
        self.granted = []

    def begin(self, index):
        self.index = index
        self.granted = []

    # --- who is in whose way

    def holders_against(self, wish):
        return {
            (place[1], *owner)
            for (place, owner), cells in self.held.items()
            if place == wish.place and owner != wish.owner
            for number, cell in cells.items()
            if number in wish.cells and (cell.exclusive or wish.exclusive)
        }

    def waiting_before(self, wish):
        return [
            one
            for one in self.queue
            if one.ticket < wish.ticket
            and one.place == wish.place
            and one.owner != wish.owner
            and (one.exclusive or wish.exclusive)
            and {*one.cells} & {*wish.cells}
        ]

    def edges(self, older_than):
        """(who waits, for whom), by what is held, and of the older ones by the queue too."""
        found = set()
        for wish in self.queue:
            found |= {(wish.who, other) for other in self.holders_against(wish)}
            if wish.ticket < older_than:
                found |= {(wish.who, one.who) for one in self.waiting_before(wish)}
        return found

    def may_have(self, wish):
        if self.holders_against(wish):
            return False
        edges = self.edges(wish.ticket)
        return all(wish.who in reached(edges, one.who) for one in self.waiting_before(wish))

    def is_deadlock(self, wish):
        edges = self.edges(0)
        return any(
            wish.who == other or wish.who in reached(edges, other)
            for other in self.holders_against(wish)
        )

    # --- requests

    def set_lock(self, wish, *, wait):
        """What is answered: ("held", token, after_loss) or ("waits", ticket)."""
        kind = wish.place[1]
        own = self.held.get((wish.place, wish.owner), {})
        now = [own.get(number) for number in wish.cells]
        if all(cell and cell.exclusive == wish.exclusive for cell in now):
            return "held", max(c.token for c in now), any(c.after_loss for c in now)
        if kind is LockKind.WHOLE and own:
            del self.held[wish.place, wish.owner]
            self.settle()
        elif not wait and self.holders_against(wish):
            raise RefusedError(Code.WOULD_BLOCK)
        elif wait and kind is LockKind.RANGE and self.is_deadlock(wish):
            raise RefusedError(Code.DEADLOCK)
        if self.may_have(wish) if wait else not self.holders_against(wish):
            cell = self.grant(dataclasses.replace(wish, ticket=0))
            self.settle()
            return "held", self.index, cell.after_loss
        if not wait:
            raise RefusedError(Code.WOULD_BLOCK)
        self.queue.append(dataclasses.replace(wish, ticket=self.index))
        self.settle()
        return "waits", self.index

    def unlock(self, place, owner, cells):
        own = self.held.get((place, owner), {})
        self.held[place, owner] = {n: cell for n, cell in own.items() if n not in cells}
        self.settle()

    def withdraw(self, inode, session, ticket):
        """The tokens of what is held under this ticket; none: it waits no longer."""
        for wish in self.queue:
            if (wish.place[0], wish.owner[0], wish.ticket) == (inode, session, ticket):
                self.queue.remove(wish)
                self.settle()
                return []
        return [
            cell.token
            for (place, owner), cells in self.held.items()
            if place[0] == inode and owner[0] == session
            for cell in cells.values()
            if cell.ticket == ticket > 0
        ]

    def end_session(self, session, *, expired):
        self.queue = [wish for wish in self.queue if wish.owner[0] != session]
        for (place, owner), cells in list(self.held.items()):
            if owner[0] == session:
                del self.held[place, owner]
                if expired and any(cell.exclusive or cell.after_loss for cell in cells.values()):
                    self.lost.add(place[0])
        self.settle()

    def reap(self, inode):
        self.queue = [wish for wish in self.queue if wish.place[0] != inode]
        self.held = {at: cells for at, cells in self.held.items() if at[0][0] != inode}
        self.lost.discard(inode)

    # --- grants

    def grant(self, wish):
        after_loss = wish.place[0] in self.lost
        if after_loss:
            self.lost.discard(wish.place[0])
        cell = Cell(wish.exclusive, self.index, wish.ticket, after_loss)
        own = self.held.setdefault((wish.place, wish.owner), {})
        own.update(dict.fromkeys(wish.cells, cell))
        self.unite(own)
        return own[wish.cells[0]]

    @staticmethod
    def unite(own):
        """What lies side by side, in one mode and of one ticket, is one lock."""
        numbers = sorted(own)
        runs = []
        for number in numbers:
            cell = own[number]
            last = own.get(number - 1)
            if last and (last.exclusive, last.ticket) == (cell.exclusive, cell.ticket):
                runs[-1].append(number)
            else:
                runs.append([number])
        for run in runs:
            token = max(own[number].token for number in run)
            after_loss = any(own[number].after_loss for number in run)
            for number in run:
                own[number] = dataclasses.replace(own[number], token=token, after_loss=after_loss)

    def settle(self):
        """Whoever can have what he waits for, anywhere, has it; the oldest first."""
        while True:
            wish = next((one for one in self.queue if self.may_have(one)), None)
            if wish is None:
                return
            self.queue.remove(wish)
            self.grant(wish)
            self.granted.append((wish.owner[0], wish.ticket, self.index))

    # --- what must hold

    def circles(self):
        """Owners that wait for themselves, by what is held and by the queue as it counts."""
        edges = self.edges(0)
        for wish in self.queue:
            of_older = self.edges(wish.ticket)
            edges |= {
                (wish.who, one.who)
                for one in self.waiting_before(wish)
                if wish.who not in reached(of_older, one.who)
            }
        return {who for who, _ in edges if who in reached(edges, who)}

    def together(self):
        """Pairs of owners that hold what excludes each other."""
        return [
            (one, other, number)
            for (one, cells), (other, others) in itertools.combinations(self.held.items(), 2)
            if one[0] == other[0]
            for number in cells.keys() & others.keys()
            if cells[number].exclusive or others[number].exclusive
        ]


def reached(edges, start):
    """Everything that can be reached from ``start`` in one step or more."""
    found = set()
    todo = [start]
    while todo:
        who = todo.pop()
        for one, other in edges:
            if one == who and other not in found:
                found.add(other)
                todo.append(other)
    return found
