"""A litmus test as data, what a run of it leaves behind, and the verdict. Pure."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from .steps import File, Part, Step

FAILED = "failed"
"""The outcome of a run in which a call failed that no mode lets fail. Never allowed."""
UNFORESEEN = "unforeseen"
"""The outcome that no test has a name for, such as bytes that nobody wrote. Never allowed."""
ERROR_PREFIX = "error: "
"""How what is seen of a call that failed begins."""

Seen: TypeAlias = Mapping[str, str]
"""What was seen in a run, by the names that the steps give."""
Trips: TypeAlias = Mapping[str, int]
"""How often which question was asked of the servers."""


class Outcome(NamedTuple):
    """One way in which a test can end. ``example``: what is seen then, or for instance then."""

    name: str
    words: str
    example: Seen


class Promise(NamedTuple):
    """What a mode allows, and the sentence of docs/semantics.md that says so."""

    allowed: frozenset[str]
    because: str


class Litmus(NamedTuple):
    """One test.

    ``outcomes`` begin with what a local disk would do and end with what is farthest from it.
    ``promises`` has a row for each mode, by name. A test that ``repeats`` is a race. The steps
    ``before`` the program are not shown, but said in a few words.
    """

    name: str
    question: str
    source: str
    mounts: int
    files: tuple[File, ...]
    program: tuple[Part, ...]
    outcomes: tuple[Outcome, ...]
    classify: Callable[[Seen], str]
    promises: Mapping[str, Promise]
    repeats: int = 1
    kills: bool = False
    before: tuple[Step, ...] = ()
    before_words: str = ""

    def words(self, outcome: str) -> str:
        """An outcome as a sentence."""
        if outcome == FAILED:
            return "a call failed"
        found = (one.words for one in self.outcomes if one.name == outcome)
        return next(found, "something that nobody wrote was seen")


class Event(NamedTuple):
    """One step that was done. Times in microseconds since the run began.

    ``who`` is None for what happens to the servers. ``trips`` is None when they are not known, or
    are counted in a later step: ``trips_of`` steps together, this one being the last. ``looks`` is
    how often it was looked, in an Until.
    """

    who: int | None
    words: str
    seen: str
    began_us: int
    ended_us: int
    trips: Trips | None = None
    trips_of: int = 1
    raced: bool = False
    looks: int = 0


class Run(NamedTuple):
    """One run. ``stale_us``: how long after a change the old state was still shown, at least; None
    when that was not measured. ``fresh``: whether the new one was seen in the end."""

    outcome: str
    seen: Seen
    events: Sequence[Event]
    stale_us: int | None = None
    fresh: bool = True

    @property
    def trips(self) -> int | None:
        """Round trips of all steps, but for what was only measured; None when nobody counts."""
        told = [event.trips for event in self.events if event.trips is not None and not event.looks]
        counts = [sum(trips.values()) for trips in told]
        return sum(counts) if counts else None


class Result(NamedTuple):
    """All runs of a test in a mode. ``judge`` is the mode whose promises count; ``skipped`` says
    why there are no runs."""

    test: Litmus
    mode: str
    judge: str
    runs: Sequence[Run]
    skipped: str = ""

    @property
    def promise(self) -> Promise:
        return self.test.promises[self.judge]

    @property
    def counts(self) -> dict[str, int]:
        """How often each outcome was seen, in the order of the test's outcomes."""
        seen = Counter(run.outcome for run in self.runs)
        order = [*(one.name for one in self.test.outcomes), UNFORESEEN, FAILED]
        return {name: seen[name] for name in order if seen[name]}

    @property
    def forbidden(self) -> list[str]:
        """Outcomes that were seen and are not allowed."""
        return [name for name in self.counts if name not in self.promise.allowed]

    @property
    def telling(self) -> Run | None:
        """The run that is worth a picture: a forbidden one, or else the farthest from a local
        disk; of several the one that measured how long."""
        if not self.runs:
            return None
        worst = (self.forbidden or list(self.counts))[-1]
        runs = [run for run in self.runs if run.outcome == worst]
        return next((run for run in runs if run.stale_us is not None), runs[0])

    @property
    def stalest(self) -> Run | None:
        """The run with the longest staleness that was measured."""
        measured = [run for run in self.runs if run.stale_us is not None]
        return max(measured, key=lambda run: run.stale_us or 0, default=None)

    @property
    def trips(self) -> int | None:
        """Round trips of a run, in the middle of all."""
        counts = sorted(run.trips for run in self.runs if run.trips is not None)
        return counts[len(counts) // 2] if counts else None

    @property
    def took_us(self) -> int:
        """Of the telling run, without what was only measured afterwards."""
        run = self.telling
        return (
            max((event.ended_us for event in run.events if not event.looks), default=0)
            if run
            else 0
        )


def outcome_of(test: Litmus, seen: Seen) -> str:
    """The outcome's name."""
    if any(value.startswith(ERROR_PREFIX) for value in seen.values()):
        return FAILED
    name = test.classify(seen)
    return name if name in {one.name for one in test.outcomes} else UNFORESEEN
