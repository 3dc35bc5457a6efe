"""Names: lookup, make, link, remove, rename, list.

All changes of names are written through: durable in the operation log when they return. So there
is nothing to do for an fsync of a directory. Each reply carries the directory as it is afterwards,
and what is known of its other names stays good when only we changed it.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

import msgspec

from ..fs.attributes import Attributes, Kind
from ..fs.errors import Code, TideError
from ..fs.limits import LISTED_AT_ONCE_MAX, NAME_MAX_BYTES, READDIR_ENTRIES_MAX, SYMLINK_MAX_BYTES
from ..fs.messages.meta import (
    Create,
    DirectoryEntry,
    Entry,
    GetAttributes,
    Link,
    Listing,
    Lookup,
    MakeDirectory,
    MakeSymlink,
    Node,
    ReadDirectory,
    ReadLink,
    RemoveDirectory,
    Rename,
    RenameDone,
    RenameFlags,
    Target,
    Unlink,
)
from .answers import finally_, then
from .dentry_cache import ABSENT
from .fuse.driver import Caller, Known, OpenedDirectory
from .handles import OpenDirectory
from .listings import Page
from .modes import Ground
from .soon import Soon
from .vfs_attributes import AttributeOperations

DOTS = (b".", b"..")


class NameOperations(AttributeOperations):
    """The part of the vfs that deals with directories."""

    def lookup(self, parent: int, name: bytes) -> Soon[Known]:
        _check_name(name)
        directory = self.attributes.trusted(parent)
        if directory is not None and self.mode.entries.ground is not Ground.NEVER:
            found = self.names.get(parent, name)
            if found is ABSENT and name not in DOTS:
                if directory.seen_ns < self.abroad_ns and not self.mode.promises:
                    return self._lookup_absent(parent, name)
                raise _absent(parent, name)
            if isinstance(found, int):
                cached = self.attributes.trusted(found)
                if cached is not None:
                    return self.known_of(cached, parent)
        return self._lookup(parent, name)

    def _lookup_absent(self, parent: int, name: bytes) -> Soon[Known]:
        """The name was not there; but since that was known, something that another mount did has
        been seen, and what it did before that must be seen too: such as the objects of a git
        repository behind the name of a branch."""

        def learn(reply: Node) -> Soon[Known]:
            self.absorb(reply.attributes, promised=reply.promised)
            if self.names.get(parent, name) is ABSENT:
                raise _absent(parent, name)
            return self._lookup(parent, name)

        return self.ask(parent, GetAttributes(parent), learn)

    def _lookup(self, parent: int, name: bytes) -> Soon[Known]:
        version = self.names.version(parent)

        def learn(reply: Entry) -> Known:
            self.absorb(reply.parent, promised=reply.promised)
            return self._learned(parent, name, reply)

        def failed(error: TideError) -> None:
            if error.code is Code.NO_ENTRY:
                # True for the version that was known before and after the question.
                self.names.put(parent, name, ABSENT, version)
            else:
                self.failed(parent, error)

        return then(self.meta.start(Lookup(parent, name)), learn, failed)

    def _learned(self, parent: int, name: bytes, reply: Entry) -> Known:
        self.absorb(reply.attributes, promised=reply.promised)
        self.names.put(parent, name, reply.attributes.inode, reply.parent.data_version)
        return self.known(reply.attributes, parent)

    def _made(self, parent: int, name: bytes, reply: Entry) -> Known:
        """A name was made by us."""
        self.absorb(reply.parent, own=True, promised=reply.promised)
        return self._learned(parent, name, reply)

    def forget(self, inodes: object) -> None:
        """Nothing is counted here: the caches are bounded by themselves."""

    # --- make

    def mknod(
        self, parent: int, name: bytes, kind: Kind, mode: int, device: int, caller: Caller
    ) -> Soon[Known]:
        _check_name(name)
        request = Create(
            parent,
            name,
            kind,
            mode,
            caller.uid,
            caller.gid,
            device,
            exclusive=True,
            open=False,
            umask=caller.umask,
        )
        return self.ask(parent, request, lambda reply: self._made(parent, name, reply))

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Soon[Known]:
        _check_name(name)

        def learn(reply: Entry) -> Known:
            known = self._made(parent, name, reply)
            made = reply.attributes
            self.names.put(made.inode, b"..", parent, made.data_version)
            self.names.is_complete(made.inode, made.data_version)
            return known

        request = MakeDirectory(parent, name, mode, caller.uid, caller.gid, caller.umask)
        return self.ask(parent, request, learn)

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Soon[Known]:
        _check_name(name)
        if len(target) > SYMLINK_MAX_BYTES:
            raise TideError(Code.NAME_TOO_LONG, f"the target has {len(target)} bytes")

        def learn(reply: Entry) -> Known:
            known = self._made(parent, name, reply)
            self._keep_target(reply.attributes.inode, target)
            return known

        return self.ask(parent, MakeSymlink(parent, name, target, caller.uid, caller.gid), learn)

    def readlink(self, inode: int) -> Soon[bytes]:
        cached = self.attributes.trusted(inode)
        if cached is not None and cached.target is not None:
            self.was_read(inode)
            return cached.target
        return self._readlink(inode)

    def _readlink(self, inode: int) -> Awaitable[bytes]:
        def learn(reply: Target) -> bytes:
            self._keep_target(inode, reply.target)
            self.was_read(inode)
            return reply.target

        return then(self.meta.start(ReadLink(inode)), learn)

    def _keep_target(self, inode: int, target: bytes) -> None:
        cached = self.attributes.get(inode)
        if cached is not None:
            cached.target = target  # it never changes

    def link(self, inode: int, parent: int, name: bytes) -> Soon[Known]:
        _check_name(name)

        def learn(reply: Entry) -> Known:
            self.absorb(reply.attributes, own=True, promised=reply.promised)
            return self._made(parent, name, reply)

        return self.ask(parent, Link(inode, parent, name), learn, also=(inode,))

    # --- remove

    def unlink(self, parent: int, name: bytes) -> Soon[None]:
        return self.announced_before([(parent, name)], lambda: self._unlink(parent, name))

    def _unlink(self, parent: int, name: bytes) -> Awaitable[None]:
        return self.ask(
            parent,
            Unlink(parent, name),
            lambda reply: self._removed(parent, name, reply.parent, reply.attributes),
            also=(self.names.get(parent, name),),
        )

    def rmdir(self, parent: int, name: bytes) -> Soon[None]:
        return self.ask(
            parent,
            RemoveDirectory(parent, name),
            lambda reply: self._removed(parent, name, reply.parent, reply.attributes),
            also=(self.names.get(parent, name),),
        )

    def _removed(self, parent: int, name: bytes, directory: Attributes, gone: Attributes) -> None:
        self.absorb(directory, own=True)
        self.names.put(parent, name, ABSENT, directory.data_version)
        self._lost_name(gone)

    def _lost_name(self, attributes: Attributes) -> None:
        """An inode has a name less. Its attributes stay for who has it open."""
        self.absorb(attributes, own=True)
        if attributes.links == 0:
            self.names.forget(attributes.inode)
            self.files.forget(attributes.inode)
            self.kernel_listings.forget(attributes.inode)

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> Soon[None]:
        _check_name(new_name)
        request = Rename(parent, name, new_parent, new_name, flags)
        return self.announced_before([(new_parent, new_name)], lambda: self._rename(request))

    def _rename(self, request: Rename) -> Awaitable[None]:
        def failed(error: TideError) -> None:
            self.failed(request.parent, error)
            self.failed(request.new_parent, error)

        ended = self._renaming(request)
        done = then(self.meta.start(request), lambda reply: self._renamed(request, reply), failed)
        return finally_(done, ended)

    def _renaming(self, request: Rename) -> Callable[[], None]:
        parents = request.parent, request.new_parent
        inodes = [
            self.names.get(request.parent, request.name),
            self.names.get(request.new_parent, request.new_name),
        ]
        return self.attributes.begin_change(
            [*parents, *(inode for inode in inodes if isinstance(inode, int))]
        )

    def _renamed(self, request: Rename, reply: RenameDone) -> None:
        parent, name, new_parent, new_name, flags = msgspec.structs.astuple(request)
        self.absorb(reply.parent, own=True)
        self.absorb(reply.new_parent, own=True)
        self.absorb(reply.attributes, own=True)
        moved, displaced = reply.attributes.inode, reply.displaced
        both_stay = displaced is not None and displaced.inode == moved
        exchanged = displaced if flags & RenameFlags.EXCHANGE or both_stay else None
        if displaced is not None and exchanged is None:
            self._lost_name(displaced)
        stays = exchanged or reply.whiteout
        self.names.put(
            parent, name, ABSENT if stays is None else stays.inode, reply.parent.data_version
        )
        self.names.put(new_parent, new_name, moved, reply.new_parent.data_version)
        for attributes in (reply.attributes, stays):
            if attributes is not None:
                self.absorb(attributes, own=True)
                if attributes.kind is Kind.DIRECTORY and parent != new_parent:
                    self.names.forget(attributes.inode)  # its .. is another one now
                    self.kernel_listings.forget(attributes.inode)

    # --- list

    def getattr(self, inode: int, handle: int | None) -> Soon[Known]:
        known = super().getattr(inode, handle)
        if isinstance(known, Known):
            return known
        opened = [one for one in self.open_directories.all() if one.inode == inode]
        return self._getattr_of_open(known, opened[-1].attributes) if opened else known

    async def _getattr_of_open(self, known: Awaitable[Known], before: Attributes) -> Known:
        """opendir(3) asks with fstat(2) what it has opened. When another mount has removed that
        meanwhile, it is still a directory, which has no name any more, as on a local disk."""
        try:
            return await known
        except TideError as error:
            if error.code is not Code.STALE_HANDLE:
                raise
            return Known(msgspec.structs.replace(before, links=0), 0, 0)

    def opendir(self, inode: int) -> Soon[OpenedDirectory]:
        """No question is asked of a directory that is known, where the kernel has nothing to keep:
        the first page is fetched when it is read, and is new then."""
        known = self.attributes.peek(inode)
        if known is None or self._kernel_has(inode, self.names.version(inode)):
            return then(
                self.meta.start(GetAttributes(inode)),
                lambda reply: self._directory_opened(inode, reply),
                lambda error: self.failed(inode, error),
            )
        return self._open_directory(OpenDirectory(known.attributes), keep=False)

    def _directory_opened(self, inode: int, reply: Node) -> OpenedDirectory:
        """Knows what the first readdir would ask, which then need not. The kernel keeps its listing
        only if it also believes in what the names lead to: else it would ask for the attributes of
        one after the other, where a new listing renews them all."""
        self.absorb(reply.attributes, promised=reply.promised)
        directory = OpenDirectory(reply.attributes)
        version = directory.asked = reply.attributes.data_version
        keep = self._kernel_has(inode, version) and self.attributes.trusts_all(
            self.listings.inodes(inode)
        )
        if keep:
            self.was_read(inode)  # no readdir may follow
        return self._open_directory(directory, keep=keep)

    def _kernel_has(self, inode: int, version: int) -> bool:
        """Whether what the kernel has of a listing is of ``version``, the last one known here."""
        now_ns = self.clock.monotonic_ns()
        return (
            version == self.kernel_listings.version(inode, now_ns)
            and version == self.names.version(inode)
            and version == self.listings.version(inode)
        )

    def _open_directory(self, directory: OpenDirectory, *, keep: bool) -> OpenedDirectory:
        handle = self.open_directories.add(directory)
        if not self.mode.cache_data or self.mode.entries.ground is not Ground.UNTIL:
            return OpenedDirectory(handle, keep_listing=False, cache_listing=False)
        if not keep and self.kernel_listings.is_read(directory.inode):
            return OpenedDirectory(handle, keep_listing=True, cache_listing=False)
        if not keep:
            self.kernel_listings.drop(directory.inode)
        directory.cached = True
        return OpenedDirectory(handle, keep, cache_listing=True)

    def readdir(self, handle: int, cookie: int) -> Soon[list[tuple[DirectoryEntry, Known]]]:
        directory = self.open_directories.get(handle)
        # From the start again (rewinddir): what was made meanwhile must be seen.
        entries = directory.behind(cookie) if cookie else None
        if entries is not None:
            return self._told(directory, entries)
        return self._readdir(directory, cookie)

    def _told(
        self, directory: OpenDirectory, entries: list[DirectoryEntry]
    ) -> list[tuple[DirectoryEntry, Known]]:
        """What the kernel is told of a page. No entries say that there are no more of them."""
        inode = directory.inode
        if directory.cached:
            cached = self.attributes.peek(inode)
            until_ns = 0 if cached is None else cached.trusted_until_ns
            self.kernel_listings.told(inode, directory.listed, until_ns)
        return self.known_all(inode, entries)

    async def _readdir(
        self, directory: OpenDirectory, cookie: int
    ) -> list[tuple[DirectoryEntry, Known]]:
        inode = directory.inode
        try:
            with self._coming(directory):
                page = await self._page_again(directory, cookie)
                page = page or await self._page(directory, cookie)
        except TideError as error:
            self.failed(inode, error)
            if error.code is Code.STALE_HANDLE:
                return []  # it was removed, so it was empty
            raise
        directory.after, directory.entries, directory.end = cookie, page.entries, page.end
        if cookie == 0:
            self.was_read(inode)
        return self._told(directory, page.entries[:LISTED_AT_ONCE_MAX])

    def _coming(self, directory: OpenDirectory) -> AbstractContextManager[None]:
        if not directory.cached:
            return nullcontext()
        if not directory.read:
            self.kernel_listings.begin(directory.inode)
            directory.read = True
        return self.kernel_listings.coming(directory.inode)

    async def _page_again(self, directory: OpenDirectory, cookie: int) -> Page | None:
        """A page that was read before, if all in it is still true."""
        inode = directory.inode
        version = directory.listed if cookie else await self._version_at_start(directory)
        if version != self.names.version(inode):
            return None
        page = self.listings.get(inode, version, cookie)
        if page is None or not self.attributes.trusts_all(page.inodes):
            return None
        directory.listed = version
        directory.version = 0  # its names were learned before, and may be forgotten by now
        return page

    async def _version_at_start(self, directory: OpenDirectory) -> int:
        """The version of a directory that is listed from its start; 0 when there are no pages that
        might be of it."""
        asked, directory.asked = directory.asked, 0
        if asked and self.attributes.trusted(directory.inode) is not None:
            return asked  # just now, by opendir
        known = self.listings.version(directory.inode)
        if known is None:
            return 0
        if self.mode.promises and self.attributes.trusted(directory.inode) is not None:
            return known

        def learn(reply: Node) -> int:
            self.absorb(reply.attributes, promised=reply.promised)
            return reply.attributes.data_version

        return await then(self.meta.start(GetAttributes(directory.inode)), learn)

    def _page(self, directory: OpenDirectory, cookie: int) -> Awaitable[Page]:
        """A page from the server, of which everything is learned."""
        asked = self.meta.start(ReadDirectory(directory.inode, cookie, READDIR_ENTRIES_MAX))
        return then(asked, lambda reply: self._page_learned(directory, cookie, reply))

    def _page_learned(self, directory: OpenDirectory, cookie: int, reply: Listing) -> Page:
        inode, version = directory.inode, reply.directory.data_version
        self.absorb(reply.directory, promised=reply.promised)
        for entry in reply.entries:
            self.absorb(entry.attributes, promised=reply.promised)
            self.names.put(inode, entry.name, entry.attributes.inode, version)
        page = Page(reply.entries, reply.end, [one.attributes.inode for one in reply.entries])
        goes_on = directory.version == version and directory.entries
        if cookie == 0 or (goes_on and directory.entries[-1].cookie == cookie):
            directory.version = version
            if reply.end:
                self.names.is_complete(inode, version)
        else:
            directory.version = 0
        directory.listed = version
        if self.mode.cache_data:
            self.listings.put(inode, version, cookie, page)
        return page

    def releasedir(self, handle: int) -> None:
        directory = self.open_directories.pop(handle)
        if directory.read:
            self.kernel_listings.end(directory.inode)

    def fsyncdir(self, handle: int) -> None:
        """Nothing to do: every change of names was durable when it returned."""


def _absent(parent: int, name: bytes) -> TideError:
    return TideError(Code.NO_ENTRY, f"{name!r} in directory {parent}")


def _check_name(name: bytes) -> None:
    if len(name) > NAME_MAX_BYTES:
        raise TideError(Code.NAME_TOO_LONG, f"a name of {len(name)} bytes")
