"""Tables, page and JSON say what was found."""

import json
import re
from html.parser import HTMLParser

import pytest
from tidefs.client.litmus import tables
from tidefs.client.litmus.as_json import as_json
from tidefs.client.litmus.catalogue import CATALOGUE
from tidefs.client.litmus.model import FAILED, UNFORESEEN, Result, Run
from tidefs.client.litmus.page import Heading, page
from tidefs.client.litmus.promises import MEANING, MODES
from tidefs.client.litmus.style import SHEET
from tidefs.client.litmus.words import number_of, staleness, time_of, verdict
from tidefs.tests.client.litmus.results import ALL, BUFFERING, OPEN, RACE, STALE, UNMEASURED

HEADING = Heading("/a & b", "2026-01-02 03:04 UTC", 3)
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Reads a page: every element is closed in its turn; ``text`` is what a person sees."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.tags, self.ids = [], [], [], []
        self.links = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        self.ids.append(found.get("id"))
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.seen.append(data)

    @property
    def text(self):
        return " ".join("".join(self.seen).split())


@pytest.fixture(scope="module")
def read():
    reader = Reader(page(HEADING, ALL))
    assert not reader.open
    return reader


def test_the_table_fits_a_terminal():
    everything = [
        Result(test, mode, mode, [Run(name, {}, []) for name in names for _ in range(345)])
        for test in CATALOGUE.values()
        for mode in MODES
        for names in [[one.name for one in test.outcomes] + [FAILED, UNFORESEEN]]
    ]
    lines = list(tables.summary([*everything[:8], *ALL]))
    assert max(map(len, lines)) <= tables.WIDTH
    assert any("FORBIDDEN" in line for line in lines)
    for result in ALL:
        assert max(map(len, tables.steps(result))) <= tables.WIDTH


def test_the_table_says_what_is_wrong():
    lines = list(tables.summary(ALL))
    cells = [re.split(r" {2,}", line) for line in lines]
    assert cells[0] == ["TEST", "MODE", "ALLOWED", "OBSERVED", "STALE", "TRIPS"]
    assert cells[1] == ["already-open", "uncached", "ok", "new", "new x1", "0 ms", "1"]
    assert cells[2] == ["", "nfs", "NO", "new", "new x1, old x2", "3000 ms", "4"]
    text = " ".join(lines)
    assert "FORBIDDEN: nfs, already-open: B keeps seeing the file as it was. Promised by" in text
    assert "every outcome that was seen is allowed" not in text
    assert list(tables.summary(ALL[2:]))[-1] == "every outcome that was seen is allowed"


def test_steps_in_words():
    first, *lines = tables.steps(ALL[1])
    assert first == "already-open, nfs: old"
    assert " ".join(lines[0].split()) == "0.0 ms B opens x (0.9 ms, 2 round trips)"
    assert " ".join(lines[5].split()) == "9.1 ms servers the leader is killed (0.8 ms)"
    assert "B reads x again and again: new (3,000 ms, 1 round trip)" in lines[-1]


def test_what_is_not_known_is_a_dash():
    unknown = Result(OPEN, "nfs", "nfs", [UNMEASURED])
    assert (staleness(unknown), number_of(unknown.trips)) == ("-", "-")
    endless = Result(OPEN, "nfs", "nfs", [STALE._replace(fresh=False)])
    assert staleness(endless) == "> 3000 ms"
    assert [time_of(us) for us in (0, 1_234, 45_678, 2_345_678, 23_456_789)] == [
        "0.0 ms",
        "1.2 ms",
        "46 ms",
        "2,346 ms",
        "23.5 s",
    ]


def test_what_is_measured_afterwards_is_no_part_of_the_cost():
    result = ALL[1]
    assert result.trips == 4
    assert result.took_us == 10_100


def test_the_picture_is_of_the_run_that_tells_the_most():
    assert ALL[1].telling is STALE, "what is forbidden, and measured"
    assert ALL[3].telling.outcome == "none sees", "the farthest from a local disk"
    assert Result(BUFFERING, "uncached", "uncached", [RACE]).telling is RACE


def test_the_page_needs_no_other_file(read):
    assert all(link.startswith("#") and link[1:] in read.ids for link in read.links)
    text = page(HEADING, ALL)
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert {tag for tag, _ in read.tags} & {"script", "img", "link", "iframe"} == set()


def test_the_page_says_what_was_seen(read):
    assert "In 1 of 4 experiments a promise was broken." in read.text
    assert "3 experiments, and every outcome" not in read.text
    assert "/a & b, 2026-01-02 03:04 UTC, 3 rounds" in read.text
    for mode in ("nfs", "uncached"):
        assert MEANING[mode] in read.text
    for result in ALL:
        assert result.test.question in read.text
        assert result.promise.because in read.text or result.skipped
    assert "forbidden: B keeps seeing the file as it was" in read.text
    assert "The old state was shown for 3000 ms." in read.text
    assert "not tried: give --kill-leader" in read.text
    assert "As promised by strict:" in read.text
    fine = Reader(page(HEADING, ALL[2:]))
    assert "every outcome is one that the mode allows" in fine.text


def test_colour_is_never_alone(read):
    """Each verdict has a sign, and a name for who hears the page."""
    signs = [found for tag, found in read.tags if found.get("class") == "sign"]
    assert {found["aria-label"] for found in signs} == {"allowed", "forbidden"}
    kinds = [
        found["class"] for tag, found in read.tags if found.get("class") in ("allowed", "forbidden")
    ]
    assert len(kinds) == len(signs) == 1 + 2 * sum(verdict(one) in kinds for one in ALL)


def test_a_picture_for_each_run(read):
    figures = [tag for tag, _ in read.tags if tag == "figure"]
    pictures = [tag for tag, _ in read.tags if tag == "svg"]
    assert (len(figures), len(pictures)) == (6, 4)


def test_every_colour_has_its_name():
    assert SHEET.count("{") == SHEET.count("}")
    used = set(re.findall(r"var\(--(\w+)\)", SHEET)) - {"least"}
    light, dark = [re.findall(r"--(\w+):", part) for part in SHEET.split("@media screen")]
    assert used == set(light) == set(dark)


def test_json_has_everything():
    found = json.loads(json.dumps(as_json(ALL)))
    stale = found[1]
    assert stale["forbidden"] == ["old"]
    assert stale["observed"] == {"new": 1, "old": 2}
    assert stale["allowed"] == ["new"]
    assert stale["judged_as"] == "strict"
    assert (stale["stale_us"], stale["became_fresh"]) == (3_000_123, True)
    assert stale["steps"][0]["round_trips"] == {"Lookup": 1, "Open": 1}
    assert [step["mount"] for step in stale["steps"]] == [*"BBAAA", None, *"BB"]
    assert found[2]["stale_us"] is None
    assert found[4]["skipped"]
    assert found[4]["steps"] == []
