"""NoteReadings: files that were read get their atime."""

from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.limits import READINGS_MAX
from ...fs.messages.base import Done, Message
from ...fs.messages.meta import NoteReadings
from ..moment import Moment
from ..tables import Tables
from .checks import check_time
from .table import Perform, operation


@operation(NoteReadings)
def note_readings(tables: Tables, request: NoteReadings, payload: Buffer) -> Perform:
    """What is gone, or has changed meanwhile, is left alone."""
    if len(request.readings) > READINGS_MAX:
        raise TideError(
            Code.INVALID, f"{len(request.readings)} readings; {READINGS_MAX} are the most"
        )
    for reading in request.readings:
        check_time(reading.atime_ns)

    def perform(moment: Moment) -> Message:
        for reading in request.readings:
            inode = tables.inodes.get(reading.inode)
            if inode is not None and inode.change == reading.change:
                inode.atime_ns = max(inode.atime_ns, reading.atime_ns)
                tables.inodes.put(inode)
        return Done()

    return perform
