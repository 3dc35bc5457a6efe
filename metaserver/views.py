"""The reads: what the service answers from the state, in the messages' own terms."""

from collections.abc import Iterator
from itertools import islice

from ..fs.attributes import Attributes, Kind
from ..fs.errors import Code, TideError
from ..fs.limits import (
    CHUNK_BYTES,
    EXTENT_CHUNKS_MAX,
    NAME_MAX_BYTES,
    NAMES_LOOKED_AT_MAX,
    READDIR_ENTRIES_MAX,
)
from ..fs.messages import meta
from ..fs.messages.names import FindNames, FoundName, FoundNames
from .chunks import INDEX_END
from .inodes import Inode
from .keys import NUMBER_MAX
from .operations.checks import check_name, check_xattr_name
from .records import ChunkRecord, FileChunk, ServerRecord, SessionRecord, SlotRecord, Totals
from .tables import Tables


class Views:
    """Reads of the state as it is now. Errors are those of the requests that ask for them."""

    tables: Tables
    """What it is made of, for a check of it. Only ``apply`` changes them."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    @property
    def totals(self) -> Totals:
        """Applied index and term, cluster id, copies wanted, counters. To read, not to change."""
        return self.tables.totals

    # --- the name space

    def lookup(self, parent: int, name: bytes) -> meta.Entry:
        """The inode called ``name``, and its directory. ``.`` and ``..`` work."""
        directory = self.tables.inodes.directory(parent)
        if name == b".":
            return meta.Entry(directory.attributes(), directory.attributes())
        if name == b"..":
            return meta.Entry(self._parent_of(directory).attributes(), directory.attributes())
        check_name(name)
        dentry = self.tables.names.require(directory, name)
        inode = self.tables.inodes.require(dentry.inode)
        return meta.Entry(inode.attributes(), directory.attributes())

    def named(self, parent: int, name: bytes) -> int:
        """The number of the inode that a directory calls so; 0: none, whatever ``parent`` is."""
        return self.tables.names.leads_to(parent, name) if 0 < parent <= NUMBER_MAX else 0

    def attributes(self, inode: int) -> Attributes:
        """STALE_HANDLE when it is gone; an orphan is still there."""
        return self.tables.inodes.require(inode).attributes()

    def read_link(self, inode: int) -> bytes:
        """The target of a symbolic link; INVALID when it is none."""
        found = self.tables.inodes.require(inode)
        if found.kind is not Kind.SYMLINK:
            raise TideError(Code.INVALID, f"inode {inode} is no symbolic link")
        return self.tables.inline.get(inode)

    def listing(self, inode: int, cookie: int, count_max: int) -> meta.Listing:
        """At most ``count_max`` entries behind ``cookie``; at least one if there is one."""
        directory = self.tables.inodes.directory(inode)
        if not 0 <= cookie <= NUMBER_MAX:
            raise TideError(Code.INVALID, f"cookie {cookie}")
        count_max = max(1, min(count_max, READDIR_ENTRIES_MAX))
        entries: list[meta.DirectoryEntry] = []
        end = True
        for listed in self.tables.names.listing(inode, cookie):
            if len(entries) == count_max:
                end = False
                break
            attributes = self.tables.inodes.require(listed.inode).attributes()
            entries.append(meta.DirectoryEntry(listed.name, listed.cookie, attributes))
        return meta.Listing(directory.attributes(), entries, end)

    def find_names(self, request: FindNames) -> FoundNames:
        """What some inodes are called, among the next names of the state."""
        wanted = frozenset(request.inodes)
        last = (request.directory, request.name)
        if not 0 <= request.directory <= NUMBER_MAX or len(request.name) > NAME_MAX_BYTES:
            raise TideError(Code.INVALID, f"names behind one of directory {request.directory}")
        found: list[FoundName] = []
        count = max(1, min(request.count_max, NAMES_LOOKED_AT_MAX))
        names = self.tables.names.all(*last)
        for directory, name, dentry in islice(names, count):
            last = (directory, name)
            if dentry.inode in wanted:
                found.append(FoundName(dentry.inode, directory, name))
        return FoundNames(found, *last, end=next(names, None) is None)

    def xattr_names(self, inode: int) -> list[bytes]:
        """The names of an inode's extended attributes, sorted."""
        self.tables.inodes.require(inode)
        return [name for name, _ in self.tables.xattrs.of(inode)]

    def xattr(self, inode: int, name: bytes) -> bytes:
        """One extended attribute; NO_ATTRIBUTE when there is none of that name."""
        check_xattr_name(name)
        self.tables.inodes.require(inode)
        value = self.tables.xattrs.get(inode, name)
        if value is None:
            raise TideError(Code.NO_ATTRIBUTE, f"inode {inode}")
        return value

    def content(self, inode: int) -> tuple[Attributes, bytes | None]:
        """A file's attributes and, while it has no chunk, its stored bytes, else None.

        Zeros follow the stored bytes up to the file's size. IS_A_DIRECTORY or INVALID when it is
        no file.
        """
        found = self.tables.inodes.file(inode)
        inline = None if found.chunks else self.tables.inline.get(inode)
        return found.attributes(), inline

    def extents(self, inode: int, offset: int) -> meta.Extents:
        """Where a file has stored bytes, from ``offset`` on; as far as EXTENT_CHUNKS_MAX tell."""
        found = self.tables.inodes.file(inode)
        if offset < 0:
            raise TideError(Code.INVALID, f"offset {offset}")
        attributes, size = found.attributes(), found.size
        if not found.chunks:
            end = min(len(self.tables.inline.get(inode)), size)
            return meta.Extents(attributes, [(offset, end)] if offset < end else [], size, True)
        ranges: list[tuple[int, int]] = []
        for seen, (index, _) in enumerate(self.tables.chunks.of_file(inode, offset // CHUNK_BYTES)):
            start = index * CHUNK_BYTES
            if seen == EXTENT_CHUNKS_MAX:
                return meta.Extents(attributes, ranges, start, False)
            end = min(start + CHUNK_BYTES, size)
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], end)
            elif offset < end:
                ranges.append((max(offset, start), end))
        return meta.Extents(attributes, ranges, size, False)

    def is_orphan(self, inode: int) -> bool:
        """Whether an inode lost its last name and waits to be reaped."""
        return self.tables.inodes.is_orphan(inode)

    def orphans(self) -> list[int]:
        """All inodes that wait to be reaped."""
        return list(self.tables.inodes.orphans())

    # --- chunks

    def chunks(self, inode: int, first: int, count: int) -> list[FileChunk]:
        """The chunks that exist among ``first`` to ``first + count - 1``, by index."""
        self.tables.inodes.file(inode)
        _check_range(first, count)
        return self.tables.chunks.described(inode, first, count)

    def dropped_handle(self, inode: int, index: int) -> int:
        """The handle last truncated away at this index, 0: none. A Commit of one as low fails."""
        _check_range(index, 1)
        return self.tables.chunks.dropped_at(inode, index)

    def ends_in(self, handle: int) -> bool:
        """Whether a chunk holds the end of its file, and bytes behind it could be."""
        chunk = self.tables.chunks.record(handle)
        inode = None if chunk is None else self.tables.inodes.get(chunk.inode)
        return (
            chunk is not None
            and inode is not None
            and 0 < inode.size - chunk.index * CHUNK_BYTES < CHUNK_BYTES
        )

    def chunk(self, handle: int) -> ChunkRecord | None:
        """One chunk, None when it belongs to no file (any more)."""
        return self.tables.chunks.record(handle)

    def all_chunks(self, after: int = 0) -> Iterator[tuple[int, ChunkRecord]]:
        """Every (handle, chunk) behind the handle ``after``, by handle.

        Apply nothing before it is exhausted or dropped.
        """
        return self.tables.chunks.all(after)

    # --- sessions and servers

    def sessions(self) -> list[SessionRecord]:
        """All living sessions, the oldest first."""
        return list(self.tables.sessions.all())

    def session(self, session: int) -> SessionRecord | None:
        """One living session, or None."""
        return self.tables.sessions.get(session)

    def slot(self, session: int, slot: int) -> SlotRecord | None:
        """The last logged mutation of a slot; ``.answer()`` is its reply."""
        return self.tables.sessions.slot(session, slot)

    def servers(self) -> list[ServerRecord]:
        """The servers that were admitted, by id."""
        return list(self.tables.servers.all())

    def _parent_of(self, directory: Inode) -> Inode:
        """NO_ENTRY when the directory was removed, and its parent is gone as well."""
        parent = self.tables.inodes.get(directory.parent)
        if parent is None:
            raise TideError(Code.NO_ENTRY, f"the parent of directory {directory.number}")
        return parent


def _check_range(first: int, count: int) -> None:
    if not (0 <= first < INDEX_END and count >= 0):
        raise TideError(Code.INVALID, f"{count} chunks from {first} on")
