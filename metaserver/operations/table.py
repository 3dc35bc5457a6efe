"""The table of operations, and how one is written.

An operation is a function with two halves. The outer one decides: it reads the tables, raises
TideError when the request cannot be done, and changes nothing. What it returns is the inner one,
which does what was decided, and cannot fail. So an error leaves no trace, and a precheck is the
outer half alone::

    @operation(Unlink)
    def unlink(tables: Tables, request: Unlink, payload: bytes) -> Perform:
        directory = ...                       # may raise
        def perform(moment: Moment) -> Message:
            ...                               # changes the tables
            return Removed(...)
        return perform

An error that is the outcome of having done something is returned by the inner half, not raised:
there is one, the conversion of a flock(2) that gave up what was held and got nothing for it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ...fs.codec import Buffer, convert
from ...fs.errors import Code, TideError
from ...fs.ids import NO_SESSION
from ...fs.messages.base import Message, Request
from ..moment import Moment
from ..tables import Tables

Q = TypeVar("Q", bound=Request[Any])

Perform: TypeAlias = Callable[[Moment], Message | TideError]
"""The second half: does it, and gives the reply."""

Operation: TypeAlias = Callable[[Tables, Q, Buffer], Perform]

SessionOperation: TypeAlias = Callable[[Tables, Q, int], Perform]
"""One that depends on whose it is: it gets the session, and has no payload."""


class Row(NamedTuple):
    """A request, and the operation that carries it out: one of the two."""

    request: type[Request[Any]]
    operation: Operation[Any] | None = None
    of_session: SessionOperation[Any] | None = None


OPERATIONS: dict[int, Row] = {}
"""Every change of the state, by method number."""


def operation(request: type[Q]) -> Callable[[Operation[Q]], Operation[Q]]:
    """Make a function the operation that carries out ``request``."""

    def register(function: Operation[Q]) -> Operation[Q]:
        assert request.METHOD not in OPERATIONS, request.__name__
        OPERATIONS[request.METHOD] = Row(request, function)
        return function

    return register


def session_operation(
    request: type[Q],
) -> Callable[[SessionOperation[Q]], SessionOperation[Q]]:
    """As ``operation``, for a function that is told the session."""

    def register(function: SessionOperation[Q]) -> SessionOperation[Q]:
        assert request.METHOD not in OPERATIONS, request.__name__
        OPERATIONS[request.METHOD] = Row(request, of_session=function)
        return function

    return register


def decide(
    tables: Tables, method: int, fields: list[object], payload: Buffer, session: int = NO_SESSION
) -> Perform:
    """The first half of the operation that ``method`` names.

    UNKNOWN_METHOD or MALFORMED when there is none, or ``fields`` are not its request's.
    """
    row = OPERATIONS.get(method)
    if row is None:
        raise TideError(Code.UNKNOWN_METHOD, f"method {method:#06x} is not a change of the state")
    request = convert(row.request, fields)
    if row.of_session is not None:
        return row.of_session(tables, request, session)
    assert row.operation is not None
    return row.operation(tables, request, payload)
