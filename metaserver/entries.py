"""What stands in the operation log: the entry, and the changes that only the leader proposes."""

from ..fs.messages.base import Done, Message, Request, method
from ..fs.messages.meta import SessionOpened
from ..fs.messages.raft import Configuration


class Entry(Message):
    """One entry of the log: a request with all that the leader decided about it.

    ``index`` counts up by one from 1. ``time_ns`` (since 1970) never goes back from one entry to
    the next. ``method`` and ``fields`` are a Change of ``fs/messages/meta`` or one of the requests
    below; ``payload`` the bytes that came with it. A client's change carries the (session, slot,
    sequence) of its frame; the leader's own have session 0.
    """

    index: int
    term: int
    time_ns: int
    session: int
    slot: int
    sequence: int
    method: int
    fields: list[object]
    payload: bytes


class HandlesReserved(Message):
    """Handles ``first`` to ``first + count - 1`` are the asking leader's to give out."""

    first: int
    count: int


@method(0x0300)
class FormatCluster(Request[Done]):
    """The very first change of a cluster: its id, its default number of copies, its root.

    EXISTS when the cluster has another id already; a repetition changes nothing.
    """

    cluster: str
    replicas: int
    root_mode: int
    root_uid: int
    root_gid: int


@method(0x0301)
class Noop(Request[Done]):
    """A new leader's first entry: it commits what earlier terms left (Raft thesis 3.6.2)."""


@method(0x0302)
class StartSession(Request[SessionOpened]):
    """A new session, whose id is this entry's index; the living one of the same nonce if any."""

    nonce: bytes
    host: str
    pid: int
    promises: bool = False


@method(0x0303)
class EndSession(Request[Done]):
    """Forget a session and its slots. Nothing happens when it is gone already."""

    session: int
    expired: bool


@method(0x0304)
class Reap(Request[Done]):
    """Drop orphans that no session has open, with all they hold. Others are left alone."""

    inodes: list[int]


@method(0x0305)
class ReserveHandles(Request[HandlesReserved]):
    """Raise the mark below which chunk handles may be in use."""

    count: int


@method(0x0306)
class GrantChunk(Request[Done]):
    """Every reachable replica took ``version`` and dropped its bytes from ``cut`` on (-1: none).

    The chunk's pending cut is cleared only when this did it: a truncation that was logged
    meanwhile leaves a lower one, and the leader must grant once more before it answers with a
    layout (look at ``State.chunk`` after this was applied). NO_CHUNK when the chunk is gone,
    STALE_VERSION when its version is as high already.
    """

    handle: int
    version: int
    cut: int


@method(0x0307)
class AdmitServer(Request[Done]):
    """A server is known to the cluster from now on, at these addresses."""

    server: int
    role: str
    host: str
    addresses: list[str]


@method(0x0308)
class SetMembers(Request[Done]):
    """The group consists of these from now on: a record of Kind.MEMBERS, seen by the state."""

    configuration: Configuration


@method(0x0309)
class CutTail(Request[Done]):
    """Drop what lies in a chunk behind the end of its file: bytes that nobody committed.

    A cut is noted at the file's size of that moment, as by a truncation: the next grant carries it
    out, and who wrote there before must write again. Nothing happens to a chunk that is gone, or
    that the file fills.
    """

    handle: int


INTERNAL_METHODS = frozenset(
    request.METHOD
    for request in (
        FormatCluster,
        Noop,
        StartSession,
        EndSession,
        Reap,
        ReserveHandles,
        GrantChunk,
        AdmitServer,
        SetMembers,
        CutTail,
    )
)
"""Changes that a client may not ask for."""
