"""Results for a terminal: a table of at most 100 columns, and the steps one by one. Pure."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from .model import Event, Result
from .steps import NAMES
from .words import (
    UNKNOWN,
    complaint,
    expected,
    number_of,
    observed,
    staleness,
    time_of,
    trips_of,
)

WIDTH = 100
_COLUMNS = (
    ("TEST", 22),
    ("MODE", 8),
    ("", 2),
    ("ALLOWED", 22),
    ("OBSERVED", 19),
    ("STALE", 10),
    ("TRIPS", 5),
)
assert sum(width for _, width in _COLUMNS) + 2 * (len(_COLUMNS) - 1) <= WIDTH


def summary(results: Sequence[Result]) -> Iterator[str]:
    """The table, and a sentence for each forbidden outcome."""
    yield from _row([name for name, _ in _COLUMNS])
    told = ""
    for result in results:
        name = result.test.name
        yield from _row(["" if name == told else name, *_cells(result)])
        told = name
    wrong = [result for result in results if result.forbidden]
    yield ""
    for result in wrong:
        yield from textwrap.wrap(f"FORBIDDEN: {complaint(result)}", WIDTH)
    if not wrong:
        yield "every outcome that was seen is allowed"


def steps(result: Result) -> Iterator[str]:
    """What happened in the run that tells the most: when, who, what, what was seen."""
    run = result.telling
    yield f"{result.test.name}, {result.mode}: {result.skipped or (run and run.outcome)}"
    for event in run.events if run else ():
        who = "servers" if event.who is None else NAMES[event.who]
        seen = f": {event.seen}" if event.seen else ""
        line = f"  {time_of(event.began_us):>9} {who} {_raced(event)}{event.words}{seen}"
        took = [time_of(event.ended_us - event.began_us), trips_of(event)]
        yield from textwrap.wrap(
            f"{line} ({', '.join(filter(None, took))})", WIDTH, subsequent_indent=" " * 14
        )


def _raced(event: Event) -> str:
    """A race is told from what is done in turn."""
    return "| " if event.raced else ""


def _cells(result: Result) -> list[str]:
    if result.skipped:
        return [result.mode, UNKNOWN, expected(result), result.skipped, UNKNOWN, UNKNOWN]
    sign = "NO" if result.forbidden else "ok"
    counts = [staleness(result), number_of(result.trips)]
    return [result.mode, sign, expected(result), observed(result), *counts]


def _row(cells: Sequence[str]) -> Iterator[str]:
    wrapped = [
        textwrap.wrap(cell, width) or [""] for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
    ]
    for line in zip_longest(*wrapped, fillvalue=""):
        padded = [part.ljust(width) for part, (_, width) in zip(line, _COLUMNS, strict=True)]
        yield "  ".join(padded).rstrip()
