"""What the client must know of a request, and of the errors that may befall it. Pure."""

from typing import Any

import msgspec

from ..fs.errors import Code
from ..fs.messages.base import METHODS, Request
from ..fs.messages.locks import SetLock, Unlock, Withdraw
from ..fs.messages.meta import (
    Change,
    Compound,
    Content,
    Create,
    CreateUnnamed,
    Entry,
    Listing,
    Node,
    Open,
)

REPEATED = frozenset(
    {
        *(Code.DISCONNECTED, Code.NOT_LEADER, Code.SESSION_EXPIRED),
        *(Code.BUSY, Code.UNAVAILABLE, Code.TIMED_OUT),
    }
)
"""After these, a request is sent again, sooner or later; all others are final."""

MAYBE_DONE = frozenset({Code.TIMED_OUT, Code.DISCONNECTED, Code.NOT_LEADER, Code.UNAVAILABLE})
"""After these, a mutation may have been executed or may yet be."""

PATIENT = (SetLock, Unlock, Withdraw)
"""No time-out ends these: what became of a lock must be known. Who asks for it has a time-out."""


def is_change(request: Request[Any]) -> bool:
    """Whether the request is, or contains, a mutation."""
    if isinstance(request, Compound):
        return any(issubclass(METHODS[step.method], Change) for step in request.steps)
    return isinstance(request, Change)


def opens(request: Request[Any]) -> bool:
    """Whether the server counts an inode as open after this."""
    return isinstance(request, Open | CreateUnnamed) or (
        isinstance(request, Create) and request.open
    )


def unpromised(reply: Any) -> Any:
    """The reply, for who understands it so late that a recall may have come in behind it."""
    return msgspec.structs.replace(reply, promised=False) if _is_promised(reply) else reply


def _is_promised(reply: object) -> bool:
    return isinstance(reply, Entry | Node | Content | Listing) and reply.promised


def opened_inode(request: Request[Any], reply: object) -> int:
    """Which inode such a request has opened."""
    if isinstance(request, Open):
        return request.inode
    assert isinstance(reply, Entry | Node), reply
    return reply.attributes.inode
