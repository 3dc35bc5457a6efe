"""The small helpers: quantities, back-off, logging."""

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidefs.fs import log
from tidefs.fs.backoff import Backoff
from tidefs.fs.errors import TideError
from tidefs.fs.quantities import format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    {
        "0": 0,
        "4096": 4096,
        "64 MiB": 64 << 20,
        "1.5GiB": 3 << 29,
        "10 GB": 10**10,
        "8k": 8192,
        " 2 TIB ": 2 << 40,
        "7 B": 7,
        "0.1 kB": 100,
    }.items(),
)
def test_sizes(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [("250ms", 250), ("5s", 5000), ("1.5 min", 90_000), ("2h", 7_200_000), ("1m", 60_000)],
)
def test_durations(text, duration_ms):
    assert parse_duration(text) == duration_ms


@pytest.mark.parametrize("text", ["", "x", "-1", "5 parsecs", "1e3", "1.MiB", "٣", "5 5", "1.5.5k"])
def test_what_is_no_quantity(text):
    with pytest.raises(TideError, match="is not a size"):
        parse_size(text)
    with pytest.raises(TideError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    {
        0: "0 B",
        1023: "1023 B",
        1024: "1 KiB",
        1536: "1.5 KiB",
        64 << 20: "64 MiB",
        5 << 40: "5 TiB",
        123 << 29: "62 GiB",
    }.items(),
)
def test_format_size(size_bytes, text):
    assert format_size(size_bytes) == text


class Drawn:
    """A randomness that gives what it is told."""

    def __init__(self, fraction):
        self.fraction = fraction

    def bytes(self, count):
        return bytes(count)

    def below(self, limit):
        return int((limit - 1) * self.fraction)


@given(st.floats(0, 1))
def test_backoff_doubles_to_its_limit_and_begins_anew(fraction):
    backoff = Backoff(Drawn(fraction), first_ms=10, max_ms=100)
    for bound_ms in (10, 20, 40, 80, 100, 100):
        assert bound_ms / 2 <= backoff.next_ms() <= bound_ms
    assert backoff.next_ms(at_least_ms=500) == 500
    backoff.reset()
    assert backoff.next_ms() <= 10


def test_a_record_is_one_line():
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        log.set_up("info", stream=stream, who="metaserver")
        logging.getLogger("tidefs.x").debug("unseen")
        logging.getLogger("tidefs.x").info("two\nlines")
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("tidefs.x").exception("it failed")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("metaserver 2")
    assert lines[0].endswith("INFO    tidefs.x: two")
    assert lines[1] == "    lines"
    assert [line for line in lines if not line.startswith(" ")] == [lines[0], lines[2]]
    assert lines[-1] == "    ValueError: why"


def test_a_log_level_that_does_not_exist():
    with pytest.raises(TideError, match="'loud' is not a log level"):
        log.set_up("loud")


def test_once(caplog):
    caplog.set_level("INFO")
    once = log.Once(logging.getLogger("x"))
    for _ in range(3):
        once.warn("a", "%s is down", "a")
        once.warn("b", "b is down")
    once.well("a", "a is back")
    once.well("a", "a is back")
    once.warn("a", "%s is down", "a")
    assert caplog.messages == ["a is down", "b is down", "a is back", "a is down"]
