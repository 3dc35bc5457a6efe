"""MakeSymlink."""

from ...fs.attributes import Kind
from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.limits import SYMLINK_MAX_BYTES
from ...fs.messages.base import Message
from ...fs.messages.meta import MakeSymlink
from ..moment import Moment
from ..tables import Tables
from .newcomers import check_newcomer, enter, make
from .table import Perform, operation

_MODE = 0o777  # symlink(7): a link's own permissions are never looked at


@operation(MakeSymlink)
def make_symlink(tables: Tables, request: MakeSymlink, payload: Buffer) -> Perform:
    """A symbolic link; its size is the length of its target (POSIX lstat)."""
    target = request.target
    if len(target) > SYMLINK_MAX_BYTES:
        raise TideError(
            Code.NAME_TOO_LONG,
            f"a link's target has at most {SYMLINK_MAX_BYTES} bytes, not {len(target)}",
        )
    if not target or b"\0" in target:
        raise TideError(Code.INVALID, "a link's target is not empty and has no NUL")
    uid, gid = request.uid, request.gid
    directory = check_newcomer(tables, request.parent, request.name, _MODE, uid, gid)

    def perform(moment: Moment) -> Message:
        inode = make(tables, directory, Kind.SYMLINK, _MODE, uid, gid, moment.time_ns)
        inode.size = len(target)
        tables.inline.set(inode, target)
        return enter(tables, directory, request.name, inode, moment)

    return perform
