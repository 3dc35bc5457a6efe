"""StartSession and EndSession."""

from ...fs.codec import Buffer
from ...fs.errors import Code, TideError
from ...fs.limits import SESSION_LEASE_MS, SESSION_SLOTS
from ...fs.messages.base import Done, Message
from ...fs.messages.meta import SessionOpened
from ..effects import SessionEnded, SessionStarted
from ..entries import EndSession, StartSession
from ..locks_order import end_locks
from ..moment import Moment
from ..records import SessionRecord
from ..tables import Tables
from .table import Perform, operation

NONCE_BYTES = 16
HOST_MAX_BYTES = 255


@operation(StartSession)
def start_session(tables: Tables, request: StartSession, payload: Buffer) -> Perform:
    """The session of this nonce; a new one, if none lives."""
    if len(request.nonce) != NONCE_BYTES:
        raise TideError(
            Code.INVALID, f"a session's nonce has {NONCE_BYTES} bytes, not {len(request.nonce)}"
        )
    if len(request.host.encode()) > HOST_MAX_BYTES:
        raise TideError(Code.INVALID, f"a host's name has at most {HOST_MAX_BYTES} bytes")

    def perform(moment: Moment) -> Message:
        session = tables.sessions.find(request.nonce)
        if session == 0:
            session = moment.log_index
            tables.sessions.add(
                SessionRecord(
                    session,
                    request.nonce,
                    request.host,
                    request.pid,
                    moment.time_ns,
                    request.promises,
                )
            )
            moment.effects.append(SessionStarted(session))
        return SessionOpened(session, SESSION_LEASE_MS, SESSION_SLOTS)

    return perform


@operation(EndSession)
def end_session(tables: Tables, request: EndSession, payload: Buffer) -> Perform:
    """Done as well when it ended before: a repetition must not fail."""

    def perform(moment: Moment) -> Message:
        record = tables.sessions.get(request.session)
        if record is not None:
            granted = end_locks(
                tables.locks, record.session, expired=request.expired, token=moment.log_index
            )
            tables.sessions.drop(record)
            moment.effects.append(SessionEnded(record.session, request.expired))
            moment.effects.extend(granted)
        return Done()

    return perform
