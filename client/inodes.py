"""One object for each file whose bytes are cached or changed here, shared by all its handles.

Who touches what: every method here runs without an await, so each sees and leaves a consistent
file. What must not overlap with another of its kind (a Commit, a truncation, a flush) holds
``lock``; pushes in the background do not, and are kept out by ``frozen``. The sets of
`client/changes.py` say how far each changed byte has come; ``valid`` says which cached bytes are
right, changed ones among them. A fetch that is under way is registered in ``fetches``, and loses
the right to store bytes that are written or cut meanwhile.
"""

from collections import OrderedDict
from typing import NamedTuple

import msgspec
import trio

from ..fs.attributes import Attributes
from ..fs.codec import Buffer
from ..fs.errors import TideError
from ..fs.limits import CACHE_BLOCK_BYTES, CACHE_BYTES, FILES_IDLE_MAX
from .block_cache import BlockCache, Loan
from .changes import Account, Changes
from .intervals import FOREVER, IntervalSet, Range
from .layouts import FileLayout
from .unsynced import Unsynced


class Fetch:
    """Bytes on their way here. ``wanted``: those that may still be stored when they arrive."""

    __slots__ = ("done", "end", "start", "wanted")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.wanted = IntervalSet([(start, end)])
        self.done = trio.Event()


class Written(NamedTuple):
    """A chunk that holds bytes which no Commit has named yet."""

    handle: int
    version: int  # the oldest one at which such bytes were written


class Reservation(NamedTuple):
    """A fresh chunk that is not part of the file yet."""

    handle: int
    session: int  # void when that is over


class Loss:
    """Changes from ``start`` on, made under a lock or turn that is lost: others may have it.

    ``told``: whoever had the file open gets to know it anyway.
    """

    __slots__ = ("error", "over", "start", "told")

    def __init__(self, error: TideError, start: int, told: bool) -> None:
        self.error = error
        self.start = start
        self.told = told
        self.over = trio.Event()


