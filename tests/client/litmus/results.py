"""Results for tests of what is shown, made by hand."""

from hypothesis import strategies as st
from tidefs.client.litmus.catalogue import CATALOGUE
from tidefs.client.litmus.model import Event, Result, Run

STALE = Run(
    "old",
    {"before": "old", "r": "old"},
    [
        Event(1, "opens x", "", 0, 900, {"Lookup": 1, "Open": 1}),
        Event(1, "reads x", "old", 1_000, 1_100, {}),
        Event(0, "opens x to write", "", 2_000, 2_500, {"Open": 1}),
        Event(0, "writes new to x", "", 2_600, 2_700, {}),
        Event(0, "closes x", "", 2_800, 9_000, {"Commit": 1}),
        Event(None, "the leader is killed", "", 9_100, 9_900),
        Event(1, "reads x", "old", 10_000, 10_100, {}),
        Event(1, "reads x again and again", "new", 10_200, 3_010_200, {"GetContent": 1}, looks=560),
    ],
    stale_us=3_000_123,
)
FRESH = Run("new", {"r": "new"}, [Event(1, "reads x", "new", 0, 800, {"GetContent": 1})], 0)
UNMEASURED = STALE._replace(
    stale_us=None, events=[event._replace(trips=None) for event in STALE.events]
)
RACE = Run(
    "one sees",
    {"r1": "old", "r2": "new"},
    [
        Event(0, "writes new to x", "", 0, 500, raced=True),
        Event(1, "writes new to y", "", 100, 9_000, raced=True),
        Event(0, "reads y", "old", 600, 700, {"Commit": 1, "GetContent": 1}, 2, raced=True),
        Event(1, "reads x", "new", 9_100, 9_200, {"Commit": 1, "GetContent": 1}, 2, raced=True),
    ],
)

OPEN = CATALOGUE["already-open"]
BUFFERING = CATALOGUE["store-buffering"]
ALL = [
    Result(OPEN, "uncached", "uncached", [FRESH]),
    Result(OPEN, "nfs", "strict", [FRESH, STALE, UNMEASURED]),
    Result(BUFFERING, "uncached", "uncached", [RACE]),
    Result(BUFFERING, "nfs", "nfs", [RACE, RACE._replace(outcome="none sees")]),
    Result(CATALOGUE["leader-dies"], "uncached", "uncached", [], "not tried: give --kill-leader"),
    Result(CATALOGUE["leader-dies"], "nfs", "nfs", [], "not tried: give --kill-leader"),
]


@st.composite
def runs(draw, mounts=4):
    """Any run: each mount does one thing after the other, and all of them at the same time."""
    events = []
    for who in [*range(mounts), None]:
        times = sorted(draw(st.lists(st.integers(0, 40), max_size=8)))
        for began, ended in zip(times[::2], times[1::2], strict=False):
            words = draw(st.sampled_from(["closes x", "opens, reads x", "a step with many words"]))
            seen = draw(st.sampled_from(["", "old", "new x3 old x5"]))
            trips = draw(st.sampled_from([None, {}, {"Open": 2}]))
            raced = who is not None and draw(st.booleans())
            events.append(Event(who, words, seen, began, ended, trips, raced=raced))
    events.sort(key=lambda event: event.began_us)
    return Run("old", {}, events)
