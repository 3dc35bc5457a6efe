"""Answers that are on their way, told in the very pass over the connection that brings them.

A reply that wakes a task costs more than most replies take to be understood: the task must have
been made, is woken a turn of the scheduler later, and ends. So what goes out for one question, and
needs none behind it, is an ``Answer``: a list of steps for the reply, run where the reply comes in.
It can be awaited, too. And replies are then understood in the order in which the server sent them.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar, cast, overload

import trio

from ..fs.errors import TideError
from .soon import Soon

T = TypeVar("T")
U = TypeVar("U")

Failed = Callable[[TideError], object]
"""Learns from an error, which goes on to whoever asked."""
Listener = Callable[[Any], None]
"""Gets an answer, an exception, or an awaitable of what takes longer."""


class Answer(Generic[T]):
    """What somebody will ``tell``. It has one listener: a callback, or the task that awaits it.

    ``withdraw`` is called when nobody waits for it any more.
    """

    __slots__ = ("_at_end", "_listener", "_outcome", "_steps", "_told", "_withdraw")

    def __init__(self, withdraw: Callable[[], None]) -> None:
        self._withdraw = withdraw
        self._steps: list[tuple[Callable[[Any], Any], Failed | None]] = []
        self._listener: Listener | None = None
        self._outcome: Any = None
        self._told = False
        self._at_end: Callable[[], None] = _nothing

    def tell(self, outcome: T | Exception) -> None:
        """This is the answer, or why there is none."""
        told: Any = outcome
        for change, failed in self._steps:
            told = _step(told, change, failed)
        self._outcome = told
        self._told = True
        listener = self._listener
        self._end()
        if listener is not None:
            listener(told)

    def _end(self) -> None:
        """Hold nothing that holds this: such circles would have to be collected as garbage."""
        self._listener = None
        self._withdraw = _nothing
        self._steps.clear()
        self._at_end()
        self._at_end = _nothing

    def add(self, change: Callable[[T], Soon[U]], failed: Failed | None) -> "Answer[U]":
        """One step more."""
        if self._told:
            self._outcome = _step(self._outcome, change, failed)
        else:
            self._steps.append((change, failed))
        return cast("Answer[U]", self)

    def at_end(self, call: Callable[[], None]) -> None:
        """Call this when it is told, behind the steps, or when it is withdrawn."""
        if self._told:
            call()
        else:
            self._at_end = call

    def when_told(self, listener: Listener) -> None:
        """Call this; at once, if it was told already."""
        if self._told:
            listener(self._outcome)
        else:
            self._listener = listener

    def withdraw(self) -> None:
        """Nobody wants it any more: the listener hears nothing."""
        withdraw = self._withdraw
        self._end()
        withdraw()

    def __await__(self) -> Generator[Any, Any, T]:
        if not self._told:
            task = trio.lowlevel.current_task()
            self._listener = lambda _: trio.lowlevel.reschedule(task)
            yield from _parked(self._aborted).__await__()
        outcome = self._outcome
        if isinstance(outcome, Exception):
            self._outcome = None  # its traceback holds this: one more such circle
            try:
                raise outcome
            finally:
                del outcome
        if hasattr(outcome, "__await__"):
            outcome = yield from outcome.__await__()
        return cast(T, outcome)

    def _aborted(self, _: object) -> trio.lowlevel.Abort:
        self.withdraw()
        return trio.lowlevel.Abort.SUCCEEDED


def _nothing() -> None:
    """It was told, or withdrawn."""


async def _parked(abort: Callable[[Any], trio.lowlevel.Abort]) -> None:
    await trio.lowlevel.wait_task_rescheduled(abort)


def _step(outcome: Any, change: Callable[[Any], Any], failed: Failed | None) -> Any:
    try:
        if not isinstance(outcome, Exception):
            return then(outcome, change, failed)
        if failed is not None and isinstance(outcome, TideError):
            failed(outcome)
    except Exception as error:
        return error
    return outcome


@overload
def then(
    coming: Awaitable[T], change: Callable[[T], Soon[U]], failed: Failed | None = None
) -> Awaitable[U]: ...
@overload
def then(
    coming: Soon[T], change: Callable[[T], Soon[U]], failed: Failed | None = None
) -> Soon[U]: ...
def then(coming: Soon[T], change: Callable[[T], Soon[U]], failed: Failed | None = None) -> Soon[U]:
    """``change`` of what comes, as soon as it is there; a TideError goes through ``failed``."""
    if type(coming) is Answer:
        return coming.add(change, failed)
    if hasattr(coming, "__await__"):
        return _later(cast("Awaitable[T]", coming), change, failed)
    return change(coming)


async def _later(coming: Awaitable[T], change: Callable[[T], Soon[U]], failed: Failed | None) -> U:
    try:
        answer = await coming
    except TideError as error:
        if failed is not None:
            failed(error)
        raise
    return await settled(change(answer))


def finally_(coming: Awaitable[T], call: Callable[[], None]) -> Awaitable[T]:
    """``call`` when it is there, or nobody waits for it any more."""
    if isinstance(coming, Answer):
        coming.at_end(call)
        return coming
    return _finally(coming, call)


async def _finally(coming: Awaitable[T], call: Callable[[], None]) -> T:
    try:
        return await coming
    finally:
        call()


async def settled(answer: Soon[T]) -> T:
    """What comes, waited for if need be."""
    if hasattr(answer, "__await__"):
        return await cast("Awaitable[T]", answer)
    return answer
