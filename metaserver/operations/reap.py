"""Reap: orphans that nobody has open go, with all they hold."""

from ...fs.codec import Buffer
from ...fs.messages.base import Done, Message
from ..effects import ChunksDropped
from ..entries import Reap
from ..moment import Moment
from ..tables import Tables
from .table import Perform, operation


@operation(Reap)
def reap(tables: Tables, request: Reap, payload: Buffer) -> Perform:
    """What is no orphan (any more) is left alone."""

    def perform(moment: Moment) -> Message:
        dropped: list[int] = []
        for number in request.inodes:
            if tables.inodes.is_orphan(number):
                dropped += _drop(tables, number)
        if dropped:
            moment.effects.append(ChunksDropped(dropped))
        return Done()

    return perform


def _drop(tables: Tables, number: int) -> list[int]:
    inode = tables.inodes.require(number)
    handles = tables.chunks.drop_all(inode)
    tables.xattrs.drop_all(number)
    tables.locks.drop_inode(number)
    tables.inline.set(inode, b"")
    tables.inodes.drop_orphan(inode)
    return handles
