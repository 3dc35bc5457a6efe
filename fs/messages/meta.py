"""Client to metaserver: the name space, sessions, layouts.

Requests derived from ``Change`` are mutations: they carry (session, slot, sequence) in the frame
header, become one entry of the operation log, and a repetition gets the first answer. All others
are answered from the state and leave no trace. Payloads, where there are any, travel raw behind
the header and are named in the docstring.
"""

from enum import IntFlag
from typing import TypeVar

import msgspec

from ..attributes import Attributes, Kind
from .base import Done, Message, Request, method
from .places import ChunkPlace

R = TypeVar("R", bound=Message)


class Change(Request[R]):
    """A mutation: exactly once, in the log, durable before it is answered."""


# --- replies ---------------------------------------------------------------------------------


class Entry(Message):
    """One inode, and its directory as it is now (NFSv3's post-operation attributes).

    ``promised``, here and in other replies: what it tells of each of its inodes will not change
    before the session has answered a ``Recall`` of that inode, or has ended (see `promises.py`).
    """

    attributes: Attributes
    parent: Attributes
    promised: bool = False


class Node(Message):
    """One inode."""

    attributes: Attributes
    promised: bool = False


class Target(Message):
    """Where a symbolic link points."""

    target: bytes


class DirectoryEntry(Message):
    """One name in a listing. ``cookie`` continues a listing behind it, for as long as you like."""

    name: bytes
    cookie: int
    attributes: Attributes


class Listing(Message):
    """A piece of a directory, in order of cookies (which is the order of creation)."""

    directory: Attributes
    entries: list[DirectoryEntry]
    end: bool
    promised: bool = False


class Names(Message):
    """Names of extended attributes."""

    names: list[bytes]


class Value(Message):
    """The value of an extended attribute."""

    value: bytes


class Content(Message):
    """A file at its opening. With ``inline``, its content is the payload, zeros behind it up to
    the size."""

    attributes: Attributes
    inline: bool
    promised: bool = False


class Layout(Message):
    """Chunks of a file that exist in the asked range; those left out are holes."""

    attributes: Attributes
    chunks: list[ChunkPlace]


class Extents(Message):
    """Where a file has stored bytes: ranges (start, end) in order, those between them are holes.

    ``until``: what lies behind was not looked at; the file's size, when all was. ``inline``: the
    bytes are in the inode.
    """

    attributes: Attributes
    ranges: list[tuple[int, int]]
    until: int
    inline: bool


class Space(Message):
    """What statfs tells, in bytes of one copy, and inodes."""

    total_bytes: int
    free_bytes: int
    inodes: int


class SessionOpened(Message):
    """A new session. ``slots`` bounds the mutations in flight."""

    session: int
    lease_ms: int
    slots: int


class Alive(Message):
    """The session lives on for ``lease_ms`` from when this request was sent."""

    lease_ms: int


class RenameDone(Message):
    """After a rename: the moved inode, both directories, and what was displaced (None: nothing).

    For EXCHANGE ``displaced`` is the other inode, alive under the old name. When both names were of
    one file, nothing happened (POSIX rename), and ``displaced`` is that file. For WHITEOUT
    ``whiteout`` is the character device 0:0 that has the old name now.
    """

    attributes: Attributes
    parent: Attributes
    new_parent: Attributes
    displaced: Attributes | None
    whiteout: Attributes | None = None


class Removed(Message):
    """After unlink or rmdir: the inode as it is now (gone when ``links`` is 0), its directory."""

    attributes: Attributes
    parent: Attributes


class ServerStatus(Message):
    """One server as the leader sees it."""

    role: str
    server: int
    host: str
    addresses: list[str]
    pid: int
    state: str  # "up", "down", "leader", "follower"
    total_bytes: int
    free_bytes: int
    chunks: int


class Status(Message):
    """The cluster as its leader sees it. ``problems`` are sentences for a person."""

    cluster: str
    term: int
    applied_index: int
    sessions: int
    inodes: int
    stored_bytes: int
    replicas_wanted: int
    chunks: int
    chunks_missing_copies: int
    servers: list[ServerStatus]
    problems: list[str]
    locks_held: int = 0
    locks_waiting: int = 0


# --- reads -----------------------------------------------------------------------------------


@method(0x0101)
class Lookup(Request[Entry]):
    """The inode called ``name`` in a directory. ``.`` and ``..`` work (the root's .. is itself)."""

    parent: int
    name: bytes


@method(0x0102)
class GetAttributes(Request[Node]):
    """The attributes of an inode, now. STALE_HANDLE when it is gone."""

    inode: int


@method(0x0103)
class ReadLink(Request[Target]):
    """The target of a symbolic link."""

    inode: int


@method(0x0104)
class ReadDirectory(Request[Listing]):
    """Entries behind ``cookie`` (0: from the start; without . and ..), at most ``count_max``."""

    inode: int
    cookie: int
    count_max: int


@method(0x0105)
class ListXattrs(Request[Names]):
    """The names of an inode's extended attributes, sorted."""

    inode: int


