"""Every request that a metaserver gets, and who answers it. The handler for the RPC shell.

Reads are answered at once from the applied state, so nothing that is not durable is ever seen.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import trio

from ..fs.errors import Code, TideError
from ..fs.limits import SESSION_SLOTS
from ..fs.messages import chunk as chunk_messages
from ..fs.messages import locks, meta
from ..fs.messages.base import Done, Message, Request
from ..fs.messages.hello import CHUNKSERVER
from ..fs.messages.promises import Claim
from ..fs.rpc import Incoming, Mutation, Peer
from .caretaker import Caretaker
from .chunkservers import Damage
from .consent import Answered, Consent
from .driver import Driver
from .effects import LocksGranted
from .entries import AdmitServer, EndSession, StartSession
from .leader import Leader
from .member_status import MemberView
from .recalls import Recalls
from .records import ServerRecord
from .service_changes import Changes
from .service_compound import Run, parse
from .service_layouts import Layouts
from .service_reads import READS, Answer, content
from .state import State
from .status import Incident, Journal, space, status

log = logging.getLogger(__name__)


class Asker(NamedTuple):
    """Who sent a request, and how it wants a change to be known again."""

    peer: Peer
    mutation: Mutation | None


class Service:
    """One leader's answers."""

    def __init__(
        self,
        state: State,
        driver: Driver,
        leader: Leader,
        caretaker: Caretaker,
        view: MemberView,
    ) -> None:
        self._state = state
        self._driver = driver
        self._leader = leader
        self._caretaker = caretaker
        self._view = view
        self._recalls = Recalls(leader, view.recalls)
        self._consent = Consent(state, leader, self._recalls)
        self._changes = Changes(state, driver, leader, self._consent)
        self._layouts = Layouts(state, leader)
        self._journal = Journal()
        leader.on_locks_granted = self._locks_granted
        leader.on_session_end = self._session_ended
        self._session_of: dict[Peer, int] = {}
        self._peer_of: dict[int, Peer] = {}
        self._resuming: dict[Peer, meta.ResumeSession] = {}
        """What a session said that has more to say."""
        self._others: dict[type[Request[Any]], Callable[[Any, Asker], Answered]]
        self._others = {
            meta.Open: self._open,
            meta.Release: self._release,
            meta.GetLayout: self._get_layout,
            meta.ReportFailure: self._report_failure,
            meta.GetSpace: lambda request, asker: Answer(space(leader)),
            meta.GetStatus: self._get_status,
            meta.Compound: self._compound,
            Claim: self._claim,
            meta.OpenSession: self._open_session,
            meta.ResumeSession: self._resume_session,
            meta.KeepAlive: self._keep_alive,
            meta.CloseSession: self._close_session,
            chunk_messages.Register: self._register,
            chunk_messages.ReportChunks: self._report_chunks,
            chunk_messages.Heartbeat: self._heartbeat,
            chunk_messages.ReportBad: self._report_bad,
        }

    # --- the two faces for the RPC shell -------------------------------------------------------

    def handle(self, incoming: Incoming) -> Awaitable[None] | None:
        """Answer a request, now or later."""
        request = incoming.request
        read = READS.get(type(request))
        if read is not None and not self._leader.promises.has_exclusive:
            self._reply(incoming, read(self._state, request))
            return None
        if isinstance(request, meta.Change):
            done = self._replier(incoming)
            return self._changes.submit(incoming.mutation, request, incoming.payload, done)
        found = self._answer(request, Asker(incoming.peer, incoming.mutation))
        if isinstance(found, Answer):
            self._reply(incoming, found)
            return None
        return self._reply_later(incoming, found)

    def _reply(self, incoming: Incoming, answer: Answer) -> None:
        """Send what was found out at this moment."""
        message, payload = answer
        if type(incoming.request) is not Claim:
            message = self._recalls.promised(incoming.peer, message)
        incoming.reply(message, (payload,) if payload else ())

    async def _reply_later(self, incoming: Incoming, answer: Awaitable[Answer]) -> None:
        self._reply(incoming, await answer)

    def _replier(self, incoming: Incoming) -> Callable[[Message | TideError, bool], None]:
        def done(outcome: Message | TideError, is_new: bool) -> None:
            if isinstance(outcome, TideError):
                incoming.fail(outcome)
            elif is_new:
                self._reply(incoming, Answer(outcome))
            else:
                incoming.reply(outcome)

        return done

    def gone(self, peer: Peer) -> None:
        """A connection has ended."""
        self._recalls.gone(peer)
        self._resuming.pop(peer, None)
        session = self._session_of.pop(peer, 0)
        if self._peer_of.get(session) is peer:
            del self._peer_of[session]
        server = peer.remote.server
        if peer.remote.role == CHUNKSERVER and self._leader.links.drop(server, peer):
            log.warning("chunkserver %016x is down", server)
            self._leader.servers.disconnected(server, self._leader.now_ns())
            self._leader.grants.forget_server(server)
            self._leader.chunks_changed.set()

    def _answer(self, request: Request[Any], asker: Asker) -> Answered:
        read = READS.get(type(request))
        if read is not None:
            return self._read(request, asker, lambda: read(self._state, request))
        if isinstance(request, meta.Change):
            return self._change(request, asker)
        other = self._others.get(type(request))
        if other is None:
            raise TideError(
                Code.UNKNOWN_METHOD, f"a metaserver does not answer {type(request).__name__}"
            )
        return other(request, asker)

    def _read(
        self, request: Request[Any], asker: Asker, answer: Callable[[], Answered]
    ) -> Answered:
        session = self._session_of.get(asker.peer, 0)
        return self._consent.reading(session, request, answer)

    # --- compounds ---------------------------------------------------------------------------

    def _compound(self, request: meta.Compound, asker: Asker) -> Answered:
        return Run(parse(request), lambda step: self._answer(step, asker)).start()

    async def _change(self, request: meta.Change[Any], asker: Asker) -> Answer:
        """A change that is a step of a compound."""
        finished = trio.Event()
        outcomes: list[Message | TideError] = []

        def done(outcome: Message | TideError, is_new: bool) -> None:
            outcomes.append(outcome)
            finished.set()

        recalling = self._changes.submit(asker.mutation, request, b"", done)
        if recalling is not None:
            await recalling
        await finished.wait()
        return _as_answer(outcomes[0])

    # --- files that are open, places ---------------------------------------------------------

    def _open(self, request: meta.Open, asker: Asker) -> Answered:
        session = self._session(asker)
        return self._read(request, asker, lambda: self._open_now(request, session))

    def _open_now(self, request: meta.Open, session: int) -> Answer:
        opens = self._leader.opens
        inode = request.inode
        if opens.settled and not opens.is_open(inode) and self._state.is_orphan(inode):
            raise TideError(Code.STALE_HANDLE, f"inode {inode} has no name any more")
        answer = content(self._state, inode, request.known_data_version)
        opens.open(session, inode)
        return answer

    def _release(self, request: meta.Release, asker: Asker) -> Answer:
        closed = self._leader.opens.release(self._session(asker), request.inodes)
        self._leader.reap(closed)
        return Answer(Done())

    def _get_layout(self, request: meta.GetLayout, asker: Asker) -> Answered:
        session = self._session(asker) if request.write else 0
        return self._read(request, asker, lambda: self._layouts.get(request, session))

    def _report_failure(self, request: meta.ReportFailure, asker: Asker) -> Answer:
        return self._layouts.report_failure(request, self._session_of.get(asker.peer, 0))

    def _get_status(self, request: meta.GetStatus, asker: Asker) -> Answer:
        return Answer(status(self._leader, self._view, self._journal, self._caretaker.missing))

    # --- sessions ----------------------------------------------------------------------------

    def _session(self, asker: Asker) -> int:
        """The session that a request is made in."""
        session = self._session_of.get(asker.peer, 0)
        if not session:
            raise TideError(Code.INVALID, "open or resume a session on this connection first")
        self._check_alive(session)
        return session

    def _check_alive(self, session: int) -> None:
        if not self._leader.leases.is_alive(session):
            raise TideError(Code.SESSION_EXPIRED, f"session {session}")

    def _alive(self) -> Answer:
        return Answer(meta.Alive(self._leader.leases.lease_ms))

    async def _open_session(self, request: meta.OpenSession, asker: Asker) -> Answer:
        entry = StartSession(request.nonce, request.host, request.pid, request.promises)
        self._state.precheck(entry.METHOD, list(msgspec.structs.astuple(entry)))
        opened = await self._driver.perform(entry)
        assert isinstance(opened, meta.SessionOpened)
        self._leader.began(opened.session)
        self._bind(asker.peer, opened.session)
        return Answer(
            meta.SessionOpened(opened.session, self._leader.leases.lease_ms, SESSION_SLOTS)
        )

    def _bind(self, peer: Peer, session: int) -> None:
        """The session is used on this connection from now on, and on no other one.

        What is still under way on the one before must not undo what the session says now.
        """
        before = self._peer_of.get(session)
        if before is not None and before is not peer:
            before.close("its session goes on on another connection")
        if not peer.closed:
            self._session_of[peer] = session
            self._peer_of[session] = peer
        if before is not peer:
            self._changes.resumed(session)
            record = self._state.session(session)
            if record is not None and record.promises:
                self._recalls.bind(session, peer)
            self._consent.look_again()

    def _session_ended(self, session: int) -> None:
        self._changes.session_ended(session)
        self._recalls.end(session)
        self._consent.look_again()

    def _resume_session(self, request: meta.ResumeSession, asker: Asker) -> Answer:
        self._check_alive(request.session)
        earlier = self._resuming.pop(asker.peer, None)
        if earlier is not None and earlier.session == request.session:
            request = msgspec.structs.replace(
                request,
                open_inodes=earlier.open_inodes + request.open_inodes,
                reserved=earlier.reserved + request.reserved,
                claims=earlier.claims + request.claims,
            )
        if request.more:
            self._leader.heard_of(request.session)
            self._resuming[asker.peer] = request
            return self._alive()
        self._leader.resume(request.session, request.open_inodes, request.reserved)
        self._bind(asker.peer, request.session)
        for inode in request.claims:
            if not self._leader.promises.reclaim(request.session, inode):
                self._leader.leases.give_up(request.session)
                raise TideError(
                    Code.SESSION_EXPIRED,
                    f"session {request.session} has not held inode {inode} alone all the time",
                )
        return self._alive()

    def _keep_alive(self, request: meta.KeepAlive, asker: Asker) -> Answer:
        self._check_alive(request.session)
        self._leader.heard_of(request.session)
        return self._alive()

    async def _close_session(self, request: meta.CloseSession, asker: Asker) -> Answer:
        await self._driver.perform(EndSession(request.session, expired=False))
        return Answer(Done())

    async def _claim(self, request: Claim, asker: Asker) -> Answer:
        session, inode = self._session(asker), request.inode
        if self._recalls.session_on(asker.peer) != session:
            raise TideError(
                Code.INVALID, f"session {session} was opened without promises: it can claim nothing"
            )
        self._state.attributes(inode)
        claimed = await self._consent.claim(
            session, inode, lambda: self._recalls.session_on(asker.peer) == session
        )
        return Answer(meta.Node(self._state.attributes(inode), promised=claimed))

    def _locks_granted(self, effect: LocksGranted) -> None:
        """Tell the session; it asks, if that is lost."""
        peer = self._peer_of.get(effect.session)
        if peer is not None:
            peer.tell(locks.LocksGranted(effect.session, effect.grants))

    # --- chunkservers ------------------------------------------------------------------------

    def _register(self, request: chunk_messages.Register, asker: Asker) -> Answer:
        leader, place, peer = self._leader, request.place, asker.peer
        remote = peer.remote
        if remote.role != CHUNKSERVER or remote.server != place.server:
            raise TideError(
                Code.WRONG_ROLE,
                f"{remote.role} {remote.server:016x} cannot register {place.server:016x}",
            )
        before = leader.links.set(place.server, peer)
        leader.grants.forget_server(place.server)
        leader.servers.register(
            place, request.pid, request.total_bytes, request.free_bytes, leader.now_ns()
        )
        if before is not None:
            before.close("it registered on another connection")
        log.info("chunkserver %016x on %s is up", place.server, place.host)
        record = ServerRecord(place.server, CHUNKSERVER, place.host, place.addresses)
        if record not in self._state.servers():
            self._admit(AdmitServer(*record))
        return Answer(chunk_messages.Registered(leader.config.heartbeat, leader.term))

    def _admit(self, entry: AdmitServer) -> None:
        def done(outcome: Message | TideError, index: int) -> None:
            if isinstance(outcome, TideError):
                log.warning("chunkserver %016x is not admitted: %s", entry.server, outcome)

        try:
            self._driver.propose(entry, done)
        except TideError as error:
            done(error, 0)

    def _chunkserver(self, asker: Asker) -> int:
        """The chunkserver that registered on this connection."""
        server = asker.peer.remote.server
        if self._leader.links.get(server) is not asker.peer:
            raise TideError(Code.INVALID, "register on this connection first")
        return server

    def _report_chunks(self, request: chunk_messages.ReportChunks, asker: Asker) -> Answer:
        server = self._chunkserver(asker)
        self._leader.servers.report(server, request.chunks, last=request.last)
        if request.last:
            self._leader.check_settled()
            self._leader.chunks_changed.set()
        return Answer(Done())

    def _heartbeat(self, request: chunk_messages.Heartbeat, asker: Asker) -> Answer:
        server = self._chunkserver(asker)
        self._leader.servers.heartbeat(
            server, request.total_bytes, request.free_bytes, self._leader.now_ns()
        )
        return Answer(Done())

    def _report_bad(self, request: chunk_messages.ReportBad, asker: Asker) -> Answer:
        leader, server = self._leader, self._chunkserver(asker)
        log.warning(
            "chunkserver %016x: bad block in chunk %016x at %d",
            server,
            request.handle,
            request.offset,
        )
        self._journal.note(Incident(leader.now_ns(), request.handle, server, request.offset))
        leader.servers.damaged(server, request.handle, Damage(request.version, request.offset))
        leader.grants.forget(request.handle)
        leader.chunks_changed.set()
        return Answer(Done())


def _as_answer(outcome: Message | TideError) -> Answer:
    if isinstance(outcome, TideError):
        raise outcome
    return Answer(outcome)
