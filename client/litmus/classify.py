"""From what was seen in a run to the name of its outcome. Pure functions, made from tables."""

from collections.abc import Callable, Mapping

from .contents import words_of
from .model import UNFORESEEN, Seen

Classify = Callable[[Seen], str]


def by(name: str, outcomes: Mapping[str, str]) -> Classify:
    """What was seen in one step decides."""
    return lambda seen: outcomes.get(seen.get(name, ""), UNFORESEEN)


def table(names: tuple[str, ...], rows: Mapping[tuple[str, ...], str]) -> Classify:
    """What was seen in several steps decides."""
    return lambda seen: rows.get(tuple(seen.get(name, "") for name in names), UNFORESEEN)


def whole_or_mixed(name: str) -> Classify:
    """``old``, ``new``, ``mixed`` when the blocks of one reading are of both, or ``split`` when
    one of them is, though it was written at once."""

    def classify(seen: Seen) -> str:
        words = words_of(seen.get(name, ""))
        if words == {"old", "new"}:
            return "split" if "/" in seen[name] else "mixed"
        return words.pop() if len(words) == 1 else UNFORESEEN

    return classify


def first_new(names: tuple[str, ...], outcomes: tuple[str, ...], never: str) -> Classify:
    """Which of several readings, one after the other, was the first to be ``new``.

    A reading that is ``old`` again after that has no name.
    """

    def classify(seen: Seen) -> str:
        values = [seen.get(name, "") for name in names]
        for at, outcome in enumerate(outcomes):
            if values == ["old"] * at + ["new"] * (len(names) - at):
                return outcome
        return never if values == ["old"] * len(names) else UNFORESEEN

    return classify


def disagreement(seen: Seen) -> str:
    """IRIW: C reads x (r1), then y (r2); D reads y (r3), then x (r4)."""
    r1, r2, r3, r4 = (seen.get(name, "") for name in ("r1", "r2", "r3", "r4"))
    if not {r1, r2, r3, r4} <= {"old", "new"}:
        return UNFORESEEN
    if (r1, r2, r3, r4) == ("new", "old", "new", "old"):
        return "disagree"
    return "nothing seen" if {r1, r2, r3, r4} == {"old"} else "agree"