@method(0x0106)
class GetXattr(Request[Value]):
    """One extended attribute; NO_ATTRIBUTE when there is none of that name."""

    inode: int
    name: bytes


@method(0x0107)
class GetSpace(Request[Space]):
    """What statfs tells."""


@method(0x0108)
class Open(Request[Content]):
    """Open a file: its attributes and, when it is small, its bytes (payload).

    The leader remembers who has it open, so that the bytes survive an unlink until ``Release``
    or the end of the session. ``known_data_version`` (or 0) spares sending bytes known already:
    then the payload is empty.
    """

    inode: int
    known_data_version: int


@method(0x0109)
class GetContent(Request[Content]):
    """As Open, without opening."""

    inode: int
    known_data_version: int


@method(0x010A)
class Release(Request[Done]):
    """These inodes are no longer open in this session."""

    inodes: list[int]


@method(0x010B)
class GetLayout(Request[Layout]):
    """Where chunks ``first`` to ``first + count - 1`` of a file are.

    With ``write``: chunks that do not exist are reserved (``fresh``), and each gets a write grant:
    a version that every reachable replica has taken (GFS section 3.1). UNAVAILABLE while fewer
    replicas than the minimum are reachable, NO_SPACE when no chunkserver has room.
    """

    inode: int
    first: int
    count: int
    write: bool


@method(0x010C)
class ReportFailure(Request[Done]):
    """A write or sync at ``version`` failed on these servers: the next grant leaves them out.

    With no servers named, a chunk that this session reserved and did not commit is given back: what
    was stored in it is garbage, and another one is reserved when one is needed.
    """

    handle: int
    version: int
    servers: list[int]


@method(0x010D)
class GetStatus(Request[Status]):
    """The state of the cluster, for `tidefs status`."""


# --- compound (NFSv4, RFC 8881 section 2.3) --------------------------------------------------

CURRENT = 0
"""As an inode in a compound: the inode that the step before answered with."""


class Step(Message):
    """One request of a compound: its method and its fields, with CURRENT where an inode stands."""

    method: int
    fields: list[object]


class Outcome(Message):
    """The fields of one step's reply."""

    fields: list[object]


class Compounded(Message):
    """Replies of the steps that succeeded; ``code`` of the step that failed, 0 when none did."""

    outcomes: list[Outcome]
    code: int
    detail: str


@method(0x010E)
class Compound(Request[Compounded]):
    """Steps done in order until one fails. At most one is a Change, and none has a payload."""

    steps: list[Step]


@method(0x010F)
class GetExtents(Request[Extents]):
    """Where a file has stored bytes, from ``offset`` on (lseek(2), SEEK_DATA and SEEK_HOLE): as
    far as the metaserver can tell, which is by whole chunks."""

    inode: int
    offset: int


# --- sessions --------------------------------------------------------------------------------


@method(0x0120)
class OpenSession(Request[SessionOpened]):
    """A new session, replicated. ``nonce`` (16 random bytes) makes a repetition harmless.

    ``promises``: it wants to be promised what it is told, and answers each ``Recall``.
    """

    nonce: bytes
    host: str
    pid: int
    promises: bool = False


@method(0x0121)
class ResumeSession(Request[Alive]):
    """After a reconnect or a restart of the server: what this session still holds.

    ``more``: it holds more than fits into one message, and the next one follows on the same
    connection; the session is resumed with the last. SESSION_EXPIRED when it ended meanwhile.
    """

    session: int
    open_inodes: list[int]
    reserved: list[tuple[int, int, int]]  # inode, chunk index, handle
    more: bool = False
    claims: list[int] = msgspec.field(default_factory=list)
    """Inodes that it holds alone (see `promises.py`) and is writing to, so that it keeps them."""


@method(0x0122)
class KeepAlive(Request[Alive]):
    """Renew the session's lease."""

    session: int


@method(0x0123)
class CloseSession(Request[Done]):
    """End the session now: a clean unmount."""

    session: int


# --- changes ---------------------------------------------------------------------------------


@method(0x0140)
class Create(Change[Entry]):
    """A file, fifo, socket or device; with ``exclusive`` EXISTS when the name is taken, else what
    is there is returned (if it is a file). With ``open`` it is open, as by Open.

    ``umask`` takes bits from ``mode`` unless the directory has a default access list, which then
    decides instead (acl(5), "object creation and default ACLs")."""

    parent: int
    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    device: int
    exclusive: bool
    open: bool
    umask: int = 0


@method(0x0141)
class MakeDirectory(Change[Entry]):
    """A directory. In a set-group-id directory it takes the group and the bit over. ``umask``: see
    Create."""

    parent: int
    name: bytes
    mode: int
    uid: int
    gid: int
    umask: int = 0


@method(0x0142)
class MakeSymlink(Change[Entry]):
    """A symbolic link."""

    parent: int
    name: bytes
    target: bytes
    uid: int
    gid: int


@method(0x0143)
class Link(Change[Entry]):
    """One more name for a file."""

    inode: int
    parent: int
    name: bytes


