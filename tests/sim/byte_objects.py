"""What the bytes of a file are in a history when nobody interferes. Pure.

A file is a row of *units* of the same length. Each write(2) fills some of them with a tag of its
own, so that what is read tells whose it is; what nobody wrote is zeros, and has the tag 0.

Whether a write(2) of several units may be seen in part is up to the caching mode. Where it may
not, the file is one object, and its state the tuple of its tags. Where it may, each unit is an
object of its own (``unit_by_unit``), with the state () when the file ends before it, else (tag,).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from .linearizability import NEVER, Operation

OK = "ok"
SPLIT = 1e-4
"""Between the calls of parts of an operation: moments are whole numbers, and no two are equal."""

Tags: TypeAlias = tuple[int, ...]


class Put(NamedTuple):
    """pwrite(2) of so many units."""

    file: str
    first: int
    units: int
    tag: int


class Append(NamedTuple):
    """write(2) of one unit with O_APPEND."""

    file: str
    tag: int


class Cut(NamedTuple):
    """ftruncate(2) to so many units, which may be more than there are."""

    file: str
    units: int


class Get(NamedTuple):
    """pread(2) of so many units: the tags, fewer at the end of the file."""

    file: str
    first: int
    units: int


class Size(NamedTuple):
    """stat(2) or fstat(2): how many units there are."""

    file: str


What: TypeAlias = Put | Append | Cut | Get | Size


class AtUnit(NamedTuple):
    """What an operation does to one unit, or says of it."""

    what: Put | Cut | Get | Size
    unit: int


ON_FILES = (Put, Append, Cut, Get, Size)
ON_BYTES = (*ON_FILES, AtUnit)


def place(what: What | AtUnit) -> tuple[str, int]:
    """Which object it is about: a file, or a unit of a file."""
    return (what.what.file, what.unit) if isinstance(what, AtUnit) else (what.file, -1)


def do(tags: Tags, what: What | AtUnit) -> tuple[Tags, object]:
    """The state afterwards, and the answer."""
    if isinstance(what, AtUnit):
        return _do_at_unit(tags, what.what, what.unit)
    match what:
        case Put(_, first, units, tag):
            grown = _of_length(tags, max(len(tags), first + units))
            return (*grown[:first], *[tag] * units, *grown[first + units :]), OK
        case Append(_, tag):
            return (*tags, tag), OK
        case Cut(_, units):
            return _of_length(tags, units), OK
        case Get(_, first, units):
            return tags, tags[first : first + units]
        case Size():
            return tags, len(tags)


def _of_length(tags: Tags, units: int) -> Tags:
    return tags[:units] + (0,) * (units - len(tags))


def _do_at_unit(tag: Tags, what: Put | Cut | Get | Size, unit: int) -> tuple[Tags, object]:
    match what:
        case Put(_, first, units, put):
            if first <= unit < first + units:
                return (put,), OK
            return (tag or (0,) if unit < first else tag), OK
        case Cut(_, units):
            return (tag or (0,) if unit < units else ()), OK
        case Get():
            return tag, tag
        case Size():
            return tag, bool(tag)


# --- histories, taken apart --------------------------------------------------------------------


def unit_by_unit(
    history: Iterable[Operation], units_of: Callable[[str], int]
) -> Iterator[Operation]:
    """The same history, where of some files each unit is an object of its own.

    ``units_of``: how many units such a file has; 0: it is one object.

    A write(2) that never returned may be there in part in either case: its client sent some of its
    blocks before it died, or gave up after some. So it becomes writes of single units, each of
    which may have happened. (A unit is sent as a whole: see ``byte_witness.py``.)
    """
    for operation in history:
        for each in _parts(operation):
            units = units_of(each.what.file) if isinstance(each.what, ON_FILES) else 0
            if units:
                yield from _apart(each, units)
            else:
                yield each


def _parts(operation: Operation) -> Iterator[Operation]:
    """What of it may be there without the rest."""
    what = operation.what
    if not isinstance(what, Put) or operation.answer is not NEVER:
        yield operation
        return
    for at in range(what.units):
        unit = what._replace(first=what.first + at, units=1)
        yield operation._replace(what=unit, called=operation.called + at * SPLIT)


def _apart(operation: Operation, units: int) -> Iterator[Operation]:
    what = operation.what
    some = range(what.first, what.first + what.units) if isinstance(what, Get) else range(units)
    for unit in some:
        answer = _answer_at(what, operation.answer, unit)
        yield operation._replace(what=AtUnit(what, unit), answer=answer)


def _answer_at(what: What, answer: Any, unit: int) -> Any:
    """What an answer about the file says of one unit."""
    if answer is NEVER:
        return NEVER
    if isinstance(what, Get) and isinstance(answer, tuple):
        at = unit - what.first
        return answer[at : at + 1]
    if isinstance(what, Size) and isinstance(answer, int):
        return unit < answer
    return answer
