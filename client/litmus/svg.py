"""A timeline as SVG that stands in a page: colours and letters are the page's (style.py). Pure."""

from collections.abc import Iterator
from html import escape

from .timeline import HEAD, LINE, TOGETHER, Bar, Line, Mark, Question, Text, Timeline

_FIRST_LINE = 9
_CROSS = 5
_BESIDE = 36
_UNDER = 8
"""From the line of a mount, and from that of the answer, to the words about round trips."""
_TOLD = frozenset({"old", "new"})
"""What is seen of bytes has a colour of its own."""


def drawn(timeline: Timeline, title: str) -> str:
    """One ``<svg>`` element. ``title`` is what a screen reader says."""
    return "".join(
        (
            f'<svg viewBox="0 0 {timeline.width} {timeline.height}" width="{timeline.width}"'
            f' height="{timeline.height}" role="img"><title>{escape(title)}</title>',
            *_parts(timeline),
            "</svg>",
        )
    )


def _parts(timeline: Timeline) -> Iterator[str]:
    for top, bottom in timeline.bands:
        for y in (top, bottom):
            yield _segment("race", 0, y, timeline.width, y)
        yield _text(0, top + _FIRST_LINE + 5, "faint", TOGETHER)
    for line in timeline.lines:
        yield from _line(line, timeline.height)
    for moment in timeline.moments:
        yield _text(0, moment.y + _FIRST_LINE, "faint", escape(moment.words))
    for question in timeline.questions:
        yield from _question(question)
    for bar in timeline.bars:
        yield from _bar(bar)
    for question in timeline.questions:
        yield _count(question)
    for mark in timeline.marks:
        yield from _mark(mark)


def _text(x: int, y: int, kind: str, inner: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{inner}</text>'


def _segment(kind: str, x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _line(line: Line, height: int) -> Iterator[str]:
    yield _text(line.x, HEAD - 14, "who", escape(line.name), "middle")
    yield _segment("life", line.x, HEAD - 6, line.x, height)


def _bar(bar: Bar) -> Iterator[str]:
    kind = "step measured" if bar.measured else "step"
    yield (
        f'<rect class="{kind}" x="{bar.x - 3}" y="{bar.top}" width="6"'
        f' height="{bar.bottom - bar.top}" rx="3"/>'
    )
    anchor = "end" if bar.label_left else "start"
    for number, text in enumerate(bar.texts):
        y = bar.top + _FIRST_LINE + number * LINE
        yield _text(bar.label_x, y, "faint" if text.faint else "label", _inner(text), anchor)


def _inner(text: Text) -> str:
    words = " ".join(
        _value(word) if word in _TOLD else escape(word) for word in text.words.split(" ")
    )
    return words + (_value(text.value) if text.value else "")


def _value(value: str) -> str:
    kind = f"value {value}" if value in _TOLD else "value"
    return f'<tspan class="{kind}">{escape(value)}</tspan>'


def _question(question: Question) -> Iterator[str]:
    """There at the beginning, and back at the end."""
    x, to_x, top, bottom = question.x, question.to_x, question.top + 3, question.bottom - 3
    yield _segment("trip", x, top, to_x, top)
    yield _segment("trip back", to_x, bottom, x, bottom)
    yield (
        f'<rect class="asked" x="{to_x - 3}" y="{top}" width="6" height="{bottom - top}" rx="3"/>'
    )


def _count(question: Question) -> str:
    """Over the lines of all questions: those of a race may cross."""
    x = question.x + (_BESIDE if question.x < question.to_x else -_BESIDE)
    return _text(x, question.bottom - 3 - _UNDER, "count", question.words, "middle")


def _mark(mark: Mark) -> Iterator[str]:
    x, y = mark.x, mark.y
    yield _segment("death", x - _CROSS, y - _CROSS, x + _CROSS, y + _CROSS)
    yield _segment("death", x - _CROSS, y + _CROSS, x + _CROSS, y - _CROSS)
    yield _text(x + 2 * _CROSS, y + 4, "label", escape(mark.words))
