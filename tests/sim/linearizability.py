"""Decides whether a history of operations is linearizable (Herlihy and Wing, 1990). Pure.

A history is right when each operation can be given one moment between its call and its return, so
that doing them one at a time in the order of these moments gives every answer that was seen.

The search is Wing and Gong's (1993) with Lowe's memory of what was tried (2017), as Porcupine does
it: take an operation that no other one returned before the call of, see whether the model gives its
answer, and go on from there; two ways to the same set of operations and the same state are one.
Objects that do not touch each other are searched one by one (Herlihy and Wing's locality).

An operation that never returned may take effect at any moment after its call, however late, or
never. The search may end without an answer, when its budget runs out: then nothing is claimed.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

STEPS_MAX = 300_000
SHRINK_STEPS_MAX = 20_000
"""For each answer of which it is asked whether a witness needs it; one too many does no harm."""
MAYBE_SHOWN = 12


class _Never:
    """The answer of an operation that never returned."""

    def __repr__(self) -> str:
        return "never answered"


NEVER: Any = _Never()


class Operation(NamedTuple):
    """What a client asked and what it was told. Moments are numbers of which no two are equal."""

    client: str
    what: Any
    called: float
    returned: float | None = None
    answer: Any = NEVER

    def __str__(self) -> str:
        until = "never returned" if self.returned is None else f"returned {self.returned}"
        answer = "" if self.returned is None else f" -> {self.answer}"
        return f"[called {self.called}, {until}] {self.client}: {self.what}{answer}"


class Model(NamedTuple):
    """One object, when nobody interferes."""

    initial: Hashable
    step: Callable[[Any, Any, Any], Any]
    """(state, what, answer) -> the state afterwards, or None: that answer is wrong here. With
    NEVER, of which any answer may have been lost, it gives the state afterwards in any case."""
    object_of: Callable[[Any], Hashable] = lambda what: 0
    """Which object an operation is about."""
    only_looks: Callable[[Any], bool] = lambda what: False
    """Whether an operation never changes anything: left out of a witness that does not need it."""


class Verdict(Enum):
    OK = "linearizable"
    VIOLATION = "not linearizable"
    UNKNOWN = "not decided: the budget ran out"


def check(history: Iterable[Operation], model: Model, steps_max: int = STEPS_MAX) -> Verdict:
    """Look at every object. A violation anywhere is one; ``steps_max`` is for each of them."""
    found = {
        _search(operations, model, steps_max).verdict
        for operations in _by_object(history, model).values()
    }
    for verdict in (Verdict.VIOLATION, Verdict.UNKNOWN):
        if verdict in found:
            return verdict
    return Verdict.OK


def explain(history: Iterable[Operation], model: Model, steps_max: int = STEPS_MAX) -> str:
    """Of a history that is not linearizable: what contradicts itself, in words."""
    for operations in _by_object(history, model).values():
        if _search(operations, model, steps_max).verdict is Verdict.VIOLATION:
            return _witness(operations, model, steps_max)
    return ""


def _by_object(history: Iterable[Operation], model: Model) -> dict[Hashable, list[Operation]]:
    objects: dict[Hashable, list[Operation]] = {}
    for operation in history:
        objects.setdefault(model.object_of(operation.what), []).append(operation)
    return objects


# --- the search ------------------------------------------------------------------------------


class _Found(NamedTuple):
    verdict: Verdict
    order: Sequence[int] = ()  # the longest one that was found
    state: Any = None  # after it


class _Events:
    """Calls and returns in order of time, as a list from which operations can be lifted out.

    Operation ``i`` is called at event ``2 * i`` and returns at ``2 * i + 1`` (none if it never
    did). ``following[HEAD]`` is the first one that is left; END is behind the last.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        moments = [(each.called, 2 * i) for i, each in enumerate(operations)]
        moments += [
            (each.returned, 2 * i + 1)
            for i, each in enumerate(operations)
            if each.returned is not None
        ]
        self.end = 2 * len(operations)
        self.head = self.end + 1
        self.following = [self.end] * (self.end + 2)
        self.previous = [self.head] * (self.end + 2)
        before = self.head
        for _, event in sorted(moments):
            self._join(before, event)
            before = event
        self._join(before, self.end)

    def lift(self, call: int, *, returned: bool) -> None:
        """The operation with that call is done."""
        for event in (call, call + 1) if returned else (call,):
            self._join(self.previous[event], self.following[event])

    def put_back(self, call: int, *, returned: bool) -> None:
        """Undo ``lift``; the last one first."""
        for event in (call + 1, call) if returned else (call,):
            self.following[self.previous[event]] = event
            self.previous[self.following[event]] = event

    def _join(self, before: int, after: int) -> None:
        self.following[before] = after
        self.previous[after] = before


