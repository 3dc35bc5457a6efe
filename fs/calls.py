"""One end of a connection: handshake, requests, replies, deadlines, credits. No socket in here.

Frames go in through ``received``; frames to send wait in ``out`` until ``sent`` takes them away.
Time is an argument (nanoseconds of a monotonic clock), and ``next_deadline`` says when ``expire``
wants to be called.

Both sides ask and answer, pipelined and in any order. Headers are msgpack arrays::

    [HELLO, fields] [WELCOME, fields] [REFUSAL, code, detail]
    [REQUEST, number, method, timeout_ms, fields]
    [REQUEST, number, method, timeout_ms, fields, session, slot, sequence]     a mutation
    [REPLY, number, fields]
    [ERROR, number, code, detail, delay_ms]
    [NOTICE, method, fields]

Numbers count up from 1 in each direction. A number that was seen is not served again, so a
duplicated frame is harmless; so is a reply that nobody waits for (its call was cancelled, has
timed out, or was answered before). Each side has at most ``credits`` requests in flight: the
caller keeps more than that waiting here, the callee answers them BUSY. The same happens while too
many bytes are unsent.

Notices have no number and no answer, and take no credit; who sends one does not care whether it
arrives once, twice or never. So they are dropped while too many bytes are unsent.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from .codec import Buffer, convert
from .errors import Code, TideError
from .frames import EMPTY, Frame, encode
from .handshake import Identity, check_welcome, describe, welcome
from .limits import (
    BUSY_DELAY_MS,
    CREDITS_PER_CONNECTION,
    NOTICE_BACKLOG_MAX_BYTES,
    SEND_BACKLOG_BUSY_BYTES,
    WAITING_CALLS_MAX,
)
from .messages.base import METHODS, Message, Notice, Request, reply_type
from .messages.hello import Hello, Welcome

MS = 1_000_000
SEEN_WINDOW = (1 << 4 * CREDITS_PER_CONNECTION) - 1

HELLO, WELCOME, REFUSAL, REQUEST, REPLY, ERROR, NOTICE = range(7)

NO_NUMBER = 0
"""In place of a number, where a notice came in: there is nothing to answer."""

DEADLINES_KEPT = 256
"""So many entries of the heap may belong to answered calls before they are swept out."""

Sink = Callable[[Any, memoryview], None]
"""Takes the outcome of one call, once: the reply or a TideError, and the payload. Never raises."""


class RefusedError(TideError):
    """The other side ended the connection and said why."""


class BadNoticeError(TideError):
    """A notice came in that makes no sense; the connection goes on without it."""


class State(Enum):
    """A connection's life: GREETING -> OPEN -> CLOSED, or GREETING -> CLOSED."""

    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


class Mutation(NamedTuple):
    """What makes a repetition recognisable (RFC 8881 section 2.10.6): in the frame header."""

    session: int
    slot: int
    sequence: int


class Asked(msgspec.Struct, eq=False):
    """A request that came in and wants ``answer`` or ``fail`` with its number, or a notice."""

    number: int
    request: Request[Any]
    payload: memoryview
    mutation: Mutation | None


class Call(msgspec.Struct, eq=False):
    """A request of ours on its way. ``frame`` is held back while there is no credit."""

    number: int
    request: Request[Any]
    timeout_ms: int
    deadline_ns: int
    sink: Sink
    frame: list[Buffer] | None = None


