"""SetAttributes: chmod, chown, truncate and utimens in one.

A change of owner or group takes set-user-id and its like away, by whomever it is made (chown(2)),
unless the new mode is given too. That a change of the content does the same depends on who makes
it, which the client says.
"""

from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.messages.base import Message
from ...fs.messages.meta import Node, SetAttributes
from ..access import kill_privileges, set_mode
from ..inodes import Inode
from ..moment import Moment
from ..tables import Tables
from .checks import check_mode, check_owner, check_size, check_time
from .resize import resize
from .table import Perform, operation


@operation(SetAttributes)
def set_attributes(tables: Tables, request: SetAttributes, payload: Buffer) -> Perform:
    """A size changes mtime unless that is given too; every call changes ctime."""
    _check(request)
    if request.size is None:
        inode = tables.inodes.require(request.inode)
    else:
        inode = tables.inodes.file(request.inode)

    def perform(moment: Moment) -> Message:
        if request.size is not None:
            if request.size != inode.size:
                resize(tables, inode, request.size, moment)
                inode.data_version += 1
            inode.mtime_ns = moment.time_ns
        _set_mode_and_owner(tables, inode, request)
        _set_times(inode, request, moment.time_ns)
        inode.changed(moment.time_ns)
        tables.inodes.put(inode)
        return Node(inode.attributes())

    return perform


def _check(request: SetAttributes) -> None:
    check_mode(request.mode or 0)
    check_owner(request.uid or 0, request.gid or 0)
    check_size(request.size)
    check_time(request.atime_ns)
    check_time(request.mtime_ns)
    if (request.atime_now and request.atime_ns is not None) or (
        request.mtime_now and request.mtime_ns is not None
    ):
        raise TideError(Code.INVALID, "a time is given, or it is now; not both")


def _set_mode_and_owner(tables: Tables, inode: Inode, request: SetAttributes) -> None:
    changes_owner = request.uid is not None or request.gid is not None
    if request.kill_privileges or changes_owner:
        kill_privileges(tables.xattrs, inode)
    if request.mode is not None:
        set_mode(tables.xattrs, inode, request.mode)
    if request.uid is not None:
        inode.uid = request.uid
    if request.gid is not None:
        inode.gid = request.gid


def _set_times(inode: Inode, request: SetAttributes, now_ns: int) -> None:
    if request.atime_now:
        inode.atime_ns = now_ns
    elif request.atime_ns is not None:
        inode.atime_ns = request.atime_ns
    if request.mtime_now:
        inode.mtime_ns = now_ns
    elif request.mtime_ns is not None:
        inode.mtime_ns = request.mtime_ns
