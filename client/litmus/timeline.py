"""Where the parts of a picture of one run are: time goes down, each mount has a line. Pure.

A space-time diagram as in Lamport 1978. The order of all beginnings and ends is kept, and distances
are not: a step that takes seconds stands beside one that takes microseconds. So two steps overlap
in the picture exactly when they did.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from .model import Event, Run
from .steps import NAMES
from .words import time_of

TIME_WIDTH = 58
LABEL_WIDTH = 138
LABEL_GAP = 10
REACH = 74
"""From the line of a mount beside the servers to theirs."""
HEAD = 34
FOOT = 12
LINE = 15
GAP = 11
BAND = 2 * LINE
"""Above the first step of a race, for the words that say so."""
LABEL_CHARACTERS = 21
SERVERS = "servers"
TOGETHER = "at the same time"


class Line(NamedTuple):
    """The life of a mount, or of the servers."""

    name: str
    x: int


class Text(NamedTuple):
    """One line of a label. ``value``: what was seen, behind the words."""

    words: str
    value: str = ""
    faint: bool = False


class Bar(NamedTuple):
    """A step, from its beginning to its end, and its label: beside it, away from the servers."""

    x: int
    top: int
    bottom: int
    label_x: int
    label_left: bool
    texts: tuple[Text, ...]
    measured: bool


class Question(NamedTuple):
    """Round trips between a mount (``x``) and the servers (``to_x``), during a step, or during all
    steps of that mount in a race."""

    x: int
    to_x: int
    top: int
    bottom: int
    trips: int

    @property
    def words(self) -> str:
        return f"{self.trips} trip{'' if self.trips == 1 else 's'}"


class Mark(NamedTuple):
    """What happens to the servers."""

    x: int
    y: int
    words: str


class Moment(NamedTuple):
    """A time at the edge."""

    y: int
    words: str


class Timeline(NamedTuple):
    """Everything that is drawn, in pixels. ``bands``: from and to where mounts ran a race."""

    width: int
    height: int
    lines: tuple[Line, ...]
    bars: tuple[Bar, ...]
    questions: tuple[Question, ...]
    marks: tuple[Mark, ...]
    moments: tuple[Moment, ...]
    bands: tuple[tuple[int, int], ...]


class _Lanes(NamedTuple):
    xs: list[int]
    servers_x: int
    width: int
    left: int

    def label_x(self, who: int) -> int:
        return self.xs[who] + (-LABEL_GAP if who < self.left else LABEL_GAP)


def lay_out(run: Run, mounts: int) -> Timeline:
    """The picture of a run of a test with so many mounts."""
    lanes = _lanes(mounts)
    rows = _rows(run.events)
    names = [Line(NAMES[who], x) for who, x in enumerate(lanes.xs)]
    bars, questions, marks = [], [], []
    for event, (top, bottom) in zip(run.events, rows, strict=True):
        if event.who is None:
            marks.append(Mark(lanes.servers_x, (top + bottom) // 2, event.words))
            continue
        bars.append(_bar(event, top, bottom, lanes))
        if count := sum((event.trips or {}).values()):
            first = _first_of(event, run.events, rows) if event.raced else top
            x = lanes.xs[event.who]
            questions.append(Question(x, lanes.servers_x, first, bottom, count))
    return Timeline(
        width=lanes.width,
        height=max((bottom for _, bottom in rows), default=HEAD) + GAP + FOOT,
        lines=(*names, Line(SERVERS, lanes.servers_x)),
        bars=tuple(bars),
        questions=tuple(questions),
        marks=tuple(marks),
        moments=_moments(run.events, rows),
        bands=_bands(run.events, rows),
    )


def _lanes(mounts: int) -> _Lanes:
    """The servers are in the middle, so that no label lies between a mount and them."""
    left = (mounts + 1) // 2
    room = LABEL_WIDTH + LABEL_GAP
    xs = [TIME_WIDTH + room * (who + 1) for who in range(left)]
    servers_x = xs[-1] + REACH
    xs += [servers_x + REACH + room * number for number in range(mounts - left)]
    return _Lanes(xs, servers_x, servers_x + REACH + room * (mounts - left), left)


def _rows(events: Sequence[Event]) -> list[tuple[int, int]]:
    """Top and bottom of each: in the order of time, with room for the label between them."""
    moments = [
        (at_us, kind, index)
        for index, event in enumerate(events)
        for kind, at_us in enumerate((event.began_us, max(event.ended_us, event.began_us + 1)))
    ]
    # What ends when something else begins has ended before.
    moments.sort(key=lambda moment: (moment[0], -moment[1], moment[2]))
    tops: dict[int, int] = {}
    bottoms: dict[int, int] = {}
    y, in_race = HEAD, False
    for _, kind, index in moments:
        y += GAP
        if events[index].raced != in_race:
            y += GAP if in_race else BAND
            in_race = not in_race
        if kind == 0:
            tops[index] = y
        else:
            y = max(y, tops[index] + LINE * len(_texts(events[index])))
            bottoms[index] = y
    return [(tops[index], bottoms[index]) for index in range(len(events))]


def _first_of(last: Event, events: Sequence[Event], rows: Sequence[tuple[int, int]]) -> int:
    """Where a mount's first step in the race begins."""
    raced = zip(events, rows, strict=True)
    return min(top for event, (top, _) in raced if event.raced and event.who == last.who)


def _texts(event: Event) -> tuple[Text, ...]:
    """The words, what was seen, and how long it took."""
    value = f" {event.seen}" if event.seen else ""
    words = event.words + (":" if value else "")
    lines = textwrap.wrap(words + value, LABEL_CHARACTERS) or [""]
    texts = [Text(line) for line in lines]
    if value and lines[-1].endswith(event.seen):
        texts[-1] = Text(lines[-1].removesuffix(event.seen), event.seen)
    took = f"{event.looks:,} times in " if event.looks else ""
    took += time_of(event.ended_us - event.began_us)
    return (*texts, Text(took, faint=True))


def _bar(event: Event, top: int, bottom: int, lanes: _Lanes) -> Bar:
    assert event.who is not None
    return Bar(
        x=lanes.xs[event.who],
        top=top,
        bottom=bottom,
        label_x=lanes.label_x(event.who),
        label_left=event.who < lanes.left,
        texts=_texts(event),
        measured=bool(event.looks),
    )


def _moments(events: Sequence[Event], rows: Sequence[tuple[int, int]]) -> tuple[Moment, ...]:
    """When each step began after the first one, where there is room for it."""
    found: list[Moment] = []
    start_us = min((event.began_us for event in events), default=0)
    for top, at_us in sorted(
        (top, event.began_us) for event, (top, _) in zip(events, rows, strict=True)
    ):
        if not found or top - found[-1].y >= LINE:
            found.append(Moment(top, time_of(at_us - start_us)))
    return tuple(found)


def _bands(events: Sequence[Event], rows: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    raced = [row for event, row in zip(events, rows, strict=True) if event.raced]
    if not raced:
        return ()
    return ((min(top for top, _ in raced) - BAND, max(end for _, end in raced) + GAP // 2),)


def width_of(mounts: int) -> int:
    """How wide a picture with so many mounts is."""
    return _lanes(mounts).width
