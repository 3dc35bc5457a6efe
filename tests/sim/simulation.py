"""One run from one seed: options are drawn, the scenario is played, what went wrong is told."""

import logging
import random
import traceback
from dataclasses import asdict, dataclass, replace
from typing import IO, Any, NamedTuple

from . import determinism
from .cluster import ErrorLog
from .conditions import ViolationError
from .group_watch import GroupWatch
from .inside import observed
from .mutation import Mutation
from .mutations import MUTATIONS
from .options import Options
from .scenario import Scenario
from .trace import Trace


@dataclass
class Outcome:
    """What became of one run."""

    seed: int
    digest: str
    lines: int
    virtual_s: float
    elections: int
    options: dict[str, Any]
    violation: str
    tail: list[str]

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Outcome":
        return cls(**plain)

    def summary(self) -> str:
        """For the progress line."""
        return (
            f"seed {self.seed}, {self.lines} events in {self.virtual_s:.0f} virtual s,"
            f" {self.elections} terms led"
        )

    def in_words(self) -> str:
        """For a person who wants to know why."""
        text = [f"seed {self.seed}: {self.options}", f"digest {self.digest}, {self.summary()}"]
        if self.violation:
            text += ["", *self.tail, "", self.violation]
        return "\n".join(text)


class How(NamedTuple):
    """What a person may say about runs beside their seeds: see ``run.py``."""

    faults: str | None = None
    changes: str | None = None
    mutation: str | None = None


def simulate(seed: int, how: How, copy_to: IO[str] | None = None) -> Outcome:
    """Run one seed."""
    chance = random.Random(f"{seed} options")
    broken = MUTATIONS[how.mutation] if how.mutation else Mutation()
    # What a mutation needs of locks or mounts, its own options say.
    of_locks = None if how.mutation else random.Random(f"{seed} locks")
    of_mounts = None if how.mutation else random.Random(f"{seed} mounts")
    options = replace(Options.draw(chance, of_locks, of_mounts), **broken.options)
    if how.faults:
        options = options.with_faults(how.faults)
    if how.changes:
        options = options.changed(how.changes)
    trace = Trace(copy_to)
    log = ErrorLog(trace)
    root = logging.getLogger()
    root.addHandler(log)
    watch = GroupWatch(trace)
    scenario = Scenario(seed, options, chance, trace, watch, broken.lies)
    violation = ""
    try:
        with observed(watch), broken.patched():
            determinism.run(scenario.run, seed)
    except BaseException as error:
        if _has(error, (KeyboardInterrupt, SystemExit)):
            raise
        violation = _in_words(error)
    finally:
        root.removeHandler(log)
    if not violation and log.errors:
        violation = "the log has an error: " + log.errors[0]
    return Outcome(
        seed=seed,
        digest=trace.digest(),
        lines=trace.count,
        virtual_s=scenario.ended_s,
        elections=watch.elections,
        options=asdict(options),
        violation=violation,
        tail=list(trace.tail),
    )


def _has(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_has(inner, kinds) for inner in error.exceptions)
    return isinstance(error, kinds)


def _in_words(error: BaseException) -> str:
    """The violation if there is one among the errors, else everything."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ViolationError):
        return str(error)
    return "".join(traceback.format_exception(error))