class File:
    """One file. ``size`` is what an application here sees; ``server_size`` what is committed."""

    def __init__(self, attributes: Attributes, blocks: BlockCache, account: Account) -> None:
        self.inode = attributes.inode
        self.openings = 0
        self.mappable = 0
        """How many of them may write back pages of a mapping."""
        self.lock = trio.Lock()
        self.appending = trio.Lock()
        self.frozen = 0
        self.failure: TideError | None = None
        """Writing failed in the background; a flush tries again."""
        self.given_up: TideError | None = None
        """Changes were dropped, and nobody was told yet."""
        self.told = False
        """An application knows that what is changed could not be stored."""
        self.lost: Loss | None = None
        """Changes are to be dropped, as soon as nothing of the file is under way."""

        self.locked_in: int | None = None
        """The session that holds locks on it, if one does: only that one may change it."""
        self.fence = 0
        """What its writes carry: the highest token of those locks, or one that replaced it."""

        self.size = attributes.size
        self.server_size = attributes.size
        self.server_mtime_ns = attributes.mtime_ns
        self.version = attributes.data_version
        """The data version that the clean bytes belong to; so do the kernel's pages if equal."""
        self.kernel_version = 0
        self.seen_change = attributes.change
        self.mtime_ns: int | None = None
        """The time of the last change, as long as something is not committed."""

        self.inline: bool | None = True if attributes.size == 0 else None
        """Whether its bytes live in its inode, as of ``version``; None: ask."""
        self.inline_base: int | None = None
        """Set: its bytes were carried over for chunk 0 at that data version."""
        self.carried = IntervalSet()

        self.valid = IntervalSet()
        self.changes = Changes(account)
        self.fetches: list[Fetch] = []
        self.layout = FileLayout()
        self.written: dict[int, Written] = {}
        self.reserved: dict[int, Reservation] = {}
        self.unsynced = Unsynced()
        self.sync_all = attributes.size > 0
        """Chunks may have been written by somebody else, or by us before we forgot."""
        self.pushes = trio.lowlevel.ParkingLot()
        self.reading = 0
        """So many reads that began under a promise are under way."""
        self.readers = trio.lowlevel.ParkingLot()
        self._blocks = blocks

    def check_not_lost(self) -> None:
        """TideError when its changes must not go out any more."""
        if self.lost is not None:
            raise self.lost.error

    @property
    def modified(self) -> bool:
        """Whether something waits to be committed."""
        return bool(self.changes)

    @property
    def has_news(self) -> bool:
        """Whether a flush has something to write, or to tell."""
        return self.modified or self.failure is not None or self.given_up is not None

    @property
    def leaves_inode(self) -> bool:
        """Whether the next Commit makes the inode forget bytes that it holds on stable storage."""
        return self.inline_base is not None and self.server_size > 0

    @property
    def is_blank(self) -> bool:
        """Whether nothing is known of it but what a server says."""
        return not (
            self.valid or self.has_news or self.lost or self.locked_in or self.lock.locked()
        )

    def merged(self, attributes: Attributes) -> Attributes:
        """The server's attributes as an application here must see them."""
        if not self.modified:
            return attributes
        mtime_ns = attributes.mtime_ns if self.mtime_ns is None else self.mtime_ns
        return msgspec.structs.replace(
            attributes,
            size=self.size,
            mtime_ns=mtime_ns,
            ctime_ns=max(attributes.ctime_ns, mtime_ns),
            stored_bytes=max(attributes.stored_bytes, min(self.size, self.changes.bytes)),
        )

    # --- what a server says

    def see(self, attributes: Attributes) -> None:
        """Attributes from a server, perhaps changed by others: then clean bytes go."""
        if attributes.change < self.seen_change:
            return
        self.seen_change = attributes.change
        self.server_mtime_ns = attributes.mtime_ns
        if attributes.data_version != self.version:
            self.version = attributes.data_version
            self.inline = None
            self.sync_all = True
            self.layout.forget()
            self.drop_clean()
        self._take_size(attributes.size)

    def see_own(self, attributes: Attributes, base: int) -> None:
        """Attributes in the reply to our own change of the bytes, made when they were at ``base``.

        If it was the only change, our clean bytes are those of the new version.
        """
        if attributes.data_version <= base + 1 and attributes.change >= self.seen_change:
            if self.kernel_version == base:
                self.kernel_version = attributes.data_version
            self.version = attributes.data_version
        self.see(attributes)

    def _take_size(self, size: int) -> None:
        self.server_size = size
        shown = max(size, self.changes.end)
        if shown < self.size:
            self._forget_valid(shown, FOREVER)
        self.size = shown

    # --- bytes

    def write(self, offset: int, data: Buffer, now_ns: int) -> None:
        """An application writes. The caller saw to it that there is room."""
        end = offset + len(data)
        self._blocks.put(self.inode, offset, data, pinned=True)
        self.valid.add(offset, end)
        self.changes.write(offset, end)
        self.carried.remove(offset, end)
        for fetch in self.fetches:
            fetch.wanted.remove(offset, end)
        self.size = max(self.size, end)
        self.mtime_ns = now_ns
        self.told = False

    def store(self, fetch: Fetch, offset: int, data: Buffer) -> None:
        """Bytes arrived: keep those that are wanted and not there yet."""
        view = memoryview(data)
        for start, end in fetch.wanted.within(offset, offset + len(view)):
            for begin, stop in self.valid.gaps(start, end):
                piece = view[begin - offset : stop - offset]
                self._blocks.put(self.inode, begin, piece, pinned=False)
                self.valid.add(begin, stop)

    def store_content(self, content: Buffer) -> None:
        """The whole content of an inline file arrived, of the version that was just seen."""
        fetch = Fetch(0, min(self.server_size, len(content)))
        self.store(fetch, 0, memoryview(content)[: fetch.end])

    def store_zeros(self, start: int, end: int) -> None:
        """Behind the committed bytes, what was not written is zeros."""
        self.store(Fetch(start, end), start, bytes(end - start))

    def carry(self, size: int) -> None:
        """Make the bytes below ``size`` changes of ours, for chunk 0; zeros where none are known.

        (There may be other bytes in the chunk, from an earlier attempt.)
        """
        for start, end in self.valid.gaps(0, size):
            self.store_zeros(start, end)
        for start, end in self._change_again(0, size):
            self.carried.add(start, end)

    def write_again(self, index: int) -> bool:
        """Make the bytes of a chunk that were not synced changes of ours, as far as they are still
        here; whether all of them are."""
        complete = True
        for start, end in self.unsynced.ranges_of(index):
            complete = complete and self.valid.covers(start, end)
            for begin, stop in self.valid.within(start, end):
                self._change_again(begin, stop)
                self.unsynced.ranges.remove(begin, stop)
                self.changes.redone += 1
        if self.mtime_ns is None:
            self.mtime_ns = self.server_mtime_ns
        return complete

    def _change_again(self, start: int, end: int) -> list[Range]:
        """Make valid bytes changes, but for those that are; what was done."""
        ranges = self.changes.pinned_ranges().gaps(start, end)
        for begin, stop in ranges:
            self.changes.write(begin, stop)
            for index in range(begin // CACHE_BLOCK_BYTES, -(-stop // CACHE_BLOCK_BYTES)):
                self._blocks.pin(self.inode, index)
        return ranges

    def uncarry(self) -> None:
        """The bytes that were carried over are no longer those of the file."""
        for start, end in self.carried:
            self.changes.drop(start, end)
            self._forget_valid(start, end)
        self.carried.clear()
        self.inline_base = None
        self.settle(0, CACHE_BLOCK_BYTES)

    def get(self, start: int, end: int) -> Buffer:
        return self._blocks.get(self.inode, start, end)

    def lend(self, start: int, end: int) -> Loan:
        return self._blocks.lend(self.inode, start, end)

    def settle(self, start: int, end: int) -> None:
        """Changes in this range may be over: let go of blocks that hold none."""
        for index in range(start // CACHE_BLOCK_BYTES, -(-end // CACHE_BLOCK_BYTES)):
            begin = index * CACHE_BLOCK_BYTES
            if not self.changes.pinned(begin, begin + CACHE_BLOCK_BYTES):
                self._blocks.unpin(self.inode, index)

    def cut(self, size: int) -> None:
        """The file was truncated (or extended) to ``size``: nothing behind it is left."""
        pinned = self.changes.pinned_ranges()
        self.changes.drop(size)
        self.unsynced.drop(size, FOREVER)
        self.carried.remove(size, FOREVER)
        self._forget_valid(size, FOREVER)
        for start, end in pinned.within(size, FOREVER):
            self.settle(start, end)
        self.size = size
        if not self.changes:
            self.mtime_ns = None

    def punch(self, start: int, end: int) -> None:
        """The range is a hole on the servers, as of the version that is seen next."""
        self.unsynced.drop(start, end)
        self.forget_clean(start, end)

    def forget_clean(self, start: int, end: int) -> None:
        """Forget bytes of a range that are not changes."""
        for begin, stop in self.changes.pinned_ranges().gaps(start, end):
            self._forget_valid(begin, stop)

    def drop_clean(self, *, keep_unsynced: bool = False) -> None:
        """Forget all bytes that are not changes, and perhaps were synced."""
        pinned = self.changes.pinned_ranges()
        for start, end in self.unsynced.ranges if keep_unsynced else ():
            pinned.add(start, end)
        for start, end in list(self.valid):
            for begin, stop in pinned.gaps(start, end):
                self._forget_valid(begin, stop)
        self.stop_fetching()

    def stop_fetching(self) -> None:
        """What is on its way may be of another version."""
        for fetch in self.fetches:
            fetch.wanted.clear()

    def drop_changes(self, begin: int = 0) -> None:
        """Give up what could not be written from ``begin`` on; it was reported, or will be."""
        pinned = self.changes.pinned_ranges()
        self.changes.drop(begin)
        if not self.changes:
            self.carried.clear()
            self.inline_base = None
            self.written.clear()
            self.mtime_ns = None
        for start, end in pinned.within(begin, FOREVER):
            self.unsynced.ranges.remove(start, end)
            self._forget_valid(start, end)
            self.settle(start, end)
        self.size = max(self.server_size, self.changes.end)

    def forget(self) -> None:
        """Nothing of it is kept."""
        self._forget_valid(0, FOREVER)

    def _forget_valid(self, start: int, end: int) -> None:
        for fetch in self.fetches:
            fetch.wanted.remove(start, end)
        for begin, stop in self.valid.within(start, end):
            self.valid.remove(begin, stop)
            for index in range(begin // CACHE_BLOCK_BYTES, -(-stop // CACHE_BLOCK_BYTES)):
                first = index * CACHE_BLOCK_BYTES
                if not self.valid.intersects(first, first + CACHE_BLOCK_BYTES):
                    self._blocks.drop(self.inode, index)


class Files:
    """All of them. One that is idle (no handle, no change) is kept for its clean bytes, up to
    FILES_IDLE_MAX, least recently used out first."""

    def __init__(self, cache_bytes: int = CACHE_BYTES, idle_max: int = FILES_IDLE_MAX) -> None:
        self.account = Account()
        self.blocks = BlockCache(self._evicted, cache_bytes)
        self._files: dict[int, File] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._idle_max = idle_max

    def peek(self, inode: int) -> File | None:
        """The file, if something of it is kept."""
        return self._files.get(inode)

    def get(self, attributes: Attributes) -> File:
        """The file, made if need be; the attributes are those a server just gave."""
        file = self._files.get(attributes.inode)
        if file is None:
            file = self._files[attributes.inode] = File(attributes, self.blocks, self.account)
            self._idle[attributes.inode] = None
        else:
            file.see(attributes)
            if attributes.inode in self._idle:
                self._idle.move_to_end(attributes.inode)
        return file

    def opened(self, file: File) -> None:
        file.openings += 1
        self._idle.pop(file.inode, None)

    def released(self, file: File) -> None:
        """One handle less; the file may have become idle."""
        file.openings -= 1
        if file.openings == 0:
            if file.is_blank:
                self.forget(file.inode)
                return
            self._idle[file.inode] = None
            while len(self._idle) > self._idle_max:
                inode = next(iter(self._idle))
                if self._files[inode].modified or self._files[inode].lock.locked():
                    self._idle.move_to_end(inode)
                    break
                self.forget(inode)

    def forget(self, inode: int) -> None:
        """Drop all that is kept of a file that is idle, or gone."""
        file = self._files.get(inode)
        if file is not None and file.openings == 0 and not file.modified:
            file.forget()
            del self._files[inode]
            self._idle.pop(inode, None)

    def modified(self) -> list[File]:
        """Those with changes that are not committed."""
        return [file for file in self._files.values() if file.modified]

    def _evicted(self, inode: int, start: int, end: int) -> None:
        file = self._files.get(inode)
        if file is not None:
            file.valid.remove(start, end)
