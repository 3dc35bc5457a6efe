"""Promises on the connections: what is told is promised there, and recalled there.

A Recall goes out behind every reply that made the promise, for a connection keeps that order. (One
that waits for a credit lets later replies pass. What these promise the client then gives up as
well, and only this side still believes in it, which does no harm.)
"""

import logging
from collections.abc import Iterable

import msgspec
import trio

from ..fs.errors import TideError
from ..fs.limits import PROMISES_RECALLED_AT_ONCE
from ..fs.messages.base import Message
from ..fs.messages.promises import Recall
from ..fs.rpc import Peer
from .leader import Leader
from .promises import Promises, Recalled
from .touched import told

_MS = 10**6

log = logging.getLogger(__name__)


class RecallFigures:
    """What GetMetrics tells: of this process, whoever leads."""

    def __init__(self) -> None:
        self.promises = Promises()
        """Those of the last term that this member led."""
        self.sent = 0
        self.answered = 0
        self.longest_ns = 0
        self.sessions_ended = 0

    def values(self, *, leads: bool) -> dict[str, float]:
        return {
            "promises_held": self.promises.count if leads else 0,
            "recalls_waiting": self.promises.waiting if leads else 0,
            "recalls_sent_total": self.sent,
            "recalls_answered_total": self.answered,
            "recall_longest_ms": self.longest_ns // _MS,
            "recall_sessions_ended_total": self.sessions_ended,
        }


class Recalls:
    """Those of one leader."""

    def __init__(self, leader: Leader, figures: RecallFigures) -> None:
        self._leader = leader
        self._promises = leader.promises
        self._figures = figures
        figures.promises = leader.promises
        self._lease_ms = leader.leases.lease_ms
        self._session_of: dict[Peer, int] = {}
        """Of the sessions that want promises only."""
        self._peer_of: dict[int, Peer] = {}

    # --- connections -------------------------------------------------------------------------

    def bind(self, session: int, peer: Peer) -> None:
        """A session that wants promises is used on this connection from now on, and holds none:
        what was said on another one before, it does not believe any more."""
        self.end(session)
        if not peer.closed:
            self._session_of[peer] = session
            self._peer_of[session] = peer

    def gone(self, peer: Peer) -> None:
        """The connection has ended. The session believes on, until it resumes or ends."""
        session = self._session_of.pop(peer, 0)
        if session:
            del self._peer_of[session]

    def end(self, session: int) -> None:
        """The session is over, or begins anew: it holds nothing, and who waits for it goes on."""
        peer = self._peer_of.pop(session, None)
        if peer is not None:
            del self._session_of[peer]
        self._promises.end(session)

    def session_on(self, peer: Peer) -> int:
        """The session on this connection, if it wants promises; else 0."""
        return self._session_of.get(peer, 0)

    # --- promising ---------------------------------------------------------------------------

    def promised(self, peer: Peer, reply: Message) -> Message:
        """``reply``, promised if that can be. To be sent at once: what is recalled later has to
        come behind it."""
        session = self._session_of.get(peer)
        if session is None or self._leader.awaited.promised_to_others(session):
            return reply  # who is missing may have it alone
        inodes = told(reply)
        if not inodes:
            return reply
        if self.makes_room(len(inodes)) and self._promises.promise(session, inodes):
            return msgspec.structs.replace(reply, promised=True)
        return reply

    def makes_room(self, more: int) -> bool:
        """Whether so many more can be promised, perhaps after the oldest are recalled. They are not
        waited for: what is out is not held any more."""
        if self._promises.lacks_room(more):
            self.send(self._promises.oldest(PROMISES_RECALLED_AT_ONCE))
        return not self._promises.lacks_room(more)

    # --- recalling ---------------------------------------------------------------------------

    def send(self, taken: Iterable[Recalled]) -> None:
        """Recall what was just taken out of the table. Who is not connected cannot be told: it is
        waited for until it resumes, or ends."""
        for recalled in taken:
            self._send(recalled, self._leader.now_ns())

    async def all_over(self, recalls: Iterable[Recalled]) -> None:
        """Until each of them is answered, or need not be any more."""
        left = set(recalls)
        if not left:
            return
        over = trio.Event()

        def one_is(recalled: Recalled) -> None:
            left.discard(recalled)
            if not left:
                over.set()

        for recalled in list(left):
            recalled.then(one_is)
        await over.wait()

    def _send(self, recalled: Recalled, now_ns: int) -> None:
        peer = self._peer_of.get(recalled.session)
        recalled.then(lambda _: self._note_time(now_ns))
        if peer is None:
            return

        def done(outcome: Message | TideError, payload: memoryview) -> None:
            if isinstance(outcome, TideError):
                self._failed(recalled, peer, now_ns, outcome)
            else:
                self._figures.answered += 1
                self._promises.over(recalled)

        self._figures.sent += 1
        peer.post(Recall(list(recalled.inodes)), timeout_ms=self._lease_ms, done=done)

    def _failed(self, recalled: Recalled, peer: Peer, sent_ns: int, error: TideError) -> None:
        """It resumes on a new connection, and holds nothing there; or it has had its time."""
        if recalled.is_over or peer.closed:
            return
        waited_ms = (self._leader.now_ns() - sent_ns) // _MS
        if waited_ms < self._lease_ms:
            peer.close(f"it failed to give up promises: {error}")
            return
        log.warning(
            "session %d has not answered a Recall of %d inodes for %d ms, its lease: given up",
            recalled.session,
            len(recalled.inodes),
            waited_ms,
        )
        self._figures.sessions_ended += 1
        self._leader.leases.give_up(recalled.session)
        peer.close("its session is given up: it did not answer a Recall within its lease")

    def _note_time(self, since_ns: int) -> None:
        waited_ns = self._leader.now_ns() - since_ns
        self._figures.longest_ns = max(self._figures.longest_ns, waited_ns)
