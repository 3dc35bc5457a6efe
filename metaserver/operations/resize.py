"""What a new size does to the bytes of a file."""

from collections.abc import Collection

from ...fs.limits import CHUNK_BYTES
from ..effects import ChunksDropped
from ..inodes import Inode
from ..moment import Moment
from ..tables import Tables


def resize(
    tables: Tables, inode: Inode, size: int, moment: Moment, written: Collection[int] = ()
) -> None:
    """Truncate or extend a file of which the chunks ``written`` (indexes) were just written. The
    caller puts the inode.

    Extending stores nothing: what is missing reads as zeros. In the chunk that held the end there
    may be bytes behind it that nobody committed (their writer has died): unless that was just
    written, a cut is noted there, so that they never show. Shrinking cuts the stored bytes of
    an inline file, drops the chunks that lie wholly behind, and notes a cut at the one in the
    middle. A file that has lost its last chunk is inline again.
    """
    shrinks, before = size < inode.size, inode.size
    inode.size = size
    if inode.chunks:
        if size > before and before // CHUNK_BYTES not in written:
            tables.chunks.note_cut(inode.number, before)
        if shrinks:
            _drop_behind(tables, inode, moment)
        tables.chunks.account(inode)
    elif shrinks and inode.stored_bytes > size:
        tables.inline.set(inode, tables.inline.get(inode.number)[:size])


def _drop_behind(tables: Tables, inode: Inode, moment: Moment) -> None:
    dropped = tables.chunks.drop(inode, -(-inode.size // CHUNK_BYTES))
    if dropped:
        moment.effects.append(ChunksDropped(dropped))
    tables.chunks.note_cut(inode.number, inode.size)
