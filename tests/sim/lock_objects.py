"""What a lock is in a history when nobody interferes: who holds it, and the newest token. Pure.

Nobody waits here: who cannot have it is told so. A session's end takes its locks away; it is an
operation of its own, which nobody asked for, and after it that session is answered nothing more.
"""

from typing import NamedTuple, TypeAlias

from tidefs.fs.errors import Code

OK = "ok"
BLOCKED = Code.WOULD_BLOCK.name
LOST = -1
"""The token of a grant whose answer was lost."""


class Holder(NamedTuple):
    """Who has it. ``token`` says since when."""

    session: int
    owner: int
    exclusive: bool
    token: int = LOST


Held: TypeAlias = tuple[Holder, ...]
State: TypeAlias = tuple[Held, int, tuple[int, ...]]
"""Who holds it, the newest token, and which sessions are over; () in the beginning."""


class TryLock(NamedTuple):
    """Take it, or be told BLOCKED; the answer is the token. ``whole``: as flock(2), which gives up
    what it had before it tries."""

    lock: str
    session: int
    owner: int
    exclusive: bool
    whole: bool


class Free(NamedTuple):
    """Give it back, if it is held."""

    lock: str
    session: int
    owner: int


class Holders(NamedTuple):
    """Who holds it: (session, owner, exclusive, token), sorted."""

    lock: str


class Ended(NamedTuple):
    """The session is over."""

    lock: str
    session: int


ON_LOCKS = (TryLock, Free, Holders, Ended)


def do(state: State | tuple[()], what: object, answer: object) -> tuple[State, object]:
    """The state afterwards, and the answer. Of an answer that is a token only the server knows
    which: one that is newer than all before is right."""
    held, newest, over = state or ((), 0, ())
    if isinstance(what, TryLock | Free) and what.session in over:
        return (held, newest, over), "SESSION_EXPIRED"
    match what:
        case Holders():
            return (held, newest, over), held
        case Ended(_, session):
            left = tuple(one for one in held if one.session != session)
            return (left, newest, tuple(sorted({*over, session}))), OK
        case Free(_, session, owner):
            return (_without(held, session, owner), newest, over), OK
        case TryLock():
            return _try(held, newest, over, what, answer)
    raise AssertionError(what)


def matches(expected: object, answer: object) -> bool:
    """Whether the answer is as expected: a token that was lost may be any."""
    if isinstance(expected, tuple) and isinstance(answer, tuple):
        if len(expected) != len(answer):
            return False
        pairs = zip(sorted(expected), sorted(answer), strict=True)
        return all(one[:3] == other[:3] and one[3] in (LOST, other[3]) for one, other in pairs)
    return expected == answer or (expected == LOST and isinstance(answer, int))


def _try(
    held: Held, newest: int, over: tuple[int, ...], what: TryLock, answer: object
) -> tuple[State, object]:
    _, session, owner, exclusive, whole = what
    others = _without(held, session, owner)
    own = next((one for one in held if one not in others), None)
    if own is not None and own.exclusive == exclusive:
        return (held, newest, over), own.token
    if any(exclusive or other.exclusive for other in others):
        return (others if whole else held, newest, over), BLOCKED
    token = answer if isinstance(answer, int) and answer > newest else LOST
    if isinstance(answer, int) and token == LOST:
        return (held, newest, over), f"a token above {newest}"
    after = tuple(sorted((*others, Holder(session, owner, exclusive, token))))
    return (after, max(newest, token), over), token


def _without(held: Held, session: int, owner: int) -> Held:
    return tuple(one for one in held if (one.session, one.owner) != (session, owner))
