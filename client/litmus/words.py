"""How results are said to people: times, counts, verdicts. Pure."""

from .model import FAILED, UNFORESEEN, Event, Result

UNKNOWN = "-"
ALLOWED, FORBIDDEN = "allowed", "forbidden"
_MS, _S = 1_000, 1_000_000


def time_of(us: int) -> str:
    """``0.3 ms``, ``12 ms``, ``2.4 s``."""
    if us < 10 * _MS:
        return f"{us / _MS:.1f} ms"
    return f"{us / _MS:,.0f} ms" if us < 10 * _S else f"{us / _S:.1f} s"


def number_of(count: int | None) -> str:
    """A number, or ``-`` when nobody counts."""
    return UNKNOWN if count is None else f"{count:,}"


def staleness(result: Result) -> str:
    """The longest that an old state was shown: ``0 ms``, ``2998 ms``, ``> 8003 ms``; ``-``."""
    run = result.stalest
    if run is None or run.stale_us is None:
        return UNKNOWN
    return f"{'' if run.fresh else '> '}{run.stale_us / _MS:.0f} ms"


def trips_of(event: Event) -> str:
    """``3 round trips``; nothing when they are not known, or counted later."""
    if event.trips is None:
        return ""
    count = sum(event.trips.values())
    text = f"{count} round trip{'' if count == 1 else 's'}"
    return text if event.trips_of == 1 else f"{text} in all"


def observed(result: Result) -> str:
    """``new x3, old x1``."""
    return ", ".join(f"{name} x{count}" for name, count in result.counts.items())


def expected(result: Result) -> str:
    """``new or old``, in the order of the test."""
    names = [one.name for one in result.test.outcomes if one.name in result.promise.allowed]
    return " or ".join(names)


def verdict(result: Result) -> str:
    """``allowed`` or ``forbidden``; why there is none when it was not run."""
    return result.skipped or (FORBIDDEN if result.forbidden else ALLOWED)


def complaint(result: Result) -> str:
    """What was seen and may not be, as a sentence; what nobody foresaw, as it was seen."""
    seen = "; ".join(result.test.words(name) for name in result.forbidden)
    run = result.telling
    if run is not None and run.outcome in (UNFORESEEN, FAILED):
        seen += f" ({', '.join(f'{name}: {value}' for name, value in run.seen.items())})"
    return (
        f"{result.mode}, {result.test.name}: {seen}. Promised by {result.judge}:"
        f' "{result.promise.because}"'
    )