def _search(operations: Sequence[Operation], model: Model, steps_max: int) -> _Found:
    events = _Events(operations)
    returned = [each.returned is not None for each in operations]
    left = sum(returned)
    state, done = model.initial, 0
    seen: set[tuple[int, Hashable]] = {(0, state)}
    path: list[tuple[int, Any]] = []  # operations done, and the state before each
    longest = _Found(Verdict.VIOLATION, (), state)
    event = events.following[events.head]
    for _ in range(steps_max):
        if not left:
            return _Found(Verdict.OK, [i for i, _ in path], state)
        i = event >> 1
        if event == events.end or event & 1:  # an operation returns here that is not done yet
            if not path:
                return longest
            i, state = path.pop()
            done ^= 1 << i
            left += returned[i]
            events.put_back(2 * i, returned=returned[i])
            event = events.following[2 * i]
            continue
        after = model.step(state, operations[i].what, operations[i].answer)
        way = (done | 1 << i, after)
        idle = after == state and not returned[i]  # nobody can tell whether it was done
        if after is None or idle or way in seen:
            event = events.following[event]
            continue
        seen.add(way)
        path.append((i, state))
        state, done = after, way[0]
        left -= returned[i]
        events.lift(event, returned=returned[i])
        event = events.following[events.head]
        if len(path) > len(longest.order):
            longest = _Found(Verdict.VIOLATION, [i for i, _ in path], state)
    return _Found(Verdict.UNKNOWN)


# --- what went wrong, for a person -------------------------------------------------------------


def _witness(operations: list[Operation], model: Model, steps_max: int) -> str:
    """The fewest answers that contradict each other, and how far an order gets with them.

    An answer is left out by claiming less: as if the operation had never returned. (Leaving out
    the operation would claim more: that it had no effect.)
    """

    def wrong(fewer: list[Operation], most: int = steps_max) -> bool:
        return _search(fewer, model, most).verdict is Verdict.VIOLATION

    kept = _shortest_wrong_beginning(operations, wrong)
    most = min(steps_max, SHRINK_STEPS_MAX)
    for at in reversed(range(len(kept))):
        fewer = [*kept]
        fewer[at] = fewer[at]._replace(returned=None, answer=NEVER)
        if kept[at].returned is not None and wrong(fewer, most):
            kept = fewer
    for at in reversed(range(len(kept))):
        fewer = kept[:at] + kept[at + 1 :]
        if kept[at].returned is None and model.only_looks(kept[at].what):
            kept = fewer
    return _tell(kept, _search(kept, model, steps_max))


def _shortest_wrong_beginning(
    operations: list[Operation], wrong: Callable[[list[Operation]], bool]
) -> list[Operation]:
    """Until the first return at which no order is left."""
    moments = sorted(each.returned for each in operations if each.returned is not None)

    def until(moment: float) -> list[Operation]:
        return [
            each
            if each.returned is not None and each.returned <= moment
            else each._replace(returned=None, answer=NEVER)
            for each in operations
            if each.called <= moment
        ]

    low, high = 0, len(moments) - 1
    while low < high:
        middle = (low + high) // 2
        if wrong(until(moments[middle])):
            high = middle
        else:
            low = middle + 1
    return until(moments[low])


def _tell(kept: list[Operation], longest: _Found) -> str:
    answered = [each for each in kept if each.returned is not None]
    maybe = [each for each in kept if each.returned is None]
    lines = [f"no order of these {len(answered)} operations explains their answers:"]
    lines += [f"  {each}" for each in sorted(answered, key=lambda each: each.called)]
    if maybe:
        lines.append("even if each of these may have been done at any time after its call:")
        lines += [
            f"  {each}" for each in sorted(maybe, key=lambda each: each.called)[-MAYBE_SHOWN:]
        ]
        if len(maybe) > MAYBE_SHOWN:
            lines.append(f"  (and {len(maybe) - MAYBE_SHOWN} earlier ones)")
    order = [kept[i] for i in longest.order]
    ended = f"the longest order ends in the state {longest.state!r}"
    lines.append(f"{ended}, after" if order else f"{ended}, at the beginning")
    lines += [f"  {each.client}: {each.what}" for each in order[-MAYBE_SHOWN:]]
    return "\n".join(lines)
