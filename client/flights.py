"""Requests on their way without a task: most are answered at the first try, and need none.

A flight goes out at once on the link that is there, and lands in the pass over the connection that
brings its answer. What has to be waited for, or sent again, goes on as a task, by the same rules as
any other request (`metaclient.py`).
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

import trio

from ..fs.errors import Code, TideError
from ..fs.messages.base import Message, Request
from .answers import Answer
from .counters import Counters
from .link import Link, LinkKeeper
from .requests import MAYBE_DONE, REPEATED, is_change, opened_inode, opens, unpromised
from .session import OpenInodes
from .slots import PendingChange, Slots

Shape = Callable[[Any, memoryview], Any]
"""What is told, of a reply and its payload."""


class Failure(NamedTuple):
    """What became of a request at the first try."""

    link: Link
    error: TideError


class Carrier(Protocol):
    """Who carries on with what did not land."""

    async def carry_on(
        self, request: Request[Any], change: PendingChange | None, failure: Failure
    ) -> tuple[Any, memoryview]:
        """The final answer of what failed at the first try; gives the slot back."""
        ...

    async def keep_open(self, since: int, inode: int) -> None:
        """See ``OpenInodes.crossed``."""
        ...

    counters: Counters

    @property
    def recalls(self) -> int:
        """Counts what may have ended promises: recalls, and new connections."""
        ...

    def unwanted(self, inode: int) -> None:
        """It was opened for somebody who gave up."""
        ...


class Flight:
    """One request. ``change``: its slot. ``since``: see ``OpenInodes.begin_opening``."""

    __slots__ = (
        *("answer", "change", "link", "recalls", "request"),
        *("scope", "shape", "since", "withdrawn"),
    )

    def __init__(
        self,
        request: Request[Any],
        link: Link,
        change: PendingChange | None,
        since: int | None,
        shape: Shape,
        answer: Answer[Any],
        recalls: int,
    ) -> None:
        self.request = request
        self.link = link
        self.change = change
        self.since = since
        self.shape = shape
        self.answer = answer
        self.recalls = recalls
        """How many there were at its start."""
        self.withdrawn = False
        self.scope: trio.CancelScope | None = None
        """Of the task that goes on with it."""


class Flights:
    """All flights of one client; tasks that go on with them live in ``nursery`` while it is set."""

    def __init__(
        self, links: LinkKeeper, opens: OpenInodes, slots: Slots, carrier: Carrier
    ) -> None:
        self.nursery: trio.Nursery | None = None
        self._links = links
        self._opens = opens
        self._slots = slots
        self._carrier = carrier

    def take_off(self, request: Request[Any], shape: Shape) -> Answer[Any] | None:
        """Send it now; None when something has to be waited for first."""
        link = self._links.now
        if link is None or self.nursery is None:
            return None
        change = None
        if is_change(request):
            change = self._slots.take_now(link.session)
            if change is None:
                return None
            change.sent = True
        since = self._opens.begin_opening() if opens(request) else None
        answer: Answer[Any] = Answer(lambda: self._withdraw(flight))
        flight = Flight(request, link, change, since, shape, answer, self._carrier.recalls)
        self._carrier.counters.asks(request)
        link.peer.post(
            request,
            mutation=None if change is None else change.mutation,
            done=lambda outcome, payload: self._landed(flight, outcome, payload),
        )
        return answer

    def _landed(self, flight: Flight, outcome: Message | TideError, payload: memoryview) -> None:
        """In the reading pass of the connection."""
        since = flight.since
        if isinstance(outcome, TideError):
            if outcome.code in REPEATED:
                self._go_on(flight, self._again(flight, outcome))
                return
            told: Any = outcome
        else:
            if since is not None:
                inode = opened_inode(flight.request, outcome)
                if flight.withdrawn:
                    self._carrier.unwanted(inode)
                elif self._opens.crossed(since, inode):
                    self._go_on(flight, self._opened_again(flight, since, inode, outcome, payload))
                    return
            told = flight.shape(outcome, payload)
        if since is not None:
            self._opens.end_opening()
        if flight.change is not None:
            self._slots.give_back(flight.change)
        flight.answer.tell(told)

    # --- with a task

    def _go_on(self, flight: Flight, coming: Awaitable[Any]) -> None:
        flight.scope = trio.CancelScope()
        if flight.withdrawn and flight.change is None:
            flight.scope.cancel()
        assert self.nursery is not None, "links end before it"
        self.nursery.start_soon(self._wait, flight, coming)

    async def _wait(self, flight: Flight, coming: Awaitable[Any]) -> None:
        outcome: Any = TideError(Code.DEVICE_ERROR, "the file system is being unmounted")
        assert flight.scope is not None
        try:
            with flight.scope:
                outcome = await coming
        except Exception as error:  # a bug, too, is for who asked: it must not end the client
            outcome = error
        finally:
            if flight.since is not None:
                self._opens.end_opening()
            flight.answer.tell(outcome)

    async def _again(self, flight: Flight, error: TideError) -> Any:
        request, change = flight.request, flight.change
        if change is not None:
            change.maybe_done = error.code in MAYBE_DONE
        reply, payload = await self._carrier.carry_on(request, change, Failure(flight.link, error))
        if flight.since is not None:
            await self._keep_open(flight, flight.since, opened_inode(request, reply))
        return self._late(flight, reply, payload)

    async def _opened_again(
        self, flight: Flight, since: int, inode: int, reply: Message, payload: memoryview
    ) -> Any:
        if flight.change is not None:
            self._slots.give_back(flight.change)
        await self._keep_open(flight, since, inode)
        return self._late(flight, reply, payload)

    def _late(self, flight: Flight, reply: Message, payload: memoryview) -> Any:
        """What is told by a task, and not where it came in."""
        if flight.recalls != self._carrier.recalls:
            reply = unpromised(reply)
        return flight.shape(reply, payload)

    async def _keep_open(self, flight: Flight, since: int, inode: int) -> None:
        try:
            await self._carrier.keep_open(since, inode)
        finally:
            if flight.withdrawn:
                self._carrier.unwanted(inode)

    def _withdraw(self, flight: Flight) -> None:
        """What was sent is carried to its end, if it changes something."""
        flight.withdrawn = True
        if flight.change is not None:
            self._slots.leave_alone(flight.change)
        if flight.scope is not None:
            flight.scope.cancel()