@method(0x0144)
class Unlink(Change[Removed]):
    """Take a name away; the file goes with its last name, once no session has it open."""

    parent: int
    name: bytes


@method(0x0145)
class RemoveDirectory(Change[Removed]):
    """Take an empty directory away."""

    parent: int
    name: bytes


class RenameFlags(IntFlag):
    """renameat2(2)."""

    NONE = 0
    NOREPLACE = 1
    EXCHANGE = 2
    WHITEOUT = 4


@method(0x0146)
class Rename(Change[RenameDone]):
    """rename(2) and renameat2(2), atomic."""

    parent: int
    name: bytes
    new_parent: int
    new_name: bytes
    flags: int


@method(0x0147)
class SetAttributes(Change[Node]):
    """None leaves a field as it is. ``*_now`` takes the log entry's time.

    ``size`` truncates or extends (with a hole). Nanoseconds since 1970, may be negative.
    ``kill_privileges``: what a write by somebody without CAP_FSETID takes away: set-user-id,
    set-group-id of what the group may execute, and ``security.capability``. A change of owner or
    group takes the same from a file, asked or not.
    """

    inode: int
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    atime_now: bool = False
    mtime_now: bool = False
    kill_privileges: bool = False


class XattrFlags(IntFlag):
    """setxattr(2)."""

    NONE = 0
    CREATE = 1
    REPLACE = 2


@method(0x0148)
class SetXattr(Change[Node]):
    """Set an extended attribute, or an access list (see `fs/acl.py`): INVALID when it is none; it
    changes the mode, and one that says no more than a mode is not kept.

    ``kill_set_group_id``: whoever sets an access list is not in the group, so that bit goes
    (linux/fuse.h, FUSE_SETXATTR_ACL_KILL_SGID)."""

    inode: int
    name: bytes
    value: bytes
    flags: int
    kill_set_group_id: bool = False


@method(0x0149)
class RemoveXattr(Change[Node]):
    """Remove an extended attribute; NO_ATTRIBUTE when there is none of that name."""

    inode: int
    name: bytes


class Patch(Message):
    """A range of new bytes of an inline file; the bytes are a stretch of the payload."""

    offset: int
    length: int


class NewChunk(Message):
    """A chunk that was written: a reserved one that now holds bytes, or one of the file's own.

    Name the file's own too: then the Commit fails with LAYOUT_CHANGED when a truncation took the
    written bytes away meanwhile, instead of losing them silently.
    """

    index: int
    handle: int
    version: int  # that the layout named, at which it was written


@method(0x014A)
class Commit(Change[Node]):
    """Make written data part of the file: the end of each flush.

    A file is inline while it has no chunk: when it is new, and whenever its size is 0. Either
    ``patches`` (payload: their bytes, one after the other) to a file that is inline and stays so,
    or ``chunks`` that were written meanwhile. ``size``: the end of what this writer wrote; it
    raises the size when it is larger (a Commit never shrinks). ``mtime_ns`` None takes the log
    entry's time.

    LAYOUT_CHANGED: ``patches`` but the file has chunks, or would outgrow the inline limit; or
    ``chunks`` for a file that is inline with another data version than ``inline_base`` (the
    version whose bytes the writer carried over; 0 for a file that was never inline to it), or an
    index that meanwhile has another handle, or a chunk that a truncation dropped or cut after it
    was written, or ``data_changed`` for a file that has no chunk any more. Fetch the file and its
    layout anew, then flush again.
    """

    inode: int
    size: int
    mtime_ns: int | None
    patches: list[Patch]
    chunks: list[NewChunk]
    inline_base: int
    data_changed: bool  # bytes of existing chunks were overwritten


@method(0x014B)
class CreateUnnamed(Change[Node]):
    """O_TMPFILE: a file without a name, open in this session. It is an orphan from the start; with
    ``linkable`` a Link may give it a name (open(2): not with O_EXCL). Group, mode and access list
    are as if it were made in ``parent``."""

    parent: int
    mode: int
    uid: int
    gid: int
    umask: int
    linkable: bool


@method(0x014C)
class Punch(Change[Node]):
    """A hole from ``offset`` to ``end - 1``: zeros from now on, as far as they are in the inode or
    in chunks that lie in the range as a whole, which are dropped. The client writes zeros to the
    chunks of which the range is a part; but when it reaches the end of the file, the chunk that
    it begins in is cut there, as by a truncation. The size stays, but for ``size``, which raises
    it when it is larger, as in a Commit. Always changes mtime."""

    inode: int
    offset: int
    end: int
    size: int


class Reading(Message):
    """An inode was read at ``atime_ns``, when it was at ``change`` as far as the reader knew."""

    inode: int
    change: int
    atime_ns: int


@method(0x014D)
class NoteReadings(Change[Done]):
    """These were read: their atime goes forward, unless they were changed since then (who did that
    may have set it). At most READINGS_MAX. Neither ctime nor ``change`` does: reading is none."""

    readings: list[Reading]
