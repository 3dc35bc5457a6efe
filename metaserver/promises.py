"""Which session was promised what about which inode (``fs/messages/promises.py``). Pure.

A promise is *held* until it is taken out to be recalled; then it is *out* until that ``Recalled``
is over: answered, or the session has begun anew or ended. So what is promised again behind a recall
is a promise of its own, and who must wait knows for what.
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice

from ..fs.limits import PROMISES_MAX
from .marks import NOBODY, Marks

GENERATION = 256
"""So many promises in a row are of one age: they share one number instead of having one each."""


class Recalled:
    """What one session is to forget. ``exclusive``: those of the inodes that it held alone."""

    __slots__ = ("_then", "exclusive", "inodes", "is_over", "session")

    def __init__(self, session: int, inodes: tuple[int, ...], exclusive: frozenset[int]) -> None:
        self.session = session
        self.inodes = inodes
        self.exclusive = exclusive
        self.is_over = False
        self._then: list[Callable[[Recalled], None]] = []

    def then(self, call: Callable[["Recalled"], None]) -> None:
        """Have it called when this is over, which it is not yet."""
        self._then.append(call)

    def finish(self) -> None:
        """For the table: it is over."""
        self.is_over = True
        for call in self._then:
            call(self)


class Promises:
    """All promises of one leader, and what keeps new ones from being made."""

    def __init__(self, most: int = PROMISES_MAX) -> None:
        self.most = most
        self.count = 0
        """Of those that are held."""
        self.changing = Marks[int]()
        """Inodes of changes that are under way."""
        self.claiming = Marks[int]()
        """Inodes that somebody wants for himself."""
        self._inodes: dict[int, dict[int, int]] = {}
        """Of each session, the oldest first, with their generation."""
        self._holders: dict[int, int | set[int]] = {}
        """Of each inode: the only session, or at least two of them."""
        self._exclusive: dict[int, int] = {}
        self._out: dict[int, dict[Recalled, None]] = {}
        """By inode, in the order in which they were taken out."""
        self._out_of: dict[int, dict[Recalled, None]] = {}
        """By session."""
        self._out_exclusive = 0
        self._made = 0
        self._generation = 0

    # --- making ------------------------------------------------------------------------------

    def promise(self, session: int, inodes: Collection[int]) -> bool:
        """Shared ones for all of these inodes, or none: False when somebody else changes, claims,
        or holds one of them alone. What is held already stays as it is. See ``lacks_room``."""
        for inode in inodes:
            if (
                self.changing.by_others(session, inode)
                or self.claiming.by_others(session, inode)
                or self._exclusive.get(inode, session) != session
            ):
                return False
        for inode in inodes:
            self._hold(session, inode)
        return True

    def claim(self, session: int, inode: int) -> None:
        """An exclusive one. Nothing is in its way (asserted)."""
        assert not self.changing.by_others(session, inode), inode
        assert not self.is_in_the_way(session, (inode,)), inode
        self._hold(session, inode)
        self._exclusive[inode] = session

    def reclaim(self, session: int, inode: int) -> bool:
        """An exclusive one that the session has held all the time; False: it has not. Who waits to
        change it recalls it anew."""
        if self.is_in_the_way(session, (inode,)):
            return False
        self._hold(session, inode)
        self._exclusive[inode] = session
        return True

    def lacks_room(self, more: int) -> bool:
        """Whether so many more would be too many: take ``oldest`` out first."""
        return self.count + more > self.most

    def _hold(self, session: int, inode: int) -> None:
        held = self._inodes.setdefault(session, {})
        if inode in held:
            return
        held[inode] = self._generation
        self.count += 1
        self._made += 1
        if self._made % GENERATION == 0:
            self._generation += 1
        holders = self._holders.get(inode)
        if holders is None:
            self._holders[inode] = session
        elif isinstance(holders, set):
            holders.add(session)
        else:
            self._holders[inode] = {holders, session}

    # --- what is in the way ------------------------------------------------------------------

    @property
    def has_exclusive(self) -> bool:
        """Whether anything at all is held by one session alone, or was and is out."""
        return bool(self._exclusive) or self._out_exclusive > 0

    def holders(self, inode: int) -> list[int]:
        """The sessions that are promised it."""
        return self._others(NOBODY, inode)

    def is_kept_from(self, session: int, inodes: Iterable[int]) -> bool:
        """Whether another one holds one of these alone, or did and it is out."""
        for inode in inodes:
            if self._exclusive.get(inode, session) != session:
                return True
            if self._out_exclusive and self.out_exclusive(session, (inode,)):
                return True
        return False

    def is_in_the_way(self, session: int, inodes: Iterable[int]) -> bool:
        """Whether others than ``session`` hold promises on these, or have some out."""
        for inode in inodes:
            holders = self._holders.get(inode)
            if holders is not None and holders != session:
                return True
            if self._out and any(out.session != session for out in self._out.get(inode, ())):
                return True
        return False

    def take(self, session: int, inodes: Iterable[int]) -> list[Recalled]:
        """Take out what others than ``session`` hold on these: one Recalled for each of them."""
        found: dict[int, list[int]] = {}
        for inode in dict.fromkeys(inodes):  # a listing may tell of one several times
            for holder in self._others(session, inode):
                found.setdefault(holder, []).append(inode)
        return [self._take(holder, held) for holder, held in found.items()]

    def take_exclusive(self, session: int, inodes: Iterable[int]) -> list[Recalled]:
        """As ``take``, only what they hold alone."""
        return self.take(session, [inode for inode in inodes if inode in self._exclusive])

    def out(self, session: int, inodes: Iterable[int]) -> list[Recalled]:
        """What others than ``session`` have out on these."""
        found = {
            out: None
            for inode in inodes
            for out in self._out.get(inode, ())
            if out.session != session
        }
        return list(found)

    def out_exclusive(self, session: int, inodes: Iterable[int]) -> list[Recalled]:
        """As ``out``, only what they held alone."""
        found = {
            out: None
            for inode in inodes
            for out in self._out.get(inode, ())
            if out.session != session and inode in out.exclusive
        }
        return list(found)

    def oldest(self, count: int) -> list[Recalled]:
        """Take out the ``count`` oldest shared ones, whoever holds them: one for each session."""
        of_each = [self._shared(session) for session in self._inodes]
        found: dict[int, list[int]] = {}
        for _, session, inode in islice(heapq.merge(*of_each), count):
            found.setdefault(session, []).append(inode)
        return [self._take(session, held) for session, held in found.items()]

    def _others(self, session: int, inode: int) -> list[int]:
        holders = self._holders.get(inode)
        if isinstance(holders, set):
            return sorted(holders - {session})
        return [] if holders is None or holders == session else [holders]

    def _shared(self, session: int) -> Iterator[tuple[int, int, int]]:
        for inode, generation in self._inodes[session].items():
            if inode not in self._exclusive:
                yield generation, session, inode

    def _take(self, session: int, inodes: list[int]) -> Recalled:
        exclusive = frozenset(i for i in inodes if self._exclusive.get(i) == session)
        recalled = Recalled(session, tuple(inodes), exclusive)
        self._out_of.setdefault(session, {})[recalled] = None
        self._out_exclusive += bool(exclusive)
        for inode in inodes:
            self._drop(session, inode)
            self._out.setdefault(inode, {})[recalled] = None
        return recalled

    # --- ends --------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many Recalled are out."""
        return sum(map(len, self._out_of.values()))

    def over(self, recalled: Recalled) -> None:
        """It was answered, or need not be any more; who waits for it is told. Once is enough."""
        if recalled.is_over:
            return
        _discard(self._out_of, recalled.session, recalled)
        self._out_exclusive -= bool(recalled.exclusive)
        for inode in recalled.inodes:
            _discard(self._out, inode, recalled)
        recalled.finish()

    def end(self, session: int) -> None:
        """The session is over, or begins anew: it holds nothing, and nothing of it is out."""
        for inode in list(self._inodes.get(session, ())):
            self._drop(session, inode)
        for recalled in list(self._out_of.get(session, ())):
            self.over(recalled)

    def forget(self, inodes: Iterable[int]) -> None:
        """These are gone for ever, so nothing about them will change: no promise is needed."""
        for inode in inodes:
            for holder in self.holders(inode):
                self._drop(holder, inode)

    def _drop(self, session: int, inode: int) -> None:
        held = self._inodes[session]
        del held[inode]
        if not held:
            del self._inodes[session]
        self.count -= 1
        self._exclusive.pop(inode, None)
        holders = self._holders[inode]
        if isinstance(holders, set):
            holders.discard(session)
            if len(holders) == 1:
                self._holders[inode] = holders.pop()
        else:
            del self._holders[inode]


def _discard(table: dict[int, dict[Recalled, None]], key: int, recalled: Recalled) -> None:
    found = table[key]
    del found[recalled]
    if not found:
        del table[key]
