"""The report as one HTML page that needs no other file. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

from .model import Litmus, Result
from .promises import MEANING
from .style import SHEET
from .svg import drawn
from .timeline import lay_out, width_of
from .words import (
    ALLOWED,
    FORBIDDEN,
    UNKNOWN,
    expected,
    number_of,
    observed,
    staleness,
    time_of,
    verdict,
)

SIGNS = {ALLOWED: "\N{CHECK MARK}", FORBIDDEN: "\N{MULTIPLICATION X}"}
"""Beside the colour: nobody must tell green from red."""

_DOT = " \N{MIDDLE DOT} "

_WORDS = {
    "mount": "a place at which a computer shows the shared files. Two mounts, A and B, stand for"
    " two computers, also where both are on this one.",
    "mode": "what a mount may keep in memory instead of asking, and when it tells what was"
    " changed: so what sharing means.",
    "round trip": "a question to the servers, and their answer. What needs none is answered from"
    " the mount's own memory.",
    "stale": "how long after a change another mount still showed the old state.",
    "outcome": "what was seen in the end. A mode allows some outcomes; another one would be a"
    " broken promise.",
    "race": "steps of several mounts at the same time: between dotted lines. They are repeated,"
    " because each time may end otherwise.",
}


class Heading(NamedTuple):
    """What the results are of: the cluster, when, and how many rounds; all as text."""

    source: str
    when: str
    rounds: int


def page(heading: Heading, results: Sequence[Result]) -> str:
    """The whole page. ``results`` are in the order of tests, those of a test side by side."""
    tests = [list(group) for _, group in groupby(results, key=lambda one: one.test.name)]
    modes = list(dict.fromkeys(result.mode for result in results))
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>What sharing means</title>",
            f"<style>{SHEET}</style></head><body>",
            *_front(heading, results, modes),
            *_overview(tests, modes),
            *_legend(),
            *(part for one in tests for part in _section(one)),
            "</body></html>\n",
        )
    )


def _front(heading: Heading, results: Sequence[Result], modes: Iterable[str]) -> Iterator[str]:
    wrong = sum(bool(result.forbidden) for result in results)
    done = sum(not result.skipped for result in results)
    rounds = f"{heading.rounds} round{'' if heading.rounds == 1 else 's'}"
    yield "<header><h1>What sharing means</h1>"
    yield (
        "<p>Several computers use the same files. When does one of them see what another has"
        " changed? It depends on the mode of its mount. Each row is a small experiment, done on a"
        " real cluster.</p>"
    )
    kind, text = ALLOWED, f"{done} experiments, and every outcome is one that the mode allows."
    if wrong:
        kind, text = FORBIDDEN, f"In {wrong} of {done} experiments a promise was broken."
    yield f'<p class="{kind}">{_sign(kind)} {text}</p>'
    yield f"<p><small>{escape(heading.source)}, {escape(heading.when)}, {rounds}</small></p><dl>"
    for mode in modes:
        yield f"<dt><code>{mode}</code></dt><dd>{escape(MEANING[mode])}</dd>"
    yield "</dl></header>"


def _sign(kind: str) -> str:
    sign = SIGNS.get(kind, "")
    return f'<span class="sign" role="img" aria-label="{escape(kind)}">{sign}</span>'


def _overview(tests: Sequence[Sequence[Result]], modes: Sequence[str]) -> Iterator[str]:
    heads = "".join(f'<th scope="col"><code>{mode}</code></th>' for mode in modes)
    yield f'<table><thead><tr><th scope="col">Experiment</th>{heads}</tr></thead><tbody>'
    for results in tests:
        test = results[0].test
        link = f'<a href="#{test.name}">{test.name}</a>'
        yield f'<tr><th scope="row">{link}<small>{escape(test.question)}</small></th>'
        found = {result.mode: result for result in results}
        yield "".join(_cell(found[mode]) if mode in found else "<td></td>" for mode in modes)
        yield "</tr>"
    yield "</tbody></table>"


def _cell(result: Result) -> str:
    if result.skipped:
        return f"<td><small>{escape(result.skipped)}</small></td>"
    kind = verdict(result)
    numbers = [
        f"{name} {text}"
        for name, text in (
            ("stale", staleness(result)),
            ("round trips", number_of(result.trips)),
        )
        if text != UNKNOWN
    ]
    return (
        f'<td class="{kind}">{_sign(kind)} {escape(_times(observed(result)))}'
        f"<br><small>{escape(_DOT.join(numbers))}</small></td>"
    )


def _times(text: str) -> str:
    """``new x3`` with a sign that is not a letter."""
    return " ".join(
        f"\N{MULTIPLICATION SIGN}{part[1:]}" if part[:1] == "x" and part[1:2].isdigit() else part
        for part in text.split(" ")
    )


def _legend() -> Iterator[str]:
    yield "<section><h2>How to read the pictures</h2>"
    yield (
        "<p>Time goes down. Each mount has a line, and a step is a bar on it, from the call to its"
        " return; two bars stand side by side when they happened at the same time. Distances are"
        " not to scale: the times stand beside them. A line to the servers and back is a question"
        " and its answer, with the number of round trips; no line means that nobody was asked. In a"
        " race they are counted for all steps of a mount together. A hollow"
        " bar is a mount that looks again and again until it sees the change.</p><dl>"
    )
    for word, meaning in _WORDS.items():
        yield f"<dt>{word}</dt><dd>{meaning}</dd>"
    yield "</dl></section>"


def _section(results: Sequence[Result]) -> Iterator[str]:
    test = results[0].test
    yield f'<section id="{test.name}"><span class="name">{test.name}</span>'
    yield f"<h2>{escape(test.question)}</h2>"
    if test.before_words:
        yield f"<p>{escape(test.before_words)}</p>"
    yield f'<p class="source">{escape(test.source)}</p>'
    yield f'<div class="modes" style="--least: {width_of(test.mounts)}px">'
    for result in results:
        yield from _figure(test, result)
    yield "</div></section>"


def _figure(test: Litmus, result: Result) -> Iterator[str]:
    yield f"<figure><h3><code>{result.mode}</code></h3>"
    run = result.telling
    if run is None:
        yield f"<figcaption><p><small>{escape(result.skipped)}</small></p></figcaption></figure>"
        return
    kind, outcome = verdict(result), test.words(run.outcome)
    yield drawn(lay_out(run, test.mounts), f"{test.question} In mode {result.mode}: {outcome}.")
    yield f'<figcaption><p class="{kind}">{_sign(kind)} <b>{kind}:</b> {escape(outcome)}</p>'
    yield f"<p>Seen: {escape(_times(observed(result)))}. Allowed: {escape(expected(result))}.</p>"
    if result.stalest is not None:
        yield f"<p>The old state was shown for {staleness(result)}.</p>"
    yield f"<p>All steps together: {time_of(result.took_us)}.</p>"
    judge = "" if result.judge == result.mode else f"As promised by {result.judge}: "
    yield f"<p><small>{judge}\N{LEFT DOUBLE QUOTATION MARK}{escape(result.promise.because)}"
    yield "\N{RIGHT DOUBLE QUOTATION MARK}</small></p></figcaption></figure>"
