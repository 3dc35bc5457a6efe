"""The RPC shell: connections as trio tasks around the protocol in ``calls``.

One task reads: it takes what has arrived, hands requests to the handler and replies to their
callers, and sends everything that this brought about with one call at the end of the pass. A
second task sends what was asked for outside of such a pass (many small ones together) and what the
network did not take at once. A third one waits for the next deadline. A request costs no task
unless its handler returns an awaitable.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import trio

from .calls import (
    MS,
    Asked,
    BadNoticeError,
    Call,
    Connection,
    Mutation,
    RefusedError,
    State,
)
from .codec import Buffer
from .errors import Code, TideError
from .frames import EMPTY, FrameReader
from .handshake import Identity
from .incoming import Handler, Incoming, no_requests
from .limits import (
    CALL_TIMEOUT_MS,
    CONNECT_TIMEOUT_MS,
    HELLO_TIMEOUT_MS,
    SEND_BACKLOG_MAX_BYTES,
)
from .log import Once
from .messages.base import Message, Notice, Request
from .messages.hello import Hello, Welcome
from .ports import Ports
from .ports.clock import Clock
from .ports.network import Listener, Stream
from .wakeups import Doorbell, Waiter

__all__ = ["Handler", "Identity", "Incoming", "Mutation", "Peer", "connect", "no_requests", "serve"]

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Message)

READS_PER_PASS = 16
"""How often a pass receives before others get their turn."""


class Peer:
    """One connection, in both directions. Made by ``connect`` and ``serve``."""

    def __init__(
        self,
        clock: Clock,
        stream: Stream,
        connection: Connection,
        handler: Handler,
        nursery: trio.Nursery,
        on_open: "Callable[[Peer], None] | None" = None,
        once: Once | None = None,
    ) -> None:
        """``once`` says what is wrong with the other sides of several connections."""
        self._clock = clock
        self._stream = stream
        self._connection = connection
        self._handler = handler
        self._nursery = nursery  # for slow handlers
        self._on_open = on_open
        self._reader = FrameReader()
        self._opened = trio.Event()
        self._closed = trio.Event()
        self._reason = ""
        self._refused: TideError | None = None
        self._greeting = True
        self._in_pass = False
        self._blocked = False  # the network takes no more; the sending task waits for it
        self._broken = ""  # why sending has failed
        self._send_bell = Doorbell()
        self._timer_bell = Doorbell()
        self._timer_ns: int | None = None
        self._once = once or Once(log)

    @property
    def remote(self) -> Hello | Welcome:
        """What the other side said of itself."""
        assert self._connection.remote is not None, "a peer is handed out after the greeting"
        return self._connection.remote

    @property
    def name(self) -> str:
        """The other side, for messages to people."""
        return self._connection.name

    @property
    def closed(self) -> bool:
        return self._connection.state is State.CLOSED

    @property
    def oldest_call(self) -> int:
        """Changes as calls of this side are answered; 0 when none is under way."""
        return self._connection.oldest_call

    def __repr__(self) -> str:
        return f"<Peer {self.name}>"

    # --- asking ------------------------------------------------------------------------------

    async def call(
        self,
        request: Request[R],
        *,
        payload: Sequence[Buffer] = (),
        mutation: Mutation | None = None,
        timeout_ms: int = CALL_TIMEOUT_MS,
    ) -> R:
        """The reply. TideError: what the other side answered, or DISCONNECTED, or TIMED_OUT."""
        reply, _ = await self.exchange(
            request, payload=payload, mutation=mutation, timeout_ms=timeout_ms
        )
        return reply

    async def exchange(
        self,
        request: Request[R],
        *,
        payload: Sequence[Buffer] = (),
        mutation: Mutation | None = None,
        timeout_ms: int = CALL_TIMEOUT_MS,
    ) -> tuple[R, memoryview]:
        """As ``call``, with the payload of the reply."""
        waiter = Waiter(self._connection)
        waiter.call = self._connection.request(
            self._clock.monotonic_ns(),
            request,
            waiter.take,
            payload=payload,
            mutation=mutation,
            timeout_ms=timeout_ms,
        )
        self._asked(waiter.call)
        await waiter.wait()
        return waiter.outcome, waiter.payload

    def post(
        self,
        request: Request[R],
        *,
        payload: Sequence[Buffer] = (),
        mutation: Mutation | None = None,
        timeout_ms: int = CALL_TIMEOUT_MS,
        done: Callable[[R | TideError, memoryview], None],
    ) -> None:
        """As ``exchange``, without a task: ``done`` gets the outcome in the reading loop.

        When the call cannot even be sent, ``done`` gets the error before ``post`` returns.
        """

        def sink(outcome: Any, reply_payload: memoryview) -> None:
            try:
                done(outcome, reply_payload)
            except Exception:
                log.exception("%s: handling the reply to %s", self.name, type(request).__name__)

        try:
            call = self._connection.request(
                self._clock.monotonic_ns(),
                request,
                sink,
                payload=payload,
                mutation=mutation,
                timeout_ms=timeout_ms,
            )
        except TideError as error:
            sink(error, EMPTY)
        else:
            self._asked(call)

    def tell(self, notice: Notice, payload: Sequence[Buffer] = (), *, more: bool = False) -> bool:
        """Send a notice: no answer, no deadline, no waiting.

        Outside of a reading pass the network has it when this returns, unless ``more`` follow at
        once and share the system call. False: it was dropped, for the connection is closed or has
        too much unsent. TOO_LARGE when it does not fit a frame.
        """
        told = self._connection.tell(notice, payload)
        if told:
            self._send_soon(alone=not more)
        return told

    def _asked(self, call: Call) -> None:
        if self._timer_ns is None or call.deadline_ns < self._timer_ns:
            self._timer_ns = call.deadline_ns
            self._timer_bell.ring()
        self._send_soon(alone=self._connection.calling == 1)

    # --- answering ---------------------------------------------------------------------------

    def _answer(self, number: int, message: Message, payload: Sequence[Buffer]) -> None:
        alone = self._connection.serving == 1
        try:
            self._connection.answer(number, message, payload)
        except TideError as error:
            log.error("%s: a reply cannot be sent: %s", self.name, error)
            self._connection.fail(number, error)
        self._send_soon(alone=alone)

    def _fail(self, number: int, error: TideError) -> None:
        alone = self._connection.serving == 1
        self._connection.fail(number, error)
        self._send_soon(alone=alone)

    def _serve(self, asked: Asked) -> None:
        incoming = Incoming(asked.number, asked.request, asked.payload, asked.mutation, self)
        try:
            awaitable = self._handler(incoming)
        except Exception as error:
            self._handler_failed(incoming, error)
        else:
            if awaitable is not None:
                self._nursery.start_soon(self._serve_slowly, incoming, awaitable)

    async def _serve_slowly(self, incoming: Incoming, awaitable: Awaitable[None]) -> None:
        try:
            await awaitable
        except Exception as error:
            self._handler_failed(incoming, error)

    def _handler_failed(self, incoming: Incoming, error: Exception) -> None:
        what = type(incoming.request).__name__
        if isinstance(error, TideError):
            if incoming.is_notice:
                self._drop_notice(what, error)
            incoming.fail(error)
            return
        log.error("%s from %s failed", what, self.name, exc_info=error)
        incoming.fail(TideError(Code.INTERNAL, f"{what}: {type(error).__name__}: {error}"))

    def _drop_notice(self, what: str, error: TideError) -> None:
        speaker = self.remote
        key = f"{speaker.role} {speaker.server} {what} {error.code.name}"
        self._once.warn(key, "%s: %s is dropped: %s", self.name, what, error)

    # --- sending -----------------------------------------------------------------------------

    def _send_soon(self, *, alone: bool) -> None:
        """Send what the connection has put out, with as few system calls as makes sense."""
        if self._in_pass or self._blocked or not self._connection.out:
            return  # somebody is about to send anyway
        if alone:
            self._send()  # nobody else has work here: waiting for company would only cost time
        else:
            self._send_bell.ring()

    def _send(self) -> None:
        """Give the network what it takes; the rest is left to the sending task."""
        connection = self._connection
        if not connection.out or self._broken:
            return
        try:
            connection.sent(self._stream.send_nowait(connection.out))
        except TideError as error:
            # What the other side sent before it went is still to be read.
            self._broken = error.detail
            self._send_bell.ring()
            return
        self._blocked = connection.unsent_bytes > 0
        if self._blocked:
            self._send_bell.ring()
        if connection.unsent_bytes > SEND_BACKLOG_MAX_BYTES:
            reason = f"the other side does not read: {connection.unsent_bytes} bytes are unsent"
            log.warning("%s: closing the connection: %s", self.name, reason)
            self.close(reason)

    async def _keep_sending(self) -> None:
        while not self.closed:
            await self._send_bell.wait()
            self._send()
            while self._blocked and not self._broken and not self.closed:
                try:
                    await self._stream.wait_writable()
                except TideError as error:
                    self._broken = error.detail
                    break
                self._send()
            if self._broken:
                self._read()
                self.close(self._broken)

    # --- time --------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            self._timer_ns = self._connection.next_deadline()
            if self._timer_ns is None:
                await self._timer_bell.wait()
                continue
            now_ns = self._clock.monotonic_ns()
            if self._timer_ns > now_ns:
                with trio.move_on_after((self._timer_ns - now_ns) / (1000 * MS)):
                    await self._timer_bell.wait()
            self._connection.expire(self._clock.monotonic_ns())
            self._send_soon(alone=True)

    # --- receiving ---------------------------------------------------------------------------

    async def _keep_reading(self) -> None:
        while not self.closed:
            self._read()
            if not self.closed:
                try:
                    await self._stream.wait_readable()
                except TideError as error:
                    self.close(error.detail)

    def _read(self) -> None:
        """One pass: take what has arrived, then send what came of it. Never raises."""
        self._in_pass = True
        try:
            for _ in range(READS_PER_PASS):
                if not self._receive():
                    break
        except TideError as error:
            if error.code is Code.DISCONNECTED:
                self.close(error.detail)
            else:
                self._break_off(error)
        except Exception:
            log.exception("%s: closing the connection", self.name)
            self.close("an internal error, see the log")
        finally:
            self._in_pass = False
        if not self._blocked:
            self._send()

    def _receive(self) -> bool:
        """Take what has arrived, once; whether there may be more."""
        buffer = self._reader.buffer()
        count = self._stream.receive_nowait(buffer)
        if count is None:
            return False
        if count == 0:
            self._reader.finish()
            self.close("the other side closed the connection")
            return False
        connection = self._connection
        for frame in self._reader.received(count):
            try:
                asked = connection.received(frame)
            except BadNoticeError as error:
                self._drop_notice("a notice", error)
                continue
            if asked is not None:
                self._serve(asked)
            elif self._greeting and connection.state is State.OPEN:
                self._open()
            if connection.state is State.CLOSED:
                return False
        # A short read has emptied the socket; what comes later wakes us up again.
        return count == len(buffer)

    def _open(self) -> None:
        self._greeting = False
        self._opened.set()
        if self._on_open is not None:
            try:
                self._on_open(self)
            except Exception:
                log.exception("%s: opening", self.name)
                self.close("an internal error at its opening")

    # --- life --------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Run the connection until it ends."""
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._keep_sending)
                tasks.start_soon(self._keep_time)
                tasks.start_soon(self._greeted_in_time)
                await self._keep_reading()
                tasks.cancel_scope.cancel()
        finally:
            self.close("this side is shutting down")

    def _break_off(self, error: TideError) -> None:
        """End the connection because of what the other side sent, and say why to both sides."""
        self._refused = error
        if isinstance(error, RefusedError):
            self._say("%s: refused by the other side: %s", error)
        elif not self.closed:
            self._say("%s: closing the connection: %s", error)
            self._connection.refuse(error)
        self.close(str(error))

    def _say(self, message: str, error: TideError) -> None:
        if self._opened.is_set():
            log.warning(message, self.name, error)
        elif self._connection.is_accepted:
            # Who is refused comes back, and is refused again. (``connect`` tells its caller.)
            self._once.warn(str(error), message, self.name, error)

    async def _greeted_in_time(self) -> None:
        with trio.move_on_after(HELLO_TIMEOUT_MS / 1000):
            await self._opened.wait()
            return
        self._break_off(TideError(Code.TIMED_OUT, f"greeting within {HELLO_TIMEOUT_MS} ms"))

    def close(self, reason: str) -> None:
        """End the connection. All calls fail with DISCONNECTED and the reason.

        What was answered or posted before still goes out, as far as the network takes it at once.
        """
        if self._closed.is_set():
            return
        self._closed.set()
        self._reason = reason
        self._send()
        self._stream.close()
        self._connection.close(reason)

    async def wait_closed(self) -> None:
        await self._closed.wait()


