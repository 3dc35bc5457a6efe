"""Compound: steps carried out in order, each on what the one before answered with.

NFSv4's idea (RFC 8881 section 2.3): one round trip for lookup + open + layout. The first failure
ends it; what was done before stays done, and is answered.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ..fs.codec import Buffer, convert
from ..fs.errors import Code, TideError
from ..fs.messages.base import METHODS, Message, Request
from ..fs.messages.meta import CURRENT, Change, Compound, Compounded, Outcome, Step
from .service_reads import Answer

STEPS_MAX = 32
_INODE_FIELDS = frozenset({"inode", "parent", "new_parent"})
_OF_THE_CALL = frozenset(
    {
        Code.BUSY,
        Code.NOT_LEADER,
        Code.SESSION_EXPIRED,
        Code.STALE_SEQUENCE,
        Code.MALFORMED,
        Code.INTERNAL,
    }
)
"""Failures that are not of one step: the whole call ends with them."""

Perform = Callable[[Request[Any]], Answer | Awaitable[Answer]]


def parse(compound: Compound) -> list[Step]:
    """The steps, after a check of what makes a compound."""
    steps = compound.steps
    if not 0 < len(steps) <= STEPS_MAX:
        raise TideError(Code.INVALID, f"a compound of {len(steps)} steps; 1 to {STEPS_MAX} can be")
    kinds = [METHODS.get(step.method) for step in steps]
    if Compound in kinds:
        raise TideError(Code.INVALID, "a compound in a compound")
    if sum(kind is not None and issubclass(kind, Change) for kind in kinds) > 1:
        raise TideError(Code.INVALID, "a compound with more than one change")
    return steps


class Run:
    """One compound under way."""

    def __init__(self, steps: list[Step], perform: Perform) -> None:
        self._steps = steps
        self._perform = perform
        self._outcomes: list[Outcome] = []
        self._current = CURRENT
        self._payload: Buffer = b""

    def start(self) -> Answer | Awaitable[Answer]:
        """The answer, at once when all steps were answered at once."""
        for at, step in enumerate(self._steps):
            try:
                found = self._perform(self._request(step))
            except TideError as error:
                return self._end(error)
            if not isinstance(found, Answer):
                return self._go_on(found, at + 1)
            self._note(found)
        return self._end(None)

    async def _go_on(self, waiting: Awaitable[Answer], at: int) -> Answer:
        try:
            self._note(await waiting)
            for step in self._steps[at:]:
                found = self._perform(self._request(step))
                self._note(found if isinstance(found, Answer) else await found)
        except TideError as error:
            return self._end(error)
        return self._end(None)

    def _request(self, step: Step) -> Request[Any]:
        kind = METHODS.get(step.method)
        if kind is None:
            raise TideError(Code.UNKNOWN_METHOD, f"step {step.method:#06x}")
        fields = list(step.fields)
        for at, name in enumerate(kind.__struct_fields__[: len(fields)]):
            if name in _INODE_FIELDS and fields[at] == CURRENT:
                fields[at] = self._current
        return convert(kind, fields)

    def _note(self, answer: Answer) -> None:
        message = answer.message
        self._outcomes.append(Outcome(list(msgspec.structs.astuple(message))))
        self._payload = answer.payload or self._payload
        self._current = _inode_of(message) or self._current

    def _end(self, error: TideError | None) -> Answer:
        if error is None:
            return Answer(Compounded(self._outcomes, 0, ""), self._payload)
        if error.code in _OF_THE_CALL:
            raise error
        return Answer(Compounded(self._outcomes, int(error.code), error.detail), self._payload)


def _inode_of(message: Message) -> int:
    attributes = getattr(message, "attributes", None)
    return attributes.inode if attributes is not None else 0