class Connection:
    """The state of one end. ``hello`` for the side that connected, else ``identity``."""

    def __init__(
        self,
        address: str,
        *,
        hello: Hello | None = None,
        expected_role: str | None = None,
        identity: Identity | None = None,
    ) -> None:
        assert (hello is None) != (identity is None)
        self.out: list[Buffer] = []
        self.state = State.GREETING
        self.remote: Hello | Welcome | None = None
        self.name = address
        self.unsent_bytes = 0  # of ``out``
        self._address = address
        self._hello = hello
        self._expected_role = expected_role
        self._identity = identity
        self._close_reason = "the connection is closed"
        # Calls of ours. Invariant: _held is empty, or no credit is left, or too much is unsent.
        self._credits = identity.credits if identity else CREDITS_PER_CONNECTION
        self._last_number = 0
        self._flying: dict[int, Call] = {}
        self._held: OrderedDict[int, Call] = OrderedDict()
        self._deadlines: list[tuple[int, int]] = []
        self._deadlines_max = DEADLINES_KEPT
        # Requests of theirs.
        self._serving: set[int] = set()
        self._serving_max = self._credits
        self._seen_highest = 0
        self._seen = 0  # bit n: the number _seen_highest - n has come
        if hello is not None:
            self._put(encode((HELLO, hello)))

    @property
    def is_accepted(self) -> bool:
        """Whether the other side made this connection."""
        return self._identity is not None

    @property
    def calling(self) -> int:
        """How many calls of ours have no answer yet."""
        return len(self._flying) + len(self._held)

    @property
    def oldest_call(self) -> int:
        """The number of the first call of ours that was sent and has no answer yet; 0: none."""
        return next(iter(self._flying), 0)

    @property
    def serving(self) -> int:
        """How many requests of theirs have no answer yet."""
        return len(self._serving)

    # --- asking ------------------------------------------------------------------------------

    def request(
        self,
        now_ns: int,
        request: Request[Any],
        sink: Sink,
        *,
        payload: Sequence[Buffer] = (),
        mutation: Mutation | None = None,
        timeout_ms: int,
    ) -> Call:
        """Ask. ``sink`` gets the outcome later, unless the call is forgotten.

        DISCONNECTED when closed, TOO_LARGE when it does not fit a frame, BUSY when too many calls
        wait for a credit.
        """
        if self.state is not State.OPEN:
            raise self._disconnected()
        number = self._last_number + 1
        head = (REQUEST, number, request.METHOD, timeout_ms, request)
        frame = encode(head if mutation is None else (*head, *mutation), payload)
        deadline_ns = now_ns + timeout_ms * MS
        call = Call(number, request, timeout_ms, deadline_ns, sink)
        if self._may_send():
            self._flying[number] = call
            self._put(frame)
        else:
            if len(self._held) >= WAITING_CALLS_MAX:
                raise TideError(
                    Code.BUSY,
                    f"{self.name}: {len(self._held)} calls wait already",
                    delay_ms=BUSY_DELAY_MS,
                )
            call.frame = frame
            self._held[number] = call
        self._last_number = number
        self._push_deadline(deadline_ns, number)
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for this call any more; its answer will be ignored."""
        if self._flying.pop(call.number, None) is not None:
            self.release_held()
        else:
            self._held.pop(call.number, None)

    def release_held(self) -> None:
        """Send what was held back, as far as there are credits (and no backlog)."""
        while self._held and self._may_send():
            _, call = self._held.popitem(last=False)
            assert call.frame is not None
            self._flying[call.number] = call
            self._put(call.frame)
            call.frame = None

    def _may_send(self) -> bool:
        return len(self._flying) < self._credits and self.unsent_bytes <= SEND_BACKLOG_BUSY_BYTES

    def tell(self, notice: Notice, payload: Sequence[Buffer] = ()) -> bool:
        """Put a notice out; False when it is dropped: closed, or too much is unsent. TOO_LARGE."""
        if self.state is not State.OPEN or self.unsent_bytes > NOTICE_BACKLOG_MAX_BYTES:
            return False
        self._put(encode((NOTICE, notice.METHOD, notice), payload))
        return True

    # --- sending -----------------------------------------------------------------------------

    def _put(self, frame: list[Buffer]) -> None:
        self.out += frame
        self.unsent_bytes += sum(map(len, frame))

    def sent(self, count: int) -> None:
        """The network took so many bytes of ``out``."""
        self.unsent_bytes -= count
        if self.unsent_bytes == 0:
            self.out.clear()
        else:
            self._cut(count)
        if self._held:
            self.release_held()

    def _cut(self, count: int) -> None:
        """Take ``count`` bytes, but not all, from the front of ``out``."""
        whole = 0
        for buffer in self.out:
            if count < len(buffer):
                break
            count -= len(buffer)
            whole += 1
        del self.out[:whole]
        if count:
            self.out[0] = memoryview(self.out[0])[count:]

    # --- answering ---------------------------------------------------------------------------

    def answer(self, number: int, reply: Message, payload: Sequence[Buffer] = ()) -> None:
        """Answer the request ``number``. TOO_LARGE leaves it unanswered."""
        if number in self._serving:
            self._put(encode((REPLY, number, reply), payload))
            self._serving.remove(number)

    def fail(self, number: int, error: TideError) -> None:
        """Answer the request ``number`` with an error."""
        if number in self._serving:
            self._serving.remove(number)
            self._send_error(number, error)

    def _send_error(self, number: int, error: TideError) -> None:
        self._put(encode((ERROR, number, error.code, error.detail[:4096], error.delay_ms)))

    # --- time --------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """When ``expire`` has something to do, in nanoseconds; None: not for now."""
        deadlines = self._deadlines
        while deadlines and not self._is_open(deadlines[0][1]):
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def expire(self, now_ns: int) -> None:
        """Fail the calls whose time is over."""
        while (deadline_ns := self.next_deadline()) is not None and deadline_ns <= now_ns:
            _, number = heapq.heappop(self._deadlines)
            call = self._flying.get(number) or self._held[number]
            self.forget(call)
            call.sink(
                TideError(
                    Code.TIMED_OUT,
                    f"{type(call.request).__name__} to {self.name} within {call.timeout_ms} ms",
                ),
                EMPTY,
            )

    def _push_deadline(self, deadline_ns: int, number: int) -> None:
        """Entries of answered calls stay in the heap until they are in the way."""
        deadlines = self._deadlines
        heapq.heappush(deadlines, (deadline_ns, number))
        if len(deadlines) > self._deadlines_max:
            deadlines[:] = [entry for entry in deadlines if self._is_open(entry[1])]
            heapq.heapify(deadlines)
            self._deadlines_max = 2 * len(deadlines) + DEADLINES_KEPT

    def _is_open(self, number: int) -> bool:
        return number in self._flying or number in self._held

    # --- receiving ---------------------------------------------------------------------------

    def received(self, frame: Frame) -> Asked | None:
        """Take one frame; a request or notice that is to be served comes back.

        BadNoticeError is about this frame only. Any other TideError ends the connection: the shell
        sends ``refuse(error)`` and closes.
        """
        header = frame.header
        try:
            what = header[0]
            if what == REPLY and self.state is State.OPEN:
                _, number, fields = header
                self._replied(number, fields, frame.payload)
                return None
            if what == REQUEST and self.state is State.OPEN:
                return self._asked(header, frame.payload)
            if what == NOTICE and self.state is State.OPEN:
                _, method, fields = header
                return self._told(method, fields, frame.payload)
            if what == NOTICE and self._hello is not None:
                return None  # the welcome before it was lost; so may any notice be
            if what == ERROR and self.state is State.OPEN:
                _, number, code, detail, delay_ms = header
                self._failed(number, code, detail, delay_ms)
                return None
            if what == REFUSAL:
                _, code, detail = header
                raise RefusedError(_code(code), str(detail))
            self._greeted(what, header[1])
        except (TypeError, ValueError, LookupError):
            raise TideError(
                Code.MALFORMED, f"the header of a frame makes no sense: {repr(header)[:200]}"
            ) from None
        return None

    def _greeted(self, what: object, fields: object) -> None:
        if self.state is State.OPEN and what in (HELLO, WELCOME):
            return  # a duplicate
        if what == HELLO and self._identity is not None:
            hello = convert(Hello, fields)
            answer = welcome(self._identity, hello)
            self._put(encode((WELCOME, answer)))
            self._open(hello)
        elif what == WELCOME and self._hello is not None:
            answer = convert(Welcome, fields)
            check_welcome(self._hello, answer, self._expected_role)
            self._credits = self._serving_max = answer.credits
            self._open(answer)
        elif self.state is State.GREETING:
            raise TideError(Code.MALFORMED, "the first frame is not a greeting")
        else:
            raise ValueError(what)

    def _open(self, remote: Hello | Welcome) -> None:
        self.remote = remote
        self.name = describe(remote, self._address)
        self.state = State.OPEN

    def _replied(self, number: int, fields: object, payload: memoryview) -> None:
        call = self._flying.pop(number, None)
        if call is None:
            return
        if self._held:
            self.release_held()
        outcome: object
        try:
            outcome = convert(reply_type(type(call.request)), fields)
        except TideError as error:
            outcome = TideError(error.code, f"the reply of {self.name}: {error.detail}")
        call.sink(outcome, payload)

    def _failed(self, number: int, code: object, detail: object, delay_ms: object) -> None:
        call = self._flying.pop(number, None)
        if call is None:
            return
        if self._held:
            self.release_held()
        delay = delay_ms if isinstance(delay_ms, int) and delay_ms >= 0 else 0
        call.sink(TideError(_code(code), str(detail), delay_ms=delay), EMPTY)

    def _asked(self, header: list[Any], payload: memoryview) -> Asked | None:
        _, number, method, _, fields, *mutation = header
        if not self._is_new(number):
            return None
        if len(self._serving) >= self._serving_max or self.unsent_bytes > SEND_BACKLOG_BUSY_BYTES:
            self._send_error(number, self._busy())
            return None
        kind = METHODS.get(method)
        if kind is None or issubclass(kind, Notice):
            self._send_error(number, TideError(Code.UNKNOWN_METHOD, f"method {method}"))
            return None
        try:
            request = convert(kind, fields)
            wanted = convert(Mutation, mutation) if mutation else None
        except TideError as error:
            self._send_error(number, error)
            return None
        self._serving.add(number)
        return Asked(number, request, payload, wanted)

    def _told(self, method: Any, fields: object, payload: memoryview) -> Asked:
        kind = METHODS.get(method)
        if kind is None or not issubclass(kind, Notice):
            raise BadNoticeError(Code.UNKNOWN_METHOD, f"method {method} is no notice")
        try:
            return Asked(NO_NUMBER, convert(kind, fields), payload, None)
        except TideError as error:
            raise BadNoticeError(error.code, error.detail) from None

    def _busy(self) -> TideError:
        return TideError(
            Code.BUSY,
            f"this connection has {len(self._serving)} requests in service and "
            f"{self.unsent_bytes} bytes unsent",
            delay_ms=BUSY_DELAY_MS,
        )

    def _is_new(self, number: object) -> bool:
        """Whether this request has not come before: a sliding window as in RFC 4303 3.4.3."""
        if type(number) is not int or number < 1:
            raise ValueError(number)
        ahead = number - self._seen_highest
        if ahead == 1:
            self._seen = (self._seen << 1 | 1) & SEEN_WINDOW
        elif ahead > 0:
            self._seen = (self._seen << min(ahead, SEEN_WINDOW.bit_length()) | 1) & SEEN_WINDOW
        else:
            bit = 1 << -ahead
            if bit > SEEN_WINDOW or self._seen & bit:
                return False
            self._seen |= bit
            return True
        self._seen_highest = number
        return True

    # --- ending ------------------------------------------------------------------------------

    def refuse(self, error: TideError) -> None:
        """Tell the other side, as the last frame, why the connection ends."""
        self._put(encode((REFUSAL, error.code, error.detail[:4096])))

    def close(self, reason: str) -> None:
        """All calls fail with DISCONNECTED, now and from now on."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._close_reason = reason
        self._serving.clear()
        self.out.clear()
        self.unsent_bytes = 0
        calls = [*self._flying.values(), *self._held.values()]
        self._flying.clear()
        self._held.clear()
        self._deadlines.clear()
        for call in calls:
            call.sink(self._disconnected(), EMPTY)

    def _disconnected(self) -> TideError:
        if self.state is State.GREETING:
            return TideError(Code.DISCONNECTED, f"{self.name}: the greeting is not over")
        return TideError(Code.DISCONNECTED, f"{self.name}: {self._close_reason}")


def _code(number: object) -> Code:
    """The error code of the other side; INTERNAL when it is newer than this table."""
    try:
        return Code(number)  # type: ignore[arg-type]
    except ValueError:
        return Code.INTERNAL