async def connect(
    ports: Ports,
    address: str,
    hello: Hello,
    handler: Handler,
    nursery: trio.Nursery,
    *,
    expected_role: str | None = None,
) -> Peer:
    """A greeted connection, run by tasks of ``nursery``.

    TideError: DISCONNECTED when nobody is there, WRONG_CLUSTER, WRONG_PROTOCOL or WRONG_ROLE as
    the other side (or this one) sees it.
    """
    stream: Stream | None = None
    with trio.move_on_after(CONNECT_TIMEOUT_MS / 1000):
        stream = await ports.network.connect(address)
    if stream is None:
        raise TideError(
            Code.DISCONNECTED, f"no connection to {address} within {CONNECT_TIMEOUT_MS} ms"
        )
    connection = Connection(address, hello=hello, expected_role=expected_role)
    peer = Peer(ports.clock, stream, connection, handler, nursery)
    try:
        peer._send()
        nursery.start_soon(peer._live)
        await _opened_or_closed(peer)
    except BaseException:
        peer.close("given up")
        raise
    return peer


async def _opened_or_closed(peer: Peer) -> None:
    async with trio.open_nursery() as both:

        async def until(event: trio.Event) -> None:
            await event.wait()
            both.cancel_scope.cancel()

        both.start_soon(until, peer._closed)
        both.start_soon(until, peer._opened)
    if peer.closed and peer._refused is not None:
        raise TideError(peer._refused.code, f"{peer.name}: {peer._refused.detail}")
    if peer.closed:
        raise TideError(Code.DISCONNECTED, f"{peer.name}: {peer._reason}")


async def serve(
    ports: Ports,
    listener: Listener,
    identity: Identity,
    handler: Handler,
    nursery: trio.Nursery,
    on_open: Callable[[Peer], None] | None = None,
) -> None:
    """Accept connections for ever; ``on_open`` sees each one after its greeting.

    Awaitables of handlers run in ``nursery``, beyond the life of the connection.
    """

    once = Once(log)

    async def handle(stream: Stream) -> None:
        connection = Connection(stream.remote, identity=identity)
        peer = Peer(ports.clock, stream, connection, handler, nursery, on_open, once)
        await peer._live()

    await listener.accept_forever(handle)
