"""The file-system check: everything that must hold between the tables of a state.

A finding is a sentence that names the thing and what is wrong with it. Reads every record once
and keeps all inodes in memory: for tests, and for a person who doubts.
"""

from collections import Counter
from collections.abc import Iterator

from ..fs.attributes import Kind
from ..fs.ids import ROOT
from ..fs.limits import CHUNK_BYTES, INLINE_MAX_BYTES
from .check_locks import lock_findings
from .check_xattrs import check_xattrs
from .chunks import NO_CUT
from .inodes import Inode
from .namespace import FIRST_COOKIE, show
from .tables import Tables
from .views import Views


def check(state: Views) -> list[str]:
    """Every finding, in words; none when the state is consistent."""
    return list(_Check(state.tables).findings())


class _Check:
    """One run: what was seen, to be compared with what it should be."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.inodes = {inode.number: inode for inode in tables.inodes.all()}
        self.orphans = set(tables.inodes.orphans())
        self.names: Counter[int] = Counter()
        self.entries: Counter[int] = Counter()
        self.subdirectories: dict[int, list[int]] = {}
        self.inline: dict[int, int] = {}
        self.mapped: Counter[int] = Counter()

    def findings(self) -> Iterator[str]:
        yield from self._dentries()
        yield from self._listings()
        yield from self._inline()
        yield from self._maps()
        yield from self._chunks()
        for inode in self.inodes.values():
            yield from self._inode(inode)
            if inode.kind is Kind.DIRECTORY:
                yield from self._directory(inode)
            else:
                yield from self._leaf(inode)
        yield from self._unreachable()
        yield from self._leftovers()
        yield from check_xattrs(self.tables, self.inodes)
        yield from self._sessions()
        yield from lock_findings(self.tables, self.inodes.keys())
        yield from self._totals()

    def _dentries(self) -> Iterator[str]:
        for number, name, dentry in self.tables.names.all():
            what = f"name {show(name)} in directory {number}"
            directory, inode = self.inodes.get(number), self.inodes.get(dentry.inode)
            if directory is None or directory.kind is not Kind.DIRECTORY:
                yield f"{what}: there is no such directory"
                continue
            self.entries[number] += 1
            if directory.links == 0:
                yield f"{what}: the directory was removed"
            if not FIRST_COOKIE <= dentry.cookie < directory.next_cookie:
                yield f"{what}: cookie {dentry.cookie} was never given"
            if inode is None:
                yield f"{what}: inode {dentry.inode} is gone"
                continue
            self.names[inode.number] += 1
            if inode.kind != dentry.kind:
                yield f"{what}: kind {dentry.kind}, but inode {inode.number} is {inode.kind.name}"
            if inode.kind is Kind.DIRECTORY:
                self.subdirectories.setdefault(number, []).append(inode.number)
                if inode.parent != number:
                    yield f"{what}: directory {inode.number} has parent {inode.parent}"

    def _listings(self) -> Iterator[str]:
        lines: Counter[int] = Counter()
        for number, line in self.tables.names.all_listed():
            lines[number] += 1
            directory = self.inodes.get(number)
            dentry = None if directory is None else self.tables.names.find(directory, line.name)
            if dentry is None or (dentry.inode, dentry.cookie) != (line.inode, line.cookie):
                yield f"listing of directory {number}: {show(line.name)} has no such name"
        for number in self.inodes:
            if lines[number] != self.entries[number]:
                yield f"directory {number} lists {lines[number]} of {self.entries[number]} names"

    def _inode(self, inode: Inode) -> Iterator[str]:
        what = f"inode {inode.number}"
        if not 0 < inode.number < self.tables.totals.next_inode:
            yield f"{what} has a number that was never given"
        if (inode.links == 0) != (inode.number in self.orphans):
            yield f"{what} has {inode.links} links and is {self._orphan_or_not(inode.number)}"
        if inode.size < 0 or inode.change < 1 or inode.data_version < 1:
            yield f"{what} has size {inode.size}, change {inode.change}"

    def _orphan_or_not(self, number: int) -> str:
        return "an orphan" if number in self.orphans else "no orphan"

    def _directory(self, inode: Inode) -> Iterator[str]:
        what = f"directory {inode.number}"
        wanted = 2 + len(self.subdirectories.get(inode.number, []))
        if inode.links not in (0, wanted):
            yield f"{what} has {inode.links} links instead of {wanted}"
        if inode.size != self.entries[inode.number]:
            yield f"{what} has size {inode.size} and {self.entries[inode.number]} entries"
        names = self.names[inode.number]
        if names != (0 if inode.links == 0 or inode.number == ROOT else 1):
            yield f"{what} has {names} names"
        if inode.chunks or inode.stored_bytes:
            yield f"{what} has bytes"

    def _leaf(self, inode: Inode) -> Iterator[str]:
        what = f"inode {inode.number}"
        if inode.links != self.names[inode.number]:
            yield f"{what} has {inode.links} links and {self.names[inode.number]} names"
        if inode.chunks != self.mapped[inode.number]:
            yield f"{what} counts {inode.chunks} chunks of {self.mapped[inode.number]}"
        stored = self.inline.get(inode.number, 0)
        if inode.chunks:
            stored = self.tables.chunks.stored_bytes(inode)
        if inode.stored_bytes != stored:
            yield f"{what} counts {inode.stored_bytes} stored bytes of {stored}"

    def _inline(self) -> Iterator[str]:
        for number, content in self.tables.inline.all():
            self.inline[number] = len(content)
            what = f"inline bytes of inode {number}"
            inode = self.inodes.get(number)
            if inode is None:
                yield f"{what}: it is gone"
            elif inode.kind is Kind.SYMLINK:
                if inode.size != len(content):
                    yield f"{what}: a target of {len(content)}, size {inode.size}"
            elif inode.kind is not Kind.FILE or inode.chunks:
                yield f"{what}: {inode.kind.name} with {inode.chunks} chunks"
            elif not 0 < len(content) <= min(inode.size, INLINE_MAX_BYTES):
                yield f"{what}: {len(content)}, size {inode.size}"

    def _maps(self) -> Iterator[str]:
        places = set()
        for number, index, handle in self.tables.chunks.all_mapped():
            self.mapped[number] += 1
            places.add((number, index))
            what = f"chunk {index} of inode {number}"
            inode, chunk = self.inodes.get(number), self.tables.chunks.record(handle)
            if inode is None or inode.kind is not Kind.FILE:
                yield f"{what}: there is no such file"
            elif index * CHUNK_BYTES >= inode.size:
                yield f"{what} lies behind its size {inode.size}"
            if chunk is None or (chunk.inode, chunk.index) != (number, index):
                yield f"{what}: chunk {handle} is not that"
        for number, index, handle in self.tables.chunks.all_dropped():
            what = f"dropped chunk {handle}, {index} of inode {number}"
            if number not in self.inodes:
                yield f"{what}: it is gone"
            if (number, index) in places:
                yield f"{what}: there is one"

    def _chunks(self) -> Iterator[str]:
        for handle, chunk in self.tables.chunks.all():
            what = f"chunk {handle}"
            if handle >= self.tables.totals.next_handle:
                yield f"{what} was never reserved"
            if self.tables.chunks.handle_at(chunk.inode, chunk.index) != handle:
                yield f"{what} is not mapped at {chunk.index} of inode {chunk.inode}"
            if chunk.cut != NO_CUT and not 0 < chunk.cut < CHUNK_BYTES:
                yield f"{what} has cut {chunk.cut}"
            if not 0 <= chunk.cut_version <= chunk.version or chunk.version < 1:
                yield f"{what} has version {chunk.version}, cut at {chunk.cut_version}"

    def _unreachable(self) -> Iterator[str]:
        found, waiting = {int(ROOT)}, [int(ROOT)]
        while waiting:
            for number in self.subdirectories.get(waiting.pop(), []):
                if number not in found:
                    found.add(number)
                    waiting.append(number)
        for inode in self.inodes.values():
            if inode.kind is Kind.DIRECTORY and inode.links and inode.number not in found:
                yield f"directory {inode.number} cannot be reached from the root"

    def _leftovers(self) -> Iterator[str]:
        for number in self.orphans - set(self.inodes):
            yield f"orphan {number} is gone"

    def _sessions(self) -> Iterator[str]:
        nonces = {record.nonce: record.session for record in self.tables.sessions.all()}
        if nonces != dict(self.tables.sessions.all_nonces()):
            yield "sessions and nonces do not agree"
        for session in set(self.tables.sessions.all_slots()) - set(nonces.values()):
            yield f"slots of session {session}: it is gone"

    def _totals(self) -> Iterator[str]:
        totals = self.tables.totals
        counted = {
            "inodes": (totals.inodes, len(self.inodes)),
            "stored bytes": (
                totals.stored_bytes,
                sum(inode.stored_bytes for inode in self.inodes.values()),
            ),
            "chunks": (totals.chunks, sum(1 for _ in self.tables.chunks.all())),
        }
        for what, (total, seen) in counted.items():
            if total != seen:
                yield f"the total of {what} is {total} instead of {seen}"
        if totals.cluster and ROOT not in self.inodes:
            yield "there is no root"
