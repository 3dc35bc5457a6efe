"""What all operations of the vfs share: the caches, and the one way into them for attributes.

Everything here runs without an await. Whatever reply carries attributes, they go through
``absorb``: the attributes cache, the names of a directory, and the bytes of a file learn from them
together, so they never tell different stories.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import trio

from ..fs.attributes import Attributes, Kind
from ..fs.errors import Code, TideError
from ..fs.limits import CACHE_BYTES
from ..fs.messages.base import Message, Request
from ..fs.messages.meta import Change, DirectoryEntry
from ..fs.ports.clock import Clock
from .access_times import Readings
from .answers import finally_, then
from .attributes_cache import AttributesCache, Cached
from .dentry_cache import Absence, DentryCache
from .fuse.driver import KernelCaches, Known
from .handles import Handles, OpenDirectory, OpenFile
from .inodes import File, Files
from .kernel_listings import KernelListings
from .listings import Listings
from .modes import Ground, Mode
from .options import AccessTimes
from .reading import Reader, Shell
from .servers import ChunkServers, MetaServers
from .soon import Soon
from .writing import Writer

R = TypeVar("R", bound=Message)
U = TypeVar("U")


class Surroundings(NamedTuple):
    """What a mount's vfs is given to live on."""

    meta: MetaServers
    chunks: ChunkServers
    clock: Clock
    mode: Mode
    nursery: trio.Nursery
    """For read-ahead and write-behind; it must live until the vfs was closed."""
    patience_ms: int | None = None
    """None: wait for servers as long as it takes (a hard mount)."""
    cache_bytes: int = CACHE_BYTES
    host: str = ""
    """This machine's name: of processes elsewhere, the pid means nothing here."""
    access_times: AccessTimes = AccessTimes.RELATIVE
    directory_access_times: bool = True


