"""What a handler gets: a request or a notice of the other side, and the way back."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .calls import NO_NUMBER, Mutation
from .codec import Buffer
from .errors import Code, TideError
from .messages.base import Message, Request

if TYPE_CHECKING:
    from .rpc import Peer


class Incoming(msgspec.Struct, eq=False):
    """A request of the other side: answer it with ``reply`` or ``fail``, once, now or later.

    To a notice there is no answer: both do nothing then.
    """

    _number: int
    request: Request[Any]
    payload: memoryview
    mutation: Mutation | None
    peer: "Peer"

    @property
    def is_notice(self) -> bool:
        """Whether nobody waits for an answer."""
        return self._number == NO_NUMBER

    def reply(self, message: Message, payload: Sequence[Buffer] = ()) -> None:
        """Answer. Does nothing when the connection is gone; a second answer is ignored."""
        self.peer._answer(self._number, message, payload)

    def fail(self, error: TideError) -> None:
        """Answer with an error."""
        self.peer._fail(self._number, error)


Handler = Callable[[Incoming], Awaitable[None] | None]
"""Called in the reading loop of the connection, so it must not take long: it answers at once,
keeps the ``Incoming`` for later, or returns an awaitable, which runs in a task of its own. A
TideError that it raises is the answer; about a notice, it is logged once for each kind and code."""


async def no_requests(incoming: Incoming) -> None:
    """The handler of a side that only asks. What it is told, it may miss."""
    if incoming.is_notice:
        return
    raise TideError(Code.UNKNOWN_METHOD, type(incoming.request).__name__)
