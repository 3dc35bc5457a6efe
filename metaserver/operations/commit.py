"""Commit: written data becomes part of its file."""

from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.limits import CHUNK_BYTES, INLINE_MAX_BYTES
from ...fs.messages.base import Message
from ...fs.messages.meta import Commit, NewChunk, Node, Patch
from ..chunks import INDEX_END
from ..inodes import Inode
from ..moment import Moment
from ..tables import Tables
from .checks import check_size, check_time
from .resize import resize
from .table import Perform, operation


@operation(Commit)
def commit(tables: Tables, request: Commit, payload: Buffer) -> Perform:
    """See the request: everything that a writer may have missed meanwhile is LAYOUT_CHANGED."""
    check_size(request.size)
    check_time(request.mtime_ns)
    if request.patches and request.chunks:
        raise TideError(Code.INVALID, "a commit has patches or chunks, not both")
    inode = tables.inodes.file(request.inode)
    size = max(inode.size, request.size)
    if request.patches or payload:
        content = _patched(tables, inode, request.patches, payload)
        return _commit_inline(tables, inode, request, max(size, len(content)), content)
    return _commit_chunks(tables, inode, request, size)


def _commit_inline(
    tables: Tables, inode: Inode, request: Commit, size: int, content: bytes
) -> Perform:
    def perform(moment: Moment) -> Message:
        inode.size = size
        tables.inline.set(inode, content)
        return _finish(tables, inode, request, True, moment)

    return perform


def _commit_chunks(tables: Tables, inode: Inode, request: Commit, size: int) -> Perform:
    _check_base(tables, inode, request)
    added = _new_among(tables, inode, request.chunks, size)

    def perform(moment: Moment) -> Message:
        grows = size > inode.size
        if added and not inode.chunks:
            tables.inline.set(inode, b"")  # the writer carried them over
        for chunk in added:
            tables.chunks.add(inode, chunk.index, chunk.handle, chunk.version)
        resize(tables, inode, size, moment, {chunk.index for chunk in request.chunks})
        changed = bool(grows or request.chunks or request.data_changed)
        return _finish(tables, inode, request, changed, moment)

    return perform


def _finish(
    tables: Tables, inode: Inode, request: Commit, data_changed: bool, moment: Moment
) -> Message:
    if data_changed:
        inode.data_version += 1
    inode.mtime_ns = moment.time_ns if request.mtime_ns is None else request.mtime_ns
    inode.changed(moment.time_ns)
    tables.inodes.put(inode)
    return Node(inode.attributes())


def _patched(tables: Tables, inode: Inode, patches: list[Patch], payload: Buffer) -> bytes:
    """The stored bytes of an inline file with ``patches`` laid over them."""
    if sum(patch.length for patch in patches) != len(payload):
        raise TideError(
            Code.MALFORMED, f"patches of inode {inode.number}: the payload has {len(payload)} bytes"
        )
    if inode.chunks:
        raise _layout_changed(inode, "it is not inline any more")
    content = bytearray(tables.inline.get(inode.number))
    taken = 0
    for patch in patches:
        end = patch.offset + patch.length
        if patch.offset < 0 or patch.length < 1:
            raise TideError(Code.INVALID, f"a patch of {patch.length} bytes at {patch.offset}")
        if end > INLINE_MAX_BYTES:
            raise _layout_changed(inode, f"only the first {INLINE_MAX_BYTES} bytes can be inline")
        if end > len(content):
            content.extend(bytes(end - len(content)))
        content[patch.offset : end] = payload[taken : taken + patch.length]
        taken += patch.length
    return bytes(content)


def _check_base(tables: Tables, inode: Inode, request: Commit) -> None:
    """That the writer knew whether the file is inline, and what its inline bytes are."""
    if inode.chunks == 0:
        if request.chunks and request.inline_base != inode.data_version:
            raise _layout_changed(
                inode, f"it is inline at data version {inode.data_version}, which was not known"
            )
        if request.data_changed and not request.chunks:
            raise _layout_changed(inode, "the chunks that were written were truncated away")
        return
    carries_over = request.inline_base and any(chunk.index == 0 for chunk in request.chunks)
    if carries_over and tables.chunks.handle_at(inode.number, 0) == 0:
        # Another made the file chunked meanwhile, and what was inline at that base is gone since.
        raise _layout_changed(inode, "it is not inline any more")


def _new_among(tables: Tables, inode: Inode, chunks: list[NewChunk], size: int) -> list[NewChunk]:
    """Those of the written chunks that the file has not yet."""
    if len({chunk.index for chunk in chunks}) < len(chunks) or len(
        {chunk.handle for chunk in chunks}
    ) < len(chunks):
        raise TideError(Code.INVALID, f"a chunk of inode {inode.number} is named twice")
    return [chunk for chunk in chunks if not _is_there(tables, inode, chunk, size)]


def _is_there(tables: Tables, inode: Inode, written: NewChunk, size: int) -> bool:
    """Whether a written chunk is part of the file; LAYOUT_CHANGED when it cannot be any more."""
    index, handle = written.index, written.handle
    if not (0 <= index < INDEX_END and written.version > 0):
        raise TideError(Code.INVALID, f"chunk {index} at version {written.version}")
    if not 0 < handle < tables.totals.next_handle:
        raise TideError(Code.INVALID, f"chunk handle {handle} was never reserved")
    if index * CHUNK_BYTES >= size:
        raise _layout_changed(inode, f"chunk {index} lies behind its end")
    known = tables.chunks.record(handle)
    if known is not None:
        if (known.inode, known.index) != (inode.number, index):
            raise TideError(
                Code.INVALID, f"chunk {handle} is chunk {known.index} of inode {known.inode}"
            )
        if written.version <= known.cut_version:
            raise _layout_changed(inode, f"chunk {index} was truncated after it was written")
        return True
    if tables.chunks.handle_at(inode.number, index):
        raise _layout_changed(inode, f"chunk {index} is another one meanwhile")
    if handle <= tables.chunks.dropped_at(inode.number, index):
        raise _layout_changed(inode, f"chunk {index} was truncated away after it was written")
    return False


def _layout_changed(inode: Inode, why: str) -> TideError:
    return TideError(Code.LAYOUT_CHANGED, f"inode {inode.number}: {why}")
