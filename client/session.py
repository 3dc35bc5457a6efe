"""What one session holds: its slots, its open inodes, its reserved chunks. Pure.

A slot carries one mutation at a time (RFC 8881 section 2.10.6). It is given back when its mutation
was answered and never before: the next one would make the server forget the answer to the last.
"""

from collections.abc import Iterable, Iterator

from ..fs.calls import Mutation
from ..fs.limits import RESUME_PIECES_MAX
from ..fs.messages.meta import ResumeSession


class Session:
    """One session. ``id`` is the server's name for it."""

    def __init__(self, session: int, slots: int) -> None:
        assert slots > 0, slots
        self.id = session
        self.reserved: set[tuple[int, int, int]] = set()
        """Inode, chunk index and handle of what GetLayout handed out and no Commit took."""
        self._sequences = [0] * slots
        self._free = list(reversed(range(slots)))

    def take(self) -> Mutation | None:
        """A free slot with its next sequence; None when all are busy."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._sequences[slot] += 1
        return Mutation(self.id, slot, self._sequences[slot])

    def give_back(self, mutation: Mutation) -> None:
        """Its mutation was answered, or never sent."""
        assert mutation.session == self.id, mutation
        assert mutation.sequence == self._sequences[mutation.slot], mutation
        assert mutation.slot not in self._free, mutation
        self._free.append(mutation.slot)


def resumption(
    session: Session, open_inodes: list[int], claims: list[int]
) -> Iterator[ResumeSession]:
    """What tells a leader all that a session holds: messages that each fit a frame, in order."""
    reserved = sorted(session.reserved)
    size, most = RESUME_PIECES_MAX, max(len(open_inodes), len(reserved), len(claims), 1)
    for start in range(0, most, size):
        end = start + size
        yield ResumeSession(
            session.id,
            open_inodes[start:end],
            reserved[start:end],
            end < most,
            claims[start:end],
        )


class OpenInodes:
    """Which inodes this client has open, and whom to send a Release for.

    A Release and an opening of the same inode may cross on the way. So a Release goes out only
    for what has been closed for a whole round of batching, and who opened an inode while a
    Release for it was under way opens it again: ``crossed`` tells.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._closed: dict[int, int] = {}  # inode -> round in which it was closed
        self._round = 0  # how many batches were made: those closed before it are due
        self._sent: dict[int, int] = {}  # inode -> round of the batch that released it last
        self._opening = 0

    def opened(self, inode: int) -> None:
        self._counts[inode] = self._counts.get(inode, 0) + 1
        self._closed.pop(inode, None)

    def released(self, inode: int, *, known: bool = True) -> None:
        """``known``: the server may count it as open, and must be told."""
        count = self._counts.get(inode, 0) - 1
        assert count >= 0, f"inode {inode} is released more often than opened"
        if count:
            self._counts[inode] = count
        else:
            del self._counts[inode]
            if known:
                self._closed[inode] = self._round

    @property
    def to_release(self) -> bool:
        """Whether a Release is due, now or in the next round."""
        return bool(self._closed)

    def all(self) -> list[int]:
        """What ResumeSession lists: also what is closed, until the server knows that it is."""
        return sorted(self._counts.keys() | self._closed.keys())

    def forget_closed(self) -> None:
        """The session that had them open is gone, and with it what it had to release."""
        self._closed.clear()

    # --- releasing -----------------------------------------------------------------------

    def next_batch(self, count_max: int) -> list[int]:
        """What to release now: closed before the last call of this, and not open again."""
        due = [inode for inode, closed in self._closed.items() if closed < self._round]
        del due[count_max:]
        self._round += 1
        if self._opening:
            self._sent.update(dict.fromkeys(due, self._round))
        return due

    def acknowledged(self, batch: Iterable[int]) -> None:
        """The server has released the last batch. (What was opened and closed again since then
        is released once more.)"""
        for inode in batch:
            if self._closed.get(inode, self._round) < self._round - 1:
                del self._closed[inode]

    # --- opening -------------------------------------------------------------------------

    def begin_opening(self) -> int:
        """An Open or Create is about to be sent. Give what this returns to ``crossed``."""
        self._opening += 1
        return self._round

    def crossed(self, since: int, inode: int) -> bool:
        """Whether ``inode``, just opened, was released by a batch made after ``since``."""
        self._closed.pop(inode, None)
        return self._sent.get(inode, 0) > since

    def end_opening(self) -> None:
        """What ``begin_opening`` began is over."""
        self._opening -= 1
        if not self._opening:
            self._sent.clear()
