"""Results for programs. Pure."""

from collections.abc import Sequence
from typing import Any

from .model import Event, Result
from .steps import NAMES


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One dictionary for each test in each mode. Times in microseconds; null: not known.

    ``steps`` are those of the run that tells the most: a forbidden one if there was any. A step of
    ``mount`` null happened to the servers.
    """
    return [_result(result) for result in results]


def _result(result: Result) -> dict[str, Any]:
    run, stalest = result.telling, result.stalest
    return {
        "test": result.test.name,
        "question": result.test.question,
        "source": result.test.source,
        "mode": result.mode,
        "judged_as": result.judge,
        "allowed": [one.name for one in result.test.outcomes if one.name in result.promise.allowed],
        "because": result.promise.because,
        "observed": result.counts,
        "forbidden": result.forbidden,
        "skipped": result.skipped or None,
        "stale_us": None if stalest is None else stalest.stale_us,
        "became_fresh": None if stalest is None else stalest.fresh,
        "round_trips": result.trips,
        "steps": [_step(event) for event in run.events] if run else [],
    }


def _step(event: Event) -> dict[str, Any]:
    return {
        "mount": None if event.who is None else NAMES[event.who],
        "does": event.words,
        "sees": event.seen or None,
        "began_us": event.began_us,
        "ended_us": event.ended_us,
        "round_trips": event.trips,
        "of_steps": event.trips_of,
        "raced": event.raced,
        "looks": event.looks,
    }