class VfsCaches:
    """The caches of one mount."""

    writer: Writer
    kernel: KernelCaches | None = None
    """Set when there is a driver: whom to tell that the kernel believes something old."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.mode = surroundings.mode
        self.meta = surroundings.meta
        self.clock = surroundings.clock
        self.counters = surroundings.meta.counters
        self.host = surroundings.host
        self.attributes = AttributesCache(
            surroundings.clock, self.mode.attributes, lambda: surroundings.meta.lease_until_ns
        )
        self.names = DentryCache()
        self.listings = Listings()
        self.kernel_listings = KernelListings()
        self.abroad_ns = 0
        """When it was last seen that another mount changes names."""
        self.files = Files(surroundings.cache_bytes)
        self.readings = Readings(
            surroundings.access_times, directories=surroundings.directory_access_times
        )
        self.open_files: Handles[OpenFile] = Handles()
        self.unannounced: set[int] = set()
        """Inodes that are open here under a promise, which the metaservers were not told."""
        self.open_directories: Handles[OpenDirectory] = Handles()
        self.shell = Shell(
            surroundings.meta,
            surroundings.chunks,
            surroundings.clock,
            surroundings.nursery,
            self.absorb,
            surroundings.patience_ms,
        )
        self.reader = Reader(self.shell)

    def absorb(self, attributes: Attributes, *, own: bool = False, promised: bool = False) -> None:
        """Attributes came from a server, ``own``: in the reply to a change that we made;
        ``promised``: only where a reply comes in, before a recall can come in behind it.

        (How the bytes of a file follow our own Commit is `client/committing.py`'s affair; ``own``
        is about names and extended attributes.)
        """
        inode, is_directory = attributes.inode, attributes.kind is Kind.DIRECTORY
        # Otherwise the kernel believes it no longer, and the reply to its own question, which this
        # may be, must not be overtaken by a notice: it would not be believed.
        believed = is_directory and self.attributes.trust_ms(inode) > 0
        cached = self.attributes.see(attributes, own=own, promised=promised)
        if cached is None:
            return
        if is_directory:
            if self.names.see(inode, attributes.data_version, own=own):
                self.abroad_ns = cached.seen_ns
                if believed:
                    self._kernel_asks_again(inode)
        elif attributes.kind is Kind.FILE:
            file = self.files.peek(inode)
            if file is not None:
                file.see(attributes)

    def _kernel_asks_again(self, directory: int) -> None:
        """It compares the mtime that it believes with that of the listing that it keeps."""
        if self.kernel is not None:
            self.kernel.invalidate_inode(directory, attributes_only=True)

    def known(self, attributes: Attributes, parent: int | None = None) -> Known:
        """What the kernel is told: the newest that is known, with local changes, and for how long
        it may believe that and the name in ``parent``."""
        cached = self.attributes.get(attributes.inode)
        if cached is not None:
            return self.known_of(cached, parent)
        now_ns = self.clock.monotonic_ns()
        return Known(self._shown(attributes), 0, self._name_trust_ms(parent, now_ns))

    def known_of(self, cached: Cached, parent: int | None = None) -> Known:
        """The same, of what was found in the cache."""
        now_ns = self.clock.monotonic_ns()
        name_trust_ms = 0 if parent is None else self._name_trust_ms(parent, now_ns)
        return Known(self._shown(cached.attributes), cached.trust_ms(now_ns), name_trust_ms)

    def known_all(
        self, parent: int, entries: Sequence[DirectoryEntry]
    ) -> list[tuple[DirectoryEntry, Known]]:
        """``known`` for each entry of a directory."""
        now_ns = self.clock.monotonic_ns()
        name_trust_ms = self._name_trust_ms(parent, now_ns)
        find, shown = self.attributes.peek, self._shown
        found = []
        for entry in entries:
            cached = find(entry.attributes.inode)
            if cached is None:
                known = Known(shown(entry.attributes), 0, name_trust_ms)
            else:
                known = Known(shown(cached.attributes), cached.trust_ms(now_ns), name_trust_ms)
            found.append((entry, known))
        return found

    def _shown(self, attributes: Attributes) -> Attributes:
        """With what was changed and read here, and no server knows yet."""
        inode = attributes.inode
        # Mostly nothing is changed anywhere, and this is asked often. (Where each write is
        # committed at once, what is not is shown to nobody.)
        if self.files.account.bytes and not self.mode.write_through:
            file = self.files.peek(inode)
            if file is not None:
                attributes = file.merged(attributes)
        read_ns = self.readings.atime_ns(inode)
        if read_ns is not None:
            attributes = msgspec.structs.replace(attributes, atime_ns=read_ns)
        return attributes

    def _name_trust_ms(self, parent: int | None, now_ns: int) -> int:
        if parent is None or self.mode.entries.ground is Ground.NEVER:
            return 0
        cached = self.attributes.peek(parent)
        return 0 if cached is None else cached.trust_ms(now_ns)

    def ask(
        self,
        inode: int,
        request: Request[R],
        learn: Callable[[R], Soon[U]],
        also: Sequence[int | Absence | None] = (),
    ) -> Awaitable[U]:
        """Ask about ``inode``, or change it (and ``also`` these, as far as they are known), and
        learn from the reply as it comes in. When the inode is gone, what is cached of it goes
        too."""
        if not self.mode.promises or not isinstance(request, Change):
            return then(self.meta.start(request), learn, lambda error: self.failed(inode, error))
        changed = [one for one in (inode, *also) if isinstance(one, int)]
        ended = self.attributes.begin_change(changed)
        answer = then(self.meta.start(request), learn, lambda error: self.failed(inode, error))
        return finally_(answer, ended)

    def change(self, inode: int, request: Change[R]) -> Awaitable[R]:
        """``ask``, for a task that learns from the reply itself."""
        return self.ask(inode, request, lambda reply: reply)

    def usable(self, handle: int) -> OpenFile:
        """What is open under the number; EIO when locks were lost under it."""
        opened = self.open_files.get(handle)
        opened.check_not_lost()
        return opened

    async def write_out(self, file: File) -> None:
        """Where each write is committed before it returns: what cannot be is given up, and said."""
        try:
            await self.writer.flush(file)
        except TideError:
            await self.writer.give_up(file)
            raise
        finally:
            if not self.mode.cache_data:
                file.drop_clean(keep_unsynced=True)

    def failed(self, inode: int, error: TideError) -> None:
        """A request about ``inode`` failed: believe what that tells."""
        if error.code is Code.STALE_HANDLE:
            self.attributes.forget(inode)
            self.names.forget(inode)
            self.files.forget(inode)
            self.kernel_listings.forget(inode)
        elif error.code in (Code.NO_ENTRY, Code.EXISTS, Code.NOT_EMPTY):
            # The directory is not as it was believed to be.
            if self.attributes.trust_ms(inode):
                self._kernel_asks_again(inode)
            self.attributes.distrust(inode)
            self.names.forget(inode)
